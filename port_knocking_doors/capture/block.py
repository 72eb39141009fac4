"""A block of the ring → the packets in it that a knock can be read from.

What is read there is the kernel's, yet it is taken for a claim: no offset leads out of the block, and no chain of
frames is longer than the block says.

This is the hot path of a flood. A flood's frames are of the same length, and so equally spaced: once the first one was
looked at, one `iter_unpack` reads what matters of the frames, the IP headers and the ports behind it, row after row.
What is odd in any way ends the row and is read on its own. Measured with CPython 3.11 on one and the same machine: a
packet in a row costs 0.45 µs, one on its own 0.75 µs (0.85 µs with two rooms for walk and parsing).
"""

import socket
import struct
from collections.abc import Iterator
from operator import length_hint

from port_knocking_doors.capture import ring
from port_knocking_doors.capture.packet import (
    FLAGS,
    IPV4_HEADER,
    IPV4_PLACE,
    PLAIN_IPV4,
    TCP_CODE,
    TCP_HEADER,
    UDP_CODE,
    UDP_HEADER,
    parse,
)

Arrival = tuple[bytes, bytes, int, int, int]
"""A packet as in `packet.Packet`, and the index of the interface that it came by."""

ROW = 128
"""Frames that are read in a row at most. They are copied out for it, and so few stay in a processor's nearest cache."""
FEW = 8
"""A row shorter than this is not worth its beginning. After such a one twice as many frames are read on their own, and
twice as many again after the next: where hardly two frames are alike, trying costs next to nothing."""

# How the kernel lays out a frame in the ring of a cooked socket: its own headers, room for a link's header, and the
# packet; the next frame begins at a multiple of eight bytes (net/packet/af_packet.c: tpacket_rcv, V3_ALIGNMENT).
_TO_PACKET = 96
_ALIGNMENT = 8
_UDP = socket.IPPROTO_UDP
_TCP = socket.IPPROTO_TCP
_UDP_KNOCK = IPV4_HEADER + UDP_HEADER
_TCP_KNOCK = IPV4_HEADER + TCP_HEADER

# Of the frame: tp_next_offset, tp_snaplen, tp_net, sll_ifindex. Of struct iphdr: version and length, total length,
# place of the fragment, protocol, addresses. Of the transport: ports and (of TCP) sequence number; flags are to follow.
_PLAIN = "!I8xI10xH24xI40xBxH2xHxBxx4s4sHHI"


def _swapped(form: str, value: int) -> int:
    """What a number of the kernel's becomes when it is read in the network's order, like all of a row."""
    number: int = struct.unpack(f"!{form}", struct.pack(f"={form}", value))[0]
    return number


def _lengths(step: int) -> frozenset[int]:
    """Of the packets whose frame is so long, if a knock fits in them; swapped."""
    longest = step - _TO_PACKET
    return frozenset(_swapped("I", size) for size in range(max(_UDP_KNOCK, longest - _ALIGNMENT + 1), longest + 1))


_HERE = _swapped("H", _TO_PACKET)
_WHOLE_TCP = _swapped("I", _TCP_KNOCK)
# By the length of a frame: its number as it is read, the lengths of packets, and how a row is read. IPv4 without
# options has these two; the shorter one ends ahead of TCP's flags, and what is read for them is never used.
_ROWS = {
    step: (_swapped("I", step), _lengths(step), struct.Struct(_PLAIN + rest).iter_unpack)
    for step, rest in ((128, "3xB"), (136, "5xB6x"))
}


def packets(memory: ring.Buffer, block: int, block_size: int) -> Iterator[Arrival]:
    """Each packet that a knock can be read from, of the block of ours that begins at `block`.

    Good until the block is released.
    """
    count, at = ring.chain(memory, block)
    at += block
    end = block + block_size
    last = end - ring.FRAME_SIZE
    next_row, pause = count, FEW
    frame, here = ring.frame, _HERE
    while count > 0 and at <= last:
        step, length, to_packet, interface = frame(memory, at)
        if count <= next_row and step in _ROWS and (size := min(ROW, count, (end - at) // step)) >= FEW:
            swapped_step, lengths, unpack = _ROWS[step]
            swapped_interface = _swapped("i", interface)
            rows = unpack(memory[at : at + size * step])
            for (
                following,
                captured,
                start,
                link,
                first,
                total,
                place,
                protocol,
                source,
                destination,
                source_port,
                port,
                sequence,
                flags,
            ) in rows:
                if (
                    following != swapped_step
                    or start != here
                    or link != swapped_interface
                    or first != PLAIN_IPV4
                    or place & IPV4_PLACE
                    or captured not in lengths
                ):
                    size -= 1
                    break
                if protocol == _UDP:
                    if total >= _UDP_KNOCK:
                        yield source, destination, UDP_CODE | port, source_port, interface
                elif protocol == _TCP and total >= _TCP_KNOCK and captured == _WHOLE_TCP:
                    code = (flags & FLAGS) << 24 | TCP_CODE | port
                    yield source, destination, code, sequence << 16 | source_port, interface
            size -= length_hint(rows)
            count -= size
            at += size * step
            if size < FEW:
                pause *= 2
                next_row = count - pause
            if size:
                continue
        start = at + to_packet
        if start + length > end:
            return
        packet = parse(memory, start, length)
        if packet is not None:
            source, destination, code, echo = packet
            yield source, destination, code, echo, interface
        if not step:
            return
        at += step
        count -= 1
