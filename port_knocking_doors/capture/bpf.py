"""Codes to capture → the classic BPF program that lets the kernel drop everything else (linux/filter.h).

For a cooked packet socket (SOCK_DGRAM, ETH_P_ALL): the packet begins at its IP header on every kind of link. The way of
a packet through the program:

    VLAN tag, ethertype --> IPv4: by whom? to us? first fragment?                    --> UDP: port        --> accept
                        --> IPv6: by whom? to us? extension headers, first fragment? --> TCP: port, flags --> accept

By whom: `bpf_source`.

Register X holds where the TCP or UDP header begins from the middle on, so that both families share the search over
ports. A load from beyond the packet's end rejects the packet by itself. The lengths that IP headers state are left to
user space.
"""

import socket
import struct
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from operator import and_, or_
from typing import NamedTuple

from port_knocking_doors.capture.bpf_assembler import INSTRUCTION_SIZE, Assembler, Label, Op
from port_knocking_doors.capture.bpf_source import by_ipv4, by_ipv6
from port_knocking_doors.capture.packet import MAX_EXTENSION_HEADERS, SKIPPED_HEADERS
from port_knocking_doors.knocks.code import flags_of, port_of, protocol_of
from port_knocking_doors.model import ALL_FLAGS, PORT_MAX, Address, Protocol

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS, linux/bpf_common.h
"""The kernel may have memory for fewer, and says ENOMEM: what it makes of the program, together with the one that is
being replaced, is charged to net.core.optmem_max. Older kernels come with 20,480 bytes of it: measured, enough for a
program of some 1,750 instructions, or for replacing one of 650 by another as long."""
MAX_TARGETS = 64
"""Of more addresses the program tests none: any destination passes, and user space decides."""

_ROW = 4
"""Ranges that are tried in turn where the search by halves ends. A port costs 1.25 instructions like this and 2 if
halved to the end, and an unwanted packet takes one step more."""
_BLOCK = 32
"""Ranges that share endings: small enough for all of a block's jumps to reach them, large enough for those not to
matter."""

_ETH_P_IP = 0x0800  # linux/if_ether.h
_ETH_P_IPV6 = 0x86DD
_PACKET_HOST = 0  # linux/if_packet.h
_PACKET_OUTGOING = 4
_VLAN_VID_MASK = 0x0FFF  # linux/if_vlan.h
_SKF_AD_OFF = -0x1000 & 0xFFFFFFFF  # linux/filter.h: loads from here on are about the packet, not of it
_SKF_AD_PROTOCOL = _SKF_AD_OFF
_SKF_AD_PKTTYPE = _SKF_AD_OFF + 4
_SKF_AD_VLAN_TAG = _SKF_AD_OFF + 44
_SKF_AD_VLAN_TAG_PRESENT = _SKF_AD_OFF + 48

# Where in a header (linux/ip.h, linux/ipv6.h, linux/udp.h, linux/tcp.h)
_IPV4_PLACE, _IPV4_PROTOCOL, _IPV4_DESTINATION = 6, 9, 16
_IPV6_NEXT, _IPV6_DESTINATION, _IPV6_HEADER = 6, 24, 40
_EXTENSION_NEXT, _EXTENSION_LENGTH, _FRAGMENT_PLACE, _FRAGMENT_HEADER = 0, 1, 2, 8
_PORT, _TCP_FLAGS, _TCP_HEADER, _UDP_HEADER = 2, 13, 20, 8


@dataclass(frozen=True)
class Interest:
    """Ports `first` to `last` of a protocol; of TCP the packets with `flags & mask == value` (mask 0: all)."""

    protocol: Protocol
    first: int
    last: int
    mask: int = 0
    value: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= PORT_MAX:
            raise ValueError(f"ports {self.first} to {self.last}, expected a range of ports")
        if self.mask & ~ALL_FLAGS or self.value & ~self.mask or (self.mask and self.protocol is not Protocol.TCP):
            raise ValueError(
                f"flags {self.value:#x} of {self.mask:#x}, expected flags of TCP, the value within the mask"
            )


def interests(codes: Iterable[int]) -> Iterator[Interest]:
    """Codes (`knocks.code`) as interests, one for each port.

    Of a TCP port's codes the program tests the flags on which all agree, so it may let more of them through.
    """
    flags_on: dict[tuple[Protocol, int], list[int]] = defaultdict(list)
    for code in codes:
        flags_on[protocol_of(code), port_of(code)].append(flags_of(code))
    for (protocol, port), flags in flags_on.items():
        if protocol is Protocol.UDP:
            yield Interest(Protocol.UDP, port, port)
        else:
            always, ever = reduce(and_, flags), reduce(or_, flags)
            agreed = ALL_FLAGS & ~(always ^ ever)
            yield Interest(Protocol.TCP, port, port, agreed, always & agreed)


