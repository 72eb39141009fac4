"""The table agrees with a slow, obvious model: any sequences of all dialects, any packets, any pauses."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import Dialect, Flags, Protocol, Sequence, Step
from tests.helpers.knock_model import KnockModel

S, F, A = int(Flags.SYN), int(Flags.FIN), int(Flags.ACK)
PORTS = (1, 2, 3)
SOURCES = (b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03")
PAUSES = (0.0, 0.0, 0.0, 0.03, 0.06, 0.25, 1.0, 2.0, 4.75, 9.0)
PERIOD = 2.0


def any_step(choose: Random, dialect: Dialect, flags: tuple[int, int], datagrams: float) -> Step:
    port = choose.choice(PORTS)
    if choose.random() < datagrams:
        return Step(Protocol.UDP, port)
    if dialect is Dialect.KNOCKD:
        return Step(Protocol.TCP, port, flags[1], flags[0])
    if dialect is Dialect.TPORTKNOCKD:
        return Step(Protocol.TCP, port, *choose.choice(((S, 63), (0, 0), (F, 63), (S, S))))
    return Step(Protocol.TCP, port, choose.choice((S, S, S, F)))


def any_sequences(choose: Random) -> list[Sequence]:
    """Up to six, many of which begin as another one does."""
    found: list[Sequence] = []
    kinds = choose.choice(([Dialect.NATIVE], [Dialect.NATIVE], [Dialect.KNOCKD], list(Dialect)))
    datagrams = choose.choice((0.1, 0.5, 1.0))
    for number in range(choose.randint(1, 6)):
        dialect = choose.choice(kinds)
        flags = choose.choice(((0, 0), (S, S), (S | A, S))) if dialect is Dialect.KNOCKD else (0, 0)
        steps = [any_step(choose, dialect, flags, datagrams) for _ in range(choose.randint(1, 4))]
        alike = [one for one in found if (one.dialect, one.flags) == (dialect, flags)]
        if alike and choose.random() < 0.6:
            of = choose.choice(alike).steps
            count = choose.randint(1, len(of))
            steps[:count] = of[:count]
        lifetime, timeout = choose.choice(((float("inf"), 10.0), (float("inf"), 10.0), (4.0, float("inf"))))
        group = choose.choice("fg") if dialect is Dialect.KNOCKD else ""
        found.append(
            Sequence(
                f"s{number}",
                tuple(steps),
                lifetime=lifetime,
                timeout=timeout,
                dialect=dialect,
                group=group,
                flags=flags,
            )
        )
    return found


def any_packet(choose: Random, sequences: list[Sequence], expected: dict[bytes, int]) -> tuple[bytes, int, int]:
    """Often the next one of a source that goes through a sequence."""
    source = choose.choice(SOURCES)
    if choose.random() < 0.7:
        one = choose.choice(sequences[:2])
        place = expected.get(source, 0) % len(one.steps)
        if choose.random() < 0.8:
            expected[source] = place + 1
        step = one.steps[place]
        code = code_of(step)
    else:
        flags = choose.choice((S, S, F, A, 0))
        protocol = choose.choice((Protocol.TCP, Protocol.UDP))
        code = code_of(Step(protocol, choose.choice((*PORTS, 4)), flags if protocol is Protocol.TCP else 0))
    return source, code, choose.choice((1, 1, 2))


def compare(seed: int, seen: Counter[Verdict]) -> None:
    choose = Random(seed)
    sequences = any_sequences(choose)
    table, model = KnockerTable(sequences, PERIOD, 100), KnockModel(sequences, PERIOD)
    now, expected = 1e6 + choose.choice((0.0, 0.3)), dict[bytes, int]()
    story = []
    only_datagrams = all(step.protocol is Protocol.UDP for one in sequences for step in one.steps)
    for _ in range(40):
        now += choose.choice(PAUSES)
        source, code, packet_id = any_packet(choose, sequences, expected)
        if choose.random() < 0.1 and only_datagrams:  # of TCP it forgets strays
            table.expire(now)
        outcome = table.on_knock(source, code, packet_id, now)
        verdict, moved = model.on_knock(source, code, packet_id, now)
        story.append((now - 1e6, source[-1], hex(code), packet_id, verdict, outcome.verdict))
        found = outcome.verdict
        if verdict is Verdict.NOT_A_KNOCK and found is Verdict.IGNORED:
            found = verdict
        assert (found, dict(outcome.stages)) == (verdict, moved), (
            seed,
            sequences,
            [one.steps for one in sequences],
            story,
        )
        seen[verdict] += 1


def test_table_agrees_with_model_on_many_packets() -> None:
    seen: Counter[Verdict] = Counter()
    for seed in range(1000):
        compare(seed, seen)
    assert min(seen[verdict] for verdict in Verdict) > 100, seen


@settings(max_examples=300, deadline=None)
@given(st.integers(3000, 10**9))
def test_table_agrees_with_model(seed: int) -> None:
    compare(seed, Counter())
