"""A time-boxed run of libFuzzer on one target."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.targets import CORPUS, Target

ROOT = Path(__file__).parents[2]

_ONE_INPUT = 5
"""Seconds after which an input is a hang."""
_LONGEST = 4500
"""Bytes of an input: a ring's block, and a request that is too long."""
_MEMORY = 1024
"""MiB of the process, of which atheris takes most."""
_START = 60.0
"""Seconds for the process to begin and to end, on a machine that is busy."""


@dataclass(frozen=True)
class Result:
    """The result of a run."""

    failed: bool
    runs: int
    coverage: int
    """Edges of the code that were seen; comparable between runs of one target only."""
    output: str
    """Its output, without the fuzzer's own progress."""


def fuzz(target: Target, seconds: int, crashes: Path, *, inputs: int | None = None) -> Result:
    """Fuzz for so long, or to the first input that fails, which is kept in the folder `crashes`.

    With `inputs`, no more than so many and always the same ones, for a test whose outcome must not be a matter of luck.
    """
    crashes.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="fuzz-") as folder:
        found = Path(folder, "found")
        found.mkdir()
        words = Path(folder, "words")
        words.write_text("".join(f"{_quoted(word)}\n" for word in target.words.split()))
        options = {
            "max_total_time": seconds,
            "timeout": _ONE_INPUT,
            "max_len": _LONGEST,
            "rss_limit_mb": _MEMORY,
            "artifact_prefix": f"{crashes}/",
            "print_final_stats": 1,
            **({"dict": words} if target.words else {}),
            **({"runs": inputs, "seed": 1} if inputs else {}),
        }
        argv = [sys.executable, "-m", "tests.fuzz.guided", target.name]
        argv += [f"-{name}={value}" for name, value in options.items()] + [str(found), str(CORPUS / target.name)]
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env={**os.environ, **({"PYTHONHASHSEED": "0"} if inputs else {})},
            text=True,
            capture_output=True,
            timeout=seconds + _START,
            check=False,
            errors="replace",
        )
    said = done.stdout + done.stderr
    runs = re.findall(r"number_of_executed_units: (\d+)", said)
    coverage = re.findall(r"\bcov: (\d+)", said)
    output = "\n".join(
        line for line in said.splitlines() if not re.match(r"#\d+\t|INFO: |WARNING: Failed to find", line)
    )
    return Result(done.returncode != 0, int((runs or ["0"])[-1]), int((coverage or ["0"])[-1]), output)


def _quoted(word: str) -> str:
    """As libFuzzer's dictionaries have it."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
