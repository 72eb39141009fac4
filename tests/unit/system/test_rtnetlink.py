"""The kernel's messages about links and addresses: bytes in, changes out."""

import socket
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.system.netlink_attributes import attributes
from port_knocking_doors.system.rtnetlink import (
    IFA_F_DADFAILED,
    IFF_UP,
    Ifa,
    Ifla,
    Link,
    LinkChange,
    LinkInfo,
    LinkTable,
    NetlinkMessage,
    NetlinkType,
    messages,
    read_address,
    read_link,
)

TENTATIVE, PERMANENT, NOPREFIXROUTE = 0x40, 0x80, 0x200  # IFA_F_, linux/if_addr.h
NESTED = 0x8000  # NLA_F_NESTED, linux/netlink.h
AF_BRIDGE = 7  # linux/socket.h

Attribute = tuple[int, bytes]

HERE, THERE = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
HERE6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")


def packed(pairs: Iterable[Attribute]) -> bytes:
    return b"".join(struct.pack("@HH", 4 + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in pairs)


def message(kind: int, body: bytes, port: int = 0) -> bytes:
    return struct.pack("@IHHII", 16 + len(body), kind, 0, 0, port) + body + bytes(-len(body) % 4)


def link_body(
    index: int, name: str, *extra: Attribute, up: bool = True, family: int = 0, master: int = 0, part: str = ""
) -> bytes:
    pairs: list[Attribute] = [(Ifla.IFNAME, name.encode() + b"\0")] if name else []
    if master:
        pairs.append((Ifla.MASTER, struct.pack("@I", master)))
    if part:
        pairs.append((Ifla.LINKINFO | NESTED, packed([(LinkInfo.SLAVE_KIND, part.encode() + b"\0")])))
    return struct.pack("@BxHiII", family, 1, index, IFF_UP if up else 0, 0) + packed([*pairs, *extra])


def address_body(index: int, *pairs: Attribute, flags: int = PERMANENT, family: int = socket.AF_INET) -> bytes:
    return struct.pack("@BBBBI", family, 24, flags, 0, index) + packed(pairs)


class Kernel:
    """A table, fed with messages; `send` returns the changes."""

    def __init__(self) -> None:
        self.table = LinkTable()

    def send(self, kind: NetlinkType, body: bytes) -> list[tuple[LinkChange, str]]:
        changes = [self.table.apply(found) for found in messages(memoryview(message(kind, body)))]
        self.table.drop_stale_addresses()
        return [(change, link.name) for events in changes for change, link in events]

    def link(self, index: int, name: str, **keys: object) -> list[tuple[LinkChange, str]]:
        return self.send(NetlinkType.NEWLINK, link_body(index, name, **keys))  # type: ignore[arg-type]

    def address(self, index: int, address: bytes, *, gone: bool = False) -> list[tuple[LinkChange, str]]:
        body = address_body(index, (Ifa.LOCAL, address))
        return self.send(NetlinkType.DELADDR if gone else NetlinkType.NEWADDR, body)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


# --- reading


def test_link_with_every_attribute_is_read() -> None:
    body = link_body(
        7,
        "port0",
        (Ifla.MASTER, struct.pack("@I", 9)),
        (
            Ifla.LINKINFO | NESTED,
            packed([(LinkInfo.KIND, b"veth\0"), (99, b"?"), (LinkInfo.SLAVE_KIND, b"bridge\0")]),
        ),
        (Ifla.PROP_LIST | NESTED, packed([(Ifla.ALT_IFNAME, b"a\0"), (Ifla.ALT_IFNAME, b"b\0")])),
        (12345, b"unknown attribute"),
    )
    assert read_link(memoryview(body)) == Link("port0", 7, True, 9, "veth", "bridge", ("a", "b"))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(link_body(7, "eth0")[:15], id="cut in the header"),
        pytest.param(link_body(7, "eth0")[:18], id="cut in an attribute"),
        pytest.param(link_body(7, ""), id="without a name"),
        pytest.param(link_body(0, "eth0"), id="without an index"),
        pytest.param(link_body(7, "eth0", family=AF_BRIDGE), id="a bridge's message about its port"),
        pytest.param(link_body(7, "wlan0", (Ifla.WIRELESS, b"scan")), id="a radio's event"),
    ],
)
def test_message_that_is_not_about_a_link_is_ignored(body: bytes) -> None:
    assert read_link(memoryview(body)) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(address_body(3, (Ifa.ADDRESS, HERE), (Ifa.LOCAL, HERE)), (3, HERE, True), id="IPv4"),
        pytest.param(address_body(3, (Ifa.ADDRESS, THERE), (Ifa.LOCAL, HERE)), (3, HERE, True), id="point-to-point"),
        pytest.param(address_body(3, (Ifa.ADDRESS, HERE6), family=socket.AF_INET6), (3, HERE6, True), id="IPv6"),
        pytest.param(
            address_body(3, (Ifa.ADDRESS, HERE6), family=socket.AF_INET6, flags=TENTATIVE),
            (3, HERE6, True),
            id="still tentative",
        ),
        pytest.param(
            address_body(3, (Ifa.ADDRESS, HERE6), family=socket.AF_INET6, flags=TENTATIVE | IFA_F_DADFAILED),
            (3, HERE6, False),
            id="another host has it",
        ),
        pytest.param(
            address_body(3, (Ifa.LOCAL, HERE), (Ifa.FLAGS, struct.pack("@I", NOPREFIXROUTE)), flags=IFA_F_DADFAILED),
            (3, HERE, True),
            id="the wide flags count",
        ),
        pytest.param(address_body(3), None, id="no address"),
        pytest.param(address_body(3, (Ifa.LOCAL, HERE6)), None, id="of the wrong size"),
        pytest.param(address_body(3, (Ifa.LOCAL, HERE), family=28), None, id="MPLS"),
        pytest.param(address_body(3)[:7], None, id="cut in the header"),
        pytest.param(address_body(3, (Ifa.LOCAL, HERE))[:-1], None, id="cut in the address"),
    ],
)
def test_address_is_read(body: bytes, expected: tuple[int, bytes, bool] | None) -> None:
    assert read_address(memoryview(body)) == expected


