"""A process that leaves its terminal and runs on: `-d` of knockd and `-D` of tportknockd.

`run` returns once the daemon is ready, as whoever supervises it would hear (sd_notify(3)), or raises what kept it from
that: a script, an init system and a person at a terminal all learn whether it worked. The detaching itself is the
library python-daemon's, an optional extra.
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
from port_knocking_doors.system.log import logger

PATIENCE = 5.0
"""Seconds after which it is said that the daemon is not ready yet, and who it is."""

UMASK = 0o022
"""For what its commands write; what is secret is made with a mode of its own."""

_UCRED = struct.Struct("@iII")  # struct ucred (sys/socket.h, unix(7)): process, user, group
_FAILED = 1


class PidFile:
    """A context manager: as long as it lasts, `path` has the number of this process, and nobody else's.

    One that a dead process left is taken over. Entering raises `AlreadyRunningError` where a live one has it, and
    `DoorsError` where it cannot be written or is something else than such a file.
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
        """A descriptor of the file, locked, or -1 where it was removed meanwhile: then there is another try.

        The lock is for others that start at the same moment; the kernel lets go of it when this process ends.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o644)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DoorsError(f"{self._path}: this is not an ordinary file, expected a name for a pid file")
            found = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if found and not re.fullmatch("[0-9]{1,10}", found):
                raise DoorsError(f"{self._path}: this is not a pid file and was left alone, expected a name for one")
            pid = int(found or 0)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._taken(pid) from None
            if not os.path.samestat(status, os.lstat(self._path)):
                raise FileNotFoundError
            if _lives(pid, status.st_mtime):
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
            f"{self._path}: {who} runs already; stop it, or choose another pid file", by_daemon=True
        )

    def _remove(self) -> None:
        if self._descriptor < 0:
            return
        try:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path)):
                    self._path.unlink()
        except OSError:  # whoever may not write to the folder any more may still empty the file
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1


def require_library() -> ModuleType:
    """The library python-daemon, for whoever wants to know ahead of `run`. Raises `DoorsError` where it is missing."""
    try:
        library = import_module("daemon")
    except ImportError:
        raise DoorsError(
            "running in the background needs the library python-daemon: install the package python3-daemon (Debian, "
            "Fedora), or port-knocking-doors[daemon] by pip; or let it run in the foreground"
        ) from None
    return library


def run(payload: Callable[[], None], pid_file: Path | None = None) -> int:
    """Run `payload` in a process of its own in the background; its number, once it has said `READY=1`.

    It ends with `payload`, with status 0 or that of the `DoorsError` which that raised. Its standard streams are
    /dev/null and its working directory is /, so paths that `payload` uses have to be absolute. Descriptors that this
    process opened stay open in it, those that it was started with do not.

    Raises `DoorsError` with the text and the exit status of what kept it from being ready, a missing library too.
    """
    library = require_library()
    pid_file = pid_file and pid_file.absolute()
    _open_standard_streams()
    with ExitStack() as stack:
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        ear = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"port-knocking-doors-{secrets.token_hex(16)}"
        ear.bind(f"\0{name}")
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            child = os.fork()
        except OSError as error:
            os.close(writing)
            raise DoorsError(f"no process for the background can be made: {error.strerror}") from None
        if child == 0:
            os.close(reading)
            ear.close()
            os.environ["NOTIFY_SOCKET"] = f"@{name}"
            _live(library, payload, pid_file, writing)
        os.close(writing)
        return _await(ear, reading, child)


def _await(ear: socket.socket, reading: int, child: int) -> int:
    """What becomes of it, in the process that stays behind."""
    told = b""
    waiting = select.poll()
    for source in (ear.fileno(), reading):
        waiting.register(source, select.POLLIN)
    patience: float | None = PATIENCE * 1000
    try:
        while True:
            found = dict(waiting.poll(patience))
            pid = int(told.partition(b"\n")[0] or 0)
            if not found and pid:
                patience = None
                logger.warning("process %d in the background is not ready yet; its log says why", pid)
            if reading in found and (part := os.read(reading, 65536)):
                told += part
                continue
            if _is_ready(ear):
                return pid
            if reading in found:
                break
    except KeyboardInterrupt:
        told = told or os.read(reading, 65536)  # its number is the first that it says, though not yet read
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(told.partition(b"\n")[0]), signal.SIGTERM)
        raise
    finally:
        with suppress(ChildProcessError):
            os.waitpid(child, 0)  # it only led to the daemon, and is gone
    _, _, failure = told.decode(errors="replace").partition("\n")
    status, _, text = failure.partition(" ")
    error = DoorsError(text or "the process in the background ended before it was ready")
    error.exit_status = int(status or _FAILED) or _FAILED
    raise error


def _is_ready(ear: socket.socket) -> bool:
    """Whether it has said so; others of this machine may write to the socket, too."""
    with suppress(BlockingIOError):
        while True:
            data, ancillary, _, _ = ear.recvmsg(4096, socket.CMSG_SPACE(_UCRED.size))
            users = [_UCRED.unpack(value)[1] for _, kind, value in ancillary if kind == socket.SCM_CREDENTIALS]
            if users == [os.geteuid()] and b"READY=1" in data.split(b"\n"):
                return True
    return False


def _live(library: ModuleType, payload: Callable[[], None], pid_file: Path | None, writing: int) -> NoReturn:
    """The daemon's whole life, from the fork on. What its parent registered for its own end is none of its business."""
    status, failure = _FAILED, ""
    try:
        # The parent of what was exec'd cannot have set FD_CLOEXEC, and everything that Python opens has it (PEP 446).
        opened = [number for number in _descriptors() if fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC]
        context = library.DaemonContext(
            detach_process=True,  # left to itself, the library would not where the parent is process 1
            working_directory="/",
            umask=UMASK,
            files_preserve=opened,
            prevent_core=False,  # that would hold for all that its commands start
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
    except library.daemon.DaemonError as error:  # some of them are OSErrors, too
        failure = f"the process cannot go into the background: {error}"
    except OSError as error:
        failure = f"the system refused: {in_words(error)}"
        logger.error("%s", failure)
    except BaseException:  # a bug, and no terminal to show it
        failure = "the process in the background ended by an error of the program; its log has it"
        logger.critical("this is an error of the program", exc_info=True)
    finally:
        if failure:
            with suppress(OSError):  # nobody waits for it any more
                os.write(writing, f"\n{status} {' '.join(failure.split())}".encode())
        os._exit(status)


def _open_standard_streams() -> None:
    """See to it that descriptors 0 to 2 are there, so that nothing else gets their numbers and is lost with them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, and so this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _descriptors() -> list[int]:
    # The one that lists them is gone afterwards.
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if _is_open(int(entry.name))]


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _lives(pid: int, written: float) -> bool:
    """Whether the process that wrote its number at that time (of the wall clock) is still there.

    One that began later has the number of a dead one.
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
