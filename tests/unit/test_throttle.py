"""How the log stays bounded."""

from port_knocking_doors.throttle import Throttle


def test_so_many_in_a_period_then_a_count_of_the_rest() -> None:
    throttle = Throttle(burst=2, period=10)
    assert [throttle.admits(now) for now in (100, 101, 102, 103)] == [True, True, False, False]
    assert throttle.next_deadline() == 110
    assert throttle.summary(109) == 0
    assert throttle.summary(110) == 2
    assert throttle.next_deadline() is None
    assert throttle.admits(111)


def test_a_period_begins_with_the_first_event_after_the_last_one() -> None:
    throttle = Throttle(burst=1, period=10)
    assert [throttle.admits(now) for now in (0, 10, 25)] == [True, True, True]
    assert throttle.next_deadline() is None


def test_what_comes_before_the_summary_was_asked_for_is_counted_and_not_admitted() -> None:
    throttle = Throttle(burst=1, period=10)
    throttle.admits(0)
    throttle.admits(1)
    assert not throttle.admits(50)
    assert throttle.summary(50) == 2


def test_a_million_events_take_a_bounded_number_of_lines() -> None:
    throttle, lines = Throttle(burst=20, period=10), 0
    for event in range(1_000_000):
        now = event / 10_000  # a hundred seconds
        lines += throttle.admits(now) + (throttle.summary(now) > 0)
    assert lines <= 11 * 21
