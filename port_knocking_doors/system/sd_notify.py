"""Messages to the service manager: ready, waiting, reloading, stopping, alive (sd_notify(3), sd_watchdog_enabled(3)).

The service manager gives its socket in `NOTIFY_SOCKET`; without that variable nothing is sent.
"""

import asyncio
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

READY, RELOADING, STOPPING, ALIVE = "READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1"

_ready_sent = False


def notify(state: str) -> None:
    """Send `state` (such as `READY=1`) to the service manager, if there is one. Never waits, never fails."""
    global _ready_sent
    _ready_sent |= state == READY
    if not has_service_manager():
        return
    path = os.environ["NOTIFY_SOCKET"]
    if path.startswith("@"):  # an abstract socket
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, suppress(OSError):
        sock.setblocking(False)  # a service manager that hangs must not make the daemon hang
        sock.connect(path)
        sock.sendall(state.encode())


def has_service_manager() -> bool:
    """Whether a service manager waits for messages of this process."""
    return os.environ.get("NOTIFY_SOCKET", "").startswith(("/", "@"))


def extend_timeout(seconds: float) -> None:
    """Ask the service manager for at least so many seconds from now, beyond the time-out of the state that this process
    is in: TimeoutStartSec= before `READY=1`, TimeoutStopSec= after `STOPPING=1`."""
    notify(f"EXTEND_TIMEOUT_USEC={math.ceil(seconds * 1e6)}")


def report_status(text: str) -> None:
    """Have `systemctl status` show this line."""
    notify(f"STATUS={' '.join(text.split())}")


def report_wait(text: str, seconds: float) -> None:
    """Report what this process waits for, and ask for so many seconds from now; again while the wait lasts.

    For waits before `READY=1`, and for those that block the event loop.
    """
    report_status(text)
    extend_timeout(seconds)


@contextmanager
def reloading() -> Iterator[None]:
    """`systemctl reload` waits while this context lasts.

    Before the first `READY=1` nothing is sent: the `READY=1` at the end would come too early.
    """
    if not _ready_sent:
        yield
        return
    # With Type=notify-reload, the time tells this reload from the answer to an earlier signal.
    notify(f"{RELOADING}\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        yield
    finally:
        notify(READY)


class Watchdog:
    """A context manager: while it lasts, the event loop sends `WATCHDOG=1` twice in each period."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        period = watchdog_period(environ)
        self._pause = period / 2 if period is not None else None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "Watchdog":
        if self._pause is not None:
            self._loop = asyncio.get_running_loop()
            self._send(self._pause)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, pause: float) -> None:
        notify(ALIVE)
        self._timer = self._loop.call_later(pause, self._send, pause)


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Seconds without `WATCHDOG=1` after which this process counts as hung; None where it has no watchdog."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # inherited: it is for the parent process
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None
