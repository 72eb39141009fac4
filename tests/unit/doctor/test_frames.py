"""Test packets as bytes, by the program's own reader of frames, and the answers that count."""

import struct
from ipaddress import ip_address

import pytest

from port_knocking_doors.client.packets import checksum
from port_knocking_doors.doctor import frames
from port_knocking_doors.doctor.frames import SynAck
from port_knocking_doors.model import Address

PAIRS: dict[str, tuple[Address, Address]] = {
    "IPv4": (ip_address("192.0.2.7"), ip_address("10.0.0.1")),
    "IPv6": (ip_address("2001:db8::7"), ip_address("fd00::1")),
}
SYN, ACK, RST = 2, 16, 4


def sum_of(data: bytes) -> int:
    """The Internet checksum of data that has its own: 0 if that is right."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@pytest.mark.parametrize(("source", "destination"), PAIRS.values(), ids=PAIRS)
def test_syn_and_datagram_have_right_checksums(source: Address, destination: Address) -> None:
    header = 20 if source.version == 4 else 40
    syn = frames.syn(source, 40000, destination, 22)[14:]
    assert checksum(source, destination, syn[header:]) == 0
    assert struct.unpack_from("!HH", syn, header) == (40000, 22)
    datagram = frames.datagram(source, 40001, destination, 53, b"knock\n")[14:]
    body = datagram[header:]
    pseudo = source.packed + destination.packed + struct.pack("!IxxxB", len(body), 17)
    assert sum_of(pseudo + body) == 0
    assert body[8:] == b"knock\n"
    for packet in (syn, datagram):
        assert source.version == packet[0] >> 4
        assert source.version == 6 or sum_of(packet[:20]) == 0


def answer(source: Address, destination: Address, flags: int) -> bytes:
    """A frame that leaves the host, from port 22 of `destination` to port 40000 of `source`."""
    frame = bytearray(frames.syn(destination, 22, source, 40000))
    frame[:12] = frames.OUTSIDE_MAC + frames.HOST_MAC
    frame[14 + (20 if source.version == 4 else 40) + 13] = flags
    return bytes(frame)


@pytest.mark.parametrize(("source", "destination"), PAIRS.values(), ids=PAIRS)
def test_answer_of_a_listener_alone_counts(source: Address, destination: Address) -> None:
    accepted = answer(source, destination, SYN | ACK)
    assert frames.syn_ack(accepted) == SynAck(source.packed, 40000, 22)
    for other in (
        answer(source, destination, RST | ACK),
        answer(source, destination, SYN),
        accepted[:-8],
        accepted[:20],
        frames.HOST_MAC + accepted[6:],
        frames.datagram(destination, 22, source, 40000, b"x"),
        frames.arp_request(bytes(4), bytes(4)),
    ):
        assert frames.syn_ack(other) is None


def test_arp_reply_is_distinguished_from_its_request() -> None:
    request = frames.arp_request(bytes(4), bytes((192, 0, 0, 8)))
    reply = frames.OUTSIDE_MAC + request[6:20] + b"\0\2" + request[22:]
    assert (frames.is_arp_reply(request), frames.is_arp_reply(reply)) == (False, True)
