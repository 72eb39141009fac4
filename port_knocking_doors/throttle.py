"""Keeps a log bounded: so many lines in a period, and then how many were left out."""


class Throttle:
    """Admits `burst` events in each `period` (seconds) and counts the others."""

    def __init__(self, burst: int, period: float) -> None:
        self._burst = burst
        self.period = period
        self._began = -period
        self._admitted = 0
        self.withheld = 0
        """Events of this period that got no line."""

    def admits(self, now: float) -> bool:
        """Whether this event gets its line."""
        if now - self._began >= self.period and not self.withheld:
            self._began = now
            self._admitted = 0
        if self._admitted < self._burst and now - self._began < self.period:
            self._admitted += 1
            return True
        self.withheld += 1
        return False

    def next_deadline(self) -> float | None:
        """When a summary is due, or None where nothing was withheld."""
        return self._began + self.period if self.withheld else None

    def summary(self, now: float) -> int:
        """How many events were withheld in a period that is over (0: none, or it is not over); counting starts anew."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return 0
        withheld, self.withheld = self.withheld, 0
        return withheld
