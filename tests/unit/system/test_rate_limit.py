"""How the log stays bounded."""

from port_knocking_doors.system.rate_limit import Incident, RateLimit


def test_so_many_in_a_period_then_a_count_of_the_rest() -> None:
    throttle = RateLimit(burst=2, period=10)
    assert [throttle.admits(now) for now in (100, 101, 102, 103)] == [True, True, False, False]
    assert throttle.next_deadline() == 110
    assert throttle.summary(109) == 0
    assert throttle.summary(110) == 2
    assert throttle.next_deadline() is None
    assert throttle.admits(111)


def test_a_period_begins_with_the_first_event_after_the_last_one() -> None:
    throttle = RateLimit(burst=1, period=10)
    assert [throttle.admits(now) for now in (0, 10, 25)] == [True, True, True]
    assert throttle.next_deadline() is None


def test_what_comes_before_the_summary_was_asked_for_is_counted_and_not_admitted() -> None:
    throttle = RateLimit(burst=1, period=10)
    throttle.admits(0)
    throttle.admits(1)
    assert not throttle.admits(50)
    assert throttle.summary(50) == 2


def test_a_million_events_take_a_bounded_number_of_lines() -> None:
    throttle, lines = RateLimit(burst=20, period=10), 0
    for event in range(1_000_000):
        now = event / 10_000  # a hundred seconds
        lines += throttle.admits(now) + (throttle.summary(now) > 0)
    assert lines <= 11 * 21


def test_a_spell_is_told_when_it_begins_summed_up_while_it_lasts_and_over_after_a_period_without() -> None:
    spell = Incident(period=10)
    assert not spell.begins(0, 7, now=99)
    assert spell.next_deadline() is None
    assert spell.begins(3, 7, now=100)
    assert [spell.begins(bad, 5, now) for now, bad in ((101, 1), (103, 0), (109, 2))] == [False] * 3
    assert (spell.next_deadline(), spell.summary(109.9)) == (110, None)
    assert spell.summary(110) == (3, 15)
    assert not spell.begins(0, 4, now=115)
    assert (spell.next_deadline(), spell.summary(120)) == (120, (0, 4))
    assert (spell.next_deadline(), spell.summary(130)) == (None, None)
    assert spell.begins(1, 1, now=131), "again"


def test_a_spell_that_comes_and_goes_each_second_takes_a_line_a_period() -> None:
    spell, lines = Incident(period=10), 0
    for now in range(1000):
        lines += spell.begins(now % 2, 9, now) + (spell.summary(now) is not None)
    assert 99 <= lines <= 101
