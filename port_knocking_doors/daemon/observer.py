"""The interface of observers of the event stream."""

from typing import Protocol

from port_knocking_doors.events import Handlers


class Observer(Protocol):
    """Something that reports or counts events: a log, counters, another program's log."""

    def handlers(self) -> Handlers:
        """The handler of each kind of event that the observer handles."""
