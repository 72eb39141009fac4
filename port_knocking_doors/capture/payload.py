"""The payload of a UDP knock: the kernel's filter that passes it alone, and words for any other one."""

import struct
from collections.abc import Callable

from port_knocking_doors.capture.bpf_assembler import Assembler, Label, Op
from port_knocking_doors.capture.bpf_source import by_ipv4, by_ipv6
from port_knocking_doors.model import PAYLOAD

_HEADER = 8  # of UDP (RFC 768)
_PACKET_HOST = 0  # linux/if_packet.h
_SKF_AD_PKTTYPE = 0xFFFFF004  # linux/filter.h: SKF_AD_OFF + SKF_AD_PKTTYPE
_SKF_NET_OFF = 0xFFF00000  # linux/filter.h: loads from here on are of the IP header
_IPV4_DESTINATION, _IPV6_DESTINATION = 16, 24  # linux/ip.h, linux/ipv6.h

_KNOWN = {
    b"": "it is empty",
    b"\0": "one zero byte, as knockd's client and netcat's -z send it",
    b"\n": "a newline alone",
    PAYLOAD.rstrip(): "the newline is missing",
    PAYLOAD.rstrip() + b"\r\n": "it ends with CR LF instead of a newline",
    PAYLOAD.rstrip() + b"\r": "it ends with CR instead of a newline",
    PAYLOAD.rstrip() + b"\0": "it ends with a zero byte instead of a newline",
    PAYLOAD.rstrip() + rb"\n": "it ends with a backslash and an n instead of a newline",
    PAYLOAD + b"\n": "it has two newlines",
    PAYLOAD + b"\0": "a zero byte follows the newline",
}


def hint(length: int, beginning: bytes) -> str:
    """What is wrong with another payload of `length` bytes, in words; empty where that is not known.

    `beginning`: its first bytes, all of them if it is short.
    """
    if length == len(beginning):
        if said := _KNOWN.get(beginning):
            return said
        if beginning.lower() == PAYLOAD:
            return "the letters must be small"
        if set(beginning) == {0}:
            return "zero bytes"
    return ""


def unicast() -> bytes:
    """The classic BPF program (linux/filter.h) that passes datagrams to one host, and no broadcast or multicast, from
    sources that can be (`bpf_source`).

    So a socket receives what the sniffer does. The packet begins at the UDP header.
    """
    return _program(lambda _: None)


def only(payload: bytes) -> bytes:
    """The same for datagrams with exactly this payload of 6 bytes."""
    word, rest = struct.unpack("!IH", payload)

    def test(asm: Assembler) -> None:
        reject = Label()
        asm.do(Op.LOAD_LENGTH)
        asm.branch(Op.IF_EQUAL, _HEADER + len(payload), no=reject)
        asm.do(Op.LOAD_WORD, _HEADER)
        asm.branch(Op.IF_EQUAL, word, no=reject)
        asm.do(Op.LOAD_HALF, _HEADER + 4)
        passed = Label()
        asm.branch(Op.IF_EQUAL, rest, passed)
        asm.here(reject)
        asm.do(Op.RETURN, 0)
        asm.here(passed)

    return _program(test)


def _program(test: Callable[[Assembler], None]) -> bytes:
    asm, reject, ipv4, passed = Assembler(), Label(), Label(), Label()
    asm.do(Op.LOAD_WORD, _SKF_AD_PKTTYPE)
    asm.branch(Op.IF_EQUAL, _PACKET_HOST, no=reject)
    asm.do(Op.LOAD_BYTE, _SKF_NET_OFF)
    asm.do(Op.AND, 0xF0)
    asm.branch(Op.IF_EQUAL, 0x40, ipv4)
    by_ipv6(asm, reject, _SKF_NET_OFF)
    asm.do(Op.LOAD_BYTE, _SKF_NET_OFF + _IPV6_DESTINATION)
    asm.branch(Op.IF_EQUAL, 0xFF, reject, passed)
    asm.here(ipv4)
    by_ipv4(asm, reject, _SKF_NET_OFF)
    asm.do(Op.LOAD_BYTE, _SKF_NET_OFF + _IPV4_DESTINATION)
    asm.branch(Op.IF_NOT_LESS, 0xE0, no=passed)
    asm.here(reject)
    asm.do(Op.RETURN, 0)
    asm.here(passed)
    test(asm)
    asm.do(Op.RETURN, 0xFFFF)
    return asm.assemble()
