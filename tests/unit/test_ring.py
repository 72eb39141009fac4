"""A block's frames are found where the kernel put them, and nonsense leads nowhere."""

import struct
from mmap import PAGESIZE

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.capture import ring
from port_knocking_doors.capture.ring import Geometry, Statistics, frames, is_ours, release

SIZE = 4096
HEADERS = 96
"""From a frame's beginning to its packet, as the kernel lays it out for cooked sockets."""


def block(*packets: tuple[bytes, int], status: int = ring.TP_STATUS_USER) -> bytearray:
    """A block as the kernel fills it: packets, and the interfaces that they came by."""
    memory = bytearray(SIZE)
    at = 48
    for number, (packet, interface) in enumerate(packets, 1):
        step = (HEADERS + len(packet) + 7) // 8 * 8
        following = step if number < len(packets) else 0
        # tp_next_offset, tp_sec, tp_nsec, tp_snaplen, tp_len, tp_status, tp_mac, tp_net
        struct.pack_into("=6I2H", memory, at, following, 9, 9, len(packet), 1500, 1, HEADERS, HEADERS)
        # sll_family, sll_protocol, sll_ifindex, sll_hatype, sll_pkttype, sll_halen
        struct.pack_into("=HHiHBB", memory, at + 48, 17, 8, interface, 1, 0, 6)
        memory[at + HEADERS : at + HEADERS + len(packet)] = packet
        at += step
    # version, offset_to_priv, block_status, num_pkts, offset_to_first_pkt, blk_len, seq_num
    struct.pack_into("=6IQ", memory, 0, 1, 48, status, len(packets), 48, at, 1)
    return memory


def found(memory: bytes | bytearray | memoryview, at: int = 0, size: int = SIZE) -> list[tuple[bytes, int]]:
    return [(bytes(memory[start : start + length]), index) for start, length, index in frames(memory, at, size)]


PACKETS = [(b"E" * 40, 2), (b"", 3), (b"F" * 47, 2), (b"G" * 1000, 70000)]


def test_all_frames_are_found_with_their_interfaces() -> None:
    assert found(block(*PACKETS)) == PACKETS
    assert found(block()) == []


def test_each_block_of_a_ring_is_walked_on_its_own() -> None:
    geometry = Geometry(block_size=SIZE, blocks=3, frame_size=2048, retire_after=20)
    memory = memoryview(block(*PACKETS[:1]) + block() + block(*PACKETS[1:])).toreadonly()
    assert len(memory) == geometry.size
    assert [found(memory, at) for at in geometry.offsets] == [PACKETS[:1], [], PACKETS[1:]]


def test_a_block_is_ours_until_it_is_released() -> None:
    memory = block(*PACKETS, status=ring.TP_STATUS_USER | ring.TP_STATUS_BLK_TMO) * 2
    release(memory, SIZE)
    assert is_ours(memory, 0)
    assert not is_ours(memory, SIZE)
    assert not is_ours(block(status=ring.TP_STATUS_KERNEL), 0)


def corrupt(place: int, value: int, form: str = "=I") -> bytearray:
    memory = block(*PACKETS)
    struct.pack_into(form, memory, place, value)
    return memory


FIRST, SECOND = 48, 48 + HEADERS + 40
NONSENSE = {
    "the first frame is beyond the block": (corrupt(16, SIZE), 0),
    "the first frame ends beyond the block": (corrupt(16, SIZE - 55), 0),
    "the first frame is far away": (corrupt(16, 0xFFFFFFFF), 0),
    "a frame is beyond the block": (corrupt(SECOND, SIZE), 2),
    "the next frame is far away": (corrupt(FIRST, 0xFFFFFFFF), 1),
    "no next frame": (corrupt(FIRST, 0), 1),
    "more was captured than fits": (corrupt(SECOND + 12, SIZE), 1),
    "no end to what was captured": (corrupt(FIRST + 12, 0xFFFFFFFF), 0),
    "the packet is beyond the block": (corrupt(SECOND + 26, SIZE, "=H"), 1),
    "more frames are announced than there are": (corrupt(12, 0xFFFFFFFF), 4),
    "fewer frames are announced than there are": (corrupt(12, 2), 2),
}


@pytest.mark.parametrize(("memory", "good"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_ends_the_walk(memory: bytearray, good: int) -> None:
    assert found(memory) == PACKETS[:good]


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, SIZE // 4 - 1), st.integers(0, 300) | st.integers(0, 0xFFFFFFFF)), max_size=30)
)
def test_no_contents_lead_out_of_the_block_or_round_in_it(words: list[tuple[int, int]]) -> None:
    memory = block(*PACKETS * 3)
    struct.pack_into("=I", memory, 12, 0xFFFFFFFF)
    for place, word in words:
        struct.pack_into("=I", memory, 4 * place, word)
    whole = bytes(SIZE) + memory + bytes(SIZE)
    count = 0
    for start, length, _ in frames(whole, SIZE, SIZE):
        assert SIZE <= start <= start + length <= 2 * SIZE
        count += 1
    assert count <= SIZE


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
