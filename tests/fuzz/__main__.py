"""`python -m tests.fuzz [TARGET…] [--seconds N]`: fuzz, and keep what failed among the corpus."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import fuzzing
from tests.fuzz.targets import CORPUS, TARGETS, named

_DESCRIPTION = """\
Fuzzes the readers of what others write, guided by the coverage of their code, starting from tests/fuzz/corpus/TARGET.
An input that fails is kept there, and from then on the unit tests replay it. Needs atheris: pip install -e '.[fuzz]'
"""


def main() -> int:
    """Exit status 0: nothing failed; 1: something did; 2: wrong usage."""
    there = [target.name for target in TARGETS if target.is_there]
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="*", help=f"one of: {', '.join(there)} (default: all of them)")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long each (default: 60)")
    parser.add_argument("--crashes", type=Path, metavar="DIR", help="keep what failed there, and not in the corpus")
    options = parser.parse_args()
    if unknown := sorted(set(options.target) - set(there)):
        parser.error(f"{', '.join(unknown)}: not there, expected one of: {', '.join(there)}")
    if options.seconds < 1:
        parser.error("--seconds: expected 1 or more")
    if find_spec("atheris") is None:
        parser.error("atheris is not installed; install it: pip install -e '.[fuzz]'")
    failed = []
    for name in options.target or there:
        result = fuzzing.fuzz(named(name), options.seconds, options.crashes or CORPUS / name)
        print(f"{name}: {result.runs} inputs, {result.coverage} edges covered, {'FAILED' if result.failed else 'fine'}")
        if result.failed:
            print(result.output, file=sys.stderr)
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
