"""What is sent for a step: the method, the flags, and a valid TCP header."""

import struct
from ipaddress import ip_address
from itertools import product

import pytest

from port_knocking_doors.capture.packet import parse
from port_knocking_doors.client.packets import SendMethod, checksum, flags, segment, send_method
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.model import ALL_FLAGS, Address, Flags, Protocol, Step
from tests.helpers.frames import CLIENT4, CLIENT6, SERVER4, SERVER6

F, S, R, P, A, U = Flags.FIN, Flags.SYN, Flags.RST, Flags.PSH, Flags.ACK, Flags.URG


def tcp(flags: int, mask: int = ALL_FLAGS) -> Step:
    return Step(Protocol.TCP, 7000, flags, mask)


SENT = {
    "a datagram": (Step(Protocol.UDP, 7000), SendMethod.DATAGRAM, 0),
    "a bare SYN": (tcp(S), SendMethod.CONNECT, S),
    "no flags at all": (tcp(0), SendMethod.RAW, 0),
    "all flags": (tcp(ALL_FLAGS), SendMethod.RAW, ALL_FLAGS),
    "SYN and ACK": (tcp(S | A), SendMethod.RAW, S | A),
    "knockd: any flags": (tcp(0, 0), SendMethod.CONNECT, S),
    "knockd: syn": (tcp(S, S), SendMethod.CONNECT, S),
    "knockd: syn, !ack": (tcp(S, S | A), SendMethod.CONNECT, S),
    "knockd: !ack": (tcp(0, A), SendMethod.CONNECT, S),
    "knockd: !syn": (tcp(0, S), SendMethod.RAW, 0),
    "knockd: fin, !ack": (tcp(F, F | A), SendMethod.RAW, F),
    "knockd: syn, ack": (tcp(S | A, S | A), SendMethod.RAW, S | A),
    "knockd: psh": (tcp(P, P), SendMethod.RAW, P),
    "a bit outside of the mask": (tcp(S | F, S), SendMethod.CONNECT, S),
}


@pytest.mark.parametrize(("step", "how", "sent"), SENT.values(), ids=SENT)
def test_step_has_send_method_and_flags(step: Step, how: SendMethod, sent: int) -> None:
    assert send_method(step) is how
    if step.protocol is Protocol.TCP:
        assert flags(step) == sent


def test_sent_flags_match_every_mask() -> None:
    for mask, value in product(range(64), range(64)):
        step = tcp(value & mask, mask)
        assert flags(step) & mask == step.flags, step


PAIRS: dict[str, tuple[Address, Address]] = {"IPv4": (CLIENT4, SERVER4), "IPv6": (CLIENT6, SERVER6)}


@pytest.mark.parametrize("family", PAIRS)
def test_sent_segment_is_parsed_as_its_step(family: str) -> None:
    source, destination = PAIRS[family]
    for bits in range(64):
        header = segment(source, destination, 40000, tcp(bits), 0xDEADBEEF, 7)
        if source.version == 4:
            ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, source.packed, destination.packed)
        else:
            ip = struct.pack("!IHBB16s16s", 6 << 28, 20, 6, 64, source.packed, destination.packed)
        packet = ip + header
        echo = 0xDEADBEEF << 16 | 40000
        assert parse(packet, 0, len(packet)) == (source.packed, destination.packed, code_of(tcp(bits)), echo)


@pytest.mark.parametrize("family", PAIRS)
def test_checksum_detects_every_single_bit_error(family: str) -> None:
    source, destination = PAIRS[family]
    header = segment(source, destination, 40000, tcp(F | R | A | P), 1, 2)
    assert checksum(source, destination, header) == 0
    for bit in range(len(header) * 8):
        broken = bytearray(header)
        broken[bit // 8] ^= 1 << bit % 8
        assert checksum(source, destination, bytes(broken)) != 0


def test_checksum_of_packet_summed_by_hand() -> None:
    """A SYN from 192.0.2.1:1025 to 192.0.2.2:80, number 1, window 8192: summed up by hand."""
    header = struct.pack("!HHIIBBHHH", 1025, 80, 1, 0, 0x50, 2, 8192, 0, 0)
    words = (0xC000, 0x0201, 0xC000, 0x0202, 6, 20, 1025, 80, 0, 1, 0, 0, 0x5002, 8192)
    total = sum(words)
    assert checksum(ip_address("192.0.2.1"), ip_address("192.0.2.2"), header) == 0xFFFF - (
        (total & 0xFFFF) + (total >> 16)
    )


def test_acknowledgement_number_is_sent_with_ack_only() -> None:
    for bits in range(64):
        answers = struct.unpack_from("!I", segment(CLIENT4, SERVER4, 1, tcp(bits), 5, 77), 8)[0]
        assert answers == (77 if bits & A else 0)
