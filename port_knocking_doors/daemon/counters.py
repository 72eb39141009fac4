"""Counts events since the daemon's start, by the names that `control.status.Counts` has."""

from collections import Counter

from port_knocking_doors.control.status import Counts
from port_knocking_doors.events import (
    DoorClosed,
    DoorOpened,
    DoorProlonged,
    DoorRefused,
    DoorReopened,
    Handlers,
    SequenceCompleted,
    WrongKnock,
)
from port_knocking_doors.model import Origin

_NAMES = {
    DoorClosed: "closed",
    DoorOpened: "opened",
    DoorProlonged: "prolonged",
    DoorRefused: "refused",
    DoorReopened: "closed",
    SequenceCompleted: "complete",
    WrongKnock: "wrong",
}


class Counters:
    """An observer of the event stream."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def handlers(self) -> Handlers:
        """Every kind of event that is counted."""
        return dict.fromkeys(_NAMES, self._count)

    def _count(self, event: object) -> None:
        self._counts[_NAMES[type(event)]] += 1
        if isinstance(event, DoorClosed) and event.cause is Origin.KNOCK:
            self._counts["closed_by_knock"] += 1

    def counts(self) -> Counts:
        """The counts at this moment."""
        return Counts(**self._counts)
