"""One timer of the event loop for everything in the daemon that has a deadline."""

import asyncio
import math
from collections.abc import Callable

from port_knocking_doors.system.clock import now

NextDeadline = Callable[[], float | None]
"""The nearest deadline, in seconds of `clock.now`; None for none."""

OnDue = Callable[[float], None]
"""Called with the time once the nearest deadline has passed."""


class DeadlineTimer:
    """Wakes at the nearest deadline of its sources. `update` is to be called whenever a deadline is new or moved."""

    def __init__(self) -> None:
        self._sources: list[tuple[NextDeadline, OnDue]] = []
        self._handle: asyncio.TimerHandle | None = None

    def add(self, next_deadline: NextDeadline, on_due: OnDue) -> None:
        """Watch the deadlines of one more source."""
        self._sources.append((next_deadline, on_due))

    def update(self) -> None:
        """Sleep until what is the nearest deadline now."""
        self.cancel()
        deadlines = (next_deadline() for next_deadline, _ in self._sources)
        nearest = min((deadline for deadline in deadlines if deadline is not None), default=math.inf)
        if nearest < math.inf:
            self._handle = asyncio.get_running_loop().call_later(max(0.0, nearest - now()), self._wake)

    def cancel(self) -> None:
        """Do not wake any more, until the next `update`; calling it again is harmless."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wake(self) -> None:
        when = now()
        for _, on_due in self._sources:
            on_due(when)
        self.update()
