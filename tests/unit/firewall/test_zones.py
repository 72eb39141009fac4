"""Which zone a packet belongs to."""

from ipaddress import ip_address

import pytest

from port_knocking_doors.firewall.zones import Zones

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
    ipsets={"friends": ("192.0.2.1", "198.51.100.0/24", "203.0.113.1,tcp:80")},
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
    "an entry of another kind of set matches no address": ("203.0.113.1", "eth2", "internal"),
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
