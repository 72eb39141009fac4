"""The stream of events: each observer gets the kinds that it names, in order."""

from ipaddress import ip_address

import pytest

from port_knocking_doors import events
from port_knocking_doors.events import DoorClosed, DoorPending, EventStream, Reloaded
from port_knocking_doors.model import Door, Port, PortOpening, Protocol, Sequence, Step

DOOR = Door(ip_address("10.0.0.2"), "", "ssh", PortOpening((Port(22),)))
SECRET = Sequence("ssh", (Step(Protocol.UDP, 16001), Step(Protocol.UDP, 16002)))


def test_event_reaches_the_observers_of_its_kind_in_their_order() -> None:
    seen: list[tuple[str, object]] = []
    stream = EventStream()
    stream.add({DoorClosed: lambda event: seen.append(("first", event))})
    stream.add(dict.fromkeys((DoorClosed, DoorPending), lambda event: seen.append(("second", event))))
    stream.publish(DoorClosed(DOOR))
    stream.publish(DoorPending(DOOR))
    assert seen == [("first", DoorClosed(DOOR)), ("second", DoorClosed(DOOR)), ("second", DoorPending(DOOR))]


def test_event_without_an_observer_is_dropped_and_leaves_no_trace() -> None:
    stream = EventStream()
    stream.publish(Reloaded())
    assert stream._handlers == {}


def test_event_that_an_observer_publishes_reaches_all_observers() -> None:
    seen: list[object] = []
    stream = EventStream()
    stream.add({DoorPending: lambda event: stream.publish(DoorClosed(event.door))})
    stream.add(dict.fromkeys((DoorClosed, DoorPending), seen.append))
    stream.publish(DoorPending(DOOR))
    assert seen == [DoorClosed(DOOR), DoorPending(DOOR)]


def test_failed_observer_is_raised_to_the_publisher() -> None:
    def fail(_: object) -> None:
        raise OSError("disk")

    stream = EventStream()
    stream.add({Reloaded: fail})
    with pytest.raises(OSError, match="disk"):
        stream.publish(Reloaded())


@pytest.mark.parametrize(
    "event",
    [
        events.SequenceAdvanced(b"\x0a\x00\x00\x02", SECRET, 1),
        events.SequenceCompleted(b"\x0a\x00\x00\x02", SECRET),
        events.SequenceTimedOut(b"\x0a\x00\x00\x02", SECRET, 1),
        events.SequenceDisabled(SECRET, "empty"),
        events.LineNotMarked(SECRET, "read only"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_event_shows_no_step_of_its_sequence(event: object) -> None:
    assert "1600" not in repr(event)
