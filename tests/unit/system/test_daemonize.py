"""What no daemon in the background meets at will; the system tests have the rest."""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from port_knocking_doors.errors import AlreadyRunningError, DoorsError
from port_knocking_doors.system import daemonize
from port_knocking_doors.system.daemonize import PidFile
from tests.helpers.fake_bus import open_descriptors


def test_pid_file_that_is_replaced_while_it_is_claimed_is_claimed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock, calls = tmp_path / "pid", fcntl.flock, []

    def replace(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
            path.touch()
        if len(calls) == 2:
            path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace)
    before = open_descriptors()
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert len(calls) == 3
    assert not path.exists()
    assert open_descriptors() == before


def test_pid_file_in_a_folder_that_became_read_only_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pid"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    before = open_descriptors()
    with PidFile(path):
        monkeypatch.setattr(Path, "unlink", refuse)
    assert path.read_text() == ""
    assert open_descriptors() == before


def test_process_that_cannot_be_forked_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(daemonize, "require_library", lambda: ModuleType("daemon"))
    before = open_descriptors()
    with pytest.raises(DoorsError, match=r"^cannot fork: Resource temporarily unavailable$"):
        daemonize.run(lambda: None)
    assert open_descriptors() == before


LIVE = {"that may not be asked": PermissionError, "that answers": None}


@pytest.mark.parametrize("refusal", LIVE.values(), ids=LIVE)
@pytest.mark.parametrize("is_shown", [True, False])
def test_pid_file_of_another_users_live_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: type[Exception] | None, is_shown: bool
) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    os.utime(path, (time.time() + 60, time.time() + 60))
    read = Path.read_text

    def kill(*_: int) -> None:
        if refusal is not None:
            raise refusal

    def hide(self: Path, *arguments: Any, **more: Any) -> str:
        if str(self).startswith("/proc/") and not is_shown:
            raise FileNotFoundError
        return read(self, *arguments, **more)

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(Path, "read_text", hide)
    with pytest.raises(AlreadyRunningError) as raised:
        PidFile(path).__enter__()
    name = "of another user" if not is_shown else read(Path(f"/proc/{os.getppid()}/comm")).strip()
    assert str(raised.value) == (
        f"{path}: process {os.getppid()} ({name}) is already running; stop it, or choose another pid file"
    )
