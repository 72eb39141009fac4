"""Blocks of a TPACKET_V3 ring: as the kernel fills them, and read again one frame after the other.

`frames` is the obvious way to walk over a block, for tests to compare with.
"""

import struct
from collections.abc import Iterable, Iterator

from port_knocking_doors.capture import ring

HEADERS = 96
"""From a frame's beginning to its packet, as the kernel lays it out for cooked sockets."""
FIRST = 48
"""From a block's beginning to its first frame."""


def step(packet: bytes) -> int:
    """Bytes from the packet's frame to the next."""
    return (HEADERS + len(packet) + 7) // 8 * 8


def block(
    packets: Iterable[tuple[bytes, int]], size: int, status: int = ring.TP_STATUS_USER, rest: bytes = b"\0"
) -> bytearray:
    """A block with these packets, and the interfaces that they came by; `rest` is the byte in all that is not used."""
    memory = bytearray(rest * size)
    at, before, count = FIRST, None, 0
    for packet, interface in packets:
        # tp_next_offset, tp_sec, tp_nsec, tp_snaplen, tp_len, tp_status, tp_mac, tp_net
        struct.pack_into("=6I2H", memory, at, step(packet), 9, 9, len(packet), 1500, 1, HEADERS, HEADERS)
        # sll_family, sll_protocol, sll_ifindex, sll_hatype, sll_pkttype, sll_halen
        struct.pack_into("=HHiHBB", memory, at + 48, 17, 8, interface, 1, 0, 6)
        memory[at + HEADERS : at + HEADERS + len(packet)] = packet
        before, at, count = at, at + step(packet), count + 1
    if before is not None:
        struct.pack_into("=I", memory, before, 0)
    assert at <= size
    # version, offset_to_priv, block_status, num_pkts, offset_to_first_pkt, blk_len, seq_num
    struct.pack_into("=6IQ", memory, 0, 1, FIRST, status, count, FIRST, at, 1)
    return memory


def frames(memory: ring.Buffer, at: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Each frame of the block that begins there: where its IP header begins, bytes captured, index of the interface."""
    end = at + size
    count, first = ring.chain(memory, at)
    at += first
    for _ in range(count):
        if at + ring.FRAME_SIZE > end:
            return
        to_next, length, to_packet, interface = ring.frame(memory, at)
        if at + to_packet + length > end:
            return
        yield at + to_packet, length, interface
        if not to_next:
            return
        at += to_next
