"""How the log stays bounded."""

from port_knocking_doors.system.rate_limit import Incident, RateLimit


def test_burst_is_admitted_and_the_rest_counted() -> None:
    limit = RateLimit(burst=2, period=10)
    assert [limit.admits(now) for now in (100, 101, 102, 103)] == [True, True, False, False]
    assert limit.next_deadline() == 110
    assert limit.summary(109) == 0
    assert limit.summary(110) == 2
    assert limit.next_deadline() is None
    assert limit.admits(111)


def test_period_begins_with_first_event_after_the_last_period() -> None:
    limit = RateLimit(burst=1, period=10)
    assert [limit.admits(now) for now in (0, 10, 25)] == [True, True, True]
    assert limit.next_deadline() is None


def test_many_events_are_withheld_together_once_none_has_a_line() -> None:
    limit = RateLimit(burst=2, period=10)
    assert not limit.withholds(5, 100)
    assert [limit.admits(100) for _ in range(2)] == [True, True]
    assert limit.withholds(5, 101)
    assert limit.withheld == 5
    assert limit.withholds(3, 111), "the sum is due"
    assert limit.summary(111) == 8
    assert not limit.withholds(1, 111)


def test_event_before_a_due_summary_is_counted_and_not_admitted() -> None:
    limit = RateLimit(burst=1, period=10)
    limit.admits(0)
    limit.admits(1)
    assert not limit.admits(50)
    assert limit.summary(50) == 2


def test_million_events_get_a_bounded_number_of_lines() -> None:
    limit, lines = RateLimit(burst=20, period=10), 0
    for event in range(1_000_000):
        now = event / 10_000  # a hundred seconds
        lines += limit.admits(now) + (limit.summary(now) > 0)
    assert lines <= 11 * 21


def test_incident_begins_is_summed_up_and_ends_after_a_quiet_period() -> None:
    incident = Incident(period=10)
    assert not incident.begins(0, 7, now=99)
    assert incident.next_deadline() is None
    assert incident.begins(3, 7, now=100)
    assert [incident.begins(bad, 5, now) for now, bad in ((101, 1), (103, 0), (109, 2))] == [False] * 3
    assert (incident.next_deadline(), incident.summary(109.9)) == (110, None)
    assert incident.summary(110) == (3, 15)
    assert not incident.begins(0, 4, now=115)
    assert (incident.next_deadline(), incident.summary(120)) == (120, (0, 4))
    assert (incident.next_deadline(), incident.summary(130)) == (None, None)
    assert incident.begins(1, 1, now=131), "again"


def test_incident_of_every_other_second_gets_a_line_a_period() -> None:
    incident, lines = Incident(period=10), 0
    for now in range(1000):
        lines += incident.begins(now % 2, 9, now) + (incident.summary(now) is not None)
    assert 99 <= lines <= 101
