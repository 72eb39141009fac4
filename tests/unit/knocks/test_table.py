"""The knocker table: cases for each rule of native sequences. `test_model` compares it with a slow, obvious model."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.knocks.authenticator import Grant, Outcome, Verdict, merged
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.knocks.table import ATTEMPTS_MAX, KnockerTable
from port_knocking_doors.model import Protocol, Sequence, Step

ALICE, BOB = b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03"
LIFETIME, IGNORING = 30.0, 5.0
STARTS = (0.0, 1e6)
"""A monotonic clock counts from the machine's start, which may be long ago."""

U, I, R, F, W, A, C = (  # noqa: E741
    Verdict.NOT_A_KNOCK,
    Verdict.IGNORED,
    Verdict.REPEATED,
    Verdict.FORGIVEN,
    Verdict.WRONG,
    Verdict.ADVANCED,
    Verdict.COMPLETE,
)


def sequence(*ports: int, name: str = "main", lifetime: float = LIFETIME) -> Sequence:
    return Sequence(name, tuple(Step(Protocol.UDP, port) for port in ports), lifetime=lifetime)


def udp(port: int) -> int:
    return code_of(Step(Protocol.UDP, port))


# Each case: what is knocked, as (seconds, port, source port), and how each knock is judged.
CASES = {
    "the right sequence completes": ([(0, 1, 9), (0, 2, 9), (0, 3, 9)], [A, A, C]),
    "after it, the next knock begins again": (
        [(0, 1, 9), (0, 2, 9), (0, 3, 9), (0, 1, 9), (0, 2, 9), (0, 3, 9)],
        [A, A, C, A, A, C],
    ),
    "a port that no sequence names is no knock": ([(0, 1, 9), (0, 77, 9), (0, 2, 9), (0, 3, 9)], [A, U, A, C]),
    "a wrong first knock is forgiven": ([(0, 2, 9), (0, 1, 9), (0, 2, 9), (0, 3, 9)], [F, A, A, C]),
    "without the first packet, then again": (
        [(0, 2, 9), (0, 3, 9), (1, 1, 9), (1, 2, 9), (1, 3, 9)],
        [F, F, A, A, C],
    ),
    "without the second packet, then again": ([(0, 1, 9), (0, 3, 9), (1, 1, 9), (1, 2, 9), (1, 3, 9)], [A, F, A, A, C]),
    "without the last packet, then again": ([(0, 1, 9), (0, 2, 9), (1, 1, 8), (1, 2, 8), (1, 3, 8)], [A, A, A, A, C]),
    "without the last packet, then again from the same source port": (
        [(0, 1, 9), (0, 2, 9), (1, 1, 9), (1, 2, 9), (1, 3, 9)],
        [A, A, R, R, C],
    ),
    "wrong more often than a lost packet explains: ignored": (
        [(0, 2, 9), (0, 3, 9), (0, 2, 9), (0, 1, 9), (4.9, 1, 9)],
        [F, F, W, I, I],
    ),
    "begun again more often than that: ignored": (
        [(0, 1, 1), (0, 1, 2), (0, 1, 3), (0, 1, 4), (4.9, 1, 5)],
        [A, A, A, W, I],
    ),
    "wrong after the ignored period: ignored again at once": (
        [(0, 2, 9), (0, 2, 9), (0, 2, 9), (5, 2, 9), (9.9, 1, 9), (10, 1, 9)],
        [F, F, W, W, I, A],
    ),
    "a wrong knock in every second period: never ignored": (
        [(0, 2, 9), (0, 2, 9), (10, 2, 9), (20, 2, 9), (30, 2, 9)],
        [F, F, F, F, F],
    ),
    "wrong knocks a little more often than that: ignored": (
        [(0, 2, 9), (0, 2, 9), (9.9, 2, 9), (14.9, 2, 9), (19.8, 2, 9)],
        [F, F, W, W, I],
    ),
    "a while without wrong knocks forgives all": (
        [(0, 2, 9), (0, 2, 9), (0, 2, 9), (25, 2, 9), (25, 2, 9), (25, 2, 9)],
        [F, F, W, F, F, W],
    ),
    "ignored: the right sequence opens nothing": (
        [(0, 2, 9), (0, 2, 9), (0, 2, 9), (4.9, 1, 9), (4.9, 2, 9), (4.9, 3, 9)],
        [F, F, W, I, I, I],
    ),
    "ignored for the period, to the moment": (
        [(0, 2, 9), (0, 2, 9), (0, 2, 9), (5, 1, 9), (5, 2, 9), (5, 3, 9)],
        [F, F, W, A, A, C],
    ),
    "knocks while ignored do not prolong it": (
        [(0, 2, 9), (0, 2, 9), (0, 2, 9), (4, 3, 9), (5, 1, 9)],
        [F, F, W, I, A],
    ),
    "the very packet once more is no knock": (
        [(0, 1, 9), (0, 1, 9), (0, 2, 9), (0, 2, 9), (0, 3, 9), (0, 3, 9)],
        [A, R, A, R, C, R],
    ),
    "the same port from another source port begins again": (
        [(0, 1, 9), (0, 2, 9), (0, 1, 8), (0, 3, 9), (0, 1, 7), (0, 2, 7), (0, 3, 7)],
        [A, A, A, F, A, A, C],
    ),
    "a packet of an older step once more is no knock": (
        [(0, 1, 9), (0, 2, 9), (0, 1, 9), (1, 1, 9), (1, 2, 9), (1, 3, 9)],
        [A, A, R, R, R, C],
    ),
    "a repetition does not prolong the lifetime": ([(0, 1, 9), (20, 1, 9), (30, 2, 9)], [A, R, F]),
    "slow, but never slower than the lifetime": ([(0, 1, 9), (29, 2, 9), (58, 3, 9)], [A, A, C]),
    "no knock for the lifetime: begins again": ([(0, 1, 9), (30, 1, 9), (30, 2, 9), (30, 3, 9)], [A, A, A, C]),
    "no knock for the lifetime: the next step is a wrong one": ([(0, 1, 9), (30, 2, 9)], [A, F]),
}


