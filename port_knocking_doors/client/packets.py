"""Steps → what is sent for them: a datagram, an ordinary connect, or a raw TCP segment."""

import struct
from enum import Enum, auto

from port_knocking_doors.model import ALL_FLAGS, Address, Flags, Protocol, Step

TCP_HEADER = 20
"""Bytes of a TCP header without options (RFC 9293, 3.1)."""
CHECKSUM_AT = 16
"""Offset of its checksum."""
WINDOW = 64240
"""The window that Linux offers in a first packet on Ethernet, so that a raw segment does not differ."""

_IPPROTO_TCP = 6  # netinet/in.h
_header = struct.Struct("!HHIIBBHHH")  # struct tcphdr (linux/tcp.h)


class SendMethod(Enum):
    """How a step is sent."""

    DATAGRAM = auto()
    CONNECT = auto()  # a bare SYN: needs no privilege
    RAW = auto()  # needs CAP_NET_RAW


def send_method(step: Step) -> SendMethod:
    """How this step is sent."""
    if step.protocol is Protocol.UDP:
        return SendMethod.DATAGRAM
    return SendMethod.CONNECT if flags(step) == Flags.SYN else SendMethod.RAW


def flags(step: Step) -> int:
    """The TCP flags to send for a step; flags outside of its mask are not set.

    A bare SYN wherever it matches: it needs no privilege, and firewalls on the way let it pass.
    """
    wanted = step.flags & step.mask & ALL_FLAGS
    return int(Flags.SYN) if Flags.SYN & step.mask == wanted else wanted


def segment(source: Address, destination: Address, source_port: int, step: Step, number: int, answers: int) -> bytes:
    """A whole TCP header for a step, to be sent from `source` to `destination`, which are of one IP version.

    `number`: the sequence number; `answers`: the acknowledgement number, sent only with ACK. Both have 32 bits.
    """
    bits = flags(step)
    header = bytearray(
        _header.pack(
            source_port,
            step.port,
            number,
            answers if bits & Flags.ACK else 0,
            TCP_HEADER // 4 << 4,
            bits,
            WINDOW,
            0,
            0,
        )
    )
    struct.pack_into("!H", header, CHECKSUM_AT, checksum(source, destination, bytes(header)))
    return bytes(header)


def checksum(source: Address, destination: Address, segment: bytes) -> int:
    """TCP's checksum of a segment whose own is zero, or 0 if its own is right (RFC 9293, 3.1; RFC 8200, 8.1)."""
    if source.version == 4:
        pseudo = struct.pack("!4s4sBBH", source.packed, destination.packed, 0, _IPPROTO_TCP, len(segment))
    else:
        pseudo = struct.pack("!16s16sIxxxB", source.packed, destination.packed, len(segment), _IPPROTO_TCP)
    data = pseudo + segment + bytes(len(segment) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
