"""The filter accepts what the interests name, and of the rest no more than it says."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.capture.bpf import MAX_INSTRUCTIONS, MAX_TARGETS, Interest, build, interests
from port_knocking_doors.capture.packet import parse
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.model import Address, Protocol, Step
from tests.helpers import frames
from tests.helpers.bpf_machine import Machine
from tests.helpers.frames import CLIENT6, OTHER4, OTHER6, TCP, UDP, Choose, Extension, Frame

SYN, ACK_OR_RST = 2, 20
UDP_PORT = Interest(Protocol.UDP, 1234, 1234)
SYN_PORT = Interest(Protocol.TCP, 543, 543, 63, SYN)
ANY_FLAGS = Interest(Protocol.TCP, 80, 90)
SOME = (UDP_PORT, SYN_PORT, ANY_FLAGS)

KNOCK = Frame(port=1234)
KNOCK6 = Frame(version=6, port=1234)
BARE_SYN = Frame(protocol=TCP, port=543, flags=SYN)
BARE_SYN6 = Frame(version=6, protocol=TCP, port=543, flags=SYN)


def accepts(program: bytes, frame: Frame) -> bool:
    packet = frame.packet()
    length = Machine(program).run(packet, frame.about)
    if length:
        # What is let through is all that is needed to read it, and not a byte of payload.
        assert length == frame.header + 20
        assert parse(packet, 0, min(length, len(packet))) == parse(packet, 0, len(packet))
    return length != 0


NOBODY4 = ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "224.0.0.1", "239.255.255.255", "255.255.255.255")
NOBODY6 = ("::", "::1", "::ffff:10.0.0.2", "::ffff:0.0.0.0", "ff02::1", "ffff::1")
SOMEBODY4 = ("1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "240.0.0.0", "255.255.255.254")
SOMEBODY6 = ("::2", "::10.0.0.2", "::fffe:10.0.0.2", "fe80::1", "feff::1", "0:0:1::", "0:0:1:0:0:ffff:a00:2")

ACCEPTED = {
    "udp": KNOCK,
    "udp over IPv6": KNOCK6,
    "a bare SYN": BARE_SYN,
    "a bare SYN over IPv6": BARE_SYN6,
    "a SYN with the bits of ECN": replace(BARE_SYN, flags=SYN | 0xC0),
    "any flags": replace(BARE_SYN, port=80, flags=0),
    "the last port of a range": replace(BARE_SYN, port=90, flags=63),
    "IPv4 options": replace(BARE_SYN, options=10),
    "a first fragment": replace(KNOCK, more=True),
    "one extension header": replace(KNOCK6, extensions=(Extension(frames.HOP_BY_HOP),)),
    "four extension headers": replace(
        BARE_SYN6,
        extensions=(
            Extension(frames.HOP_BY_HOP, 2),
            Extension(frames.ROUTING, 255),
            Extension(frames.FRAGMENT, 9, more=True),
            Extension(frames.DESTINATION),
        ),
    ),
    "priority-tagged": replace(KNOCK, tag=0xE000),
    "a payload of any length": replace(KNOCK, payload=1400),
    "nothing behind the UDP header": replace(KNOCK, cut=28),
    "from 127.0.0.1 on lo": replace(KNOCK, source=IPv4Address("127.0.0.1"), interface=1),
    "from ::1 on lo": replace(KNOCK6, source=IPv6Address("::1"), interface=1),
    **{f"from {one}": replace(KNOCK, source=IPv4Address(one)) for one in SOMEBODY4},
    **{f"from {one}": replace(KNOCK6, source=IPv6Address(one)) for one in SOMEBODY6},
}
REJECTED = {
    "another port": replace(KNOCK, port=1235),
    "another protocol": replace(KNOCK, protocol=TCP, flags=SYN),
    "ICMP": replace(KNOCK, protocol=frames.ICMP),
    "no flags": replace(BARE_SYN, flags=0),
    "SYN and ACK": replace(BARE_SYN, flags=18),
    "the port below a range": replace(BARE_SYN, port=79),
    "the port above a range": replace(BARE_SYN, port=91),
    "a later fragment": replace(KNOCK, place=1),
    "a much later fragment": replace(KNOCK, place=0x1000),
    "a later fragment of IPv6": replace(KNOCK6, extensions=(Extension(frames.FRAGMENT, place=1),)),
    "a much later fragment of IPv6": replace(KNOCK6, extensions=(Extension(frames.FRAGMENT, place=0x1000),)),
    "five extension headers": replace(KNOCK6, extensions=(Extension(frames.DESTINATION),) * 5),
    "an encrypted packet": replace(KNOCK6, extensions=(Extension(frames.AUTHENTICATION),)),
    "ends in the IP header": replace(KNOCK, cut=19),
    "ends in the ports": replace(KNOCK, cut=23),
    "ends in the UDP header": replace(KNOCK, cut=27),
    "ends in the TCP header": replace(BARE_SYN, port=80, cut=39),
    "ends in an extension header": replace(KNOCK6, extensions=(Extension(frames.ROUTING, 5),), cut=50),
    "a header shorter than a header": replace(KNOCK, claimed_words=4),
    "IPv6 that says it is IPv4": replace(KNOCK, ethertype=frames.IPV6),
    "ARP": replace(KNOCK, ethertype=frames.ARP),
    "a VLAN's": replace(KNOCK, tag=0xE005),
    "broadcast": replace(KNOCK, kind=frames.TO_ALL),
    "another host's": replace(KNOCK6, kind=frames.TO_OTHER),
    "outgoing": replace(KNOCK, kind=frames.OUTGOING),
    **{f"from {one}": replace(KNOCK, source=IPv4Address(one)) for one in NOBODY4},
    **{f"from {one}": replace(KNOCK6, source=IPv6Address(one)) for one in NOBODY6},
}


@pytest.mark.parametrize("frame", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(frame: Frame) -> None:
    assert accepts(build(SOME), frame)


@pytest.mark.parametrize("frame", REJECTED.values(), ids=REJECTED)
def test_rejects(frame: Frame) -> None:
    assert not accepts(build(SOME), frame)


def test_filter_without_interests_accepts_nothing() -> None:
    assert build([]) == struct.pack("=HBBI", 6, 0, 0, 0)


@pytest.mark.parametrize("frame", [KNOCK, KNOCK6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", [frames.TO_HOST, frames.TO_ALL, frames.TO_GROUP, frames.TO_OTHER, frames.OUTGOING])
def test_packet_to_target_is_accepted_unless_it_is_outgoing(frame: Frame, kind: int) -> None:
    program = build(SOME, [OTHER4, CLIENT6, OTHER6])
    to_target = replace(frame, kind=kind, destination=OTHER4 if frame.version == 4 else OTHER6)
    assert accepts(program, to_target) == (kind != frames.OUTGOING)
    assert accepts(program, replace(frame, kind=kind)) == (kind == frames.TO_HOST)


def test_too_many_targets_are_not_tested() -> None:
    targets = [IPv4Address(f"10.9.{number}.1") for number in range(MAX_TARGETS + 1)]
    other = replace(KNOCK, kind=frames.TO_OTHER)
    assert not accepts(build(SOME, targets[:-1]), other)
    assert accepts(build(SOME, targets[:-1]), replace(other, destination=targets[-2]))
    assert accepts(build(SOME, targets), other)
    assert not accepts(build(SOME, targets), replace(other, kind=frames.OUTGOING))


def test_overlapping_interests_test_what_they_have_in_common() -> None:
    no_connection = Interest(Protocol.TCP, 100, 300, ACK_OR_RST, 0)
    program = build(
        [Interest(Protocol.TCP, 200, 400, 63, SYN), no_connection, Interest(Protocol.TCP, 300, 300, 16, 16)]
    )

    def heard(port: int) -> set[int]:
        return {flags for flags in range(64) if accepts(program, replace(BARE_SYN, port=port, flags=flags))}

    no_ack_or_rst = {flags for flags in range(64) if not flags & ACK_OR_RST}
    assert heard(199) == heard(200) == heard(299) == no_ack_or_rst
    assert heard(300) == set(range(64))
    assert heard(301) == heard(400) == {SYN}
    assert heard(99) == heard(401) == set()


def test_adjacent_ports_are_one_range() -> None:
    one_by_one = [Interest(Protocol.UDP, port, port) for port in range(65536)]
    assert build(one_by_one) == build([Interest(Protocol.UDP, 0, 65535)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 2, "last": 1},
        {"first": -1},
        {"last": 65536},
        {"mask": 64},
        {"mask": 2, "value": 3},
        {"protocol": Protocol.UDP, "mask": 2},
    ],
    ids=str,
)
def test_impossible_interest_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Interest(**{"protocol": Protocol.TCP, "first": 1, "last": 1, **wrong})


# --- against an obvious predicate

PORTS = range(40)
FLAG_TESTS = ((0, 0), (63, SYN), (ACK_OR_RST, 0), (1, 1))


def any_interests(choose: Choose) -> list[Interest]:
    found = []
    for _ in range(choose(range(1, 12))):
        protocol = choose((Protocol.UDP, Protocol.TCP))
        first = choose(PORTS)
        last = min(PORTS[-1], first + choose((0, 0, 0, 1, 5)))
        found.append(Interest(protocol, first, last, *choose(FLAG_TESTS if protocol is Protocol.TCP else ((0, 0),))))
    return found


def check_against_the_predicate(choose: Choose, count: int) -> None:
    """Some filter, and `count` frames of all kinds."""
    asked = any_interests(choose)
    targets: tuple[Address, ...] = choose(((), (OTHER4,), (OTHER4, OTHER6)))
    program = build(asked, targets)
    for _ in range(count):
        frame = frames.any_frame(choose, PORTS)
        accepted = accepts(program, frame)
        on_port = frames.on_its_port(frame, asked)
        if (
            not frames.is_honest(frame)
            or not frames.arrives(frame, targets)
            or not frames.readable(frame)
            or not on_port
        ):
            assert not accepted, frame
        elif frames.named(frame, asked):
            assert accepted, frame
        elif len({(one.mask, one.value) for one in on_port}) == 1:
            assert not accepted, frame


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_filter_agrees_with_obvious_predicate(data: st.DataObject) -> None:
    check_against_the_predicate(lambda options: data.draw(st.sampled_from(options)), 3)


def test_filter_agrees_with_obvious_predicate_on_many_frames() -> None:
    choose = Random(4).choice
    for _ in range(200):
        check_against_the_predicate(choose, 50)


# --- large programs


def many(sequences: int, traps: int, random: Random) -> list[Interest]:
    """Sequences of two UDP and two TCP steps each, and traps of each protocol, spread over all ports."""
    ports = {protocol: random.sample(range(65536), 2 * sequences + traps) for protocol in Protocol}
    tests = [(63, SYN), (ACK_OR_RST, 0), (0, 0), (63, 41)]
    return [
        Interest(protocol, port, port, *(random.choice(tests) if number < 2 * sequences else (63, SYN)))
        if protocol is Protocol.TCP
        else Interest(protocol, port, port)
        for protocol, row in ports.items()
        for number, port in enumerate(row)
    ]


def verdicts(program: bytes, asked: list[Interest]) -> tuple[int, int]:
    """Of a packet to each port, how many that were asked for are accepted, and how many others."""
    machine = Machine(program)
    by_port = {(one.protocol, one.first): one for one in asked}
    right = wrong = 0
    for protocol, frame in ((Protocol.UDP, KNOCK), (Protocol.TCP, BARE_SYN)):
        packet = bytearray(frame.packet())
        for port in range(65536):
            packet[22:24] = port.to_bytes(2, "big")
            one = by_port.get((protocol, port))
            flags = 0
            if protocol is Protocol.TCP:
                flags = packet[33] = one.value if one and port % 2 else port % 64
            wanted = one is not None and flags & one.mask == one.value
            accepted = machine.run(packet, frame.about) != 0
            assert accepted or not wanted
            right += wanted
            wrong += accepted and not wanted
    return right, wrong


def test_hundreds_of_sequences_with_their_traps_fit_exactly() -> None:
    asked = many(300, 512, Random(1))
    program = build(asked)
    assert len(program) <= MAX_INSTRUCTIONS * 8
    right, wrong = verdicts(program, asked)
    assert right > 1700
    assert wrong == 0


@pytest.mark.parametrize(("sequences", "most_besides"), [(500, 1000), (900, 40000)])
def test_more_ranges_than_fit_are_joined_with_their_neighbours(sequences: int, most_besides: int) -> None:
    asked = many(sequences, 512, Random(2))
    program = build(asked)
    assert MAX_INSTRUCTIONS - 40 < len(program) // 8 <= MAX_INSTRUCTIONS
    right, wrong = verdicts(program, asked)
    assert right > len(asked) * 0.8
    assert 0 < wrong < most_besides


def test_neighbours_with_other_flags_are_joined_last() -> None:
    odd = [Interest(Protocol.TCP, port, port, 63, SYN) for port in range(1, 2000, 2)]
    program = build([*odd, Interest(Protocol.TCP, 1000, 1000)], limit=200)
    assert accepts(program, replace(BARE_SYN, port=1000, flags=16))
    assert accepts(program, replace(BARE_SYN, port=500))
    assert not any(accepts(program, replace(BARE_SYN, port=port, flags=16)) for port in (999, 1001))


def test_largest_possible_filter_fits() -> None:
    targets: list[Address] = [OTHER4, *[OTHER6] * (MAX_TARGETS - 1)]
    spread = [Interest(protocol, port, port) for protocol in Protocol for port in range(0, 65536, 7)]
    program = build(spread, targets)
    assert len(program) <= MAX_INSTRUCTIONS * 8
    to_target = replace(KNOCK6, port=65534, kind=frames.TO_OTHER, destination=OTHER6)
    assert accepts(program, to_target)
    assert not accepts(program, replace(to_target, destination=frames.CLIENT6))


def test_limit_below_any_program_is_refused() -> None:
    with pytest.raises(ValueError, match="expected enough"):
        build(SOME, limit=50)


def test_packet_takes_few_instructions() -> None:
    machine = Machine(build(many(300, 512, Random(3))))
    plain = [
        Frame(version, protocol, port, flags=SYN)
        for version in (4, 6)
        for protocol in (UDP, TCP)
        for port in range(0, 65536, 97)
    ]
    assert max(machine.trace(frame.packet(), frame.about)[1] for frame in plain) < 55


def test_interests_are_one_for_each_port_with_the_flags_that_agree() -> None:
    codes = [
        code_of(step)
        for step in (
            Step(Protocol.UDP, 7),
            Step(Protocol.TCP, 7, SYN),
            Step(Protocol.TCP, 8, SYN),
            Step(Protocol.TCP, 8, SYN | ACK_OR_RST),
        )
    ]
    assert set(interests(codes)) == {
        Interest(Protocol.UDP, 7, 7),
        Interest(Protocol.TCP, 7, 7, 63, SYN),
        Interest(Protocol.TCP, 8, 8, 63 & ~ACK_OR_RST, SYN),
    }
    assert list(interests(())) == []


def test_neighbours_with_the_smaller_gap_are_joined_first() -> None:
    asked = [Interest(Protocol.UDP, 10, 19), Interest(Protocol.UDP, 21, 21), Interest(Protocol.UDP, 30, 30)]
    asked.append(Interest(Protocol.UDP, 33, 33))
    room = len(build(asked)) // 8 - 1
    program = build(asked, limit=room)
    passed = [port for port in range(1, 50) if accepts(program, replace(KNOCK, port=port))]
    assert passed == [*range(10, 22), 30, 33]
