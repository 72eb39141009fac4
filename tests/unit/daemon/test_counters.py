"""What is counted, and by which name."""

from ipaddress import ip_address

import pytest

from port_knocking_doors import events
from port_knocking_doors.control.status import Counts
from port_knocking_doors.daemon.counters import Counters
from port_knocking_doors.model import Door, Origin, Port, PortOpening, Sequence

SOURCE = b"\x0a\x00\x00\x02"
DOOR = Door(ip_address("10.0.0.2"), "", "ssh", PortOpening((Port(22),)))

COUNTED: list[tuple[object, Counts]] = [
    (events.WrongKnock(SOURCE, 5.0, 1e6), Counts(wrong=1)),
    (events.SequenceCompleted(SOURCE, Sequence("ssh", ())), Counts(complete=1)),
    (events.DoorOpened(DOOR, ("public",), 10.0), Counts(opened=1)),
    (events.DoorProlonged(DOOR, 10.0, 1e6), Counts(prolonged=1)),
    (events.DoorRefused(DOOR, 1, 1e6), Counts(refused=1)),
    (events.DoorClosed(DOOR), Counts(closed=1)),
    (events.DoorClosed(DOOR, Origin.CONTROL), Counts(closed=1)),
    (events.DoorClosed(DOOR, Origin.KNOCK), Counts(closed=1, closed_by_knock=1)),
    (events.DoorReopened(DOOR), Counts(closed=1)),
    (events.DoorPending(DOOR), Counts()),
    (events.DoorNeverOpened(DOOR), Counts()),
    (events.Knocked(SOURCE, "advanced", 1, (), 1e6), Counts()),
]


@pytest.mark.parametrize(("event", "counts"), COUNTED, ids=[type(event).__name__ for event, _ in COUNTED])
def test_event_is_counted_by_its_name(event: object, counts: Counts) -> None:
    counters, stream = Counters(), events.EventStream()
    stream.add(counters.handlers())
    assert counters.counts() == Counts()
    stream.publish(event)
    assert counters.counts() == counts


def test_events_of_one_kind_add_up() -> None:
    counters, stream = Counters(), events.EventStream()
    stream.add(counters.handlers())
    for event in (events.DoorClosed(DOOR), events.DoorReopened(DOOR), events.DoorOpened(DOOR, (), 1.0)):
        stream.publish(event)
    assert counters.counts() == Counts(closed=2, opened=1)
