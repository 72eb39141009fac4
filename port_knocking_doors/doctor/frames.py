"""Test packets as bytes: what is sent into a link of the copied host, and what its answers are."""

import struct
from typing import NamedTuple

from port_knocking_doors.client.packets import segment
from port_knocking_doors.model import Address, Flags, Protocol, Step

HOST_MAC, OUTSIDE_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
"""Hardware addresses of the two ends of a link (locally administered, RFC 9542, 2.1)."""

_ETH_IPV4, _ETH_ARP, _ETH_IPV6 = 0x0800, 0x0806, 0x86DD  # linux/if_ether.h
_TCP, _UDP = 6, 17  # netinet/in.h
_ETHERNET = 14  # bytes of its header
_IPV4, _IPV6 = 20, 40  # bytes of the headers without options (RFC 791, 3.1; RFC 8200, 3)
_HOPS = 64
_ARP_REQUEST, _ARP_REPLY = 1, 2  # RFC 826
_SYN_ACK = Flags.SYN | Flags.ACK


class SynAck(NamedTuple):
    """A service's answer to a SYN: the port is open."""

    to: bytes
    """The packed address that it goes to."""
    to_port: int
    from_port: int


def syn(source: Address, source_port: int, destination: Address, port: int) -> bytes:
    """A frame with the first packet of a TCP connection."""
    step = Step(Protocol.TCP, port, Flags.SYN)
    return _frame(source, destination, _TCP, segment(source, destination, source_port, step, 1, 0))


def datagram(source: Address, source_port: int, destination: Address, port: int, payload: bytes) -> bytes:
    """A frame with a UDP datagram."""
    length = 8 + len(payload)
    pseudo = source.packed + destination.packed + struct.pack("!IxxxB", length, _UDP)
    checksum = _checksum(pseudo + struct.pack("!HHHH", source_port, port, length, 0) + payload) or 0xFFFF
    return _frame(source, destination, _UDP, struct.pack("!HHHH", source_port, port, length, checksum) + payload)


def arp_request(source: bytes, target: bytes) -> bytes:
    """A frame that asks for the hardware address of an IPv4 address; no table of nftables for IP sees it."""
    body = struct.pack("!HHBBH", 1, _ETH_IPV4, 6, 4, _ARP_REQUEST) + OUTSIDE_MAC + source + bytes(6) + target
    return b"\xff" * 6 + OUTSIDE_MAC + struct.pack("!H", _ETH_ARP) + body


def is_arp_reply(frame: bytes) -> bool:
    """Whether the frame answers `arp_request`."""
    return frame[:6] == OUTSIDE_MAC and frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02"


def syn_ack(frame: bytes) -> SynAck | None:
    """The answer in a frame that left the host, if it is one."""
    if frame[:6] != OUTSIDE_MAC:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    packet = frame[_ETHERNET:]
    if kind == _ETH_IPV4 and len(packet) >= _IPV4 and packet[9] == _TCP:
        header, to = (packet[0] & 15) * 4, packet[16:20]
    elif kind == _ETH_IPV6 and len(packet) >= _IPV6 and packet[6] == _TCP:
        header, to = _IPV6, packet[24:40]
    else:
        return None
    if len(packet) < header + 20 or packet[header + 13] & (_SYN_ACK | Flags.RST) != _SYN_ACK:
        return None
    from_port, to_port = struct.unpack_from("!HH", packet, header)
    return SynAck(to, to_port, from_port)


def _frame(source: Address, destination: Address, protocol: int, body: bytes) -> bytes:
    if source.version == 4:
        header = struct.pack(
            "!BBHHHBBH4s4s",
            *(0x45, 0, _IPV4 + len(body), 0, 0, _HOPS, protocol, 0, source.packed, destination.packed),
        )
        header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
        kind = _ETH_IPV4
    else:
        header = struct.pack("!IHBB", 6 << 28, len(body), protocol, _HOPS) + source.packed + destination.packed
        kind = _ETH_IPV6
    return HOST_MAC + OUTSIDE_MAC + struct.pack("!H", kind) + header + body


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
