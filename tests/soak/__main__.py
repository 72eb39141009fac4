"""`python -m tests.soak [--seconds N] [--seed N]`: the soak and fault test."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from port_knocking_doors.errors import SandboxError
from tests.soak.broken import FAULTS as BREAKAGES
from tests.soak.soak import Finding, Soak

_DESCRIPTION = """\
Random knocks and random faults against a real daemon and a real firewalld, in a sandbox; a slow model says who must get
in and who must stay out. Exit status 0: every promise was kept; 1: one was not, and all that was seen is printed.
"""


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run it with the command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, metavar="N", help="how long (default: 600)")
    parser.add_argument("--seed", type=int, metavar="N", help="what is drawn (default: something new)")
    parser.add_argument(
        "--patience", type=float, default=1.5, metavar="N", help="times as slow a machine (default: 1.5)"
    )
    parser.add_argument("--first", nargs="*", default=[], metavar="FAULT", help="faults to begin with")
    parser.add_argument("--broken", choices=sorted(BREAKAGES), default="", help="with a fault built into the daemon")
    options = parser.parse_args()
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    _say(f"soak: {options.seconds:g} s with seed {seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(
            Path(folder),
            seconds=options.seconds,
            seed=seed,
            say=_say,
            patience=options.patience,
            first=options.first,
            broken=options.broken,
        )
        try:
            report = soak.run()
        except (Finding, SandboxError) as error:
            _say(f"{error}\nsoak: FAILED; again with: python -m tests.soak --seconds {options.seconds:g} --seed {seed}")
            return 1
    for line in report:
        _say(line)
    _say(f"soak: every promise was kept, in {options.seconds:g} s with seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
