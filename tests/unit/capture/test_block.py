"""A block's packets are what one gets by reading its frames one after the other, and nonsense leads nowhere."""

import struct
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.capture import block, ring
from port_knocking_doors.capture.block import FEW, ROW, Arrival, packets
from port_knocking_doors.capture.packet import parse
from tests.helpers import blocks, frames
from tests.helpers.blocks import FIRST, HEADERS
from tests.helpers.frames import OTHER4, TCP, Frame

SIZE = 1 << 16
UDP_KNOCK = Frame(port=1234, payload=6)
EMPTY = replace(UDP_KNOCK, payload=0)
LONG = replace(UDP_KNOCK, payload=700, cut=40)
SYN = Frame(protocol=TCP, port=543, flags=2, sequence=0x89ABCDEF)
KNOCK6 = Frame(version=6, port=1234)


def one_by_one(memory: ring.Buffer, at: int = 0, size: int = SIZE) -> list[Arrival]:
    found = []
    for start, length, interface in blocks.frames(memory, at, size):
        packet = parse(memory, start, length)
        if packet is not None:
            found.append((*packet, interface))
    return found


def filled(*row: Frame, interface: int = 2, size: int = SIZE) -> bytearray:
    return blocks.block([(frame.packet(), interface) for frame in row], size)


def crowd(frame: Frame, count: int) -> list[Frame]:
    """The frame from so many sources."""
    return [replace(frame, source=frame.by + number) for number in range(count)]


# --- rows


ROWS = {
    "UDP": [UDP_KNOCK],
    "UDP without contents": [EMPTY],
    "long UDP, cut by the filter": [LONG],
    "TCP": [SYN],
    "TCP and UDP in turns": [SYN, UDP_KNOCK, LONG],
    "two destinations in turns": [SYN, replace(SYN, destination=OTHER4)],
    "not asked for": [replace(UDP_KNOCK, protocol=frames.ICMP)],
    "lies about its length": [replace(UDP_KNOCK, claimed_length=27), replace(SYN, claimed_length=39)],
}


