"""A process that leaves its terminal and runs on: `-d` of knockd and `-D` of tportknockd.

`run` returns once the daemon has sent `READY=1` (sd_notify(3)), or raises the error that prevented it: a script, an
init system and a person at a terminal all see whether the start worked. The library python-daemon, an optional extra,
does the detaching.
"""

import fcntl
import os
import re
import secrets
import select
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from port_knocking_doors.errors import AlreadyRunningError, DoorsError, in_words
from port_knocking_doors.system import background_writer
from port_knocking_doors.system.log import logger

PATIENCE = 5.0
"""Seconds until a warning that names the daemon's process and says that it is not ready yet."""

UMASK = 0o022
"""For files that its commands write; secret files are made with a mode of their own."""

_UCRED = struct.Struct("@iII")  # struct ucred (sys/socket.h, unix(7)): process, user, group
_FAILED = 1


class PidFile:
    """A context manager: while it lasts, `path` holds the number of this process and is locked.

    The file of a dead process is taken over. Entering raises `AlreadyRunningError` if the process in the file runs, and
    `DoorsError` if the file cannot be written or is not a pid file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> "PidFile":
        try:
            while self._descriptor < 0:
                self._descriptor = self._claimed()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self._remove()
            raise DoorsError(f"{self._path}: the pid file cannot be written ({error.strerror})") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _claimed(self) -> int:
        """A descriptor of the locked file, or -1 if the file was removed meanwhile: then the caller tries again.

        The lock keeps out daemons that start at the same moment; the kernel releases it when this process ends.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o644)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DoorsError(f"{self._path}: not an ordinary file, expected a path for a pid file")
            found = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if found and not re.fullmatch("[0-9]{1,10}", found):
                raise DoorsError(f"{self._path}: not a pid file, not overwritten; expected a path for one")
            pid = int(found or 0)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._taken(pid) from None
            if not os.path.samestat(status, os.lstat(self._path)):
                raise FileNotFoundError
            if _is_running(pid, status.st_mtime):
                raise self._taken(pid)
        except FileNotFoundError:
            os.close(descriptor)
            return -1
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _taken(self, pid: int) -> AlreadyRunningError:
        who = f"process {pid} ({_name(pid)})" if pid else "another process"
        return AlreadyRunningError(
            f"{self._path}: {who} is already running; stop it, or choose another pid file", by_daemon=True
        )

    def _remove(self) -> None:
        if self._descriptor < 0:
            return
        try:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path)):
                    self._path.unlink()
        except OSError:  # without permission for the folder, emptying the file may still work
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1


def require_library() -> ModuleType:
    """The library python-daemon. Raises `DoorsError` if it is missing; call it before work that `run` would waste."""
    try:
        library = import_module("daemon")
    except ImportError:
        raise DoorsError(
            "running in the background needs the library python-daemon: install the package python3-daemon (Debian, "
            "Fedora) or, with pip, port-knocking-doors[daemon]; or run in the foreground"
        ) from None
    return library


def run(payload: Callable[[], None], pid_file: Path | None = None) -> int:
    """Run `payload` in a process of its own in the background; return its number once it has sent `READY=1`.

    The process ends with `payload`: with status 0, or with that of the `DoorsError` that `payload` raised. Its standard
    streams are /dev/null and its working directory is /, so `payload` must use absolute paths. Descriptors that this
    process opened stay open in it; inherited descriptors do not.

    Raises `DoorsError`, with the text and exit status of the error before `READY=1`, and if the library is missing.
    """
    library = require_library()
    pid_file = pid_file and pid_file.absolute()
    _open_standard_streams()
    with ExitStack() as stack:
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        notify_socket = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        notify_socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"port-knocking-doors-{secrets.token_hex(16)}"
        notify_socket.bind(f"\0{name}")
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            child = os.fork()
        except OSError as error:
            os.close(writing)
            raise DoorsError(f"cannot fork: {error.strerror}") from None
        if child == 0:
            os.close(reading)
            notify_socket.close()
            os.environ["NOTIFY_SOCKET"] = f"@{name}"
            _run_child(library, payload, pid_file, writing)
        os.close(writing)
        return _await_ready(notify_socket, reading, child)


