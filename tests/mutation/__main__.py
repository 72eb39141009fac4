"""`python -m tests.mutation MODULE`: which faults in a module its folder's unit tests do not notice.

Every mutant runs in a copy of the project and in a process namespace of its own: nothing of it stays in the tree, and
no signal that a fault sends to the wrong process leaves the namespace.
"""

import argparse
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.mutation.mutants import Mutant, mutants

PROJECT = Path(__file__).parents[2]
PACKAGE = "port_knocking_doors"
_COPIED = (PACKAGE, "tests", "packaging", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
_MEMORY = 4 << 30
"""Bytes that one process of a run may have: a fault may fill a table for ever."""
_PATIENCE = 10.0
"""Seconds that a run of the tests may always take; beside it, four times what it takes without a fault."""


class EndedError(Exception):
    """A signal ended the run."""


class Runner:
    """Runs the tests of one module, in copies of the project: as many at a time as there are copies."""

    def __init__(self, module: Path, tests: list[str], workers: int, folder: Path) -> None:
        self._module = module
        self._tests = tests
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._ended = False
        self._copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(workers):
            self._copies.put(_copy_project(folder / str(number)))

    def run(self, source: str, limit: float | None = None) -> tuple[str, str]:
        """Run the tests with this source in the module's place; "passed", "failed" or "timed out", and their output."""
        copied = self._copies.get()
        try:
            (copied / self._module).write_text(source)
            return self._run_in(copied, limit)
        finally:
            self._copies.put(copied)

    def end(self) -> None:
        """End what runs, and let nothing begin."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()

    def _run_in(self, copied: Path, limit: float | None) -> tuple[str, str]:
        env = {**os.environ, "PYTHONPATH": str(copied), "PYTHONDONTWRITEBYTECODE": "1", "SAME_EXAMPLES": "1"}
        argv = [*_isolated(), sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
        with self._lock:
            if self._ended:
                raise EndedError
            process = subprocess.Popen(
                [*argv, *self._tests],
                cwd=copied,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for us
            )
            self._running.add(process)
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return "timed out", ""
        finally:
            with self._lock:
                self._running.discard(process)
        if self._ended:
            raise EndedError
        return "passed" if process.returncode == 0 else "failed", output


def _isolated() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    return ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"]


def _copy_project(folder: Path) -> Path:
    folder.mkdir()
    for name in _COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


def unit_tests_of(module: Path) -> list[str]:
    """The unit tests of a module's folder, those of the module itself first; of a module in the root, all of them."""
    folder = Path("tests/unit", *module.relative_to(PACKAGE).parent.parts)
    own = sorted(map(str, (PROJECT / folder).glob(f"test_{module.stem}*.py")))
    return [*(str(Path(path).relative_to(PROJECT)) for path in own), str(folder)]


def spread(found: list[Mutant], number: int) -> list[Mutant]:
    """So many of them, evenly from the whole module."""
    return [found[place * len(found) // number] for place in range(number)] if number < len(found) else found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="packaging/mutate", description=__doc__.split("\n\n")[0].partition(": ")[2])
    parser.add_argument("module", help="such as port_knocking_doors/doors/table.py")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="what to run (default: tests/unit/FOLDER)")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants at the most, from the whole module")
    parser.add_argument(
        "--workers", type=int, metavar="N", default=len(os.sched_getaffinity(0)), help="(default: cores)"
    )
    chosen = parser.parse_args()
    chosen.module = Path(os.path.relpath(Path(chosen.module).resolve(), PROJECT))
    if chosen.module.parts[0] != PACKAGE or not (PROJECT / chosen.module).is_file():
        parser.error(f"{chosen.module}: expected a module of {PACKAGE}/")
    chosen.tests = chosen.tests or unit_tests_of(chosen.module)
    if not all((PROJECT / path.partition("::")[0]).exists() for path in chosen.tests):
        parser.error(f"{' '.join(chosen.tests)}: not found; name the tests with --tests")
    return chosen


def main() -> int:
    """Exit status 0: the run ended, whatever survived; 1: the tests fail without a fault; 130: interrupted."""
    chosen = options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    source = (PROJECT / chosen.module).read_text()
    found = mutants(source)
    picked = spread(found, chosen.sample or len(found))
    began = time.monotonic()
    counts = {"failed": 0, "passed": 0, "timed out": 0}
    with tempfile.TemporaryDirectory(prefix="port-knocking-doors-mutants.") as folder:
        runner = Runner(chosen.module, chosen.tests, chosen.workers, Path(folder))
        try:
            outcome, output = runner.run(source)
            if outcome != "passed":
                print(f"{output}\nthe tests fail without a fault: {' '.join(chosen.tests)}", file=sys.stderr)
                return 1
            usual = time.monotonic() - began
            print(f"{chosen.module}: {len(picked)} of {len(found)} mutants, a run of the tests takes {usual:.1f} s")
            limit = _PATIENCE + 4 * usual
            with ThreadPoolExecutor(chosen.workers) as pool:
                try:
                    outcomes = pool.map(lambda mutant: runner.run(mutant.source, limit)[0], picked)
                    for mutant, outcome in zip(picked, outcomes, strict=True):
                        counts[outcome] += 1
                        if outcome == "passed":
                            print(f"{chosen.module}:{mutant.line}: {mutant.before}  →  {mutant.after}", flush=True)
                finally:
                    runner.end()
        except (KeyboardInterrupt, EndedError):
            print("interrupted", file=sys.stderr)
            return 130
        finally:
            done = sum(counts.values())
            if done:
                print(
                    f"{done} mutants: {counts['failed'] + counts['timed out']} killed "
                    f"({counts['timed out']} by the time limit), {counts['passed']} survived, "
                    f"in {time.monotonic() - began:.0f} s"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
