"""What a set of firewalld says of an address, by the set's type, options and entries."""

from ipaddress import ip_address

import pytest

from port_knocking_doors.firewall.source_set import Membership, SourceSet

INSIDE, OUTSIDE, PERHAPS = Membership.INSIDE, Membership.OUTSIDE, Membership.PERHAPS
NO_OPTIONS: dict[str, str] = {}
CASES = {
    "an address": ("hash:ip", NO_OPTIONS, ["10.0.0.2"], INSIDE),
    "another address": ("hash:ip", NO_OPTIONS, ["10.0.0.3"], OUTSIDE),
    "a network": ("hash:net", {"maxelem": "100000"}, ["10.1.0.0/16", "10.0.0.0/24"], INSIDE),
    "a range": ("hash:ip", NO_OPTIONS, ["10.0.0.1-10.0.0.9"], INSIDE),
    "IPv6 alone": ("hash:net", {"family": "inet6"}, ["fd00::/8"], OUTSIDE),
    "no entry": ("hash:net", NO_OPTIONS, [], PERHAPS),
    "an entry that is invalid": ("hash:net", NO_OPTIONS, ["x"], PERHAPS),
    "an address and a port": ("hash:ip,port", NO_OPTIONS, ["10.0.0.2,tcp:22"], PERHAPS),
    "another address and a port": ("hash:ip,port", NO_OPTIONS, ["10.0.0.3,tcp:22"], OUTSIDE),
    "a network and a port": ("hash:net,port", NO_OPTIONS, ["10.0.0.0/24,22"], PERHAPS),
    "an address and a mark": ("hash:ip,mark", NO_OPTIONS, ["10.0.0.2,0x1"], PERHAPS),
    "a network and an interface": ("hash:net,iface", NO_OPTIONS, ["10.0.0.0/24,eth0"], PERHAPS),
    "a hardware address": ("hash:mac", NO_OPTIONS, ["52:54:00:12:34:56"], PERHAPS),
    "a timeout": ("hash:ip", {"timeout": "60"}, [], PERHAPS),
    "a timeout, and an entry by a signal": ("hash:ip", {"timeout": "60"}, ["10.0.0.3"], PERHAPS),
    "a timeout of nothing": ("hash:ip", {"timeout": "0"}, ["10.0.0.3"], OUTSIDE),
}


@pytest.mark.parametrize(("type_", "options", "entries", "expected"), CASES.values(), ids=CASES)
def test_membership_is_known_where_a_knock_shows_it(
    type_: str, options: dict[str, str], entries: list[str], expected: Membership
) -> None:
    found = SourceSet(type_, options)
    found.add(entries)
    assert found.membership(ip_address("10.0.0.2")) is expected
    assert bool(found.doubt) or expected is not PERHAPS


def test_address_with_two_ports_stays_until_both_are_discarded() -> None:
    found = SourceSet("hash:ip,port")
    found.add(["10.0.0.2,tcp:22", "10.0.0.2,udp:5", "10.0.0.9,1"])
    found.discard("10.0.0.2,tcp:22")
    assert found.membership(ip_address("10.0.0.2")) is PERHAPS
    found.discard("10.0.0.2,udp:5")
    found.discard("10.0.0.2,udp:5")
    assert found.membership(ip_address("10.0.0.2")) is OUTSIDE


def test_set_that_firewalld_does_not_show_is_a_doubt() -> None:
    assert SourceSet.unknown().membership(ip_address("10.0.0.2")) is PERHAPS
    assert SourceSet.unknown().doubt
