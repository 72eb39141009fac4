"""Which sources are forgotten when there are too many."""

from types import SimpleNamespace
from typing import Any

import pytest

from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.knocks.ranks import Knocker, Ranks
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.knocks.wrong_knocks import WrongKnockLimit
from port_knocking_doors.model import Protocol, Sequence, Step

STEPS = tuple(Step(Protocol.UDP, port) for port in (1, 2, 3))
ONE = Sequence("one", STEPS, lifetime=30.0)
START = 1e6


def source(number: int) -> bytes:
    return bytes([10, 0, 0, number])


def knock(table: KnockerTable, number: int, *ports: int, now: float = START) -> Verdict:
    verdict = Verdict.NOT_A_KNOCK
    for port in ports:
        verdict = table.on_knock(source(number), code_of(Step(Protocol.UDP, port)), 9, now).verdict
    return verdict


@pytest.mark.parametrize(("limit", "count", "share"), [(40, 5, 10), (40, 2, 40), (41, 5, 10), (2, 5, 1), (1, 2, 1)])
def test_ranks_above_the_lowest_share_the_limit(limit: int, count: int, share: int) -> None:
    assert Ranks(limit, count, WrongKnockLimit(5.0, 3)).share == share


@pytest.mark.parametrize(
    ("before", "newcomer", "forgotten"),
    [
        ([(1,), (3,), (1,), (1,)], (1,), 1),  # the wrong one, though a newcomer is older
        ([(1,), (3,), (3,), (1,)], (3,), 1),  # the older of two wrong ones
        ([(1, 2), (1, 2), (1, 2), (1,)], (1,), 0),  # the oldest of the rank above its share
        ([(1, 2), (1, 2), (1,), (1,)], (1,), 2),  # the oldest newcomer, of a rank that has its share
        ([(1,), (1, 2), (1,), (1,)], (1,), 0),
        ([(1, 2), (1, 2), (1,), (1,)], (3,), None),  # a wrong one pushes out no source
    ],
)
def test_full_table_forgets(before: list[tuple[int, ...]], newcomer: tuple[int, ...], forgotten: int | None) -> None:
    table = KnockerTable([ONE], 5.0, 4)
    for number, ports in enumerate(before):
        knock(table, number, *ports)
    knock(table, 9, *newcomer)
    assert len(table) == 4
    known = [number for number in (*range(4), 9) if table.forget(source(number))]
    assert known == [number for number in (*range(4), 9) if number != (9 if forgotten is None else forgotten)]


def test_wrong_source_is_ignored_again_after_its_period() -> None:
    table = KnockerTable([ONE], 5.0, 4)
    assert knock(table, 1, 3, 3) is Verdict.FORGIVEN
    assert knock(table, 1, 3) is Verdict.WRONG
    assert knock(table, 1, 1, now=START + 4.9) is Verdict.IGNORED
    assert knock(table, 1, 3, now=START + 5) is Verdict.WRONG
    assert knock(table, 1, 1, now=START + 9.9) is Verdict.IGNORED
    assert knock(table, 1, 1, 2, 3, now=START + 10) is Verdict.COMPLETE
    assert len(table) == 1


def test_counts_and_deadline_include_sources_in_the_short_form() -> None:
    table = KnockerTable([ONE], 5.0, 100)
    knock(table, 1, 3)
    knock(table, 2, 3, 3, 3, now=START + 2)
    knock(table, 3, 1, now=START + 3)
    assert table.counts(START + 6.9) == (3, 1)
    assert table.counts(START + 7) == (3, 0)
    assert table.next_deadline() == START + 30
    assert (table.expire(START + 32), table.counts(START + 32)) == (2, (1, 0))


def test_source_without_an_attempt_pushes_out_none_that_has_one() -> None:
    ranks = Ranks(1, 2, WrongKnockLimit(5.0, 3))
    prefix: Any = SimpleNamespace(depth=1, mask=1, span=30.0)
    ranks.newcomers[source(1)] = (prefix, START, 7)
    ranks.file(source(2), Knocker((), START, 0, START))
    ranks.file_wrong(source(3), START)
    assert (len(ranks), list(ranks.newcomers)) == (1, [source(1)])


def test_newcomer_without_a_recent_knock_is_not_shown() -> None:
    table = KnockerTable([ONE], 5.0, 4)
    knock(table, 1, 1)
    assert [view.source for view in table.view(START + 1, 9)] == [source(1)]
    assert table.view(START + 1e6, 9) == []
