"""Which zone a packet belongs to."""

from ipaddress import ip_address

import pytest

from port_knocking_doors.firewall.source_set import SourceSet
from port_knocking_doors.firewall.zones import Doubt, ZoneMatch, Zones


def set_of(type_: str, *entries: str, **options: str) -> SourceSet:
    found = SourceSet(type_, options)
    found.add(entries)
    return found


ZONES = Zones(
    default="public",
    interfaces={"eth1": "external", "eth2": "internal"},
    sources={
        "10.0.0.0/24": "work",
        "10.0.0.7": "home",
        "172.16.0.7/24": "lab",
        "fd00::/64": "dmz",
        "ipset:friends": "trusted",
        "52:54:00:12:34:56": "block",
    },
    sets={"friends": set_of("hash:net", "192.0.2.1", "198.51.100.0/24")},
)

CASES = {
    "no source, no interface of a zone: the default": ("192.0.2.9", "eth0", "public"),
    "an interface that is not known": ("192.0.2.9", "", "public"),
    "the interface's zone": ("192.0.2.9", "eth1", "external"),
    "a source beats the interface": ("10.0.0.2", "eth1", "work"),
    "of several sources' zones, the first by name": ("10.0.0.7", "eth1", "home"),
    "a network written with an address of a host in it": ("172.16.0.9", "eth1", "lab"),
    "an IPv6 network": ("fd00::5", "eth0", "dmz"),
    "an address of a set": ("192.0.2.1", "eth0", "trusted"),
    "a network of a set": ("198.51.100.77", "eth2", "trusted"),
    "an address outside of the set": ("203.0.113.1", "eth2", "internal"),
}


@pytest.mark.parametrize(("address", "interface", "zone"), CASES.values(), ids=CASES.keys())
def test_zone_is_that_of_source_then_interface_then_default(address: str, interface: str, zone: str) -> None:
    assert ZONES.zone_of(ip_address(address), interface) == zone


def test_active_zones_are_those_that_packets_can_belong_to() -> None:
    assert ZONES.active() == ("block", "dmz", "external", "home", "internal", "lab", "public", "trusted", "work")
    assert Zones(default="public").active() == ("public",)


def test_external_zones_are_without_those_of_containers() -> None:
    zones = Zones(
        "public",
        interfaces={"eth0": "external", "docker0": "docker", "virbr0": "libvirt"},
        sources={"10.88.0.0/16": "trusted"},
    )
    assert zones.external() == ("external", "public")


SORTED = Zones(
    default="public",
    interfaces={
        "tun+": "work",
        "tun0": "home",
        "tun1": "dmz",
        "eth+": "lan",
        "eth": "lab",
        "wg0": "first",
        "+": "rest",
    },
    sources={"10.0.0.0/16": "zulu", "10.0.0.0/24": "alpha", "10.9.0.0/16": "early", "10.9.9.9": "alpha"},
    priorities={"zulu": 0, "early": -5, "first": -10, "late": 7},
)
SORTED_CASES = {
    "a pattern": ("192.0.2.1", "tun7", "work"),
    "an exact name in a zone behind that of the pattern": ("192.0.2.1", "tun0", "home"),
    "an exact name ahead of the pattern": ("192.0.2.1", "tun1", "dmz"),
    "the pattern is the whole name": ("192.0.2.1", "tun", "work"),
    "the shorter name beside its pattern": ("192.0.2.1", "eth", "lab"),
    "a name that only contains the pattern": ("192.0.2.1", "mytun0", "public"),
    "the default zone's name before that of a zone of every interface": ("192.0.2.1", "", "public"),
    "an interface of a zone of higher priority before every source": ("10.0.0.1", "wg0", "first"),
    "the higher priority before the first name": ("10.9.9.9", "eth0", "early"),
    "the first name of one priority": ("10.0.0.1", "eth0", "alpha"),
    "a source before an interface of one priority": ("10.0.1.1", "tun1", "zulu"),
}


