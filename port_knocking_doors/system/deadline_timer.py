"""One timer of the event loop for everything in the daemon that has a deadline."""

import asyncio
import math
from collections.abc import Callable

from port_knocking_doors.system.boot_timer import BootTimer
from port_knocking_doors.system.clock import now

NextDeadline = Callable[[], float | None]
"""The nearest deadline, in seconds of `clock.now`; None for none."""

OnDue = Callable[[float], None]
"""Called with the time once the nearest deadline has passed."""

LOOK_EVERY = 5.0
"""Seconds between two looks at the clock where the kernel has no timer for it (no descriptor is left): the event loop's
own time stands still during a suspend, so that a longer wait would end too late."""


class DeadlineTimer:
    """Wakes at the nearest deadline of its sources. `update` is to be called whenever a deadline is new or moved."""

    def __init__(self) -> None:
        self._sources: list[tuple[NextDeadline, OnDue]] = []
        self._timer: BootTimer | None = None
        self._handle: asyncio.TimerHandle | None = None
        """Of the event loop, without a timer of the kernel."""
        self._due = math.inf

    def add(self, next_deadline: NextDeadline, on_due: OnDue) -> None:
        """Watch the deadlines of one more source."""
        self._sources.append((next_deadline, on_due))

    def update(self) -> None:
        """Sleep until what is the nearest deadline now."""
        deadlines = (next_deadline() for next_deadline, _ in self._sources)
        nearest = min((deadline for deadline in deadlines if deadline is not None), default=math.inf)
        if nearest != self._due:
            self._due = nearest
            self._wait()

    def cancel(self) -> None:
        """Do not wake any more, until the next `update`; calling it again is harmless."""
        self._due = math.inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _wait(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._due == math.inf:
            if self._timer is not None:
                self._timer.unset()
            return
        try:
            self._timer = self._timer or BootTimer(self._wake)
        except OSError:
            delay = min(max(0.0, self._due - now()), LOOK_EVERY)
            self._handle = asyncio.get_running_loop().call_later(delay, self._wake)
        else:
            self._timer.set(self._due)

    def _wake(self) -> None:
        self._due = math.inf
        when = now()
        for _, on_due in self._sources:
            on_due(when)
        self.update()
