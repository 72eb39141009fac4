"""The kernel's messages about links and addresses (rtnetlink(7)): bytes in, changes of a table out; no socket."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, auto
from fnmatch import fnmatchcase
from typing import NamedTuple

from port_knocking_doors.system.local_routes import RT_TABLE_LOCAL, RTMSG, LocalRoutes, read_route
from port_knocking_doors.system.netlink_attributes import aligned, attributes

NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300  # linux/netlink.h
_NLMSGHDR = struct.Struct("@IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_NLMSGERR = struct.Struct("@i")  # struct nlmsgerr: negative errno, then the request
_U32 = struct.Struct("@I")
_IFINFOMSG = struct.Struct("@BxHiII")  # struct ifinfomsg (linux/rtnetlink.h): family, type, index, flags, flags changed
_IFADDRMSG = struct.Struct("@BBBBI")  # struct ifaddrmsg (linux/if_addr.h): family, prefix length, flags, scope, index
IFF_UP = 0x1  # linux/if.h
IFA_F_DADFAILED = 0x08  # linux/if_addr.h


class NetlinkType(IntEnum):
    """Types of messages (linux/netlink.h, linux/rtnetlink.h)."""

    ERROR = 2
    DONE = 3
    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22
    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26


class Ifla(IntEnum):
    """Attributes of a link (linux/if_link.h)."""

    IFNAME = 3
    MASTER = 10
    WIRELESS = 11
    LINKINFO = 18
    PROP_LIST = 52
    ALT_IFNAME = 53  # inside of PROP_LIST


class LinkInfo(IntEnum):
    """Attributes inside of IFLA_LINKINFO (linux/if_link.h)."""

    KIND = 1
    SLAVE_KIND = 4


class Ifa(IntEnum):
    """Attributes of an address (linux/if_addr.h)."""

    ADDRESS = 1
    LOCAL = 2
    FLAGS = 8


_LOOPBACK6 = bytes(15) + b"\1"  # ::1
_ADDRESS_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}


class NetlinkMessage(NamedTuple):
    """One netlink message."""

    kind: int
    flags: int
    port: int
    """Port of the socket whose request it answers; 0 for a notification."""
    body: memoryview

    @property
    def is_interrupted(self) -> bool:
        """Whether it is part of a dump during which something changed."""
        return bool(self.flags & NLM_F_DUMP_INTR)

    @property
    def errno(self) -> int:
        """The errno of an `ERROR`; 0 for success, and for a truncated message."""
        return -_NLMSGERR.unpack_from(self.body)[0] if len(self.body) >= _NLMSGERR.size else 0


def request(kind: NetlinkType, port: int) -> bytes:
    """A request for everything of one kind (`GETLINK`, `GETADDR`, `GETROUTE`), from the socket with this port.

    Of routes it is for those of the local table, if the socket has NETLINK_GET_STRICT_CHK.
    """
    if kind == NetlinkType.GETROUTE:
        body = RTMSG.pack(0, 0, 0, 0, RT_TABLE_LOCAL, 0, 0, 0, 0)
    else:
        body = bytes((_IFINFOMSG if kind == NetlinkType.GETLINK else _IFADDRMSG).size)
    return packed_message(kind, NLM_F_REQUEST | NLM_F_DUMP, body, port)


def packed_message(kind: int, flags: int, body: bytes, port: int = 0) -> bytes:
    """One message with its header."""
    return _NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, flags, 0, port) + body


def messages(data: memoryview) -> Iterator[NetlinkMessage]:
    """The messages in the data of one `recv`; a truncated one is left out."""
    while len(data) >= _NLMSGHDR.size:
        length, kind, flags, _, port = _NLMSGHDR.unpack_from(data)
        if not _NLMSGHDR.size <= length <= len(data):
            return
        yield NetlinkMessage(kind, flags, port, data[_NLMSGHDR.size : length])
        data = data[aligned(length) :]


@dataclass(frozen=True)
class Link:
    """One network interface."""

    name: str
    index: int
    up: bool = False
    """Whether it is set up, with or without a carrier."""
    master: int = 0
    """Index of the bridge, bond or the like that it is part of; 0 for none."""
    kind: str = ""
    """`bridge`, `vlan`, `veth`, …; empty for a hardware device."""
    part: str = ""
    """The kind of its master: `bridge`, `bond`, `vrf`, …"""
    alternatives: tuple[str, ...] = ()
    """Its other names (altname in ip-link(8))."""
    addresses: set[bytes] = field(default_factory=set, compare=False)
    """Packed; one set for the lifetime of the link, since copies of thousands of addresses would take seconds."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.alternatives)


def read_link(body: memoryview) -> Link | None:
    """The link in RTM_NEWLINK or RTM_DELLINK, without addresses; None if the message is not about a link itself."""
    if len(body) < _IFINFOMSG.size:
        return None
    family, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    if family != socket.AF_UNSPEC:
        return None  # from a bridge: its port is "deleted", but the link still exists
    name, master, kind, part, alternatives = "", 0, "", "", []
    for attribute, value in attributes(body[aligned(_IFINFOMSG.size) :]):
        match attribute:
            case Ifla.IFNAME:
                name = _text(value)
            case Ifla.MASTER:
                master = _number(value)
            case Ifla.WIRELESS:  # an event of a radio, with hardly a field of the link
                return None
            case Ifla.LINKINFO:
                info = dict(attributes(value))
                kind, part = (_text(info.get(which, b"")) for which in (LinkInfo.KIND, LinkInfo.SLAVE_KIND))
            case Ifla.PROP_LIST:
                alternatives = [_text(other) for which, other in attributes(value) if which == Ifla.ALT_IFNAME]
    if not name or index <= 0:
        return None
    return Link(name, index, bool(flags & IFF_UP), master, kind, part, tuple(alternatives))


