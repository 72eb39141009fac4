"""The open doors and their deadlines: the second table, beside that of the knockers.

Uses no firewall, no clock and no log. Its answer says what to do. Deadlines are seconds of the clock that the times of
knocks are taken from.
"""

from collections.abc import Iterator
from enum import Enum, auto

from port_knocking_doors.knocks.deadlines import Deadlines
from port_knocking_doors.model import Door


class Answer(Enum):
    """The effect of a granted access on its door."""

    OPEN = auto()
    PROLONG = auto()  # the door is open already: its deadline moved, no rule changes
    REFUSE = auto()  # the limit of open doors is reached; no other door is closed for the new one


class DoorTable:
    """The open doors, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[Door, None] = {}
        """In the order of their opening."""
        self._deadlines: Deadlines[Door] = Deadlines()
        """Of the doors whose time runs."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Door]:
        return iter(self._open)

    def __contains__(self, door: object) -> bool:
        return door in self._open

    def open(self, door: Door, until: float | None) -> Answer:
        """Keep the door open up to `until`, or longer if its deadline is later already.

        None: its time does not run yet, and starts at `run_until`. The deadline of an open door stays as it is.
        """
        is_open = door in self._open
        if not is_open and len(self._open) >= self.limit:
            return Answer.REFUSE
        self._open[door] = None
        if until is not None:
            self.run_until(door, until)
        return Answer.PROLONG if is_open else Answer.OPEN

    def run_until(self, door: Door, until: float) -> None:
        """Let the time of an open door run up to `until`, unless its deadline is later already."""
        before = self._deadlines.get(door)
        if before is None or until > before:
            self._deadlines.set(door, until)

    def deadline(self, door: Door) -> float | None:
        """The door's deadline; None where it is not open or its time does not run yet."""
        return self._deadlines.get(door)

    def due(self, now: float) -> list[Door]:
        """Take out the doors whose time is over, the longest overdue first."""
        closing = self._deadlines.due(now)
        for door in closing:
            del self._open[door]
        return closing

    def close(self, door: Door) -> bool:
        """Take out one door before its deadline; whether it was open."""
        if door not in self._open:
            return False
        del self._open[door]
        self._deadlines.remove(door)
        return True

    def next_deadline(self) -> float | None:
        """The nearest deadline, or None where no door has one."""
        return self._deadlines.nearest()
