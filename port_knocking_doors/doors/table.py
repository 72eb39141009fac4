"""Which doors are open, and until when: the second table, beside the knockers'.

Knows no firewall, no clock and no log. Whoever asks is told what to do; deadlines are seconds of the clock that the
knocks' times come from.
"""

import heapq
from collections.abc import Iterator
from enum import Enum, auto

from port_knocking_doors.model import Door


class Answer(Enum):
    """What a completed sequence means for its door."""

    OPEN = auto()
    PROLONG = auto()  # it is open already: its deadline moved, no rule changes
    REFUSE = auto()  # too many doors are open; nobody's is closed for this one


class DoorTable:
    """The open doors, `limit` of them at the most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._until: dict[Door, float] = {}
        # Deadlines, nearest first. Prolonging leaves the old entry behind; one that `_until` does not confirm is stale.
        self._queue: list[tuple[float, int, Door]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._until)

    def __iter__(self) -> Iterator[Door]:
        return iter(self._until)

    def __contains__(self, door: object) -> bool:
        return door in self._until

    def open(self, door: Door, until: float) -> Answer:
        """A sequence for this door was completed: it shall stay open up to `until`, or longer if it does already."""
        before = self._until.get(door)
        if before is None and len(self._until) >= self.limit:
            return Answer.REFUSE
        if before is None or until > before:
            self._until[door] = until
            self._push(until, door)
        return Answer.OPEN if before is None else Answer.PROLONG

    def until(self, door: Door) -> float | None:
        """The door's deadline, or None where it is not open."""
        return self._until.get(door)

    def due(self, now: float) -> list[Door]:
        """Take out the doors whose time is over, the longest overdue first."""
        closing = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, _, door = heapq.heappop(self._queue)
            del self._until[door]
            closing.append(door)
        return closing

    def close(self, door: Door) -> bool:
        """Take out one door ahead of its time; whether it was open."""
        return self._until.pop(door, None) is not None

    def next_deadline(self) -> float | None:
        """When the next door has to close, or None while none is open."""
        while self._queue:
            until, _, door = self._queue[0]
            if self._until.get(door) == until:
                return until
            heapq.heappop(self._queue)
        return None

    def _push(self, until: float, door: Door) -> None:
        # A door prolonged a thousand times a second would fill the queue with stale entries.
        if len(self._queue) > 2 * len(self._until) + 16:
            self._queue = [
                (deadline, order, open_door) for order, (open_door, deadline) in enumerate(self._until.items())
            ]
            heapq.heapify(self._queue)
            self._pushed = len(self._queue)
            return
        self._pushed += 1
        heapq.heappush(self._queue, (until, self._pushed, door))