def read_address(body: memoryview) -> tuple[int, bytes, bool] | None:
    """RTM_NEWADDR or RTM_DELADDR: the link's index, its packed address, and whether the address belongs to this host.

    A tentative IPv6 address belongs to this host already, so that no knock to it is missed; an address that duplicate
    address detection found on another host does not.
    """
    if len(body) < _IFADDRMSG.size:
        return None
    family, _, flags, _, index = _IFADDRMSG.unpack_from(body)
    found = dict(attributes(body[aligned(_IFADDRMSG.size) :]))
    # In a message with both, ADDRESS is the other end of a point-to-point link.
    address = bytes(found.get(Ifa.LOCAL, found.get(Ifa.ADDRESS, b"")))
    if len(address) != _ADDRESS_SIZES.get(family):
        return None
    if Ifa.FLAGS in found:  # all flags; the header has eight bits only
        flags = _number(found[Ifa.FLAGS])
    return index, address, not flags & IFA_F_DADFAILED


def _text(value: memoryview | bytes) -> str:
    return bytes(value).partition(b"\0")[0].decode(errors="replace")


def _number(value: memoryview) -> int:
    return int(_U32.unpack_from(value)[0]) if len(value) >= _U32.size else 0


class LinkChange(Enum):
    """A change of a link."""

    APPEARED = auto()
    DISAPPEARED = auto()
    CAME_UP = auto()
    WENT_DOWN = auto()
    RENAMED = auto()
    MASTER_CHANGED = auto()  # became part of another link, or left it
    ADDRESSES_CHANGED = auto()  # an address was added or removed


LinkEvent = tuple[LinkChange, Link]
"""A change, with the link after it, or before it if the link disappeared."""


class LinkTable:
    """Links by index, and the host's addresses, kept by the kernel's messages."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.local: set[bytes] = {_LOOPBACK6}
        self._has_stale = False
        self.routes = LocalRoutes()
        self.has_new_routes = False
        """Whether `routes` changed since this was set to False."""

    def apply(self, message: NetlinkMessage) -> list[LinkEvent]:
        """Apply one message and return the changes; a message of another kind changes nothing."""
        match message.kind:
            case NetlinkType.NEWLINK | NetlinkType.DELLINK:
                link = read_link(message.body)
                if link is None:
                    return []
                return self._put(link) if message.kind == NetlinkType.NEWLINK else self._remove(link.index)
            case NetlinkType.NEWADDR | NetlinkType.DELADDR:
                found = read_address(message.body)
                if found is None:
                    return []
                index, address, ours = found
                return self._address(index, address, ours and message.kind == NetlinkType.NEWADDR)
            case NetlinkType.NEWROUTE | NetlinkType.DELROUTE:
                if (route := read_route(message.body)) is not None:
                    change = self.routes.put if message.kind == NetlinkType.NEWROUTE else self.routes.remove
                    self.has_new_routes |= change(route)
        return []

    def drop_stale_addresses(self) -> None:
        """Drop addresses that no link has any more; call it once for many messages, since it visits every address."""
        if self._has_stale:
            self._has_stale = False
            self.local = {_LOOPBACK6}.union(*(link.addresses for link in self.links.values()))

    def replace_with(self, newer: "LinkTable") -> list[LinkEvent]:
        """Become equal to `newer`, and return the changes."""
        events = [event for index in self.links.keys() - newer.links.keys() for event in self._remove(index)]
        for index, link in newer.links.items():
            events += self._put(link)
            mine = self.links[index]
            if mine.addresses != link.addresses:
                mine.addresses.clear()
                mine.addresses.update(link.addresses)
                self._has_stale = True
                events.append((LinkChange.ADDRESSES_CHANGED, mine))
        self.drop_stale_addresses()
        self.has_new_routes |= self.routes != newer.routes
        self.routes = newer.routes
        return events

    def _put(self, link: Link) -> list[LinkEvent]:
        before = self.links.get(link.index)
        if before is None:
            self.links[link.index] = link
            self.local |= link.addresses
            return [(LinkChange.APPEARED, link)]
        link = self.links[link.index] = replace(link, addresses=before.addresses)
        changes = []
        if link.names != before.names:
            changes.append(LinkChange.RENAMED)
        if (link.master, link.part) != (before.master, before.part):
            changes.append(LinkChange.MASTER_CHANGED)
        if link.up != before.up:
            changes.append(LinkChange.CAME_UP if link.up else LinkChange.WENT_DOWN)
        return [(change, link) for change in changes]

    def _remove(self, index: int) -> list[LinkEvent]:
        link = self.links.pop(index, None)
        if link is None:
            return []
        self._has_stale |= bool(link.addresses)
        return [(LinkChange.DISAPPEARED, link)]

    def _address(self, index: int, address: bytes, ours: bool) -> list[LinkEvent]:
        link = self.links.get(index)
        if link is None or (address in link.addresses) == ours:
            return []
        if ours:
            link.addresses.add(address)
            self.local.add(address)
        else:
            link.addresses.discard(address)
            self._has_stale = True
        return [(LinkChange.ADDRESSES_CHANGED, link)]


def matches(link: Link, patterns: tuple[str, ...]) -> bool:
    """Whether a name of the link matches one of the patterns (fnmatch), or there are none."""
    return not patterns or any(fnmatchcase(name, pattern) for name in link.names for pattern in patterns)
