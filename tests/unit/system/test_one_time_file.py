"""Files of one-time sequences: the active line, and the mark that is on the disk before a door opens."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from port_knocking_doors.errors import DoorsError, LineGoneError
from port_knocking_doors.model import Protocol, Step
from port_knocking_doors.system import one_time_file


def read(line: str) -> tuple[Step, ...] | None:
    """Reads lines such as `1 2 3`."""
    words = line.split()
    return tuple(Step(Protocol.UDP, int(word)) for word in words) if all(word.isdigit() for word in words) else None


def ports(line: one_time_file.OneTimeLine | None) -> list[int] | None:
    return [step.port for step in line.steps] if line is not None else None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sequences"
    path.write_bytes(b"# used\n\nnonsense\n\xff\n 1 2 3\r\n4 5 6\n 7 8 9")
    return path


def test_each_usable_line_is_active_once_and_other_bytes_stay(file: Path) -> None:
    seen = []
    while (line := one_time_file.current_line(str(file), read)) is not None:
        seen.append(ports(line))
        one_time_file.consume(line)
    assert seen == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert file.read_bytes() == b"# used\n\nnonsense\n\xff\n#1 2 3\r\n# 5 6\n#7 8 9"


def test_used_line_cannot_be_used_again(file: Path) -> None:
    line = one_time_file.current_line(str(file), read)
    assert line is not None
    one_time_file.consume(line)
    before = file.read_bytes()
    with pytest.raises(LineGoneError, match="was changed"):
        one_time_file.consume(line)
    assert file.read_bytes() == before


def test_line_of_a_locked_file_cannot_be_used(file: Path) -> None:
    line = one_time_file.current_line(str(file), read)
    assert line is not None
    before = file.read_bytes()
    with file.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LineGoneError, match="locked by another process"):
            one_time_file.consume(line)
    assert file.read_bytes() == before
    one_time_file.consume(line)


def test_line_is_used_on_a_file_system_without_locks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    line = one_time_file.current_line(str(file), read)
    assert line is not None
    one_time_file.consume(line)
    assert file.read_bytes().count(b"#") == 2


def test_comment_continues_behind_a_carriage_return(file: Path) -> None:
    file.write_bytes(b"# 1 2 3\r4 5 6\n7 8 9\r\n")
    assert ports(one_time_file.current_line(str(file), read)) == [7, 8, 9]


@pytest.mark.parametrize(
    "content", [b"# used\n\nnonsense\n\xff\n 1 2 4\r\n", b"", b" 1 2 3\n" * 20], ids=["edited", "emptied", "replaced"]
)
def test_edited_file_is_not_changed(file: Path, content: bytes) -> None:
    line = one_time_file.current_line(str(file), read)
    assert line is not None
    file.write_bytes(content)
    with pytest.raises(DoorsError, match="was changed"):
        one_time_file.consume(line)
    assert file.read_bytes() == content


def test_mark_is_on_the_disk_when_consume_returns(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(file.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    line = one_time_file.current_line(str(file), read)
    assert line is not None
    one_time_file.consume(line)
    assert synced == [file.read_bytes()]
    assert b"#1 2 3" in synced[0]


@pytest.mark.parametrize("fails", ["open", "pwrite", "fsync"])
def test_mark_that_cannot_be_written_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    line = one_time_file.current_line(str(file), read)
    assert line is not None

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, fail)
    with pytest.raises(DoorsError, match="No space left"):
        one_time_file.consume(line)


def test_mark_that_is_not_written_whole_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = one_time_file.current_line(str(file), read)
    assert line is not None
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(DoorsError, match=r"sequences: cannot be written$"):
        one_time_file.consume(line)


def test_missing_or_special_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DoorsError, match="No such file"):
        one_time_file.current_line(str(tmp_path / "nowhere"), read)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DoorsError, match="not an ordinary file"):
        one_time_file.current_line(str(tmp_path / "pipe"), read)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_too_large_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"#" * (one_time_file.SIZE_MAX + 1))
    with pytest.raises(DoorsError, match="more than"):
        one_time_file.current_line(str(tmp_path / "large"), read)


def test_representation_of_a_line_shows_no_step(file: Path) -> None:
    line = one_time_file.current_line(str(file), read)
    assert "1 2" not in repr(line)
    assert "port" not in repr(line)
