"""What systemd is told and what it asks for, as sd_notify(3) and sd_watchdog_enabled(3) have it.

Whoever supervises us says by `NOTIFY_SOCKET` where it listens; without that, nothing here does anything.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import ParamSpec

READY, RELOADING, STOPPING, ALIVE = "READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1"

_Parameters = ParamSpec("_Parameters")
_told_ready = False


def notify(state: str) -> None:
    """Send `state` (such as `READY=1`) to whoever supervises us, if anybody does. Never waits, never fails."""
    global _told_ready
    _told_ready |= state == READY
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    if path.startswith("@"):  # an abstract socket
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, suppress(OSError):
        sock.setblocking(False)  # a supervisor that hangs must not make us hang
        sock.connect(path)
        sock.sendall(state.encode())


def reloading(read_again: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Let `systemctl reload` wait for the decorated method. Before the first `READY=1` it says nothing: that is not
    to be said too early."""

    @wraps(read_again)
    def told(*arguments: _Parameters.args, **named: _Parameters.kwargs) -> None:
        if not _told_ready:
            read_again(*arguments, **named)
            return
        # With Type=notify-reload, the time tells this from the answer to an earlier signal.
        notify(f"{RELOADING}\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            read_again(*arguments, **named)
        finally:
            notify(READY)

    return told


class Watchdog:
    """A context manager: while it lasts, the event loop itself says that it is alive, twice in each period."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        period = watchdog_period(environ)
        self._pause = period / 2 if period is not None else None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "Watchdog":
        if self._pause is not None:
            self._loop = asyncio.get_running_loop()
            self._tell(self._pause)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, pause: float) -> None:
        notify(ALIVE)
        self._timer = self._loop.call_later(pause, self._tell, pause)


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Seconds without a word after which we count as hung; None where nobody watches, or not us."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # inherited: it is for our parent
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None