def judged(knockers: KnockerTable, knocks: list[tuple[float, int, int]], start: float) -> list[Verdict]:
    return [knockers.on_knock(ALICE, udp(port), packet_id, start + now).verdict for now, port, packet_id in knocks]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("knocks", "verdicts"), CASES.values(), ids=CASES.keys())
def test_knocks_of_one_source_are_judged(
    start: float, knocks: list[tuple[float, int, int]], verdicts: list[Verdict]
) -> None:
    assert judged(KnockerTable([sequence(1, 2, 3)], IGNORING, 100), knocks, start) == verdicts


LIMITED = {
    "in time": ([(0, 1, 9), (5, 2, 9), (9.9, 3, 9)], [A, A, C]),
    "too late since the first, though each pause is short": ([(0, 1, 9), (6, 2, 9), (10, 3, 9)], [A, A, F]),
    "too late for the second": ([(0, 1, 9), (10, 2, 9)], [A, F]),
    "a first knock after it begins again": (
        [(0, 1, 9), (6, 2, 9), (10, 1, 9), (16, 2, 9), (19.9, 3, 9)],
        [A, A, A, A, C],
    ),
    "once complete, it counts again": (
        [(0, 1, 9), (4, 2, 9), (8, 3, 9), (9, 1, 9), (14, 2, 9), (18.9, 3, 9)],
        [A, A, C, A, A, C],
    ),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("knocks", "verdicts"), LIMITED.values(), ids=LIMITED.keys())
def test_time_limit_counts_from_first_knock(
    start: float, knocks: list[tuple[float, int, int]], verdicts: list[Verdict]
) -> None:
    limited = replace(sequence(1, 2, 3), lifetime=math.inf, timeout=10.0)
    assert judged(KnockerTable((limited,), IGNORING, 10), knocks, start) == verdicts


def test_wrong_knocks_count_together_whatever_the_sequence() -> None:
    knockers = KnockerTable([sequence(1, 2, 3, name="a"), sequence(4, 5, 6, name="b")], IGNORING, 100)
    assert [knockers.on_knock(ALICE, udp(port), 9, 0).verdict for port in (2, 5, 6, 4)] == [F, F, W, I]


