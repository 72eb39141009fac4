"""Writes that never make the caller wait, whatever their target does."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from port_knocking_doors.system.background_writer import BackgroundWriter, flush_all, write_all
from tests.helpers.full_pipe import full_pipe


class Target:
    """What the writes go to: it can stand still."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.takes = threading.Event()
        self.takes.set()

    def write(self, text: str) -> Callable[[], None]:
        def do() -> None:
            self.takes.wait()
            self.written.append(text)

        return do

    def lost(self, number: int) -> Callable[[], None]:
        return self.write(f"{number} lost")


def test_writes_are_done_in_their_order() -> None:
    target = Target()
    writer = BackgroundWriter(target.lost)
    texts = [str(number) for number in range(100)]
    for text in texts:
        writer.put(target.write(text))
    assert writer.flush()
    assert target.written == texts


def test_target_that_stands_still_loses_what_is_above_the_limit() -> None:
    target = Target()
    target.takes.clear()
    writer = BackgroundWriter(target.lost, limit=10)
    for number in range(25):
        writer.put(target.write(str(number)))
    assert not writer.flush(patience=0.01)
    assert target.written == []
    target.takes.set()
    assert writer.flush()
    writer.put(target.write("next"))
    assert writer.flush()
    assert target.written == [*map(str, range(10)), "15 lost", "next"]


def test_number_lost_is_reported_at_the_end_without_another_write() -> None:
    target = Target()
    target.takes.clear()
    writer = BackgroundWriter(target.lost, limit=1)
    for number in range(3):
        writer.put(target.write(str(number)))
    target.takes.set()
    assert writer.flush()
    assert target.written == ["0", "2 lost"]


def test_write_that_fails_hinders_no_other() -> None:
    def fail() -> None:
        raise OSError

    target = Target()
    writer = BackgroundWriter(target.lost)
    for write in (fail, target.write("a"), fail, target.write("b")):
        writer.put(write)
    assert writer.flush()
    assert target.written == ["a", "b"]


def test_forked_child_writes_its_own_lines_and_not_those_of_its_parent() -> None:
    target = Target()
    target.takes.clear()
    writer = BackgroundWriter(target.lost)
    writer.put(target.write("parent's"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        target.takes.set()
        writer.put(target.write("child's"))
        flush_all()
        os.write(writing, " ".join(target.written).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"child's"
    os.close(reading)
    target.takes.set()
    assert writer.flush()
    assert target.written == ["parent's"]


def test_everything_is_written_to_a_target_that_does_not_block(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(300_000)
    thread = threading.Thread(target=write_all, args=(writing, data))
    thread.start()
    read = b""
    while len(read) < len(data):
        read += os.read(reading, 65536)
    thread.join()
    assert read == data
    os.close(reading)
    os.close(writing)


PROGRAM = """
import sys
from port_knocking_doors.system import log
log.set_up(verbose=False, environ={}, as_json=sys.argv[1] == "json")
for number in range(5000):
    log.logger.warning("line %d", number)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_without_a_reader_ends_in_time_and_counts_what_is_lost(tmp_path: Path, form: str) -> None:
    with full_pipe(tmp_path / "log") as pipe, pipe.path.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, form], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(20) == 0, "it waits a moment for the reader, and then ends"


def test_log_whose_reader_goes_on_has_the_number_of_lost_lines(tmp_path: Path) -> None:
    with full_pipe(tmp_path / "log") as pipe, pipe.path.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "text"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            assert process.stdin is not None
            process.stdin.close()
            lines = pipe.read(until="lost")
            assert process.wait(20) == 0
    *kept, last = lines
    assert [line.rpartition(" ")[2] for line in kept] == [str(number) for number in range(len(kept))]
    assert f"{5000 - len(kept)} lines of the log lost: its reader did not take them in time" in last
