"""The interface of observers of the event stream."""

from typing import Protocol, runtime_checkable

from port_knocking_doors.events import Handlers


class Observer(Protocol):
    """Something that reports or counts events: a log, counters, another program's log."""

    def handlers(self) -> Handlers:
        """The handler of each kind of event that the observer handles."""


@runtime_checkable
class SummingObserver(Observer, Protocol):
    """An observer that sums up what it did not report one by one."""

    def next_deadline(self) -> float | None:
        """When the next sum is due (seconds of `clock.now`); None while there is none."""

    def sum_up(self, when: float) -> None:
        """Report the sums that are due."""
