"""What outlives a moment but not a boot: the runtime directory, and the lock on a mark of ownership.

Two daemons with the same mark would close each other's doors, so whoever uses a mark holds its lock: a daemon for as
long as it runs, a closer (see `guardian`) for a moment. The kernel lets go of a lock when its holder ends, however it
ends.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import AlreadyRunningError, DoorsError

SYSTEM_DIRECTORY = Path("/run/port-knocking-doors")
DAEMON, CLOSER = "daemon", "closer"
_PATIENCE = 15.0
"""Seconds that a starting daemon gives a closer, which gives firewalld five for each call."""
_PAUSE = 0.02


def directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The runtime directory, made if need be: the one that systemd made for us (RuntimeDirectory= of systemd.exec(5)),
    else the system's, or where that may not be written the user's own.

    Raises `DoorsError` where there is none.
    """
    candidates = [SYSTEM_DIRECTORY]
    if given := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        candidates.insert(0, Path(given))
    if environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(environ["XDG_RUNTIME_DIR"]) / SYSTEM_DIRECTORY.name)
    for candidate in candidates:
        try:
            candidate.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        # Whoever owns the directory could put links in the way of what is written there.
        if candidate.is_symlink() or not candidate.is_dir() or candidate.stat().st_uid not in (0, os.geteuid()):
            continue
        if os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    places = " and ".join(str(candidate) for candidate in candidates)
    raise DoorsError(f"no runtime directory: {places} cannot be written; make one, or set XDG_RUNTIME_DIR")


@contextmanager
def hold_mark(priority: int, role: str = DAEMON, *, leaves_rules: bool = False) -> Iterator[None]:
    """Hold the lock on the mark `priority` for as long as the context lasts.

    Where it ends by an exception, or `leaves_rules`, rules with the mark may be left behind: `left_behind` tells later.
    A daemon waits for a closer to finish. Raises `AlreadyRunningError`, naming the holder, where a daemon has it.
    """
    path = directory() / f"{priority}.lock"
    with ExitStack() as held:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        held.callback(os.close, descriptor)
        _lock(descriptor, role, priority)
        # Root may run one by hand, with a directory of its own, beside the service with the system's.
        with suppress(OSError):
            elsewhere = os.open(
                SYSTEM_DIRECTORY / path.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
            held.callback(os.close, elsewhere)
            if not os.path.sameopenfile(descriptor, elsewhere):
                _lock(elsewhere, role, priority)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{role} {os.getpid()}\n".encode(), 0)
        yield
        if not leaves_rules:
            os.ftruncate(descriptor, 0)


def left_behind() -> list[int]:
    """The marks whose last holder did not come to its end, or has not yet. Raises `DoorsError`."""
    locks = (path for path in directory().glob("*.lock") if re.fullmatch(r"-?\d{1,5}", path.stem))
    return sorted(int(path.stem) for path in locks if path.is_file() and path.stat().st_size)


def _lock(descriptor: int, role: str, priority: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _try_lock(descriptor):
        holder, _, pid = os.pread(descriptor, 64, 0).decode(errors="replace").strip().partition(" ")
        if role == CLOSER or (holder == DAEMON and Path(f"/proc/{pid}").exists()):
            raise AlreadyRunningError(
                f"port-knocking-doors runs already, as process {pid}, with the mark rule_priority = {priority}: "
                "the two would close each other's doors; stop it, or give this one another rule_priority"
            )
        if time.monotonic() > deadline:
            raise AlreadyRunningError(
                f"process {pid or '(unknown)'} has been closing the doors of an earlier daemon for {_PATIENCE:g} s; "
                "see whether firewalld answers"
            )
        time.sleep(_PAUSE)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