def _await_ready(notify_socket: socket.socket, reading: int, child: int) -> int:
    """The daemon's process number once it is ready; runs in the parent process.

    The daemon writes to the pipe `reading` its number and, if it fails, a newline, its exit status and the error.
    """
    report = b""
    waiting = select.poll()
    for source in (notify_socket.fileno(), reading):
        waiting.register(source, select.POLLIN)
    patience: float | None = PATIENCE * 1000
    try:
        while True:
            found = dict(waiting.poll(patience))
            pid = int(report.partition(b"\n")[0] or 0)
            if not found and pid:
                patience = None
                logger.warning("process %d in the background is not ready yet; see its log", pid)
            if reading in found and (part := os.read(reading, 65536)):
                report += part
                continue
            if _is_ready(notify_socket):
                return pid
            if reading in found:
                break
    except KeyboardInterrupt:
        report = report or os.read(reading, 65536)  # the number comes first, but may not have been read yet
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(report.partition(b"\n")[0]), signal.SIGTERM)
        raise
    finally:
        with suppress(ChildProcessError):
            os.waitpid(child, 0)  # only the parent of the daemon, and gone
    _, _, failure = report.decode(errors="replace").partition("\n")
    status, _, text = failure.partition(" ")
    error = DoorsError(text or "the process in the background ended before it was ready")
    error.exit_status = int(status or _FAILED) or _FAILED
    raise error


def _is_ready(notify_socket: socket.socket) -> bool:
    """Whether `READY=1` arrived from a process of this user; any process of the host can write to the socket."""
    with suppress(BlockingIOError):
        while True:
            data, ancillary, _, _ = notify_socket.recvmsg(4096, socket.CMSG_SPACE(_UCRED.size))
            users = [_UCRED.unpack(value)[1] for _, kind, value in ancillary if kind == socket.SCM_CREDENTIALS]
            if users == [os.geteuid()] and b"READY=1" in data.split(b"\n"):
                return True
    return False


def _run_child(library: ModuleType, payload: Callable[[], None], pid_file: Path | None, writing: int) -> NoReturn:
    """The daemon's process, from the fork to its end; exit handlers of its parent do not run in it."""
    status, failure = _FAILED, ""
    try:
        # The parent of what was exec'd cannot have set FD_CLOEXEC, and everything that Python opens has it (PEP 446).
        opened = [number for number in _descriptors() if fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC]
        context = library.DaemonContext(
            detach_process=True,  # by default, the library does not if the parent is process 1
            working_directory="/",
            umask=UMASK,
            files_preserve=opened,
            prevent_core=False,  # its commands would inherit that
            signal_map={
                signal.SIGTERM: lambda *_: sys.exit(0),
                signal.SIGTSTP: None,
                signal.SIGTTIN: None,
                signal.SIGTTOU: None,
            },
        )
        with context:
            os.write(writing, str(os.getpid()).encode())
            with PidFile(pid_file) if pid_file is not None else nullcontext():
                payload()
            status = 0
    except DoorsError as error:
        status, failure = error.exit_status, str(error)
        logger.error("%s", failure)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else _FAILED
    except library.daemon.DaemonError as error:  # some of them are OSErrors
        failure = f"cannot run in the background: {error}"
    except OSError as error:
        failure = f"the system refused: {in_words(error)}"
        logger.error("%s", failure)
    except BaseException:  # a bug, and no terminal to show it
        failure = "internal error in the background process; see its log"
        logger.critical("internal error", exc_info=True)
    finally:
        if failure:
            with suppress(OSError):  # the parent has ended
                os.write(writing, f"\n{status} {' '.join(failure.split())}".encode())
        background_writer.flush_all()
        os._exit(status)


def _open_standard_streams() -> None:
    """Open descriptors 0 to 2 if they are closed: other files would get these numbers, and be closed with them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _descriptors() -> list[int]:
    # The descriptor that lists them is closed afterwards.
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if _is_open(int(entry.name))]


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _is_running(pid: int, written: float) -> bool:
    """Whether the process that wrote its number at the wall-clock time `written` still runs.

    A process that started later reuses the number of a dead one.
    """
    if pid in (0, os.getpid()):
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    try:
        # proc(5): after the name in parentheses, the state is field 3, and the start in ticks since boot is field 22.
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return True
    began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[18]) / os.sysconf("SC_CLK_TCK")
    return state != "Z" and began <= written + 1


def _name(pid: int) -> str:
    with suppress(OSError):
        return "".join(filter(str.isprintable, Path(f"/proc/{pid}/comm").read_text(errors="replace")))
    return "of another user"
