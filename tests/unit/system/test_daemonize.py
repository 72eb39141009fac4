"""What no daemon in the background meets at will; the system tests have the rest."""

import errno
import fcntl
import os
import time
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from port_knocking_doors.errors import AlreadyRunningError, ConfigError, DoorsError
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


class LibraryError(OSError):
    """Stands in for the library's own error."""


class Ended(BaseException):
    """In place of the end of the process."""


ENDS: dict[str, tuple[BaseException | None, int, str]] = {
    "its end": (None, 0, ""),
    "a signal": (SystemExit(0), 0, ""),
    "an exit without a number": (SystemExit("text"), 1, ""),
    "its own error": (ConfigError("F:1:\nno"), ConfigError.exit_status, "F:1: no"),
    "the library's error": (LibraryError("no detaching"), 1, "cannot run in the background: no detaching"),
    "an error of the system": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "the system refused: No space"),
    "a bug": (ZeroDivisionError(), 1, "internal error in the background process; see its log"),
}


@pytest.mark.parametrize("is_read", [True, False], ids=["the parent waits", "the parent has ended"])
@pytest.mark.parametrize(("error", "status", "said"), ENDS.values(), ids=ENDS)
def test_process_in_the_background_reports_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException | None, status: int, said: str, is_read: bool
) -> None:
    def end(status: int) -> None:
        raise Ended(status)

    def payload() -> None:
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
        if not is_read:
            os.close(reading)
        if error is not None:
            raise error

    library = ModuleType("daemon")
    library.DaemonContext = lambda **_: nullcontext()  # type: ignore[attr-defined]
    library.daemon = SimpleNamespace(DaemonError=LibraryError)  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "_exit", end)
    reading, writing = os.pipe()
    with pytest.raises(Ended) as ended:
        daemonize._run_child(library, payload, tmp_path / "pid", writing)
    os.close(writing)
    assert ended.value.args == (status,)
    if is_read:
        with os.fdopen(reading) as report:
            number, _, failure = report.read().partition("\n")
        assert number == str(os.getpid())
        assert failure.startswith(f"{status} {said}" if said else "")
        assert bool(failure) is bool(said)
