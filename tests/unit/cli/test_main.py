"""The end of the program: an exit status, and streams that take nothing more."""

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest
import typer

from port_knocking_doors import cli
from port_knocking_doors.cli import INTERRUPTED, application
from port_knocking_doors.errors import DoorsError


def full_disk() -> TextIO:
    return Path("/dev/full").open("w")


def broken_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


FULL = f"port-knocking-doors: standard output cannot be written ({os.strerror(errno.ENOSPC)})\n"
OUTPUTS = {
    "a full disk": (full_disk, 0, DoorsError.exit_status, FULL),
    "a full disk after an error": (full_disk, 3, 3, ""),
    "a closed pipe": (broken_pipe, 0, DoorsError.exit_status, ""),
    "a closed pipe after an error": (broken_pipe, 3, 3, ""),
    "another object": (io.StringIO, 0, 0, ""),
}


@pytest.mark.parametrize(("make", "status", "ends", "said"), OUTPUTS.values(), ids=OUTPUTS)
def test_output_that_cannot_be_written_ends_with_a_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: Callable[[], TextIO], status: int, ends: int, said: str
) -> None:
    errors = tmp_path / "stderr"
    with make() as output, errors.open("w", buffering=1) as stderr:
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(cli, "_status", lambda: status + 0 * output.write("x"))
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == ends
    assert errors.read_text() == said


def test_log_that_cannot_be_written_leaves_the_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with full_disk() as stderr, (tmp_path / "stdout").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(cli, "_status", lambda: 0 * stderr.write("x"))
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0


def test_aborted_command_ends_as_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def abort(**_: object) -> int:
        raise typer.Abort

    monkeypatch.setattr(application, "app", abort)
    assert cli._other_status() == INTERRUPTED
