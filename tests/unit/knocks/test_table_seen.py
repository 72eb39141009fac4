"""A look into the table of knockers: who is how far, who is ignored, and being forgotten."""

import time

from port_knocking_doors.knocks.authenticator import KnockerView, Verdict
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import Protocol, Sequence, Step

PORTS = (7, 3, 9, 5)
ONE = Sequence("one", tuple(Step(Protocol.UDP, port) for port in PORTS), lifetime=30.0)
TWO = Sequence("two", tuple(Step(Protocol.UDP, port) for port in (107, 103, 109)), lifetime=5.0)
A, B, C, D = (bytes([10, 0, 0, number]) for number in range(4))


def table(limit: int = 100) -> KnockerTable:
    return KnockerTable([ONE, TWO], ignoring_period=8.0, limit=limit)


def knock(knockers: KnockerTable, source: bytes, ports: tuple[int, ...], now: float) -> Verdict:
    for port in ports:
        verdict = knockers.on_knock(source, code_of(Step(Protocol.UDP, port)), 1000 + port, now).verdict
    return verdict


def test_view_has_the_furthest_first_and_then_the_ignored() -> None:
    knockers = table()
    assert knock(knockers, A, (7,), 1.0) is Verdict.ADVANCED
    assert knock(knockers, B, (7, 3, 9), 2.0) is Verdict.ADVANCED
    assert knock(knockers, C, (7, 5, 5, 5, 5), 3.0) is Verdict.WRONG
    assert knock(knockers, D, (7,), 4.0) is Verdict.ADVANCED
    assert knockers.view(5.0, 10) == [
        KnockerView(B, ((ONE, 3),), 0.0, 3.0),
        KnockerView(D, ((ONE, 1),), 0.0, 1.0),
        KnockerView(A, ((ONE, 1),), 0.0, 4.0),
        KnockerView(C, (), 6.0, 2.0),
    ]
    assert [seen.source for seen in knockers.view(5.0, 2)] == [B, D]
    assert knockers.counts(5.0).ignored == 1
    assert knockers.counts(11.0).ignored == 0


def test_view_leaves_out_what_has_lapsed_or_is_complete() -> None:
    knockers = table()
    knock(knockers, A, (107, 103), 0.0)
    knock(knockers, B, (7, 3, 9, 5), 0.0)
    assert [seen.source for seen in knockers.view(4.0, 10)] == [A]
    assert knockers.view(5.0, 10) == []
    assert len(knockers) == 2


def test_view_changes_nothing() -> None:
    knockers = table()
    knock(knockers, A, (7,), 0.0)
    knockers.view(1.0, 10)
    knockers.counts(1.0)
    assert knock(knockers, A, (3, 9, 5), 2.0) is Verdict.COMPLETE


def test_forgotten_source_is_not_ignored_and_begins_again() -> None:
    knockers = table()
    knock(knockers, A, (7, 5, 5, 5, 5), 0.0)
    knock(knockers, B, (7,), 0.0)
    knock(knockers, C, (7, 3), 0.0)
    assert knock(knockers, A, (7,), 1.0) is Verdict.IGNORED
    assert [knockers.forget(source) for source in (A, B, C, D, A)] == [True, True, True, False, False]
    assert len(knockers) == 0
    assert knock(knockers, A, PORTS, 1.0) is Verdict.COMPLETE
    assert knock(knockers, C, (9,), 1.0) is Verdict.FORGIVEN
    assert knockers.expire(1000.0) == 2


def test_view_of_a_full_table_takes_less_than_a_second() -> None:
    knockers = table(limit=65536)
    for number in range(65536):
        knock(knockers, number.to_bytes(4, "big"), (107,), 0.0)  # lapses soon, and is remembered for longer
    started = time.process_time()
    assert knockers.view(6.0, 100) == []
    assert knockers.counts(6.0).ignored == 0
    assert time.process_time() - started < 1.0
