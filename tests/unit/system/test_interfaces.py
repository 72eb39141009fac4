"""The links that an `InterfaceMonitor` selects, and what it knows of this machine."""

import socket

import pytest

from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.rtnetlink import Link

SELECTED = [
    # patterns, links as (index, name, master, kind of its master), the selected names
    pytest.param((), [(1, "eth0", 0, "")], {"eth0"}, id="all by default"),
    pytest.param((), [(1, "eth0", 2, "bridge"), (2, "br0", 0, "")], {"br0"}, id="a port is not, its bridge is"),
    pytest.param((), [(1, "eth0", 2, "bond"), (2, "bond0", 3, "bridge"), (3, "br0", 0, "")], {"br0"}, id="two up"),
    pytest.param((), [(1, "eth0", 2, "vrf"), (2, "red", 0, "")], {"eth0", "red"}, id="a vrf's part is"),
    pytest.param((), [(1, "eth0", 2, "bridge")], {"eth0"}, id="an unknown master"),
    pytest.param((), [(1, "a", 2, "bond"), (2, "b", 1, "bond")], set(), id="a circle ends"),
    pytest.param(("ppp*", "eth0"), [(1, "eth0", 0, ""), (2, "eth1", 0, ""), (3, "ppp7", 0, "")], {"eth0", "ppp7"}),
    pytest.param(("eth0",), [(1, "eth0", 2, "bridge"), (2, "br0", 0, "")], {"eth0"}, id="the port alone was asked for"),
    pytest.param(("br0", "eth*"), [(1, "eth0", 2, "bridge"), (2, "br0", 0, "")], {"br0"}, id="both were asked for"),
]


@pytest.mark.parametrize(("patterns", "links", "expected"), SELECTED)
def test_links_are_selected_by_patterns_and_masters(
    patterns: tuple[str, ...], links: list[tuple[int, str, int, str]], expected: set[str]
) -> None:
    with InterfaceMonitor() as watched:
        watched._table.links = {  # in place of the machine's own
            index: Link(name, index, True, master, "", part) for index, name, master, part in links
        }
        assert {name for index, name, _, _ in links if watched.is_selected(index, patterns)} == expected


def test_loopback_is_known_and_local_without_an_event_loop() -> None:
    with InterfaceMonitor() as links:
        index = links.index_of("lo")
        assert index is not None
        assert links.name_of(index) == "lo"
        assert links.is_selected(index)
        assert all(map(links.is_local, (bytes([127, 0, 0, 1]), bytes([127, 9, 8, 7]), bytes(15) + b"\1")))
        assert not links.is_local(bytes([203, 0, 113, 77]))
        assert not links.is_local(socket.inet_pton(socket.AF_INET6, "7f00::1"))
        assert links.name_of(10**6) == ""
        assert links.index_of("no-such-link") is None
        assert not links.is_selected(10**6)
    links.close()
