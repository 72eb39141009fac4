"""Keeps a log bounded: so many lines in a period, and then how many were left out."""


class RateLimit:
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


class Incident:
    """Something told when it begins, summed up while it goes on, and over once a `period` (seconds) was without it."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._deadline: float | None = None
        self._bad = self._of = 0

    def begins(self, bad: int, of: int, now: float) -> bool:
        """Take note of so many bad ones of so many; whether with these it begins."""
        if self._deadline is not None:
            self._bad += bad
            self._of += of
        elif bad:
            self._deadline = now + self.period
            return True
        return False

    def next_deadline(self) -> float | None:
        """When `summary` is due, or None while there is nothing."""
        return self._deadline

    def summary(self, now: float) -> tuple[int, int] | None:
        """How many bad ones of how many there were in a period (0: it is over); None where that is not due."""
        if self._deadline is None or now < self._deadline:
            return None
        bad, of, self._bad, self._of = self._bad, self._of, 0, 0
        self._deadline = now + self.period if bad else None
        return bad, of