def build(interests: Iterable[Interest], targets: Iterable[Address] = (), limit: int = MAX_INSTRUCTIONS) -> bytes:
    """The program that accepts what the interests name if it is for this host or for one of `targets`.

    An array of `struct sock_filter` with at most `limit` instructions. A packet that it accepts is cut behind its TCP
    or UDP header: the rest is not read, and a flood of long packets fills a ring no faster than of short.

    It may accept more than was asked for, never less, and so user space decides exactly:

    * interests that overlap with different flags are tested for what all of them agree on;
    * where there are more ranges of ports than the program can hold, neighbours are made one: first those with the
      smallest gaps and the same flags, and the more flags pass, the more does a gap count.
    """
    ranges = _ranges(interests)
    targets = tuple(targets)
    program = _program(ranges, targets)
    if len(program) <= limit * INSTRUCTION_SIZE:
        return program
    pairs = _neighbours(ranges)

    def fits(count: int) -> bool:
        return len(_program(_joined(ranges, pairs[:count]), targets)) <= limit * INSTRUCTION_SIZE

    at_least = min(max(0, len(ranges) - limit), len(pairs))  # a range takes one instruction or more
    count = at_least + bisect_left(range(at_least, len(pairs)), True, key=fits)
    if not fits(count):
        raise ValueError(f"a limit of {limit} instructions, expected enough for a program at all")
    return _program(_joined(ranges, pairs[:count]), targets)


# --- ranges of ports


class _Test(NamedTuple):
    """Of TCP's flags."""

    mask: int
    value: int

    def agreed(self, other: "_Test") -> "_Test":
        """The narrowest test that passes whatever either passes."""
        mask = self.mask & other.mask & ~(self.value ^ other.value)
        return _Test(mask, self.value & mask)


_ANY_FLAGS = _Test(0, 0)


class _Range(NamedTuple):
    protocol: Protocol
    first: int
    last: int
    test: _Test

    @property
    def size(self) -> int:
        """How many combinations of a port and of flags are in it."""
        return (self.last - self.first + 1) << (ALL_FLAGS & ~self.test.mask).bit_count()

    def joined(self, other: "_Range") -> "_Range":
        return _Range(self.protocol, self.first, other.last, self.test.agreed(other.test))


def _ranges(interests: Iterable[Interest]) -> list[_Range]:
    """The interests as ranges that do not overlap, in order; neighbours with the same test are one."""
    edges: dict[tuple[Protocol, int], list[tuple[_Test, int]]] = defaultdict(list)
    for interest in interests:
        test = _Test(interest.mask, interest.value)
        edges[interest.protocol, interest.first].append((test, +1))
        edges[interest.protocol, interest.last + 1].append((test, -1))
    ranges: list[_Range] = []
    active: Counter[_Test] = Counter()
    places = sorted(edges)
    for (protocol, port), (_, next_port) in pairwise(places):
        for test, change in edges[protocol, port]:
            active[test] += change
        active = +active
        if not active:
            continue
        found = _Range(protocol, port, next_port - 1, reduce(_Test.agreed, active))
        before = ranges[-1] if ranges else None
        if before and (protocol, port - 1, found.test) == (before.protocol, before.last, before.test):
            ranges[-1] = before.joined(found)
        else:
            ranges.append(found)
    return ranges


def _neighbours(ranges: Sequence[_Range]) -> list[int]:
    """The ranges that can be joined with the one before, by their numbers, those that let in least besides first."""
    costs = [
        (one.joined(other).size - one.size - other.size, number)
        for number, (one, other) in enumerate(pairwise(ranges), 1)
        if one.protocol is other.protocol
    ]
    return [number for _, number in sorted(costs)]


def _joined(ranges: Iterable[_Range], with_the_one_before: Iterable[int]) -> list[_Range]:
    numbers = frozenset(with_the_one_before)
    joined: list[_Range] = []
    for number, one in enumerate(ranges):
        if number in numbers:
            joined[-1] = joined[-1].joined(one)
        else:
            joined.append(one)
    return joined


# --- the program, part by part


