"""Which doors are open, and until when: the second table, beside the knockers'.

Knows no firewall, no clock and no log. It answers what is to be done; deadlines are seconds of the clock that the
knocks' times come from.
"""

import heapq
from collections.abc import Iterator
from enum import Enum, auto

from port_knocking_doors.model import Door


class Answer(Enum):
    """What a granted access means for its door."""

    OPEN = auto()
    PROLONG = auto()  # it is open already: its deadline moved, no rule changes
    REFUSE = auto()  # the limit of open doors is reached; no other door is closed for this one


class DoorTable:
    """The open doors, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._until: dict[Door, float | None] = {}
        # Deadlines, nearest first. Prolonging leaves the old entry behind: an entry is stale unless `_until` has it.
        self._queue: list[tuple[float, int, Door]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._until)

    def __iter__(self) -> Iterator[Door]:
        return iter(self._until)

    def __contains__(self, door: object) -> bool:
        return door in self._until

    def open(self, door: Door, until: float | None) -> Answer:
        """Keep the door open up to `until`, or longer if it is open for longer already.

        None: its time does not run yet, `run_until` says from when on. That changes no deadline of an open door.
        """
        if door in self._until:
            self.run_until(door, until)
            return Answer.PROLONG
        if len(self._until) >= self.limit:
            return Answer.REFUSE
        self._until[door] = None
        self.run_until(door, until)
        return Answer.OPEN

    def run_until(self, door: Door, until: float | None) -> None:
        """Let an open door's time run up to `until`, unless it has longer."""
        before = self._until[door]
        if until is not None and (before is None or until > before):
            self._until[door] = until
            self._push(until, door)

    def deadline(self, door: Door) -> float | None:
        """When the door is to close; None where it is not open or its time does not run yet."""
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
        if door not in self._until:
            return False
        del self._until[door]
        return True

    def next_deadline(self) -> float | None:
        """When the next door has to close, or None while none has to."""
        while self._queue:
            until, _, door = self._queue[0]
            if self._until.get(door) == until:
                return until
            heapq.heappop(self._queue)
        return None

    def _push(self, until: float, door: Door) -> None:
        # A door prolonged a thousand times a second would fill the queue with stale entries.
        if len(self._queue) > 2 * len(self._until) + 16:
            running = ((deadline, door) for door, deadline in self._until.items() if deadline is not None)
            self._queue = [(deadline, order, open_door) for order, (deadline, open_door) in enumerate(running)]
            heapq.heapify(self._queue)
            self._pushed = len(self._queue)
            return
        self._pushed += 1
        heapq.heappush(self._queue, (until, self._pushed, door))