def test_short_sequence_forgives_less_than_a_long_one() -> None:
    knockers = KnockerTable([sequence(1, 2, name="a"), sequence(3, 4, 5, 6, name="b")], IGNORING, 100)
    assert [knockers.on_knock(ALICE, udp(port), 9, 0).verdict for port in (4, 4, 4, 4, 3)] == [F, F, F, W, I]
    assert [knockers.on_knock(BOB, udp(port), 9, 0).verdict for port in (2, 2, 1)] == [F, W, I]


def test_source_is_never_ignored_with_a_period_of_zero() -> None:
    knockers = KnockerTable([sequence(1, 2, 3)], 0.0, 100)
    assert {knockers.on_knock(ALICE, udp(port), number, 0).verdict for number, port in enumerate((2, 3) * 50)} == {F}
    assert [knockers.on_knock(ALICE, udp(port), 9, 0).verdict for port in (1, 2, 3)] == [A, A, C]


def test_more_attempts_than_the_limit_give_up_the_oldest() -> None:
    many = [sequence(100 + number, 500 + number, name=f"s{number}") for number in range(ATTEMPTS_MAX + 1)]
    knockers = KnockerTable(many, IGNORING, 100)
    for number in range(len(many)):
        assert knockers.on_knock(ALICE, udp(100 + number), 9, 0).verdict is A
    assert knockers.stage(ALICE, many[0]) == 0
    assert [knockers.stage(ALICE, one) for one in many[1:]] == [1] * ATTEMPTS_MAX
    assert knockers.on_knock(ALICE, udp(500 + ATTEMPTS_MAX), 9, 0).verdict is C


def test_attempts_at_sequences_under_many_rules_are_all_kept() -> None:
    many = [sequence(1, 2, 3, name=f"s{number}", lifetime=30.0 + number) for number in range(3 * ATTEMPTS_MAX)]
    knockers = KnockerTable(many, IGNORING, 100)
    assert [knockers.on_knock(ALICE, udp(port), 9, 0).verdict for port in (1, 2)] == [A, A]
    assert knockers.on_knock(ALICE, udp(3), 9, 0).sequences == tuple(many)


def test_knocker_does_not_help_another() -> None:
    knockers = KnockerTable([sequence(1, 2)], IGNORING, 100)
    assert knockers.on_knock(ALICE, udp(1), 9, 0).verdict is A
    assert knockers.on_knock(BOB, udp(2), 9, 0).verdict is F
    assert knockers.on_knock(ALICE, udp(2), 9, 0).verdict is C


def test_outcome_has_stage_and_sequence() -> None:
    main = sequence(1, 2, 3)
    knockers = KnockerTable([main], IGNORING, 100)
    outcomes = [knockers.on_knock(ALICE, udp(port), 9, 0) for port in (1, 2, 3)]
    assert outcomes == [Outcome(A, (main,), 1), Outcome(A, (main,), 2), Outcome(C, (main,), 3)]


class TestSeveralSequences:
    def test_knock_that_advances_one_sequence_is_wrong_for_none(self) -> None:
        knockers = KnockerTable([sequence(1, 2, 3, name="a"), sequence(2, 1, 4, name="b")], IGNORING, 100)
        outcomes = [knockers.on_knock(ALICE, udp(port), 9, 0) for port in (1, 2, 3)]
        assert [outcome.verdict for outcome in outcomes] == [A, A, C]
        assert [found.name for found in outcomes[-1].sequences] == ["a"]

    def test_sequences_advance_side_by_side(self) -> None:
        knockers = KnockerTable([sequence(1, 2, 3, name="a"), sequence(1, 2, 4, 5, name="b")], IGNORING, 100)
        outcomes = [knockers.on_knock(ALICE, udp(port), 9, 0) for port in (1, 2, 4, 5)]
        assert [outcome.verdict for outcome in outcomes] == [A, A, A, C]
        assert outcomes[-1].sequences[0].name == "b"

    def test_each_sequence_has_its_own_lifetime(self) -> None:
        knockers = KnockerTable([sequence(1, 2, name="a", lifetime=2), sequence(1, 3, name="b")], IGNORING, 100)
        assert knockers.on_knock(ALICE, udp(1), 9, 0).verdict is A
        assert knockers.on_knock(ALICE, udp(3), 9, 10).verdict is C


