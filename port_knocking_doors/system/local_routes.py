"""The kernel's local routing table (RT_TABLE_LOCAL): what is delivered to this host, and its broadcast addresses.

Each address of a link has a route there, and `ip route add local 192.0.2.0/24 dev lo` adds others. Bytes of
rtnetlink(7) in; no socket.
"""

import socket
import struct
from collections import Counter
from enum import IntEnum
from typing import NamedTuple

from port_knocking_doors.system.netlink_attributes import aligned, attributes

RTMSG = struct.Struct("@BBBBBBBBI")
"""struct rtmsg (linux/rtnetlink.h): family, lengths of destination and source, TOS, table, protocol, scope, type,
flags."""
RT_TABLE_LOCAL = 255

_U32 = struct.Struct("@I")
_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Rta(IntEnum):
    """Attributes of a route (linux/rtnetlink.h)."""

    DST = 1
    OIF = 4
    PRIORITY = 6


class Rtn(IntEnum):
    """Types of routes (linux/rtnetlink.h)."""

    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4


class LocalRoute(NamedTuple):
    """One route of the table."""

    kind: int
    """Of `Rtn`."""
    destination: bytes
    """Packed, with the bits behind the prefix as the kernel has them: 0."""
    bits: int
    """Length of the prefix."""
    interface: int
    priority: int


def read_route(body: memoryview) -> LocalRoute | None:
    """RTM_NEWROUTE or RTM_DELROUTE: the route; None if it is of another table or of a type that does not matter."""
    if len(body) < RTMSG.size:
        return None
    family, bits, _, _, table, _, _, kind, _ = RTMSG.unpack_from(body)
    size = _SIZES.get(family)
    if table != RT_TABLE_LOCAL or kind not in set(Rtn) or size is None or bits > 8 * size:
        return None
    found = dict(attributes(body[aligned(RTMSG.size) :]))
    destination = bytes(found.get(Rta.DST, bytes(size)))
    if len(destination) != size:
        return None
    return LocalRoute(kind, destination, bits, _number(found.get(Rta.OIF)), _number(found.get(Rta.PRIORITY)))


def _number(value: memoryview | None) -> int:
    return int(_U32.unpack_from(value)[0]) if value is not None and len(value) >= _U32.size else 0


class LocalRoutes:
    """The routes of the table, kept by the kernel's messages."""

    def __init__(self) -> None:
        self._routes: set[LocalRoute] = set()
        self._hosts: dict[bool, Counter[bytes]] = {False: Counter(), True: Counter()}
        """Destinations that are one address, local and of broadcasts, with the number of their routes."""
        self._networks: Counter[tuple[int, int, int]] = Counter()
        """Other local destinations: bytes of an address, bits behind the prefix, prefix."""

    def put(self, route: LocalRoute) -> bool:
        """Add the route; whether it is new."""
        if route in self._routes:
            return False
        self._routes.add(route)
        self._count(route, 1)
        return True

    def remove(self, route: LocalRoute) -> bool:
        """Remove the route; whether it was known."""
        if route not in self._routes:
            return False
        self._routes.discard(route)
        self._count(route, -1)
        return True

    def is_local(self, address: bytes) -> bool:
        """Whether packets to this packed address are delivered to this host."""
        if self._hosts[False][address]:
            return True
        number, size = int.from_bytes(address, "big"), len(address)
        return any(size == of and number >> behind == prefix for of, behind, prefix in self._networks)

    def is_broadcast(self, address: bytes) -> bool:
        """Whether it is a broadcast address of a network that this host is in."""
        return self._hosts[True][address] > 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalRoutes) and self._routes == other._routes

    __hash__ = None  # type: ignore[assignment]

    def _count(self, route: LocalRoute, change: int) -> None:
        size = len(route.destination)
        if route.bits == 8 * size:
            hosts = self._hosts[route.kind == Rtn.BROADCAST]
            hosts[route.destination] += change
            if not hosts[route.destination]:
                del hosts[route.destination]
        elif route.kind != Rtn.BROADCAST:
            behind = 8 * size - route.bits
            network = (size, behind, int.from_bytes(route.destination, "big") >> behind)
            self._networks[network] += change
            if not self._networks[network]:
                del self._networks[network]