def test_messages_are_read_up_to_a_truncated_one() -> None:
    data = message(NetlinkType.NEWLINK, b"12345") + message(77, b"") + message(NetlinkType.DONE, b"12345678", port=5)
    assert [bytes(found.body) for found in messages(memoryview(data))] == [b"12345", b"", b"12345678"]
    assert [found.kind for found in messages(memoryview(data[:-1]))] == [NetlinkType.NEWLINK, 77]
    assert [found.port for found in messages(memoryview(data))] == [0, 0, 5]


@pytest.mark.parametrize("length", [0, 3, 200])
def test_impossible_length_ends_the_reading(length: int) -> None:
    assert list(messages(memoryview(struct.pack("@IHHII", length, 16, 0, 0, 0) + bytes(50)))) == []
    assert list(attributes(memoryview(struct.pack("@HH", length, 1) + bytes(50)))) == []


@given(st.binary(max_size=200), st.sampled_from([0, *NetlinkType]))
def test_random_bytes_raise_nothing(noise: bytes, kind: int) -> None:
    table = LinkTable()
    for found in messages(memoryview(noise)):
        table.apply(found)
    table.apply(NetlinkMessage(kind, 0, 0, memoryview(noise)))
    table.drop_stale_addresses()


@given(st.data())
def test_truncated_and_flipped_bytes_raise_nothing(data: st.DataObject) -> None:
    whole = bytearray(
        message(NetlinkType.NEWLINK, link_body(7, "eth0", master=3, part="bridge"))
        + message(NetlinkType.NEWADDR, address_body(7, (Ifa.LOCAL, HERE)))
        + message(NetlinkType.DELLINK, link_body(7, "eth0"))
    )
    for _ in range(data.draw(st.integers(0, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    table = LinkTable()
    for found in messages(memoryview(whole)[: data.draw(st.integers(0, len(whole)))]):
        table.apply(found)


# --- the table


def test_link_appears_and_disappears_with_its_addresses(kernel: Kernel) -> None:
    assert kernel.link(4, "ppp0", up=False) == [(LinkChange.APPEARED, "ppp0")]
    assert kernel.link(4, "ppp0", up=False) == []
    assert kernel.link(4, "ppp0") == [(LinkChange.CAME_UP, "ppp0")]
    assert kernel.address(4, HERE) == [(LinkChange.ADDRESSES_CHANGED, "ppp0")]
    assert kernel.address(4, HERE) == []
    assert HERE in kernel.table.local
    assert kernel.link(4, "ppp0", up=False) == [(LinkChange.WENT_DOWN, "ppp0")]
    assert kernel.table.links[4].addresses == {HERE}
    assert kernel.send(NetlinkType.DELLINK, link_body(4, "ppp0")) == [(LinkChange.DISAPPEARED, "ppp0")]
    assert HERE not in kernel.table.local
    assert kernel.send(NetlinkType.DELLINK, link_body(4, "ppp0")) == []
    assert kernel.link(5, "ppp0") == [(LinkChange.APPEARED, "ppp0")]
    assert kernel.table.links[5].addresses == set()


def test_address_is_local_as_long_as_one_link_has_it(kernel: Kernel) -> None:
    kernel.link(4, "a")
    kernel.link(5, "b")
    kernel.address(4, HERE)
    kernel.address(5, HERE)
    assert kernel.address(4, HERE, gone=True) == [(LinkChange.ADDRESSES_CHANGED, "a")]
    assert HERE in kernel.table.local
    kernel.address(5, HERE, gone=True)
    assert HERE not in kernel.table.local
    assert kernel.address(5, HERE, gone=True) == []


def test_duplicate_address_of_another_host_is_not_local(kernel: Kernel) -> None:
    kernel.link(4, "a")
    for flags, ours in ((TENTATIVE, True), (TENTATIVE | IFA_F_DADFAILED, False)):
        kernel.send(NetlinkType.NEWADDR, address_body(4, (Ifa.ADDRESS, HERE6), family=socket.AF_INET6, flags=flags))
        assert (HERE6 in kernel.table.local) == ours


def test_address_of_an_unknown_link_is_ignored(kernel: Kernel) -> None:
    assert kernel.address(4, HERE) == []
    assert HERE not in kernel.table.local


def test_new_name_and_new_master_are_changes(kernel: Kernel) -> None:
    kernel.link(4, "eth0")
    assert kernel.link(4, "lan0") == [(LinkChange.RENAMED, "lan0")]
    assert kernel.link(4, "lan0", master=9, part="bridge") == [(LinkChange.MASTER_CHANGED, "lan0")]
    assert kernel.link(4, "lan0", up=False) == [(LinkChange.MASTER_CHANGED, "lan0"), (LinkChange.WENT_DOWN, "lan0")]


def test_port_that_leaves_its_bridge_still_exists(kernel: Kernel) -> None:
    kernel.link(4, "eth0")
    assert kernel.send(NetlinkType.DELLINK, link_body(4, "eth0", family=AF_BRIDGE)) == []
    assert 4 in kernel.table.links


def test_second_dump_yields_only_the_differences(kernel: Kernel) -> None:
    newer = Kernel()
    for table in (kernel, newer):
        table.link(1, "lo")
        table.address(1, bytes([10, 0, 0, 3]))
    kernel.link(2, "old")
    kernel.link(3, "eth0")
    kernel.address(3, HERE)
    newer.link(3, "eth0", up=False)
    newer.address(3, THERE)
    newer.link(4, "new")
    changes = [(change, link.name) for change, link in kernel.table.replace_with(newer.table)]
    assert sorted(changes, key=str) == sorted(
        [
            (LinkChange.DISAPPEARED, "old"),
            (LinkChange.WENT_DOWN, "eth0"),
            (LinkChange.ADDRESSES_CHANGED, "eth0"),
            (LinkChange.APPEARED, "new"),
        ],
        key=str,
    )
    assert kernel.table.links == newer.table.links
    assert kernel.table.local == newer.table.local
    assert kernel.table.local > {THERE, bytes([10, 0, 0, 3])}
