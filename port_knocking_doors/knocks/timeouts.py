"""Pending attempt timeouts, for knockd's "sequence timeout" line.

Knows no clock and no log, and does not know which attempts went on, failed or were forgotten meanwhile: the caller asks
the table of knockers about each one that is due.
"""

from collections.abc import Iterator

from port_knocking_doors.knocks.deadlines import Deadlines
from port_knocking_doors.model import Sequence

LIMIT = 4096
"""How many attempts are watched at once; those beyond it are not logged."""

_Attempt = tuple[bytes, Sequence]
"""Source and sequence."""


class AttemptTimeouts:
    """Attempts that have made the first step of a sequence, until its time limit."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._deadlines: Deadlines[_Attempt] = Deadlines()

    def __len__(self) -> int:
        return len(self._deadlines)

    def watch(self, source: bytes, sequence: Sequence, until: float) -> None:
        """The source has made the first step, and has time until then for the last one."""
        attempt = (source, sequence)
        if attempt in self._deadlines or len(self._deadlines) < self._limit:
            self._deadlines.set(attempt, until)

    def next_deadline(self) -> float | None:
        """When the next attempt is `due`, or None while none is watched."""
        return self._deadlines.nearest()

    def due(self, now: float) -> Iterator[tuple[bytes, Sequence]]:
        """Take out the attempts whose time is over, the longest overdue first."""
        return iter(self._deadlines.due(now))
