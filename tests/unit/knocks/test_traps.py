"""Traps, and what a scan of all ports comes to."""

from collections.abc import Callable
from ipaddress import IPv4Address
from math import factorial
from random import Random

import pytest

from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import code_of, port_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.knocks.traps import choose_traps
from port_knocking_doors.model import PORT_MAX, Flags, Port, Protocol, Sequence, Step

OUTGOING = range(32768, 61000)
SCANNER = b"\x0a\x00\x00\x63"


def syn(*ports: int, traps: int = 512, timeout: float = 10.0, name: str = "ssh") -> Sequence:
    steps = tuple(Step(Protocol.TCP, port, Flags.SYN) for port in ports)
    return Sequence(name, steps, traps=traps, timeout=timeout)


def udp(*ports: int, traps: int = 512) -> Sequence:
    return Sequence("ssh", tuple(Step(Protocol.UDP, port) for port in ports), traps=traps, timeout=10.0)


def test_sequence_gets_its_number_of_traps_for_each_protocol() -> None:
    mixed = Sequence("mixed", (Step(Protocol.UDP, 1000), Step(Protocol.TCP, 2000, Flags.SYN)), traps=300)
    few, none = syn(3000, 4000, 5000, traps=7, name="few"), syn(6000, 7000, 8000, traps=0, name="none")
    traps = choose_traps([mixed, few, none], (), OUTGOING, Random(1))
    assert sum(mixed in of for code, of in traps.items() if code >> 16 & 0xFF == 17) == 300
    assert sum(mixed in of for code, of in traps.items() if code >> 16 & 0xFF == 6) == 300
    assert sum(few in of for of in traps.values()) == 7
    assert not any(none in of for of in traps.values())


def test_trap_is_no_step_no_served_port_and_no_ephemeral_port() -> None:
    served = [Port(number) for number in range(1, 1024)] + [Port(53, Protocol.UDP)]
    sequences = [syn(7000, 8000, 9000), udp(5000, 6000, 4000)]
    traps = choose_traps(sequences, served, OUTGOING, Random(1))
    steps = {code_of(step) for sequence in sequences for step in sequence.steps}
    for code in traps:
        port, is_udp = code & 0xFFFF, code >> 16 & 0xFF == 17
        assert code not in steps
        assert Port(port, Protocol.UDP if is_udp else Protocol.TCP) not in served
        assert not (is_udp and port in OUTGOING)
        assert code >> 24 == (0 if is_udp else Flags.SYN)


def test_traps_are_beside_and_between_the_steps() -> None:
    ports = {code & 0xFFFF for code in choose_traps([syn(7000, 8000, 7002, traps=8)], (), OUTGOING, Random(1))}
    assert {6999, 7001, 7003, 7999, 8001} <= ports
    assert any(7100 < port < 7900 for port in ports)


ORDERS: dict[str, Callable[[list[int]], None]] = {"ascending": list.sort, "descending": list.reverse}
SEQUENCES = {
    "in no order": syn(7000, 9000, 8000),
    "sorted": syn(7000, 8000, 9000),
    "sorted, falling": syn(9000, 8000, 7000),
    "with a time limit of a day": syn(7000, 8000, 9000, timeout=86400),
    "close together": syn(7000, 7002, 7004),
    "at the edges": syn(1, 32768, 65535),
    "UDP": udp(7000, 8000, 9000),
}


def scan(sequence: Sequence, ports: list[int], seed: int) -> int:
    """How many doors one scan opens, at 10,000 ports a second."""
    knockers = KnockerTable([sequence], 5.0, 100, choose_traps([sequence], (), OUTGOING, Random(seed)))
    first = sequence.steps[0]
    base, opened = code_of(Step(first.protocol, 0, first.flags)), 0
    for number, port in enumerate(ports):
        opened += knockers.on_knock(SCANNER, base + port, 40000, number / 10_000).verdict is Verdict.COMPLETE
    return opened


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES.keys())
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_scan_in_order_opens_no_door(sequence: Sequence, order: Callable[[list[int]], None]) -> None:
    ports = list(range(1, PORT_MAX + 1))
    order(ports)
    assert scan(sequence, ports, seed=1) == 0