def _program(ranges: Sequence[_Range], targets: Sequence[Address]) -> bytes:
    asm = Assembler()
    if not ranges:
        asm.do(Op.RETURN, 0)
        return asm.assemble()
    ipv4, ipv6, transport, accept = Label(), Label(), Label(), Label()
    _link(asm, ipv4, ipv6)
    asm.here(ipv6)
    _ipv6(asm, targets, transport)
    asm.here(ipv4)
    _ipv4(asm, targets, transport)
    asm.here(transport)
    _transport(asm, ranges, accept)
    asm.here(accept)
    asm.do(Op.X_TO_A)
    asm.do(Op.ADD, _TCP_HEADER)
    asm.do(Op.RETURN_A)
    return asm.assemble()


def _link(asm: Assembler, ipv4: Label, ipv6: Label) -> None:
    """A frame with a VLAN's tag on it comes by again on the VLAN's own interface; VLAN 0 is a mere priority mark."""
    untagged, reject = Label(), Label()
    asm.do(Op.LOAD_WORD, _SKF_AD_VLAN_TAG_PRESENT)
    asm.branch(Op.IF_EQUAL, 0, untagged)
    asm.do(Op.LOAD_WORD, _SKF_AD_VLAN_TAG)
    asm.branch(Op.IF_ANY_BIT, _VLAN_VID_MASK, reject)
    asm.here(untagged)
    asm.do(Op.LOAD_WORD, _SKF_AD_PROTOCOL)
    asm.branch(Op.IF_EQUAL, _ETH_P_IP, ipv4)
    asm.branch(Op.IF_EQUAL, _ETH_P_IPV6, ipv6)
    asm.here(reject)
    asm.do(Op.RETURN, 0)


def _ipv4(asm: Assembler, targets: Sequence[Address], transport: Label) -> None:
    """Ends at `transport` with the protocol in A and where its header begins in X."""
    reject = Label()
    asm.do(Op.LOAD_BYTE, 0)
    asm.branch(Op.IF_NOT_LESS, 0x45, no=reject)  # version 4, five words of header or more
    asm.branch(Op.IF_GREATER, 0x4F, reject)
    by_ipv4(asm, reject)
    _to_us(asm, targets, IPv4Address, reject)
    asm.do(Op.LOAD_HALF, _IPV4_PLACE)
    asm.branch(Op.IF_ANY_BIT, 0x1FFF, reject)
    asm.do(Op.LOAD_X_IPV4_HEADER_LENGTH, 0)
    asm.do(Op.LOAD_BYTE, _IPV4_PROTOCOL)
    asm.jump(transport)
    asm.here(reject)
    asm.do(Op.RETURN, 0)


def _ipv6(asm: Assembler, targets: Sequence[Address], transport: Label) -> None:
    """Ends at `transport` with the protocol in A and where its header begins in X."""
    reject = Label()
    asm.do(Op.LOAD_BYTE, 0)
    asm.do(Op.AND, 0xF0)
    asm.branch(Op.IF_EQUAL, 0x60, no=reject)
    by_ipv6(asm, reject)
    _to_us(asm, targets, IPv6Address, reject)
    asm.do(Op.LOAD_X, _IPV6_HEADER)
    asm.do(Op.LOAD_BYTE, _IPV6_NEXT)
    for _ in range(MAX_EXTENSION_HEADERS):
        _extension_header(asm, transport, reject)
    asm.jump(transport)
    asm.here(reject)
    asm.do(Op.RETURN, 0)


def _extension_header(asm: Assembler, transport: Label, reject: Label) -> None:
    """Move A and X from one header to the next, or leave for `transport` if it is no extension header."""
    fragment, sized, advance = Label(), Label(), Label()
    for kind in SKIPPED_HEADERS:
        asm.branch(Op.IF_EQUAL, kind, sized)
    asm.branch(Op.IF_EQUAL, socket.IPPROTO_FRAGMENT, fragment, transport)
    asm.here(fragment)
    asm.do(Op.LOAD_HALF_AT_X, _FRAGMENT_PLACE)
    asm.branch(Op.IF_ANY_BIT, 0xFFF8, reject)
    asm.do(Op.LOAD_BYTE_AT_X, _EXTENSION_NEXT)
    asm.do(Op.STORE, 0)
    asm.do(Op.LOAD, _FRAGMENT_HEADER)
    asm.jump(advance)
    asm.here(sized)
    asm.do(Op.LOAD_BYTE_AT_X, _EXTENSION_NEXT)
    asm.do(Op.STORE, 0)
    asm.do(Op.LOAD_BYTE_AT_X, _EXTENSION_LENGTH)  # in units of 8 bytes, without the first
    asm.do(Op.ADD, 1)
    asm.do(Op.SHIFT_LEFT, 3)
    asm.here(advance)
    asm.do(Op.ADD_X)
    asm.do(Op.A_TO_X)
    asm.do(Op.LOAD_STORED, 0)


