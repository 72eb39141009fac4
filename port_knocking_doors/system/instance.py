"""What outlives a moment but not a boot: the runtime directory, and the lock on a mark of ownership.

Two daemons with the same mark would close each other's doors, so whoever uses a mark holds its lock: a daemon for as
long as it runs, a closer (see `guardian`) for a moment. The kernel lets go of a lock when its holder ends, however it
ends.
"""

import fcntl
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from port_knocking_doors.errors import AlreadyRunningError, DoorsError

SYSTEM_DIRECTORY = Path("/run/port-knocking-doors")
_BEYOND_PRIORITIES = 1 << 16
DAEMON, CLOSER = "daemon", "closer"
_PATIENCE = 15.0
"""Seconds that a starting daemon gives a closer, which gives firewalld five for each call."""
_PAUSE = 0.02


def command_mark(*words: str) -> int:
    """A mark for a daemon that has nothing in the firewall: beyond firewalld's priorities, and so never a rule's.

    Two of them that have the same words (a file, an interface) would run each command twice; others may run beside it.
    """
    return _BEYOND_PRIORITIES + zlib.crc32("\0".join(words).encode(errors="surrogateescape"))


def has_rules(priority: int) -> bool:
    """Whether whoever has this mark has rules in the firewall, and not only commands."""
    return priority < _BEYOND_PRIORITIES


def candidate_directories(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where a runtime directory may be: the one that systemd made for us (RuntimeDirectory= of systemd.exec(5)), the
    system's, and the user's own. Nothing is looked at or made."""
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    own = environ.get("XDG_RUNTIME_DIR")
    return [
        *([Path(given)] if given else []),
        SYSTEM_DIRECTORY,
        *([Path(own) / SYSTEM_DIRECTORY.name] if own else []),
    ]


def known_directories(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where the runtime directory of a daemon that runs may be, whoever runs it: one of our candidates, or one that a
    unit has. The unit for commands that need root has its own: root uses nothing that is another user's."""
    return list(dict.fromkeys((*candidate_directories(environ), *_system_directories())))


def _system_directories() -> tuple[Path, Path]:
    return SYSTEM_DIRECTORY, SYSTEM_DIRECTORY.with_name(f"{SYSTEM_DIRECTORY.name}-commands")


def runtime_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The runtime directory, made if need be: the first of the candidates that may be written.

    Raises `DoorsError` where there is none.
    """
    for candidate in candidate_directories(environ):
        try:
            candidate.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        # Whoever owns the directory could put links in the way of what is written there.
        if candidate.is_symlink() or not candidate.is_dir() or candidate.stat().st_uid not in (0, os.geteuid()):
            continue
        if os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    places = " and ".join(str(candidate) for candidate in candidate_directories(environ))
    raise DoorsError(f"no runtime directory: {places} cannot be written; make one, or set XDG_RUNTIME_DIR")


@contextmanager
def instance_lock(priority: int, role: str = DAEMON, *, leaves_rules: bool = False) -> Iterator[None]:
    """Hold the lock on the mark `priority` for as long as the context lasts.

    If the context ends by an exception, or with `leaves_rules`, rules with the mark may be left: `unreleased_marks`
    keeps listing it. A daemon waits until a closer has finished. Raises `AlreadyRunningError`, naming the holder, where
    a daemon holds the lock, and `DoorsError` where the lock's file cannot be used.
    """
    path = runtime_directory() / f"{priority}.lock"
    with ExitStack() as held:
        try:
            descriptor = _claim(path, role, priority, held)
        except OSError as error:
            raise DoorsError(f"{path}: the mark's lock cannot be taken ({error.strerror})") from error
        yield
        if not leaves_rules:
            os.ftruncate(descriptor, 0)


def _claim(path: Path, role: str, priority: int, held: ExitStack) -> int:
    """The descriptor of the lock, with our name in it. Raises `OSError` and `AlreadyRunningError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    held.callback(os.close, descriptor)
    _lock(descriptor, role, priority)
    # Root may run one by hand, with a directory of its own, beside a service with the system's.
    for other in _system_directories():
        with suppress(OSError):
            elsewhere = os.open(other / path.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            held.callback(os.close, elsewhere)
            if not os.path.sameopenfile(descriptor, elsewhere):
                _lock(elsewhere, role, priority)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{role} {os.getpid()}\n".encode(), 0)
    return descriptor


def unreleased_marks() -> list[int]:
    """The marks whose last holder did not come to its end, or has not yet. Raises `DoorsError`."""
    locks = (path for path in runtime_directory().glob("*.lock") if re.fullmatch(r"-?\d{1,10}", path.stem))
    return sorted(int(path.stem) for path in locks if path.is_file() and path.stat().st_size)


def _lock(descriptor: int, role: str, priority: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _try_lock(descriptor):
        holder, _, pid = os.pread(descriptor, 64, 0).decode(errors="replace").strip().partition(" ")
        by_daemon = holder == DAEMON and Path(f"/proc/{pid}").exists()
        if role == CLOSER or by_daemon:
            raise AlreadyRunningError(
                f"port-knocking-doors runs already, as process {pid}, {_likeness(priority)}", by_daemon=by_daemon
            )
        if time.monotonic() > deadline:
            raise AlreadyRunningError(
                f"process {pid or '(unknown)'} has been closing the doors of an earlier daemon for {_PATIENCE:g} s; "
                "see whether firewalld answers",
                by_daemon=False,
            )
        time.sleep(_PAUSE)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _likeness(priority: int) -> str:
    if not has_rules(priority):
        return "with the same file on the same interface: the two would run each command twice; stop it"
    return (
        f"with the mark rule_priority = {priority}: the two would close each other's doors; stop it, or give this one "
        "another rule_priority"
    )
