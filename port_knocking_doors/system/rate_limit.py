"""Keeps a log bounded: a number of lines in each period, then one line with the number of the others."""


class RateLimit:
    """Admits `burst` events in each `period` (seconds) and counts the others."""

    def __init__(self, burst: int, period: float) -> None:
        self._burst = burst
        self.period = period
        self._began = -period
        self._admitted = 0
        self.withheld = 0
        """Events of this period without a line."""

    def admits(self, now: float) -> bool:
        """Whether this event gets a line."""
        if now - self._began >= self.period and not self.withheld:
            self._began = now
            self._admitted = 0
        if self._admitted < self._burst and now - self._began < self.period:
            self._admitted += 1
            return True
        self.withheld += 1
        return False

    def withholds(self, count: int, now: float) -> bool:
        """Whether none of so many events gets a line; then all of them are counted."""
        if now - self._began >= self.period and not self.withheld:
            return False
        if self._admitted < self._burst and now - self._began < self.period:
            return False
        self.withheld += count
        return True

    def next_deadline(self) -> float | None:
        """Time at which a summary is due; None if no event was withheld."""
        return self._began + self.period if self.withheld else None

    def summary(self, now: float) -> int:
        """Number of events withheld in a period that is over, 0 before its end; counting starts again."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return 0
        withheld, self.withheld = self.withheld, 0
        return withheld


class Incident:
    """A fault, logged when it begins, summed up in each `period` (seconds), and over after a period without it."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._deadline: float | None = None
        self._bad = self._of = 0

    def begins(self, bad: int, of: int, now: float) -> bool:
        """Count `bad` faults of `of` events; whether the incident begins with these."""
        if self._deadline is not None:
            self._bad += bad
            self._of += of
        elif bad:
            self._deadline = now + self.period
            return True
        return False

    def next_deadline(self) -> float | None:
        """Time at which `summary` is due; None outside of an incident."""
        return self._deadline

    def summary(self, now: float) -> tuple[int, int] | None:
        """Number of faults (0: the incident is over) and of events in a period; None before its end."""
        if self._deadline is None or now < self._deadline:
            return None
        bad, of, self._bad, self._of = self._bad, self._of, 0, 0
        self._deadline = now + self.period if bad else None
        return bad, of
