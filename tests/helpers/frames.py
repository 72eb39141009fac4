"""Frames by description: what a packet is, and the bytes that say so (or that lie about it).

`Frame` knows what it is by construction, so that a test never has to parse what it built.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol as Shape
from typing import TypeVar

from port_knocking_doors.capture.bpf import Interest
from port_knocking_doors.model import Address, Protocol

from .bpf_machine import About

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60  # linux/ipv6.h, linux/in6.h
NO_NEXT_HEADER, AUTHENTICATION = 59, 51
UDP, TCP, ICMP = 17, 6, 1
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806  # linux/if_ether.h
VLAN = 0x8100
TO_HOST, TO_ALL, TO_GROUP, TO_OTHER, OUTGOING = range(5)  # PACKET_HOST …, linux/if_packet.h

SERVER4, CLIENT4, OTHER4 = map(IPv4Address, ("10.0.1.1", "10.0.1.2", "192.0.2.7"))
SERVER6, CLIENT6, OTHER6 = map(IPv6Address, ("fd00:0:0:1::1", "fd00:0:0:1::2", "2001:db8::7"))


@dataclass(frozen=True)
class Extension:
    """An extension header of IPv6: of `8 + 8 * units` bytes, and for a fragment its place (in units of 8 bytes)."""

    kind: int
    units: int = 0
    place: int = 0
    more: bool = False

    @property
    def size(self) -> int:
        return 8 if self.kind == FRAGMENT else 8 + 8 * self.units

    def packed(self, following: int) -> bytes:
        if self.kind == FRAGMENT:  # its second byte means nothing, whatever it is
            return struct.pack("!BBHI", following, self.units, self.place << 3 | self.more, 7)
        return struct.pack("!BB", following, self.units).ljust(self.size, b"\x01")


@dataclass(frozen=True)
class Frame:
    """One frame as it arrives: the packet, and what the kernel knows about it."""

    version: int = 4
    protocol: int = UDP
    port: int = 0
    source_port: int = 40000
    flags: int = 0
    """The whole byte of TCP, with the two bits of ECN."""
    sequence: int = 0
    payload: int | bytes = 0
    """The payload, or how many zero bytes it has."""
    source: Address | None = None
    destination: Address | None = None
    options: int = 0
    """Words of IPv4 options."""
    place: int = 0
    """Of an IPv4 fragment, in units of 8 bytes."""
    more: bool = False
    extensions: tuple[Extension, ...] = ()
    claimed_version: int | None = None
    claimed_words: int | None = None
    """The length of the IPv4 header, where it lies."""
    claimed_length: int | None = None
    """What the IP header says of the packet's length, where it lies."""
    cut: int | None = None
    """Bytes that are there, if not all of it."""
    padding: int = 0
    """Bytes behind the packet."""
    ethertype: int | None = None
    kind: int = TO_HOST
    tag: int | None = None
    interface: int = 2
    """Its index; 1 is `lo`."""
    is_summed: bool = False
    """Whether it has checksums: only a plain one of UDP, which sockets receive then."""

    @property
    def header(self) -> int:
        """Where the TCP or UDP header begins."""
        if self.version == 4:
            return 20 + 4 * self.options
        return 40 + sum(extension.size for extension in self.extensions)

    @property
    def size(self) -> int:
        """Of the whole packet, without padding."""
        return self.header + self.transport_size + len(bytes(self.payload))

    @property
    def transport_size(self) -> int:
        return {UDP: 8, TCP: 20}.get(self.protocol, 8)

    @property
    def to(self) -> Address:
        return self.destination or (SERVER4 if self.version == 4 else SERVER6)

    @property
    def by(self) -> Address:
        return self.source or (CLIENT4 if self.version == 4 else CLIENT6)

    @property
    def about(self) -> About:
        return About(self.ethertype or (IPV4 if self.version == 4 else IPV6), self.kind, self.tag, self.interface)

    def packet(self) -> bytes:
        """Its bytes from the IP header on."""
        whole = self._ip() + self._transport() + bytes(self.payload)
        if self.is_summed:
            whole = _summed(whole, self.header)
        return whole[: self.cut] + bytes(self.padding)

    def ethernet(self, to: bytes, by: bytes) -> bytes:
        """Its bytes on Ethernet."""
        tag = b"" if self.tag is None else struct.pack("!HH", VLAN, self.tag)
        return to + by + tag + struct.pack("!H", self.about.protocol) + self.packet()

    def _transport(self) -> bytes:
        if self.protocol == UDP:
            return struct.pack("!HHHH", self.source_port, self.port, 8 + len(bytes(self.payload)), 0)
        if self.protocol == TCP:
            ports = (self.source_port, self.port, self.sequence, 0, 5 << 4, self.flags, 1024, 0, 0)
            return struct.pack("!HHIIBBHHH", *ports)
        return struct.pack("!HHHH", self.source_port, self.port, 0, 0)

    def _ip(self) -> bytes:
        length = self.size if self.claimed_length is None else self.claimed_length
        if self.version == 4:
            words = 5 + self.options if self.claimed_words is None else self.claimed_words
            return struct.pack(
                "!BBHHHBBH4s4s",
                (self.claimed_version or 4) << 4 | words,
                0,
                length,
                1,
                self.more << 13 | self.place,
                64,
                self.protocol,
                0,
                self.by.packed,
                self.to.packed,
            ) + bytes([1] * 4 * self.options)
        kinds = [*(extension.kind for extension in self.extensions), self.protocol]
        chain = b"".join(
            extension.packed(following) for extension, following in zip(self.extensions, kinds[1:], strict=True)
        )
        start = struct.pack("!IHBB", (self.claimed_version or 6) << 28, max(0, length - 40), kinds[0], 64)
        return start + self.by.packed + self.to.packed + chain