class TestBound:
    LIMIT = 50

    def test_flood_of_newcomers_evicts_no_knocker_that_is_ahead(self) -> None:
        knockers = KnockerTable([sequence(1, 2, 3)], IGNORING, self.LIMIT)
        knockers.on_knock(ALICE, udp(1), 9, 0)
        knockers.on_knock(ALICE, udp(2), 9, 0)
        for number in range(10_000):
            knockers.on_knock(number.to_bytes(16, "big"), udp(1), 9, 1)
            assert len(knockers) <= self.LIMIT
        assert knockers.on_knock(ALICE, udp(3), 9, 2).verdict is C

    def test_wrong_newcomers_evict_no_knocker_with_right_knocks(self) -> None:
        knockers = KnockerTable([sequence(1, 2, 3)], IGNORING, self.LIMIT)
        for number in range(self.LIMIT):
            knockers.on_knock(number.to_bytes(16, "big"), udp(1), 9, 0)
        for number in range(1000):
            assert knockers.on_knock(number.to_bytes(4, "big"), udp(2), 9, 0).verdict is F
        assert knockers.on_knock((0).to_bytes(16, "big"), udp(2), 9, 0).verdict is A

    @pytest.mark.parametrize("known", [2, 3, 4])
    def test_flood_that_knows_part_of_sequence_leaves_room_for_full_knocker(self, known: int) -> None:
        knockers = KnockerTable([sequence(1, 2, 3, 4, 5)], IGNORING, self.LIMIT)
        opened = 0
        for number in range(2_000):
            if number % 100 < 5:
                opened += knockers.on_knock(ALICE, udp(1 + number % 100), 9, 0).verdict is C
            # Between two of Alice's knocks fewer come than a rank's share.
            for copy in range(self.LIMIT // 6):
                for port in range(1, known + 1):
                    knockers.on_knock((number * 100 + copy).to_bytes(16, "big"), udp(port), 9, 0)
            assert len(knockers) <= self.LIMIT
        assert opened == 20

    def test_full_table_evicts_the_oldest_of_equal_knockers(self) -> None:
        knockers = KnockerTable([sequence(1, 2)], IGNORING, 2)
        for source in (ALICE, BOB, b"\x01\x02\x03\x04"):
            knockers.on_knock(source, udp(1), 9, 0)
        assert knockers.on_knock(BOB, udp(2), 9, 0).verdict is C
        assert knockers.on_knock(ALICE, udp(2), 9, 0).verdict is F

    def test_full_table_rejects_newcomer_when_all_are_ahead(self) -> None:
        knockers = KnockerTable([sequence(1, 2, 3)], IGNORING, 1)
        knockers.on_knock(ALICE, udp(1), 9, 0)
        knockers.on_knock(ALICE, udp(2), 9, 0)
        assert knockers.on_knock(BOB, udp(1), 9, 0).verdict is A
        assert len(knockers) == 1
        assert knockers.on_knock(ALICE, udp(3), 9, 0).verdict is C


class TestExpiry:
    def test_expire_forgets_irrelevant_knockers_and_returns_next_time(self) -> None:
        knockers = KnockerTable([sequence(1, 2)], IGNORING, 100)
        assert knockers.next_deadline() is None
        knockers.on_knock(ALICE, udp(1), 9, 100)
        knockers.on_knock(BOB, udp(2), 9, 110)
        assert knockers.next_deadline() == 130
        assert (knockers.expire(129), len(knockers)) == (0, 2)
        assert (knockers.expire(130), len(knockers)) == (1, 1)
        assert knockers.next_deadline() == 140
        assert (knockers.expire(140), knockers.next_deadline()) == (1, None)

    def test_ignoring_period_longer_than_lifetime_is_not_cut_short(self) -> None:
        knockers = KnockerTable([sequence(1, 2, lifetime=1)], 60.0, 100)
        assert [knockers.on_knock(ALICE, udp(2), 9, 0).verdict for _ in range(2)] == [F, W]
        knockers.expire(59)
        assert knockers.on_knock(ALICE, udp(1), 9, 59).verdict is I

    def test_forgiven_knock_counts_until_its_period_is_over(self) -> None:
        knockers = KnockerTable([sequence(1, 2, lifetime=1)], 60.0, 100)
        assert knockers.on_knock(ALICE, udp(2), 9, 0).verdict is F
        knockers.expire(59)
        assert knockers.on_knock(ALICE, udp(2), 9, 59).verdict is W
        assert knockers.on_knock(BOB, udp(2), 9, 59).verdict is F
        assert knockers.on_knock(BOB, udp(2), 9, 179).verdict is F


PORTS = st.lists(st.integers(1, 4), min_size=2, max_size=6)
KNOCKS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.0, 4.75, 5.0, 29.75, 30.0]),  # seconds since the knock before
        st.sampled_from([ALICE, BOB]),
        st.integers(1, 5),
        st.integers(1, 2),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(PORTS, KNOCKS, st.integers(1, 3))