def _to_us(
    asm: Assembler, targets: Sequence[Address], family: type[IPv4Address] | type[IPv6Address], reject: Label
) -> None:
    """Go on if the kernel takes the packet for this host's, or if it comes in and is for a target."""
    of_family = [target for target in targets if isinstance(target, family)]
    ours = Label()
    asm.do(Op.LOAD_WORD, _SKF_AD_PKTTYPE)
    if len(targets) > MAX_TARGETS:
        asm.branch(Op.IF_EQUAL, _PACKET_OUTGOING, reject)
    elif not of_family:
        asm.branch(Op.IF_EQUAL, _PACKET_HOST, no=reject)
    else:
        asm.branch(Op.IF_EQUAL, _PACKET_HOST, ours)
        asm.branch(Op.IF_EQUAL, _PACKET_OUTGOING, reject)
        for target in of_family:
            _is_destination(asm, target, ours)
        asm.do(Op.RETURN, 0)
    asm.here(ours)


def _is_destination(asm: Assembler, target: Address, ours: Label) -> None:
    """Leave for `ours` if the packet goes to `target`."""
    another = Label()
    start = _IPV4_DESTINATION if isinstance(target, IPv4Address) else _IPV6_DESTINATION
    for place, (word,) in enumerate(struct.iter_unpack("!I", target.packed)):
        asm.do(Op.LOAD_WORD, start + 4 * place)
        asm.branch(Op.IF_EQUAL, word, no=another)
    asm.jump(ours)
    asm.here(another)


def _transport(asm: Assembler, ranges: Sequence[_Range], accept: Label) -> None:
    for protocol, number, header in (
        (Protocol.UDP, socket.IPPROTO_UDP, _UDP_HEADER),
        (Protocol.TCP, socket.IPPROTO_TCP, _TCP_HEADER),
    ):
        of_protocol = [one for one in ranges if one.protocol is protocol]
        if of_protocol:
            another = Label()
            asm.branch(Op.IF_EQUAL, number, no=another)
            asm.do(Op.LOAD_BYTE_AT_X, header - 1)  # a header that is not whole rejects itself
            asm.do(Op.LOAD_HALF_AT_X, _PORT)
            _search(asm, of_protocol, accept)
            asm.here(another)
    asm.do(Op.RETURN, 0)


def _search(asm: Assembler, ranges: Sequence[_Range], accept: Label) -> None:
    """Accept if the port in A is in a range and the flags pass its test, else reject."""
    if len(ranges) > _BLOCK:
        lower, upper, upper_half = _halves(ranges)
        asm.branch(Op.IF_NOT_LESS, upper[0].first, upper_half)
        _search(asm, lower, accept)
        asm.here(upper_half)
        _search(asm, upper, accept)
        return
    tests = {one.test: Label() for one in ranges}
    passed, reject = tests.get(_ANY_FLAGS, Label()), Label()
    _search_block(asm, ranges, tests, reject)
    for test, label in tests.items():
        if label is not passed:
            asm.here(label)
            asm.do(Op.LOAD_BYTE_AT_X, _TCP_FLAGS)
            asm.do(Op.AND, test.mask)
            asm.branch(Op.IF_EQUAL, test.value, passed, reject)
    asm.here(passed)
    asm.jump(accept)
    asm.here(reject)
    asm.do(Op.RETURN, 0)


def _search_block(asm: Assembler, ranges: Sequence[_Range], tests: dict[_Test, Label], reject: Label) -> None:
    """Leave for the test of the range that the port in A is in, or for `reject`."""
    if len(ranges) > _ROW:
        lower, upper, upper_half = _halves(ranges)
        asm.branch(Op.IF_NOT_LESS, upper[0].first, upper_half)
        _search_block(asm, lower, tests, reject)
        asm.here(upper_half)
        _search_block(asm, upper, tests, reject)
        return
    for one in ranges:
        otherwise = reject if one is ranges[-1] else None
        if one.first == one.last:
            asm.branch(Op.IF_EQUAL, one.first, tests[one.test], otherwise)
        else:
            asm.branch(Op.IF_NOT_LESS, one.first, no=reject)  # the ranges that follow are higher still
            asm.branch(Op.IF_GREATER, one.last, otherwise, tests[one.test])


def _halves(ranges: Sequence[_Range]) -> tuple[Sequence[_Range], Sequence[_Range], Label]:
    """The lower part has a power of two of ranges, which fills rows and blocks."""
    middle = 1 << (len(ranges) - 1).bit_length() - 1
    return ranges[:middle], ranges[middle:], Label()
