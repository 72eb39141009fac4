"""Whose time for a sequence runs out when, for a log that tells of it.

Knows no clock and no log. It is bounded: of those who are too many nothing is told. That somebody went on, erred or
was forgotten meanwhile is not told here; whoever asks looks it up when the time has come.
"""

import heapq
from collections.abc import Iterator

from port_knocking_doors.model import Sequence

LIMIT = 4096
"""How many are watched at once, at the most."""


class AttemptTimeouts:
    """Those who made the first step of a sequence, until its time limit."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        # Deadlines, nearest first. Who begins anew gets another entry; the one that `_until` does not confirm is stale.
        self._queue: list[tuple[float, int, bytes, Sequence]] = []
        self._until: dict[tuple[bytes, str, str], float] = {}
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._queue)

    def watch(self, source: bytes, sequence: Sequence, until: float) -> None:
        """It has made the first step, and has time `until` then for the last one."""
        if len(self._queue) < self._limit:
            self._pushed += 1
            self._until[_key(source, sequence)] = until
            heapq.heappush(self._queue, (until, self._pushed, source, sequence))

    def next_deadline(self) -> float | None:
        """When to look at what is `due`, or None while nobody is watched."""
        return self._queue[0][0] if self._queue else None

    def due(self, now: float) -> Iterator[tuple[bytes, Sequence]]:
        """Take out those whose time is over."""
        while self._queue and self._queue[0][0] <= now:
            until, _, source, sequence = heapq.heappop(self._queue)
            if self._until.get(_key(source, sequence)) == until:
                del self._until[_key(source, sequence)]
                yield source, sequence


def _key(source: bytes, sequence: Sequence) -> tuple[bytes, str, str]:
    return source, sequence.group, sequence.name
