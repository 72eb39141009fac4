"""The memory of a TPACKET_V3 ring → blocks and frames (linux/if_packet.h; Documentation/networking/packet_mmap.rst).

A ring is a row of blocks, and the kernel fills one after the other with frames of any length, each behind a header. A
block is the kernel's until its status says that it is ours, and ours until we give it back.

These are functions over the mapped memory. `block` walks over the frames of a block.
"""

import struct
from dataclasses import dataclass
from mmap import PAGESIZE, mmap
from typing import NamedTuple

SOL_PACKET = 263  # linux/socket.h
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_IGNORE_OUTGOING = 23
TPACKET_V3 = 2

TP_STATUS_KERNEL = 0
TP_STATUS_USER = 1 << 0
TP_STATUS_BLK_TMO = 1 << 5
"""The block was handed over because its time was up, not because it was full."""

TPACKET_ALIGNMENT = 16
TPACKET3_HDRLEN = 68  # struct tpacket3_hdr (48) and struct sockaddr_ll (20)

# struct tpacket_req3: tp_block_size, tp_block_nr, tp_frame_size, tp_frame_nr, tp_retire_blk_tov, tp_sizeof_priv,
# tp_feature_req_word
_REQUEST = struct.Struct("@7I")
_STATISTICS = struct.Struct("@3I")  # struct tpacket_stats_v3: tp_packets, tp_drops, tp_freeze_q_cnt

_STATUS = 8  # block_status in struct tpacket_block_desc, behind version and offset_to_priv
_status = struct.Struct("@I")
# of the same: num_pkts, offset_to_first_pkt
_CHAIN = struct.Struct("@12xII")
# struct tpacket3_hdr: tp_next_offset, tp_snaplen, tp_net; then struct sockaddr_ll: sll_ifindex
_FRAME = struct.Struct("@I8xI10xH24xi")

Buffer = bytes | bytearray | memoryview | mmap


@dataclass(frozen=True)
class Geometry:
    """How a ring is laid out. The sizes are in bytes."""

    block_size: int
    blocks: int
    frame_size: int
    """The kernel asks for it and, in this version of the ring, lays frames out by their length."""
    retire_after: int
    """Milliseconds at which a block with frames in it is handed over, full or not: the latency of a lone knock."""

    def __post_init__(self) -> None:
        if self.block_size <= 0 or self.block_size % PAGESIZE:
            raise ValueError(f"blocks of {self.block_size} bytes, expected a multiple of a page's {PAGESIZE}")
        if self.frame_size % TPACKET_ALIGNMENT or not TPACKET3_HDRLEN <= self.frame_size <= self.block_size:
            raise ValueError(
                f"frames of {self.frame_size} bytes, expected a multiple of {TPACKET_ALIGNMENT} "
                f"from {TPACKET3_HDRLEN} to a block's {self.block_size}"
            )
        if self.blocks < 1:
            raise ValueError(f"{self.blocks} blocks, expected one at least")
        if self.retire_after < 1:
            raise ValueError(f"blocks retire after {self.retire_after} ms, expected 1 at least")

    @property
    def size(self) -> int:
        """Of the memory to map."""
        return self.block_size * self.blocks

    @property
    def offsets(self) -> range:
        """Where the blocks begin, in the order in which the kernel fills them."""
        return range(0, self.size, self.block_size)

    def request(self) -> bytes:
        """The value of PACKET_RX_RING: a struct tpacket_req3."""
        frames = self.block_size // self.frame_size * self.blocks
        return _REQUEST.pack(self.block_size, self.blocks, self.frame_size, frames, self.retire_after, 0, 0)


class Statistics(NamedTuple):
    """The value of PACKET_STATISTICS: counts since it was read last."""

    packets: int
    """Accepted by the filter, with those dropped."""
    drops: int
    """Of those, for which the ring had no space."""
    freezes: int
    """How often the kernel came to a block that was still ours."""

    @classmethod
    def parse(cls, data: bytes) -> "Statistics":
        return cls(*_STATISTICS.unpack(data))


STATISTICS_SIZE = _STATISTICS.size


def is_ours(ring: Buffer, block: int) -> bool:
    """Whether the kernel has handed over the block that begins at `block`."""
    status: int = _status.unpack_from(ring, block + _STATUS)[0]
    return status & TP_STATUS_USER != 0


def release(ring: bytearray | memoryview | mmap, block: int) -> None:
    """Give the block back to the kernel, which may write to it from now on."""
    _status.pack_into(ring, block + _STATUS, TP_STATUS_KERNEL)


chain = _CHAIN.unpack_from
"""`chain(ring, block)`: how many frames are in the block, and how far from its beginning the first one is."""

frame = _FRAME.unpack_from
"""`frame(ring, at)`: of the frame that begins there, how far it is to the next one (0: none), how many bytes of the
packet were captured, how far it is to the packet's IP header, and the index of the interface."""

FRAME_SIZE = _FRAME.size
"""What `frame` reads."""
