"""Local routes of the kernel: bytes in, and what is local or a broadcast address."""

import socket
import struct
from ipaddress import ip_address

import pytest

from port_knocking_doors.system.local_routes import RTMSG, LocalRoute, LocalRoutes, Rta, Rtn, read_route

MAIN, LOCAL = 254, 255
UNICAST, BLACKHOLE = 1, 6  # RTN_, linux/rtnetlink.h


def packed(address: str) -> bytes:
    return ip_address(address).packed


def body(destination: str | None, bits: int, kind: int = Rtn.LOCAL, table: int = LOCAL, family: int = 0) -> memoryview:
    address = packed(destination) if destination else b""
    family = family or (socket.AF_INET if len(address) == 4 else socket.AF_INET6)
    found = RTMSG.pack(family, bits, 0, 0, table, 2, 254, kind, 0)
    for attribute, value in ((Rta.DST, address), (Rta.OIF, struct.pack("@I", 3)), (Rta.PRIORITY, struct.pack("@I", 9))):
        if value:
            found += struct.pack("@HH", 4 + len(value), attribute) + value
    return memoryview(found)


READ: dict[str, tuple[memoryview, LocalRoute | None]] = {
    "an address": (body("10.0.0.1", 32), LocalRoute(2, packed("10.0.0.1"), 32, 3, 9)),
    "a network": (body("192.0.2.0", 24), LocalRoute(2, packed("192.0.2.0"), 24, 3, 9)),
    "IPv6": (body("2001:db8::", 64), LocalRoute(2, packed("2001:db8::"), 64, 3, 9)),
    "a broadcast address": (body("10.0.0.255", 32, Rtn.BROADCAST), LocalRoute(3, packed("10.0.0.255"), 32, 3, 9)),
    "everything": (body(None, 0, family=socket.AF_INET), LocalRoute(2, bytes(4), 0, 3, 9)),
    "of another table": (body("10.0.0.1", 32, table=MAIN), None),
    "to another host": (body("10.0.0.1", 32, UNICAST), None),
    "a black hole": (body("10.0.0.1", 32, BLACKHOLE), None),
    "of another family": (body("10.0.0.1", 32, family=28), None),
    "too long a prefix": (body("10.0.0.1", 33), None),
    "cut in the header": (body("10.0.0.1", 32)[:11], None),
    "an address of the wrong size": (body("10.0.0.1", 32, family=socket.AF_INET6), None),
}


@pytest.mark.parametrize(("message", "route"), READ.values(), ids=READ)
def test_route_is_read(message: memoryview, route: LocalRoute | None) -> None:
    assert read_route(message) == route


def route(destination: str, bits: int, kind: int = Rtn.LOCAL, interface: int = 1) -> LocalRoute:
    return LocalRoute(kind, packed(destination), bits, interface, 0)


def test_address_is_local_within_a_local_route_while_it_exists() -> None:
    routes = LocalRoutes()
    for one in (route("10.0.0.1", 32), route("192.0.2.0", 24), route("2001:db8::", 64), route("10.0.0.255", 32, 3)):
        assert routes.put(one)
        assert not routes.put(one), "known already"
    for address in ("10.0.0.1", "192.0.2.0", "192.0.2.255", "2001:db8::99"):
        assert routes.is_local(packed(address))
    for address in ("10.0.0.2", "192.0.3.0", "10.0.0.255", "2001:db8:0:1::", "::c000:201"):
        assert not routes.is_local(packed(address))
    assert routes.is_broadcast(packed("10.0.0.255"))
    assert not routes.is_broadcast(packed("10.0.0.1"))
    assert routes.remove(route("192.0.2.0", 24))
    assert not routes.remove(route("192.0.2.0", 24))
    assert not routes.is_local(packed("192.0.2.1"))
    assert routes.remove(route("10.0.0.255", 32, 3))
    assert not routes.is_broadcast(packed("10.0.0.255"))


def test_second_route_to_an_address_keeps_it_local() -> None:
    routes = LocalRoutes()
    for interface in (1, 2):
        routes.put(route("10.0.0.1", 32, interface=interface))
        routes.put(route("192.0.2.0", 24, interface=interface))
    routes.remove(route("10.0.0.1", 32, interface=1))
    routes.remove(route("192.0.2.0", 24, interface=2))
    assert routes.is_local(packed("10.0.0.1"))
    assert routes.is_local(packed("192.0.2.7"))


def test_tables_with_the_same_routes_are_equal() -> None:
    one, other = LocalRoutes(), LocalRoutes()
    one.put(route("10.0.0.1", 32))
    assert one != other
    other.put(route("10.0.0.1", 32))
    assert one == other
    other.remove(route("10.0.0.1", 32))
    assert other == LocalRoutes()
