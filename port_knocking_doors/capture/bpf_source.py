"""The part of a receiver's filter that looks at a packet's source.

No honest packet has a source in 0.0.0.0/8, a multicast address or the broadcast address; for IPv6 ::, a multicast
address or an IPv4 address mapped into IPv6; or a loopback address on another interface than `lo`. The kernel drops most
of them ahead of its sockets (ip_route_input_slow in net/ipv4/route.c, ip6_rcv_core in net/ipv6/ip6_input.c), and a
sniffer receives all of them. It takes six instructions of an ordinary IPv4 packet, two of IPv6.

`at`: where the IP header begins, for a load.
"""

from port_knocking_doors.capture.bpf_assembler import Assembler, Label, Op

LOOPBACK_IFINDEX = 1  # net/flow.h
"""The index of `lo` in each network namespace."""

_SKF_AD_IFINDEX = 0xFFFFF008  # linux/filter.h: SKF_AD_OFF + SKF_AD_IFINDEX
_IPV4_SOURCE, _IPV6_SOURCE = 12, 8  # linux/ip.h, linux/ipv6.h


def by_ipv4(asm: Assembler, reject: Label, at: int = 0) -> None:
    """Go on if a socket can have this source: 1.0.0.0 to 223.255.255.255, and class E but for 255.255.255.255."""
    unusual, ours = Label(), Label()
    asm.do(Op.LOAD_WORD, at + _IPV4_SOURCE)
    asm.branch(Op.IF_EQUAL, 0xFFFFFFFF, reject)
    asm.do(Op.AND, 0xFF000000)
    asm.branch(Op.IF_EQUAL, 0, reject)
    asm.branch(Op.IF_EQUAL, 0x7F000000, unusual)
    asm.branch(Op.IF_NOT_LESS, 0xE0000000, no=ours)
    asm.branch(Op.IF_NOT_LESS, 0xF0000000, ours, reject)
    asm.here(unusual)
    _from_loopback(asm, reject)
    asm.here(ours)


def by_ipv6(asm: Assembler, reject: Label, at: int = 0) -> None:
    """Go on if a socket can have this source: not ::, ::ffff:0:0/96 or ff00::/8, and ::1 on `lo` alone."""
    ours, last = Label(), Label()
    asm.do(Op.LOAD_WORD, at + _IPV6_SOURCE)
    asm.branch(Op.IF_NOT_LESS, 0xFF000000, reject)
    asm.branch(Op.IF_EQUAL, 0, no=ours)
    asm.do(Op.LOAD_WORD, at + _IPV6_SOURCE + 4)
    asm.branch(Op.IF_EQUAL, 0, no=ours)
    asm.do(Op.LOAD_WORD, at + _IPV6_SOURCE + 8)
    asm.branch(Op.IF_EQUAL, 0xFFFF, reject)
    asm.branch(Op.IF_EQUAL, 0, last, ours)
    asm.here(last)
    asm.do(Op.LOAD_WORD, at + _IPV6_SOURCE + 12)
    asm.branch(Op.IF_EQUAL, 0, reject)
    asm.branch(Op.IF_EQUAL, 1, no=ours)
    _from_loopback(asm, reject)
    asm.here(ours)


def _from_loopback(asm: Assembler, reject: Label) -> None:
    asm.do(Op.LOAD_WORD, _SKF_AD_IFINDEX)
    asm.branch(Op.IF_EQUAL, LOOPBACK_IFINDEX, no=reject)
