"""Events as values: one stream from the daemon's parts to its observers (logs, counters, knockd's log).

A part with a result publishes an event and needs no callback; an observer names the kinds that it handles. Events are
named tuples, since one is made for each wrong knock of a flood: a frozen dataclass takes three times as long to make.

`when` is in seconds of `clock.now`. No event shows a step: a sequence's representation has none.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from port_knocking_doors.model import Address, Door, Origin, Port, Sequence, Settings


class Ready(NamedTuple):
    """The daemon receives knocks, and firewalld has answered."""

    settings: Settings
    interfaces: tuple[str, ...]
    """Names and patterns that sniffed sequences are limited to; empty for every interface."""


class Knocked(NamedTuple):
    """A packet was judged; published only while single knocks are logged or watched."""

    source: bytes
    verdict: str
    stage: int
    """Steps done, 0 where the packet advanced nothing."""
    sequences: tuple[str, ...]
    when: float


class OtherPayload(NamedTuple):
    """A datagram to a knock port was no knock for its payload; published only while a client watches."""

    source: bytes
    length: int
    """Bytes of its payload."""
    hint: str
    """What is wrong with it, in words; empty where that is not known."""
    when: float


class WrongKnock(NamedTuple):
    """A knock was wrong, and its source is ignored from now on if it was wrong again and again."""

    source: bytes
    ignored_for: float
    """Seconds; 0 for not."""
    when: float


class SequenceAdvanced(NamedTuple):
    """A knock was the next step of one of knockd's sequences; many at once are counted in `StepsSuppressed`."""

    source: bytes
    sequence: Sequence
    stage: int
    """Steps done."""


class StepsSuppressed(NamedTuple):
    """So many `SequenceAdvanced` were not published, to keep logs bounded."""

    number: int


class SequenceCompleted(NamedTuple):
    """A knock was the last step of a sequence."""

    source: bytes
    sequence: Sequence


class SequenceTimedOut(NamedTuple):
    """The time limit of one of knockd's sequences ran out after so many steps."""

    source: bytes
    sequence: Sequence
    stage: int


class SequenceDisabled(NamedTuple):
    """No one-time sequence is left in the sequence's file, or the file cannot be read."""

    sequence: Sequence
    reason: str


class LineNotMarked(NamedTuple):
    """A used one-time sequence cannot be marked as used, so that it must not count."""

    sequence: Sequence
    reason: str


class DoorPending(NamedTuple):
    """An access was granted, and its door cannot be opened yet."""

    door: Door


class DoorOpened(NamedTuple):
    """A door is confirmed open."""

    door: Door
    zones: tuple[str, ...]
    """Where its rules are; empty for a door without rules."""
    seconds: float
    """Until it closes."""


class DoorProlonged(NamedTuple):
    """An open door stays open for longer."""

    door: Door
    seconds: float | None
    """None where its time does not run yet."""
    when: float


class DoorReopened(NamedTuple):
    """A door is opened again before its closing was confirmed."""

    door: Door


class DoorRefused(NamedTuple):
    """A door was not opened: `limit` doors are open."""

    door: Door
    limit: int
    when: float


class DoorDenied(NamedTuple):
    """A door is not opened, or is closed: its address is banned in firewalld."""

    door: Door
    reason: str
    """The ban; `doors_for_banned` lifts it."""
    when: float


class DoorClosed(NamedTuple):
    """An open door is confirmed closed, or its stop command is due."""

    door: Door
    cause: Origin | None = None
    """What closed it ahead of its deadline; None at the deadline."""


class NothingToClose(NamedTuple):
    """A sequence that closes was completed, and the address has no such door."""

    address: Address
    access: str
    """Name of the access that would have opened it."""
    when: float


class DoorNeverOpened(NamedTuple):
    """A door's time ran out before it was confirmed open, or it was closed ahead of that."""

    door: Door
    cause: Origin | None = None
    """What closed it ahead of its deadline; None at the deadline."""


class CommandStarted(NamedTuple):
    """A start or stop command begins to run."""

    door: Door
    line: str


class CommandEnded(NamedTuple):
    """A start or stop command has ended."""

    door: Door
    status: int


class PortExposed(NamedTuple):
    """A guarded port is open to everyone without a knock."""

    port: Port
    zone: str
    reason: str
    text: str


class Reloaded(NamedTuple):
    """The configuration was read again and is active."""


class ReloadFailed(NamedTuple):
    """The configuration was read again and refused."""

    reason: str


class Stopped(NamedTuple):
    """The daemon ends."""

    doors: int
    """How many were open, and are closed."""
    is_requested: bool
    """Whether the daemon was asked to end, and does not end with an error."""
    are_all_closed: bool = True
    """Whether every door is confirmed closed; the error that follows names the others."""


Handler = Callable[[Any], None]
Handlers = Mapping[type, Handler]
"""The handler of each kind of event that an observer handles."""


class EventStream:
    """Hands each event to the observers that handle its kind, in the order in which they were added."""

    def __init__(self) -> None:
        self._handlers: dict[type, list[Handler]] = defaultdict(list)

    def add(self, handlers: Handlers) -> None:
        """Let one more observer handle these kinds of events."""
        for kind, handler in handlers.items():
            self._handlers[kind].append(handler)

    def publish(self, event: object) -> None:
        """Hand the event to every observer of its kind."""
        # `in` first: the default dictionary would keep a list for each kind that no observer handles.
        kind = type(event)
        if kind in self._handlers:
            for handle in self._handlers[kind]:
                handle(event)
