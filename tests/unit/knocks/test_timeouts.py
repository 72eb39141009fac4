"""Who is told of when the time for a sequence has run out."""

from port_knocking_doors.knocks.timeouts import AttemptTimeouts
from port_knocking_doors.model import Sequence

ONE, TWO = Sequence("one", (), group="a"), Sequence("two", (), group="a")
ALICE, BOB = b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03"


def test_each_when_its_time_has_come() -> None:
    lapses = AttemptTimeouts()
    assert lapses.next_deadline() is None
    lapses.watch(ALICE, ONE, 20)
    lapses.watch(BOB, ONE, 10)
    lapses.watch(ALICE, TWO, 15)
    assert lapses.next_deadline() == 10
    assert list(lapses.due(9.9)) == []
    assert list(lapses.due(15)) == [(BOB, ONE), (ALICE, TWO)]
    assert list(lapses.due(100)) == [(ALICE, ONE)]
    assert len(lapses) == 0


def test_who_begins_anew_has_the_whole_time_again() -> None:
    lapses = AttemptTimeouts()
    lapses.watch(ALICE, ONE, 10)
    lapses.watch(ALICE, ONE, 20)
    assert list(lapses.due(10)) == []
    assert list(lapses.due(20)) == [(ALICE, ONE)]


def test_a_flood_is_bounded() -> None:
    lapses = AttemptTimeouts(limit=100)
    for number in range(1000):
        lapses.watch(number.to_bytes(4, "big"), ONE, number)
    assert len(lapses) == 100
    assert len(list(lapses.due(1000))) == 100