def test_scan_in_order_without_traps_opens_sorted_sequence() -> None:
    """So the tests above can fail."""
    assert scan(syn(7000, 8000, 9000, traps=0), list(range(1, PORT_MAX + 1)), seed=1) == 1


@pytest.mark.parametrize("sequence", [syn(7000, 8000, 9000, timeout=86400), syn(31000, 7000, 52000, timeout=86400)])
def test_thousand_scans_in_random_order_open_no_door(sequence: Sequence) -> None:
    random = Random(20261120)
    traps = choose_traps([sequence], (), OUTGOING, Random(7))
    knockers = KnockerTable([sequence], 0.0, 100, traps)  # not even ignored for a while: the traps alone
    base = code_of(Step(Protocol.TCP, 0, Flags.SYN))
    # What neither is a step nor a trap is no knock and changes nothing: the order of the others is all that matters.
    codes = [code for code in (base + port for port in range(1, PORT_MAX + 1)) if _matters(code, sequence, traps)]
    for _ in range(1000):
        random.shuffle(codes)
        for number, code in enumerate(codes):
            assert knockers.on_knock(SCANNER, code, 40000, number / 10_000).verdict is not Verdict.COMPLETE


def _matters(code: int, sequence: Sequence, traps: dict[int, frozenset[Sequence]]) -> bool:
    return code in traps or code in {code_of(step) for step in sequence.steps}


def test_remaining_chance_is_as_calculated() -> None:
    """Few traps, so that it happens often enough to be counted."""
    traps, steps, tries = 4, 3, 20_000
    random = Random(3)
    sequence = syn(7000, 8000, 9000, traps=traps)
    laid = choose_traps([sequence], (), OUTGOING, Random(1))
    codes = [*laid, *(code_of(step) for step in sequence.steps)]
    knockers = KnockerTable([sequence], 0.0, 10, laid)
    opened = 0
    for attempt in range(tries):
        random.shuffle(codes)
        scanner = IPv4Address(attempt).packed
        opened += any(knockers.on_knock(scanner, code, 1, 0.0).verdict is Verdict.COMPLETE for code in codes)
    expected = factorial(traps + 1) / factorial(traps + steps)
    assert opened / tries == pytest.approx(expected, rel=0.2)


def test_default_keeps_three_steps_below_one_in_250_000() -> None:
    assert factorial(512 + 1) / factorial(512 + 3) < 1 / 250_000


EDGES = {
    "as few as the neighbours": (syn(7000, 9000, 8000, traps=3), 3, set()),
    "the lowest port": (syn(1, 9000, 8000, traps=16), 16, {2, 7999, 8001}),
    "the highest port": (syn(65535, 9000, 8000, traps=16), 16, {65534}),
    "beside the highest port": (syn(65534, 9000, 8000, traps=16), 16, {65533, 65535}),
    "all ports but one": (syn(2, 3, 4, traps=65532), 65532, {1, 5, 65535}),
}


@pytest.mark.parametrize(("sequence", "count", "among"), EDGES.values(), ids=EDGES)
def test_traps_at_the_edges(sequence: Sequence, count: int, among: set[int]) -> None:
    ports = {port_of(code) for code in choose_traps([sequence], (), OUTGOING, Random(1))}
    assert len(ports) == count
    assert among <= ports
    assert min(ports) >= 1


def test_spread_leaves_no_part_of_the_ports_out_every_time() -> None:
    """The neighbours take the place of some that are spread: not always of the highest."""
    sequence = syn(7000, 9000, 8000, traps=64)
    highest = [
        max(port_of(code) for code in choose_traps([sequence], (), OUTGOING, Random(seed))) for seed in range(20)
    ]
    assert max(highest) > 64_500