@pytest.mark.parametrize("kinds", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("kind", [bytes, memoryview], ids=["bytes", "memoryview"])
def test_a_flood_is_read_in_rows(
    monkeypatch: pytest.MonkeyPatch, kinds: list[Frame], kind: Callable[[bytearray], ring.Buffer]
) -> None:
    flood = [replace(frame, source=frame.by + number) for number in range(300 // len(kinds)) for frame in kinds]
    memory = kind(filled(*flood))
    expected = one_by_one(memory)
    alone = 0

    def counted(*arguments: Any) -> Any:
        nonlocal alone
        alone += 1
        return parse(*arguments)

    monkeypatch.setattr(block, "parse", counted)
    assert list(packets(memory, 0, SIZE)) == expected
    assert alone < FEW, "all but the row's rest"
    assert len(flood) > ROW


def test_where_rows_end_at_once_trying_again_costs_little() -> None:
    tries = 0

    class Watched(bytes):
        def __getitem__(self, key: Any) -> Any:
            nonlocal tries
            tries += isinstance(key, slice)
            return super().__getitem__(key)

    memory = Watched(filled(*[SYN, EMPTY] * 220))
    assert list(packets(memory, 0, SIZE)) == one_by_one(memory)
    assert 0 < tries < 8


def test_each_block_of_a_ring_is_read_on_its_own() -> None:
    size = 4096
    rows = [crowd(UDP_KNOCK, 25), [], crowd(SYN, 3)]
    memory = memoryview(b"".join(filled(*row, size=size) for row in rows))
    found = [[arrival[:2] for arrival in packets(memory, at, size)] for at in range(0, 3 * size, size)]
    assert found == [[(frame.by.packed, frame.to.packed) for frame in row] for row in rows]


# --- anything


def any_row(random: Random) -> list[tuple[bytes, int]]:
    """Packets as they may come: floods, and what is odd between them."""
    row: list[tuple[bytes, int]] = []
    free = SIZE - FIRST
    for _ in range(random.randint(1, 8)):
        plain = random.choice((UDP_KNOCK, EMPTY, LONG, SYN, KNOCK6))
        frame = frames.any_frame(random.choice, range(65536)) if random.random() < 0.5 else plain
        data = frame.packet()
        if random.random() < 0.7:  # as the filter cuts it
            data = data[: frame.header + 20]
        interface = random.choice((2, 2, 2, 3))
        for _ in range(random.choice((1, 1, 2, FEW, 20, ROW, ROW + 20))):
            free -= blocks.step(data)
            if free < 0:
                return row
            row.append((data, interface))
    return row


FIELDS = {
    "tp_next_offset": (0, "=I"),
    "tp_snaplen": (12, "=I"),
    "tp_net": (26, "=H"),
    "sll_ifindex": (52, "=i"),
    "version and length": (HEADERS, "!B"),
    "total length": (HEADERS + 2, "!H"),
    "fragment": (HEADERS + 6, "!H"),
    "protocol": (HEADERS + 9, "!B"),
    "ports": (HEADERS + 20, "!I"),
    "flags": (HEADERS + 33, "!B"),
}


NEAR = {
    "tp_next_offset": (0, 8, 64, 128, 136, 144, 152),
    "tp_snaplen": (0, 27, 28, 33, 39, 40, 41, 0x128, 0x1000028),
    "tp_net": (95, 97, 104),
    "version and length": (0x35, 0x44, 0x46, 0x60),
    "total length": (0, 27, 28, 39, 40, 1500),
    "fragment": (1, 0x1000, 0x100, 0x2000, 0x4000),
    "protocol": (1, 6, 17, 50),
}
"""Values that may come, or nearly may."""


def lie(random: Random, memory: bytearray) -> None:
    """Change a field of one frame, or of all."""
    starts = [FIRST]
    while (step := ring.frame(memory, starts[-1])[0]) and starts[-1] + step + 140 < SIZE and len(starts) < SIZE:
        starts.append(starts[-1] + step)
    name = random.choice(list(FIELDS))
    place, form = FIELDS[name]
    any_value = random.getrandbits(8 * struct.calcsize(form) - 1)
    value = random.choice((*NEAR.get(name, ()), any_value))
    for start in starts if random.random() < 0.2 else [random.choice(starts)]:
        struct.pack_into(form, memory, start + place, value)


@settings(max_examples=500, deadline=None)
@given(st.randoms(use_true_random=True), st.integers(0, 6), st.sampled_from([b"\0", b"\x45", b"\xff"]))
def test_whatever_is_in_a_block_is_read_as_if_one_by_one(random: Random, lies: int, rest: bytes) -> None:
    memory = blocks.block(any_row(random), SIZE, rest=rest)
    for _ in range(lies):
        lie(random, memory)
    if random.random() < 0.2:
        struct.pack_into("=I", memory, 12, random.choice((0, 1, FEW, ROW, 0xFFFFFFFF)))  # num_pkts
    assert list(packets(memory, 0, SIZE)) == one_by_one(memory)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, SIZE // 4 - 1), st.integers(0, 300) | st.integers(0, 0xFFFFFFFF)), max_size=30)
)
def test_no_contents_lead_out_of_the_block_or_round_in_it(words: list[tuple[int, int]]) -> None:
    memory = filled(*crowd(UDP_KNOCK, 400))
    struct.pack_into("=I", memory, 12, 0xFFFFFFFF)
    for place, word in words:
        struct.pack_into("=I", memory, 4 * place, word)
    found = list(packets(bytes(memory), 0, SIZE))
    assert len(found) <= SIZE
    # The same block with others around it: what is around makes no difference.
    for other in (b"\0", b"\xff"):
        assert list(packets(other * SIZE + memory + other * SIZE, SIZE, SIZE)) == found


# --- nonsense


def corrupt(place: int, value: int, form: str = "=I") -> bytearray:
    memory = filled(*crowd(UDP_KNOCK, 12))
    struct.pack_into(form, memory, place, value)
    return memory


STEP = blocks.step(UDP_KNOCK.packet())
SECOND, TENTH = FIRST + STEP, FIRST + 9 * STEP
NONSENSE = {
    "the first frame is beyond the block": (corrupt(16, SIZE), 0),
    "the first frame ends beyond the block": (corrupt(16, SIZE - 55), 0),
    "the first frame is far away": (corrupt(16, 0xFFFFFFFF), 0),
    "a frame is beyond the block": (corrupt(SECOND, SIZE), 2),
    "the next frame is far away": (corrupt(FIRST, 0xFFFFFFFF), 1),
    "the next frame is far away, in a row": (corrupt(TENTH, 0xFFFFFFFF), 10),
    "no next frame": (corrupt(FIRST, 0), 1),
    "no next frame, in a row": (corrupt(TENTH, 0), 10),
    "more was captured than fits": (corrupt(SECOND + 12, SIZE), 1),
    "no end to what was captured": (corrupt(FIRST + 12, 0xFFFFFFFF), 0),
    "no end to what was captured, in a row": (corrupt(TENTH + 12, 0xFFFFFFFF), 9),
    "more frames are announced than there are": (corrupt(12, 0xFFFFFFFF), 12),
    "fewer frames are announced than there are": (corrupt(12, 9), 9),
}


@pytest.mark.parametrize(("memory", "good"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_ends_the_walk(memory: bytearray, good: int) -> None:
    found = [source for source, _, _, _, _ in packets(memory, 0, SIZE)]
    assert found == [frame.by.packed for frame in crowd(UDP_KNOCK, good)]


def test_a_row_that_would_end_beyond_the_block_is_not_read_beyond_it() -> None:
    row = crowd(UDP_KNOCK, 30)
    memory = filled(*row)
    size = FIRST + 20 * STEP + 50  # the twenty-first frame is not whole any more
    struct.pack_into("=I", memory, 12, 0xFFFFFFFF)
    assert [arrival[0] for arrival in packets(memory, 0, size)] == [frame.by.packed for frame in row[:20]]
