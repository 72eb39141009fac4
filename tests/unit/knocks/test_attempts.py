"""Packets that come once more: sent again by TCP, doubled by the network, or of a client's second connection."""

import pytest

from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import Flags, Protocol, Sequence, Step

ALICE = b"\x0a\x00\x00\x02"
LIFETIME, IGNORING = 30.0, 5.0
STARTS = (0.0, 1e6)
"""A monotonic clock counts from the machine's start, which may be long ago."""

R, F, W, A, C = (
    Verdict.REPEATED,
    Verdict.FORGIVEN,
    Verdict.WRONG,
    Verdict.ADVANCED,
    Verdict.COMPLETE,
)

# Each case: what is knocked, as (seconds, port, packet id), and how each knock is judged.
EQUAL_STEPS: dict[str, tuple[str, list[tuple[float, int, int]], list[Verdict]]] = {
    "doubled datagrams": ("uuv", [(0, 1, 9), (0.049, 1, 9), (0.1, 1, 9), (0.149, 1, 9), (0.2, 2, 9)], [A, R, A, R, C]),
    "datagrams from one source port": ("uuv", [(0, 1, 9), (0.051, 1, 9), (0.052, 2, 9)], [A, A, C]),
    "datagrams from two source ports": ("uuv", [(0, 1, 9), (0, 1, 8), (0, 2, 9)], [A, A, C]),
    "a datagram that is late": ("uvu", [(0, 1, 9), (0.02, 2, 9), (0.049, 1, 9), (0.051, 1, 9)], [A, A, R, C]),
    "a datagram that is late, from another port": ("uvu", [(0, 1, 9), (0.02, 2, 9), (0.03, 1, 8)], [A, A, C]),
    "a SYN that TCP sends again": ("ttt", [(0, 1, 9), (1, 1, 9), (3, 1, 9), (7, 1, 9)], [A, R, R, R]),
    "three SYNs": ("ttt", [(0, 1, 7), (1, 1, 8), (1, 1, 7), (1, 1, 8), (3, 1, 9)], [A, A, R, R, C]),
    "doubled SYNs": ("ttT", [(0, 1, 7), (0, 1, 7), (1, 1, 8), (1, 1, 8), (1, 2, 9)], [A, R, A, R, C]),
    "a SYN of one step, again after the end": ("t", [(0, 1, 7), (1, 1, 7), (3, 1, 8), (4, 1, 8)], [C, R, C, R]),
    "a datagram of one step, again after the end": ("u", [(0, 1, 7), (0.049, 1, 7), (0.051, 1, 7)], [C, R, C]),
    "the end again, where it is the first step": (
        "uvu",
        [(0, 1, 7), (0, 2, 7), (0.1, 1, 7), (0.149, 1, 7)],
        [A, A, C, R],
    ),
}
STEPS = {
    **{letter: Step(Protocol.UDP, port) for letter, port in (("u", 1), ("v", 2))},
    **{letter: Step(Protocol.TCP, port, Flags.SYN) for letter, port in (("t", 1), ("T", 2), ("S", 3))},
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("steps", "knocks", "verdicts"), EQUAL_STEPS.values(), ids=EQUAL_STEPS)
def test_packet_once_more_is_no_knock_though_the_next_step_is_equal(
    start: float, steps: str, knocks: list[tuple[float, int, int]], verdicts: list[Verdict]
) -> None:
    one = Sequence("one", tuple(STEPS[letter] for letter in steps), lifetime=LIFETIME)
    knockers = KnockerTable([one], IGNORING, 100)
    codes = {port: code_of(step) for port, step in ((step.port, step) for step in one.steps)}
    found = [knockers.on_knock(ALICE, codes[port], packet_id, start + now).verdict for now, port, packet_id in knocks]
    assert found == verdicts


CONNECTIONS: dict[str, tuple[list[tuple[float, int, int]], list[Verdict]]] = {
    "each SYN again after the next": (
        [(0, 1, 1), (0.5, 2, 2), (1, 1, 1), (1.5, 2, 2), (1.6, 3, 3), (3, 1, 1), (3.5, 2, 2), (3.6, 3, 3)],
        [A, A, R, R, C, R, R, R],
    ),
    "two connections to each port": (
        [(0, 1, 1), (0, 1, 2), (0.5, 2, 3), (0.5, 2, 4), (1, 3, 5), (1, 3, 6)],
        [A, R, A, R, C, R],
    ),
    "two connections to each port, whose SYNs come again": (
        [(0, 1, 1), (0, 1, 2), (0.5, 2, 3), (0.5, 2, 4), (1, 1, 1), (1, 1, 2), (1.5, 2, 3), (1.5, 2, 4), (2, 3, 5)],
        [A, R, A, R, R, R, R, R, C],
    ),
    "a new SYN to the port before": ([(0, 1, 1), (0.5, 2, 2), (1, 1, 3)], [A, A, A]),
    "a new SYN to another step's port": ([(0, 1, 1), (0.5, 3, 2)], [A, F]),
    "lost second packet, all SYNs come again during the second try": (
        [
            (0, 1, 1),
            (1, 1, 1),
            (1.8, 3, 3),
            (1.9, 2, 2),
            (2.8, 3, 3),
            (3, 1, 1),
            (4, 1, 4),
            (4.1, 2, 2),
            (5, 2, 5),
            (5.1, 1, 4),
            (5.8, 3, 3),
            (6, 3, 6),
        ],
        [A, R, F, F, R, R, A, R, A, R, R, C],
    ),
    "lost first packet, the SYNs come again": (
        [(0.9, 2, 2), (1.8, 3, 3), (1.9, 2, 2), (2.8, 3, 3), (3, 1, 4), (3.9, 2, 5), (4.8, 3, 6)],
        [F, F, R, R, A, A, C],
    ),
}


@pytest.mark.parametrize(("knocks", "verdicts"), CONNECTIONS.values(), ids=CONNECTIONS)
def test_connections_of_clients_are_judged(knocks: list[tuple[float, int, int]], verdicts: list[Verdict]) -> None:
    one = Sequence("one", tuple(STEPS[letter] for letter in "tTS"), timeout=10.0)
    knockers = KnockerTable([one], IGNORING, 100)
    codes = {step.port: code_of(step) for step in one.steps}
    found = [knockers.on_knock(ALICE, codes[port], packet_id, 1e6 + now).verdict for now, port, packet_id in knocks]
    assert found == verdicts


def test_second_packet_with_other_flags_to_the_port_just_accepted_is_wrong() -> None:
    steps = (Step(Protocol.TCP, 1, Flags.FIN), Step(Protocol.TCP, 2, Flags.FIN))
    knockers = KnockerTable([Sequence("one", steps, timeout=10.0)], IGNORING, 100)
    codes = [code_of(step) for step in steps]
    verdicts = [knockers.on_knock(ALICE, code, number, 0).verdict for number, code in enumerate((codes[0], codes[0]))]
    assert verdicts == [A, A], "it begins again, and that counts as a wrong knock"
    assert [knockers.on_knock(ALICE, codes[1], 5, 0).verdict, knockers.on_knock(ALICE, codes[1], 6, 0).verdict] == [
        C,
        W,
    ]