@pytest.mark.parametrize(("address", "interface", "zone"), SORTED_CASES.values(), ids=SORTED_CASES.keys())
def test_zone_is_found_by_priority_then_source_then_name(address: str, interface: str, zone: str) -> None:
    assert SORTED.match(ip_address(address), interface).zones == (zone,)


def test_release_without_order_may_use_each_zone_of_the_interface() -> None:
    zones = Zones("public", {"tun+": "work", "tun0": "home", "+": "dmz"}, is_sorted=False)
    address = ip_address("192.0.2.1")
    assert zones.match(address, "tun0") == ZoneMatch(("home", "work", "dmz"))
    assert zones.match(address, "tun1") == ZoneMatch(("work", "dmz"))


SETS = {
    "timed": set_of("hash:ip", timeout="60"),
    "empty": set_of("hash:ip"),
    "ports": set_of("hash:ip,port", "10.0.0.2,tcp:1000", "10.0.0.3,udp:1-5"),
    "machines": set_of("hash:mac", "52:54:00:12:34:56"),
    "sure": set_of("hash:net", "10.0.0.0/24", timeout="0"),
}
DOUBTS = {
    "a hardware address": ({"52:54:00:12:34:56": "work"}, ["work"]),
    "a set of hardware addresses": ({"ipset:machines": "work"}, ["work"]),
    "a set with a timeout": ({"ipset:timed": "work"}, ["work"]),
    "a set that firewalld lists no entries of": ({"ipset:empty": "work"}, ["work"]),
    "a set that firewalld does not show": ({"ipset:gone": "work"}, ["work"]),
    "a set of addresses and ports": ({"ipset:ports": "work"}, ["work"]),
    "a set of other addresses and ports": ({"ipset:ports": "work", "10.0.9.0/24": "dmz"}, ["work"]),
    "several": ({"ipset:timed": "work", "52:54:00:12:34:56": "home"}, ["home", "work"]),
    "a set behind the certain source": ({"10.0.0.2": "home", "ipset:timed": "work"}, []),
    "a set ahead of the certain source": ({"10.0.0.2": "work", "ipset:timed": "home"}, ["home"]),
    "a set of the certain source's zone": ({"10.0.0.2": "work", "ipset:timed": "work"}, []),
    "a set that contains the address": ({"ipset:sure": "home", "ipset:timed": "work"}, []),
    "a set of the default zone": ({"ipset:timed": "public"}, []),
}


@pytest.mark.parametrize(("sources", "expected"), DOUBTS.values(), ids=DOUBTS)
def test_source_that_a_knock_does_not_show_is_a_doubt(sources: dict[str, str], expected: list[str]) -> None:
    match = Zones("public", sources=sources, sets=SETS).match(ip_address("10.0.0.2"), "eth0")
    assert [doubt.zone for doubt in match.doubts] == expected
    assert all(doubt.reason and doubt.source in sources for doubt in match.doubts)


def test_address_outside_of_a_set_with_ports_is_no_doubt() -> None:
    match = Zones("public", sources={"ipset:ports": "work"}, sets=SETS).match(ip_address("10.0.0.9"), "eth0")
    assert match == ZoneMatch(("public",))


def test_set_that_changes_changes_the_zone() -> None:
    friends = set_of("hash:net", "192.0.2.0/24")
    zones = Zones("public", sources={"ipset:friends": "work"}, sets={"friends": friends})
    address = ip_address("10.0.0.2")
    assert zones.zone_of(address, "") == "public"
    friends.add(["10.0.0.0/8"])
    assert zones.zone_of(address, "") == "work"
    friends.discard("10.0.0.0/8")
    assert zones.zone_of(address, "") == "public"
    assert Doubt("work", "ipset:friends", "") not in zones.match(address, "").doubts


def test_doubts_are_the_sources_that_a_knock_does_not_show() -> None:
    sources = {"52:54:00:12:34:56": "work", "fd00::1:2:3:4:5": "home", **{f"ipset:{name}": "dmz" for name in SETS}}
    found = Zones("public", sources=sources, sets=SETS).doubts()
    assert {doubt.source for doubt in found} == sources.keys() - {"ipset:sure", "fd00::1:2:3:4:5"}
    assert all(doubt.reason for doubt in found)