def test_table_stays_within_any_bound_and_its_ranks_agree(
    ports: list[int], knocks: list[tuple[float, bytes, int, int, bool]], limit: int
) -> None:
    knockers, now = KnockerTable([sequence(*ports)], IGNORING, limit), 1e6
    for number, (pause, source, port, packet_id, expire) in enumerate(knocks):
        now += pause
        if expire:
            knockers.expire(now)
        knockers.on_knock(source + bytes([number % 3]) * 12, udp(port), packet_id, now)
        assert len(knockers) <= limit
        deadline = knockers.next_deadline()
        assert (deadline is None) == (len(knockers) == 0)
        if deadline is not None and deadline <= now:
            assert knockers.expire(now) > 0
    assert knockers.expire(now + 1000) >= 0
    assert len(knockers) == 0


class TestStage:
    def test_stage_is_the_number_of_steps_done(self) -> None:
        one, other = sequence(1, 2, 3), sequence(7, 8, 9, name="other")
        knockers = KnockerTable([one, other], IGNORING, 100)
        stages = [knockers.stage(ALICE, one)]
        for port in (1, 2, 3):
            knockers.on_knock(ALICE, udp(port), 9, 1e6)
            stages.append(knockers.stage(ALICE, one))
            assert knockers.stage(ALICE, other) == 0
        assert stages == [0, 1, 2, 0]


MAIN, SIDE = sequence(1, 2, 3, name="a"), sequence(1, 2, 4, name="b")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((A, MAIN, 1), (A, SIDE, 2), (A, (SIDE,), 2)),
        ((A, MAIN, 2), (A, SIDE, 1), (A, (MAIN,), 2)),
        ((A, MAIN, 1), (A, SIDE, 1), (A, (MAIN,), 1)),
        ((C, MAIN, 2), (A, SIDE, 3), (C, (MAIN,), 2)),
        ((A, MAIN, 3), (C, SIDE, 2), (C, (SIDE,), 2)),
        ((C, MAIN, 2), (C, SIDE, 3), (C, (MAIN, SIDE), 3)),
    ],
)
def test_merged_outcome_is_the_complete_one_then_the_further_one(
    one: tuple[Verdict, Sequence, int],
    other: tuple[Verdict, Sequence, int],
    expected: tuple[Verdict, tuple[Sequence, ...], int],
) -> None:
    first, second = (
        Outcome.of(verdict, (about,), stage, ((about, stage),), (Grant(about.access, about),) if verdict is C else ())
        for verdict, about, stage in (one, other)
    )
    found = merged(first, second)
    assert found == Outcome(*expected)
    assert found.stages == ((MAIN, one[2]), (SIDE, other[2]))
    assert found.needs_action is (expected[0] is C)
    assert [grant.sequence for grant in found.grants] == [about for verdict, about, _ in (one, other) if verdict is C]
