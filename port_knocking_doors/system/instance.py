"""The runtime directory, which does not survive a boot, and the lock on a mark of ownership.

Two daemons with the same mark would close each other's doors, so a process that uses a mark holds its lock: a daemon
as long as it runs, a closer (see `crash_guard`) for a moment. The kernel releases a lock when its holder ends, even by
SIGKILL.
"""

import asyncio
import errno
import fcntl
import os
import re
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from port_knocking_doors.errors import AlreadyRunningError, DoorsError
from port_knocking_doors.system.sd_notify import report_wait

SYSTEM_DIRECTORY = Path("/run/port-knocking-doors")
_BEYOND_PRIORITIES = 1 << 16
DAEMON, CLOSER = "daemon", "closer"
_PATIENCE = 15.0
"""Seconds that a starting daemon waits for a closer, which waits five for each call of firewalld."""
_PAUSE = 0.02
_MARK = re.compile(r"-?\d{1,10}")
_PENDING = "pending-"
_RELOAD = "reload.lock"
_PF_EXITING = 0x4  # linux/sched.h


def command_mark(*words: str) -> int:
    """A mark for a daemon without rules, made of `words` (a file, an interface); it is beyond firewalld's priorities.

    Two such daemons with the same words would run each command twice; with other words they can run side by side.
    """
    return _BEYOND_PRIORITIES + zlib.crc32("\0".join(words).encode(errors="surrogateescape"))


def has_rules(priority: int) -> bool:
    """Whether a daemon with this mark has rules in the firewall, and not only commands."""
    return priority < _BEYOND_PRIORITIES


