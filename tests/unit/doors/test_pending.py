"""Stop commands on record."""

import errno
import json
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors.doors import pending
from port_knocking_doors.doors.pending import StopRecord
from port_knocking_doors.model import CommandOpening, Door
from port_knocking_doors.system import instance
from port_knocking_doors.system.shell_command import ProcessIdentity

DOOR = Door(ip_address("10.0.0.2"), "", "ssh", CommandOpening("start", "stop %IP%"))


def test_record_is_for_its_owner_alone_and_says_everything(tmp_path: Path) -> None:
    record = pending.remember(tmp_path / "pending-1", DOOR, "stop 10.0.0.2")
    assert (record.path.stat().st_mode & 0o777, record.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert pending.on_record(tmp_path / "pending-1") == [record]
    assert record[1:] == ("10.0.0.2", "ssh", "stop 10.0.0.2", 0, None, None, None)
    record.remove()
    record.remove()
    assert not record.exists()
    assert pending.on_record(tmp_path / "pending-1") == []


def test_record_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"sequence": "ssh", "address": "10.0.0.2", "stop": "true"}))
    assert pending.on_record(tmp_path) == [StopRecord(tmp_path / "a.json", "10.0.0.2", "ssh", "true")]


def test_saved_record_is_read_back_whole(tmp_path: Path) -> None:
    processes = ProcessIdentity(1, 2), ProcessIdentity(3, 4)
    record = StopRecord(tmp_path / "a.json", "fd00::2", "ssh", "exit 3", 2, 3, *processes).save()
    assert pending.load(record.path) == record


def test_failed_records_alone_are_listed_as_failed(tmp_path: Path) -> None:
    failed = StopRecord(tmp_path / "a.json", "10.0.0.2", "ssh", "exit 3", 1, 3).save()
    StopRecord(tmp_path / "b.json", "10.0.0.3", "ssh", "true").save()
    assert pending.failed_on_record(tmp_path) == [failed]
    assert pending.failed_on_record(tmp_path / "missing") == []


NO_RECORDS = {
    "no JSON": "nonsense",
    "a list": "[]",
    "no sequence": '{"address": "10.0.0.2", "stop": "true"}',
    "a process that is none": '{"address": "10.0.0.2", "sequence": "ssh", "stop": "true", "start_process": "x"}',
    "half a process": '{"address": "10.0.0.2", "sequence": "ssh", "stop": "true", "stop_process": [1]}',
    "a number of tries that is none": '{"address": "10.0.0.2", "sequence": "ssh", "stop": "true", "tries": "x"}',
}


@pytest.mark.parametrize("content", NO_RECORDS.values(), ids=NO_RECORDS)
def test_foreign_file_is_kept_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert pending.on_record(tmp_path) == []
    assert (tmp_path / "a.json").read_text() == content
    assert caplog.messages == [f"{tmp_path}/a.json is no record of a stop command that can be run: left alone"]


def test_draft_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.draft").write_text("{")
    assert pending.on_record(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_record_that_vanishes_meanwhile_is_no_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.json").symlink_to(tmp_path / "gone")
    assert pending.on_record(tmp_path) == []
    assert caplog.messages == []


def test_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = StopRecord(tmp_path / "a.json", "10.0.0.2", "ssh", "true").save()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dump", fail)
    with pytest.raises(OSError, match="No space left"):
        record._replace(tries=1).save()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert pending.load(record.path) == record


def test_record_that_cannot_be_removed_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = StopRecord(tmp_path / "a.json", "10.0.0.2", "ssh", "stop").save()
    (tmp_path / "b.draft").touch()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", fail)
    assert pending.on_record(tmp_path) == [record]
    assert not record.remove()
    reason = "cannot be removed (Read-only file system): its stop command, which is over, runs again at the next start"
    assert caplog.messages == [f"{record.path} {reason}"]


# --- what dead daemons of other marks left


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory of this process; those of the units are beside it."""
    monkeypatch.setattr(instance, "SYSTEM_DIRECTORY", tmp_path / "run" / "port-knocking-doors")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    path = tmp_path / "runtime"
    path.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(path))
    return path


def left(folder: Path, mark: int) -> Path:
    """A stop command on record, of a daemon with this mark."""
    directory = folder / f"pending-{mark}"
    directory.mkdir(parents=True, exist_ok=True)
    return StopRecord(directory / f"{mark}.json", "10.0.0.2", "ssh", f"stop {mark}").save().path


def adopted(folder: Path) -> list[str]:
    pending.adopt(folder / "pending-1", 1)
    return sorted(record.stop for record in pending.on_record(folder / "pending-1"))


def test_records_of_dead_daemons_are_adopted_whatever_their_mark(runtime: Path, tmp_path: Path) -> None:
    units = tmp_path / "run"
    for folder, mark in (
        (runtime, 1),
        (runtime, 2),
        (runtime, 1 << 17),
        (units / "port-knocking-doors", 1),
        (units / "port-knocking-doors-commands", 3),
    ):
        left(folder, mark)
    with instance.instance_lock(1):
        assert adopted(runtime) == ["stop 1", "stop 131072", "stop 2", "stop 3"]
        assert adopted(runtime) == ["stop 1", "stop 131072", "stop 2", "stop 3"]
        assert instance.unreleased_marks() == [1, 2], "of mark 2 rules may be left"


def test_records_of_live_daemons_are_left_alone(runtime: Path) -> None:
    path = left(runtime, 2)
    with instance.instance_lock(1), instance.instance_lock(2):
        assert adopted(runtime) == []
    assert path.exists()


def test_records_of_another_user_are_left_alone(runtime: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    folder = tmp_path / "run" / "port-knocking-doors"
    path = left(folder, 2)
    os.chown(folder, 12345, 12345)
    with instance.instance_lock(1):
        assert adopted(runtime) == []
    assert path.exists()
