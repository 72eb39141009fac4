"""What commands print: with standard error as everything that it may be."""

import asyncio
import os
import pty
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from port_knocking_doors.system import command_output
from port_knocking_doors.system.command_output import CommandOutput
from port_knocking_doors.system.shell_command import ShellCommand
from tests.helpers.fake_bus import open_descriptors
from tests.helpers.waiting import wait_until

SOON = 5.0


def dead_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_pipe() -> int:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"\0" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    full.append(reading)
    return writing


def dead_terminal() -> int:
    near, far = pty.openpty()
    os.close(near)
    return far


def dead_socket() -> int:
    near, far = socket.socketpair()
    far.close()
    return near.detach()


full: list[int] = []
"""Kept, so that a full pipe has a reader, which does not read."""

UNFIT = {
    "a pipe without a reader": dead_pipe,
    "a pipe with a reader that stands still": full_pipe,
    "a terminal that hung up": dead_terminal,
    "a socket without a peer": dead_socket,
}


@contextmanager
def standard_error(descriptor: int) -> Iterator[None]:
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def ran(line: str) -> Iterator[CommandOutput]:
    """The output of a command that ended with status 0."""
    with CommandOutput() as output:
        command = ShellCommand(line, output)
        command.go()
        assert asyncio.run(asyncio.wait_for(command.ended(), SOON)) == 0
        yield output


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_command_that_prints_much_runs_to_its_end(tmp_path: Path, make: object) -> None:
    descriptor = make()  # type: ignore[operator]
    before = open_descriptors()
    with standard_error(descriptor), ran(f"set -e; echo one; yes | head -c 300000; touch {tmp_path}/done") as output:
        assert output.is_read
        assert output.new_lines()[0] == "one"
    assert (tmp_path / "done").exists()
    assert open_descriptors() == before
    os.close(descriptor)
    while full:
        os.close(full.pop())


def test_closed_standard_error_is_as_good_as_any(tmp_path: Path) -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        with ran(f"echo said; touch {tmp_path}/done") as output:
            assert output.new_lines() == ["said"]
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert (tmp_path / "done").exists()


def test_file_gets_what_commands_print(tmp_path: Path) -> None:
    said = "echo to the file; echo and this >&2"
    with (tmp_path / "log").open("ab") as log, standard_error(log.fileno()), ran(said) as output:
        assert not output.is_read
    assert (tmp_path / "log").read_text() == "to the file\nand this\n"


def test_device_gets_what_commands_print() -> None:
    with Path("/dev/null").open("wb") as null, standard_error(null.fileno()), ran("echo nothing") as output:
        assert not output.is_read


@contextmanager
def unfit_standard_error() -> Iterator[None]:
    descriptor = dead_pipe()
    with standard_error(descriptor):
        yield
    os.close(descriptor)


LINES = {
    "lines": ("echo a; echo b >&2", ["a", "b"]),
    "an unfinished line": ("printf 'a\\nb'", ["a", "b"]),
    "nothing": ("true", []),
    "a line that is too long": ("printf %03000d 0", ["0" * 1024]),
    "bytes that are no text": ("printf '\\377\\n'", ["\ufffd"]),
    "a file that the command empties": ("echo lost; echo a >/dev/stdout; echo b >>/dev/stdout", ["a", "b"]),
}


@pytest.mark.parametrize(("line", "expected"), LINES.values(), ids=LINES)
def test_lines_are_read(line: str, expected: list[str]) -> None:
    with unfit_standard_error(), ran(line) as output:
        assert [*output.new_lines(), *output.last_line()] == expected
        assert (output.new_lines(), output.last_line()) == ([], [])


def test_flood_is_read_in_pieces_and_takes_no_memory() -> None:
    with unfit_standard_error(), ran("yes | head -c 200000") as output:
        assert output.new_lines() == ["y"] * (1 << 15)
        assert output.was_emptied()
        assert not output.was_emptied()
        assert os.fstat(output._reading).st_size == 0
        assert output.new_lines() == []


def test_output_is_over_once_the_last_background_process_has_ended(tmp_path: Path) -> None:
    with unfit_standard_error(), ran(f"(until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo late) & true") as output:
        assert not output.is_over()
        assert output.new_lines() == []
        (tmp_path / "go").touch()
        wait_until(output.is_over, SOON, "the end of the last writer")
        assert output.new_lines() == ["late"]


@contextmanager
def journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A journal that listens, and a stream to it as standard error."""
    monkeypatch.setattr(command_output, "JOURNAL", str(path))
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as stream:
        listening.bind(str(path))
        listening.listen()
        stream.connect(str(path))
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        listening.accept()[0].close()  # the connection that this process had is of no use
        with standard_error(stream.fileno()):
            yield listening


def test_journal_gets_what_commands_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal(tmp_path / "journal", monkeypatch) as listening, ran("echo one; echo '<3>two' >&2") as output:
        assert not output.is_read
        with listening.accept()[0] as received, received.makefile() as lines:
            assert lines.read().split("\n") == [
                *("port-knocking-doors", "", "6", "1", "0", "0", "0"),
                "one",
                "<3>two",
                "",
            ]


def test_hung_journal_holds_no_command_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal(tmp_path / "journal", monkeypatch), ran(f"yes | head -c 60000; touch {tmp_path}/done"):
        pass
    assert (tmp_path / "done").exists()


def test_journal_that_takes_no_more_connections_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal(tmp_path / "journal", monkeypatch) as listening:
        listening.listen(0)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(tmp_path / "journal"))
            with ran("echo said") as output:
                assert output.new_lines() == ["said"]


def test_stream_of_another_process_is_not_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal(tmp_path / "journal", monkeypatch):
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        with ran("echo said") as output:
            assert output.new_lines() == ["said"]


def test_leases_that_are_refused_count_as_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise PermissionError

    with unfit_standard_error(), ran("sleep 0.1 & true") as output:
        monkeypatch.setattr("fcntl.fcntl", refuse)
        assert output.is_over()
