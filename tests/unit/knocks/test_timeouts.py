"""Attempts whose time for a sequence is over."""

from port_knocking_doors.knocks.timeouts import AttemptTimeouts
from port_knocking_doors.model import Sequence

ONE, TWO = Sequence("one", (), group="a"), Sequence("two", (), group="a")
ALICE, BOB = b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03"


def test_attempt_is_due_when_its_time_is_over() -> None:
    timeouts = AttemptTimeouts()
    assert timeouts.next_deadline() is None
    timeouts.watch(ALICE, ONE, 20)
    timeouts.watch(BOB, ONE, 10)
    timeouts.watch(ALICE, TWO, 15)
    assert timeouts.next_deadline() == 10
    assert list(timeouts.due(9.9)) == []
    assert list(timeouts.due(15)) == [(BOB, ONE), (ALICE, TWO)]
    assert list(timeouts.due(100)) == [(ALICE, ONE)]
    assert len(timeouts) == 0


def test_attempt_begun_again_has_the_whole_time() -> None:
    timeouts = AttemptTimeouts()
    timeouts.watch(ALICE, ONE, 10)
    timeouts.watch(ALICE, ONE, 20)
    assert list(timeouts.due(10)) == []
    assert list(timeouts.due(20)) == [(ALICE, ONE)]


def test_no_more_attempts_are_watched_than_the_limit() -> None:
    timeouts = AttemptTimeouts(limit=100)
    for number in range(1000):
        timeouts.watch(number.to_bytes(4, "big"), ONE, number)
    assert len(timeouts) == 100
    assert len(list(timeouts.due(1000))) == 100