def candidate_directories(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Paths for this process's runtime directory: systemd's (RuntimeDirectory= in systemd.exec(5)), the system's, and
    the user's own. Does not touch the file system."""
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    own = environ.get("XDG_RUNTIME_DIR")
    return [
        *([Path(given)] if given else []),
        SYSTEM_DIRECTORY,
        *([Path(own) / SYSTEM_DIRECTORY.name] if own else []),
    ]


def known_directories(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Paths for the runtime directory of any running daemon: this process's candidates, and those of the two units. The
    unit for commands that need root has its own directory: root uses nothing that belongs to another user."""
    return list(dict.fromkeys((*candidate_directories(environ), *_system_directories())))


def _system_directories() -> tuple[Path, Path]:
    return SYSTEM_DIRECTORY, SYSTEM_DIRECTORY.with_name(f"{SYSTEM_DIRECTORY.name}-commands")


def runtime_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The runtime directory, made if it does not exist: the first candidate that this user can write.

    Raises `DoorsError` if there is none.
    """
    for candidate in candidate_directories(environ):
        with suppress(OSError):
            candidate.mkdir(mode=0o700, exist_ok=True)
        if _is_usable(candidate):
            return candidate
    paths = " and ".join(str(candidate) for candidate in candidate_directories(environ))
    remedy = "make one, or set XDG_RUNTIME_DIR"
    if os.geteuid() != 0:
        remedy = "run as root: sudo port-knocking-doors …, or set XDG_RUNTIME_DIR"
    raise DoorsError(f"no runtime directory: {paths} cannot be written; {remedy}")


def usable_directories(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The runtime directories of any daemon that this user may take over from, on a read-only file system, too."""
    return [path for path in known_directories(environ) if _is_usable(path, read_only=True)]


def foreign_directories() -> list[Path]:
    """The runtime directories of the units that belong to another user, for root; what is in them, that user chose."""
    if os.geteuid() != 0:
        return []
    there = (path for path in _system_directories() if path.is_dir() and not path.is_symlink())
    return [path for path in there if path.stat().st_uid != 0]


def shares_lock(directory: Path) -> bool:
    """Whether who holds a mark in this process's runtime directory holds it in that one, too."""
    return directory in (runtime_directory(), *_system_directories())


def _is_usable(path: Path, *, read_only: bool = False) -> bool:
    """`read_only`: also where no user can write, for want of a file system that takes it."""
    try:
        # The directory's owner could put links in place of the files that are written there.
        if path.is_symlink() or not path.is_dir() or path.stat().st_uid not in (0, os.geteuid()):
            return False
        if read_only and os.statvfs(path).f_flag & os.ST_RDONLY:
            return os.access(path, os.R_OK | os.X_OK)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK)


def pending_directory(priority: int, directory: Path | None = None) -> Path:
    """Where the stop commands of the daemon with this mark are on record. Raises `DoorsError` if it can be nowhere."""
    return (directory or runtime_directory()) / f"{_PENDING}{priority}"


@contextmanager
def instance_lock(
    priority: int, role: str = DAEMON, *, leaves_rules: bool = False, directory: Path | None = None
) -> Iterator[None]:
    """Hold the lock on the mark `priority` for as long as the context lasts. `directory`: another runtime directory.

    If the context ends by an exception, or with `leaves_rules`, rules with the mark may be left: `unreleased_marks`
    keeps listing it. A daemon waits until a closer has finished. Raises `AlreadyRunningError`, naming the holder, where
    a daemon holds the lock, and `DoorsError` where the lock's file cannot be used.
    """
    path = (directory or runtime_directory()) / f"{priority}.lock"
    with ExitStack() as held:
        try:
            descriptor = _claim(path, role, priority, held)
        except OSError as error:
            raise DoorsError(f"{path}: cannot lock the mark ({error.strerror})") from error
        yield
        if not leaves_rules:
            _write(descriptor, role, "")


@asynccontextmanager
async def turn_to_reload(patience: float) -> AsyncIterator[None]:
    """Hold the lock on reloads of firewalld: two at once would drop what they are to put back.

    Another process is waited for, so many seconds at the most. Where there is no lock to hold it goes without.
    """
    deadline = time.monotonic() + patience
    with ExitStack() as held:
        while time.monotonic() < deadline:
            try:
                descriptor = _claim(runtime_directory() / _RELOAD, CLOSER, 0, held)
                held.callback(_write, descriptor, CLOSER, "")  # what is left is an empty file
            except AlreadyRunningError:
                held.pop_all().close()
                await asyncio.sleep(_PAUSE)
                continue
            except (OSError, DoorsError):
                pass
            break
        yield


def _claim(path: Path, role: str, priority: int, held: ExitStack) -> int:
    """The descriptor of the locked file, with role and process in it. Raises `OSError` and `AlreadyRunningError`."""
    descriptor = _open(path, role)
    held.callback(os.close, descriptor)
    _lock(descriptor, role, priority)
    # A daemon that root starts by hand, with another directory, must see the service's lock too.
    for other in _system_directories():
        with suppress(OSError):
            elsewhere = os.open(other / path.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            held.callback(os.close, elsewhere)
            if not os.path.sameopenfile(descriptor, elsewhere):
                _lock(elsewhere, role, priority)
    _write(descriptor, role, f"{role} {os.getpid()}\n")
    return descriptor


def _open(path: Path, role: str) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if role != CLOSER or error.errno != errno.EROFS:
            raise
        return os.open(path, flags | os.O_RDONLY)


def _write(descriptor: int, role: str, content: str) -> None:
    """Raises `OSError` for a daemon alone: a full or read-only file system must keep no door open."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)
    except OSError:
        if role != CLOSER:
            raise


def unreleased_marks(directory: Path | None = None) -> list[int]:
    """The marks with a lock that is held, or whose holder was killed, left rules or a stop command on record.

    Raises `DoorsError` where there is no runtime directory.
    """
    directory = directory or runtime_directory()
    locks = (path for path in directory.glob("*.lock") if _MARK.fullmatch(path.stem))
    marks = {int(path.stem) for path in locks if path.is_file() and path.stat().st_size}
    for path in directory.glob(f"{_PENDING}*/*.json"):
        mark = path.parent.name.removeprefix(_PENDING)
        if _MARK.fullmatch(mark):
            marks.add(int(mark))
    return sorted(marks)


def _lock(descriptor: int, role: str, priority: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    is_reported = False
    while not _try_lock(descriptor):
        holder, _, pid = os.pread(descriptor, 64, 0).decode(errors="replace").strip().partition(" ")
        by_daemon = holder == DAEMON and _is_alive(pid)
        if role == CLOSER or by_daemon:
            raise AlreadyRunningError(
                f"port-knocking-doors is already running, as process {pid}, {_conflict(priority)}", by_daemon=by_daemon
            )
        if time.monotonic() > deadline:
            raise AlreadyRunningError(
                f"timed out: process {pid or '(unknown)'} has been closing the doors of an earlier daemon for "
                f"{_PATIENCE:g} s; check that firewalld answers",
                by_daemon=False,
            )
        if not is_reported:
            is_reported = True
            text = f"waiting for process {pid or '(unknown)'}, which closes the doors of an earlier daemon"
            report_wait(text, 2 * _PATIENCE)
        time.sleep(_PAUSE)


def _is_alive(pid: str) -> bool:
    """Whether the process runs.

    One that was killed may hold the lock for a while: the kernel closes its descriptors one after the other, and the
    guard's pipe before a packet socket and the lock.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return state not in ("Z", "X") and not int(fields[5]) & _PF_EXITING  # fields 3 and 9 of proc(5)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _conflict(priority: int) -> str:
    if not has_rules(priority):
        return "with the same file on the same interface: the two would run each command twice; stop it"
    return (
        f"with the mark rule_priority = {priority}: the two would close each other's doors; stop it, or give this one "
        "another rule_priority"
    )
