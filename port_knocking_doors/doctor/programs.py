"""Programs that the examination runs, each with a time limit, and the error that says that nothing could be proven."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system.clock import now

_ADMINISTRATORS_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Folders of such programs that the PATH of a user may lack."""


class NotProvenError(DoorsError):
    """The examination could not see for itself; the text says why, and what to install or run."""


class Result(NamedTuple):
    """What a program wrote."""

    output: str
    errors: str
    """Its warnings, since it ended well."""


class TimeLimit:
    """A moment by which several programs must have ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = now() + seconds

    def check(self) -> None:
        """Raise `NotProvenError` where the moment is past."""
        _ = self.left

    @property
    def left(self) -> float:
        """Seconds until then. Raises `NotProvenError` if there are none."""
        left = self._end - now()
        if left <= 0:
            raise NotProvenError(f"timed out after {self.seconds:g} s")
        return left


def program(name: str) -> str | None:
    """The path of a program, wherever administrators' programs are."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), _ADMINISTRATORS_PATH)))


def needed(name: str, package: str) -> str:
    """The path of a program of this package. Raises `NotProvenError` if it is not installed."""
    path = program(name)
    if path is None:
        raise NotProvenError(f"`{name}` not found: install {package}")
    return path


def run(argv: Sequence[str], limit: TimeLimit, text: str = "") -> Result:
    """Run a program to its end. Raises `NotProvenError` with its first line of error, or where its time ran out."""
    environment = {**os.environ, "LC_ALL": "C"}  # errors are read
    try:
        done = subprocess.run(
            argv, input=text.encode(), capture_output=True, check=False, timeout=limit.left, env=environment
        )
    except subprocess.TimeoutExpired:
        raise NotProvenError(f"timed out after {limit.seconds:g} s: {argv[0]}") from None
    except OSError as error:
        raise NotProvenError(f"{argv[0]}: {error.strerror}") from error
    result = Result(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if done.returncode:
        lines = result.errors.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NotProvenError(f"{os.path.basename(argv[0])}: {lines[0]}")  # noqa: PTH119 a plain text
    return result
