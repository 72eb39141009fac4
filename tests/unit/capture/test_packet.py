"""A packet is read as what it is, whatever it claims to be, and nothing beyond it is read at all."""

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from port_knocking_doors.capture.packet import Packet, parse
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.model import Protocol, Step
from tests.helpers import frames
from tests.helpers.frames import CLIENT4, SERVER4, SERVER6, TCP, UDP, Extension, Frame

KNOCK = Frame(port=1234, payload=6)
KNOCK6 = replace(KNOCK, version=6)
SYN = Frame(protocol=TCP, port=543, flags=2, sequence=0x89ABCDEF)
SYN6 = replace(SYN, version=6)
CHAIN = (Extension(frames.HOP_BY_HOP, 1), Extension(frames.ROUTING), Extension(frames.FRAGMENT, more=True))


def read(frame: Frame) -> Packet | None:
    packet = frame.packet()
    return parse(packet, 0, len(packet))


def expected(frame: Frame) -> Packet | None:
    length = min(frame.size if frame.claimed_length is None else frame.claimed_length, len(frame.packet()))
    mapped = isinstance(frame.by, IPv6Address) and frame.by.ipv4_mapped is not None
    if mapped or not frames.readable(frame) or length < frame.header + frame.transport_size:
        return None
    if frame.protocol == UDP:
        return frame.by.packed, frame.to.packed, UDP << 16 | frame.port, frame.source_port
    code = (frame.flags & 63) << 24 | TCP << 16 | frame.port
    return frame.by.packed, frame.to.packed, code, frame.sequence << 16 | frame.source_port


READ = {
    "udp": KNOCK,
    "udp over IPv6": KNOCK6,
    "tcp": SYN,
    "tcp over IPv6": SYN6,
    "all flags": replace(SYN, flags=63),
    "the bits of ECN": replace(SYN, flags=0xC2),
    "IPv4 options": replace(SYN, options=10),
    "udp behind IPv4 options": replace(KNOCK, options=1, payload=0),
    "a first fragment": replace(KNOCK, more=True),
    "extension headers": replace(SYN6, extensions=CHAIN),
    "four extension headers": replace(KNOCK6, extensions=(*CHAIN, Extension(frames.DESTINATION, 255)), payload=0),
    "padding": replace(KNOCK, payload=0, padding=18),
    "captured in part": replace(KNOCK, payload=1400, cut=40),
    "longer than it is": replace(KNOCK, claimed_length=65535),
}
NOT_READ = {
    "a later fragment": replace(KNOCK, place=1),
    "a later fragment with options": replace(KNOCK, place=0x1FFF, options=2),
    "a much later fragment": replace(KNOCK, place=0x1000),
    "a later fragment of IPv6": replace(KNOCK6, extensions=(Extension(frames.FRAGMENT, place=1),)),
    "a much later fragment of IPv6": replace(KNOCK6, extensions=(Extension(frames.FRAGMENT, place=0x1000),)),
    "five extension headers": replace(KNOCK6, extensions=(Extension(frames.DESTINATION),) * 5),
    "encrypted": replace(KNOCK6, extensions=(Extension(frames.AUTHENTICATION),)),
    "no next header": replace(KNOCK6, extensions=(Extension(frames.NO_NEXT_HEADER),)),
    "ICMP": replace(KNOCK, protocol=frames.ICMP),
    "IPv4 header too short": replace(KNOCK, claimed_words=4),
    "no IPv4 header": replace(KNOCK, claimed_words=0),
    "IPv4 options beyond the packet": replace(KNOCK, claimed_words=15),
    "neither IPv4 nor IPv6": replace(KNOCK, claimed_version=5),
    "nothing": replace(KNOCK, cut=0),
    "one byte": replace(KNOCK6, cut=1),
    "half a UDP header": replace(KNOCK, cut=27),
    "half a TCP header": replace(SYN, cut=39),
    "half a UDP header behind options": replace(KNOCK, options=1, cut=31),
    "half a TCP header over IPv6": replace(SYN6, cut=59),
    "an IPv6 header alone": replace(SYN6, cut=40),
    "an extension header beyond the packet": replace(KNOCK6, extensions=(Extension(frames.ROUTING, 5),), cut=60),
    "half an extension header": replace(KNOCK6, extensions=(Extension(frames.FRAGMENT),), cut=42, padding=6),
    "half of it, and padding": replace(KNOCK, claimed_length=27, padding=18),
    "half of TCP, and padding": replace(SYN, claimed_length=39, padding=6),
    "no length": replace(KNOCK, claimed_length=0),
    "no length over IPv6 (a jumbogram)": replace(KNOCK6, claimed_length=40),
}


