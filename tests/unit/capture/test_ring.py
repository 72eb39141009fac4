"""A ring's blocks are handed to and fro, and what is read of a block and a frame is what the kernel means by it."""

import struct
from mmap import PAGESIZE

import pytest

from port_knocking_doors.capture import ring
from port_knocking_doors.capture.ring import Geometry, Statistics, is_ours, release
from tests.helpers import blocks

SIZE = 4096
PACKETS = [(b"E" * 40, 2), (b"", 3), (b"F" * 47, 2), (b"G" * 1000, 70000)]


def test_a_frame_tells_where_its_packet_is_and_how_far_the_next_one() -> None:
    memory = bytes(SIZE) + blocks.block(PACKETS, SIZE)
    count, first = ring.chain(memory, SIZE)
    assert count == len(PACKETS)
    at = SIZE + first
    for number, (packet, interface) in enumerate(PACKETS, 1):
        to_next, length, to_packet, index = ring.frame(memory, at)
        assert memory[at + to_packet :][:length] == packet
        assert index == interface
        assert to_next == (blocks.step(packet) if number < count else 0)
        at += to_next


def test_a_block_is_ours_until_it_is_released() -> None:
    memory = blocks.block(PACKETS, SIZE, status=ring.TP_STATUS_USER | ring.TP_STATUS_BLK_TMO) * 2
    release(memory, SIZE)
    assert is_ours(memory, 0)
    assert not is_ours(memory, SIZE)
    assert not is_ours(blocks.block([], SIZE, status=ring.TP_STATUS_KERNEL), 0)


def test_the_geometry_is_asked_for_as_the_kernel_wants_it() -> None:
    geometry = Geometry(block_size=1 << 18, blocks=16, frame_size=2048, retire_after=20)
    assert geometry.request() == struct.pack("@7I", 1 << 18, 16, 2048, 128 * 16, 20, 0, 0)
    assert geometry.size == 1 << 22


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_size": 0},
        {"block_size": -PAGESIZE},
        {"block_size": PAGESIZE + 2048},
        {"blocks": 0},
        {"frame_size": 0},
        {"frame_size": 64},
        {"frame_size": 100},
        {"frame_size": 2 * PAGESIZE},
        {"retire_after": 0},
    ],
    ids=str,
)
def test_an_impossible_geometry_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Geometry(**{"block_size": PAGESIZE, "blocks": 1, "frame_size": 2048, "retire_after": 20, **wrong})


def test_statistics_are_named() -> None:
    data = struct.pack("@3I", 10, 3, 1)
    assert len(data) == ring.STATISTICS_SIZE
    assert Statistics.parse(data) == Statistics(packets=10, drops=3, freezes=1)
