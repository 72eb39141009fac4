"""What the daemon is made of, as tables: a new kind of opening or observer is a module of its own and a line here."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from port_knocking_doors.daemon.counters import Counters
from port_knocking_doors.daemon.event_log import EventLog
from port_knocking_doors.daemon.observer import Observer, SummingObserver
from port_knocking_doors.doors.commands import CommandRunner
from port_knocking_doors.doors.opener import Opener
from port_knocking_doors.events import EventStream
from port_knocking_doors.firewall.rule_opener import RuleOpener
from port_knocking_doors.model import CommandOpening, Opening, PortOpening
from port_knocking_doors.system.deadline_timer import DeadlineTimer


class Parts(NamedTuple):
    """What the makers of the tables may use."""

    priority: int
    rules: RuleOpener
    counters: Counters
    events: EventStream
    timer: DeadlineTimer


OPENERS: dict[type[Opening], Callable[[Parts], Opener]] = {
    PortOpening: lambda parts: parts.rules,
    CommandOpening: lambda parts: CommandRunner(parts.priority, parts.events),
}
"""For each kind of opening, what opens it."""

OBSERVERS: list[Callable[[Parts], Observer]] = [
    lambda parts: EventLog(parts.timer.update),
    lambda parts: parts.counters,
]
"""What observes the event stream, in this order."""


def openers(parts: Parts) -> Mapping[type[Opening], Opener]:
    """An opener for each kind of opening."""
    return {kind: make(parts) for kind, make in OPENERS.items()}


def observe(parts: Parts) -> None:
    """Add every observer to the event stream."""
    for make in OBSERVERS:
        add_observer(parts, make(parts))


def add_observer(parts: Parts, observer: Observer) -> None:
    """Add one observer to the event stream, and its sums to the timer."""
    parts.events.add(observer.handlers())
    if isinstance(observer, SummingObserver):
        parts.timer.add(observer.next_deadline, observer.sum_up)