@pytest.mark.parametrize("frame", READ.values(), ids=READ)
def test_is_read(frame: Frame) -> None:
    assert read(frame) == expected(frame) is not None


@pytest.mark.parametrize("frame", NOT_READ.values(), ids=NOT_READ)
def test_is_not_read(frame: Frame) -> None:
    assert read(frame) is None


def test_the_code_is_the_steps() -> None:
    packet = read(KNOCK)
    assert packet == (CLIENT4.packed, SERVER4.packed, code_of(Step(Protocol.UDP, 1234)), 40000)


def test_ipv4_address_mapped_into_ipv6_is_no_source() -> None:
    assert read(replace(SYN6, source=IPv6Address(f"::ffff:{CLIENT4}"))) is None
    packet = read(replace(SYN6, source=IPv6Address(f"::fffe:{CLIENT4}")))
    assert packet is not None
    assert packet[1] == SERVER6.packed


def test_many_frames_are_read_as_what_they_are() -> None:
    choose = Random(5).choice
    seen = {True: 0, False: 0}
    for _ in range(20000):
        frame = frames.any_frame(choose, range(65536))
        assert read(frame) == expected(frame), frame
        seen[read(frame) is not None] += 1
    assert min(seen.values()) > 4000


@pytest.mark.parametrize("kind", [bytes, memoryview, "mmap"], ids=["bytes", "memoryview", "mmap"])
def test_any_kind_of_memory_is_read(kind: type[bytes] | type[memoryview] | str) -> None:
    packet = SYN.packet()
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        memory[100 : 100 + len(packet)] = packet
        buffer = memory if isinstance(kind, str) else kind(memory[:])
        assert parse(buffer, 100, len(packet)) == expected(SYN)


@pytest.fixture(scope="module")
def page() -> Iterator[tuple[memoryview, int]]:
    """Memory that ends with its page; the page behind it can't be read: a process that tries is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * size)
    view = (ctypes.c_char * (2 * size)).from_buffer(memory)
    behind = ctypes.c_void_p(ctypes.addressof(view) + size)
    assert libc.mprotect(behind, ctypes.c_size_t(size), 0) == 0  # PROT_NONE
    whole = memoryview(memory)
    yield whole, size
    whole.release()
    assert libc.mprotect(behind, ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE) == 0


def _headers(data: bytes, first: int, kind: int) -> bytes:
    """Random bytes that pass for IP, or most of them would be refused at the first byte."""
    return bytes([first, *data[1:6], kind, *data[7:9], kind, *data[10:]])


odd_packets = st.builds(
    _headers,
    st.binary(min_size=11, max_size=200),
    st.sampled_from([0x45, 0x46, 0x4F, 0x44, 0x40, 0x60, 0x6F, 0x50]),
    st.sampled_from([UDP, TCP, frames.HOP_BY_HOP, frames.ROUTING, frames.FRAGMENT, frames.DESTINATION]),
)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=100) | odd_packets)
@example(b"")
def test_no_bytes_make_it_fail_or_read_beyond_them(page: tuple[memoryview, int], data: bytes) -> None:
    buffer, end = page
    start = end - len(data)
    buffer[start:end] = data
    packet = parse(buffer, start, len(data))
    # The same bytes with others around them: what is around makes no difference.
    assert parse(b"\xff" * 90 + data + b"\xff" * 90, 90, len(data)) == packet
    assert parse(bytes(90) + data + bytes(90), 90, len(data)) == packet