def _summed(packet: bytes, header: int) -> bytes:
    """The packet with the checksums of IPv4 and UDP (RFC 1071)."""

    def checksum(data: bytes) -> bytes:
        total = sum(struct.unpack(f"!{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return struct.pack("!H", ~total & 0xFFFF or 0xFFFF)

    ip, udp = packet[:header], packet[header:]
    addresses = ip[12:20] if header == 20 else ip[8:40]
    if header == 20:
        ip = ip[:10] + checksum(ip) + ip[12:]
    pseudo = addresses + struct.pack("!II", len(udp), UDP)
    return ip + udp[:6] + checksum(pseudo + udp) + udp[8:]


def readable(frame: Frame) -> bool:
    """Whether its TCP or UDP header can be found, and is there; whatever lengths it claims."""
    if frame.protocol not in (UDP, TCP) or frame.claimed_version not in (None, frame.version):
        return False
    if frame.claimed_words not in (None, 5 + frame.options):
        return False
    chain = frame.extensions if frame.version == 6 else ()
    if len(chain) > 4 or any(one.kind not in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION) for one in chain):
        return False
    if any(one.kind == FRAGMENT and one.place for one in chain) or (frame.version == 4 and frame.place):
        return False
    return len(frame.packet()) >= frame.header + frame.transport_size


def is_honest(frame: Frame) -> bool:
    """Whether a socket can have its source; broadcast addresses of networks are not known here."""
    by = frame.by
    if by.is_loopback and frame.interface != 1:
        return False
    if isinstance(by, IPv6Address) and by.ipv4_mapped is not None:
        return False
    return (
        not (by.is_multicast or (int(by) >> (by.max_prefixlen - 8) == 0 and (by.version == 4 or not int(by))))
        and str(by) != "255.255.255.255"
    )


def arrives(frame: Frame, targets: Iterable[Address] = ()) -> bool:
    """Whether it is a packet of IP to this host, or comes in for a target, and not merely on its way to a VLAN."""
    if frame.about.protocol != (IPV4 if frame.version == 4 else IPV6):
        return False
    if frame.tag is not None and frame.tag % 4096:
        return False
    return frame.kind == TO_HOST or (frame.kind != OUTGOING and frame.to in set(targets))


def on_its_port(frame: Frame, interests: Iterable[Interest]) -> list[Interest]:
    protocol = {UDP: Protocol.UDP, TCP: Protocol.TCP}.get(frame.protocol)
    return [one for one in interests if one.protocol is protocol and one.first <= frame.port <= one.last]


def named(frame: Frame, interests: Iterable[Interest]) -> bool:
    """Whether an interest names its port and flags."""
    return any(
        frame.protocol == UDP or (frame.flags & 63) & one.mask == one.value for one in on_its_port(frame, interests)
    )


SOURCES: dict[int, tuple[Address | None, ...]] = {
    4: (
        *(None,) * 20,
        *map(
            IPv4Address,
            ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.254"),
        ),
        *map(IPv4Address, ("255.255.255.255", "223.255.255.255", "126.0.0.1", "128.0.0.1", "1.0.0.0")),
    ),
    6: (
        *(None,) * 20,
        *map(IPv6Address, ("::", "::1", "::2", "::10.0.0.2", "::ffff:10.0.0.2", "::fffe:10.0.0.2", "0:0:1::1")),
        *map(IPv6Address, ("ff02::1", "ff05::9", "fe80::1", "::1:ffff:a00:2", "0:1::ffff:a00:2")),
    ),
}
"""Sources at the edges of what a socket can have."""

T = TypeVar("T")


class Choose(Shape):
    """Takes one of the options: `random.Random.choice`, or hypothesis."""

    def __call__(self, options: Sequence[T], /) -> T: ...


def any_frame(choose: Choose, ports: Sequence[int]) -> Frame:
    """A frame of any kind. Half of them are plain: were all of them odd in many ways, none would be accepted."""
    version = choose((4, 6))
    protocol = choose((UDP, TCP))
    plain = Frame(
        version=version,
        protocol=protocol,
        port=choose(ports),
        source_port=choose(range(65536)),
        flags=choose(range(256)) if protocol == TCP else 0,
        sequence=choose((0, 1, 1 << 31, 0xFFFFFFFF)) if protocol == TCP else 0,
        payload=choose((0, 0, 6, 700)),
        kind=choose((TO_HOST, TO_HOST, TO_HOST, TO_ALL, TO_GROUP, TO_OTHER)),
        source=choose((None, *SOURCES[version])),
        interface=choose((1, 2, 2)),
        destination=choose((None, None, OTHER4)) if version == 4 else choose((None, None, OTHER6)),
        tag=choose((None, None, None, None, 0, 0xE000, 5)),
    )
    return plain if choose((True, False)) else _odd(choose, plain)


def _odd(choose: Choose, plain: Frame) -> Frame:
    kinds = (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT, FRAGMENT) * 2 + (AUTHENTICATION, NO_NEXT_HEADER)
    places = (0,) * 6 + (1, 185, 0x1000)
    if plain.version == 4:
        frame = replace(
            plain,
            options=choose((0, 0, 1, 3, 10)),
            place=choose(places),
            more=choose((False, True)),
            claimed_words=choose((None,) * 6 + (0, 4)),
        )
    else:
        chain = [
            Extension(choose(kinds), choose((0, 0, 1, 5, 31)), choose(places), choose((False, True)))
            for _ in range(choose((0, 1, 1, 2, 3, 4, 5)))
        ]
        frame = replace(plain, extensions=tuple(chain))
    frame = replace(
        frame,
        protocol=choose((plain.protocol,) * 8 + (ICMP,)),
        claimed_version=choose((None,) * 8 + (5, 10 - plain.version)),
        ethertype=choose((None,) * 8 + (ARP, IPV4, IPV6)),
        claimed_length=choose((None, None, None, 0, 27, 39, 48, 65535)),
    )
    cut = choose((None, None, None, None, *range(1, frame.size)))
    return replace(frame, cut=cut, padding=0 if cut else choose((0, 0, 18)))
