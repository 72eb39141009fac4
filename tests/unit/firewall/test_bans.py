"""Who is banned, by zones and by rich rules."""

from ipaddress import ip_address

import pytest

from port_knocking_doors.firewall.bans import Denials, PolicyDenials
from port_knocking_doors.firewall.source_set import SourceSet
from port_knocking_doors.firewall.zone_settings import ServiceSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Port, Protocol

SERVICES = {
    "ssh": ServiceSettings(ports=(("22", "tcp"),)),
    "web": ServiceSettings(ports=(("80", "tcp"),)),
    "both": ServiceSettings(includes=("web", "ssh")),
}
SETS = {"bad": SourceSet("hash:net"), "timed": SourceSet("hash:ip", {"timeout": "60"})}
SETS["bad"].add(["10.0.0.0/24", "10.9.0.0/16"])
OTHERS_TOO = (Port(80), Port(1194, Protocol.UDP))
SOURCE = 'rule family="ipv4" source address="10.0.0.2"'

BANS = {
    "an address": f"{SOURCE} reject",
    "an address, dropped": f"{SOURCE} drop",
    "an address, with a kind of rejection": f'{SOURCE} reject type="icmp-port-unreachable"',
    "an address, logged": f'{SOURCE} log prefix="bad" level="info" limit value="1/m" drop',
    "a network": 'rule family="ipv4" source address="10.0.0.0/8" drop',
    "a network by an address in it": 'rule family="ipv4" source address="10.0.0.7/24" drop',
    "without quotation marks": "rule family=ipv4 source address=10.0.0.2 reject",
    "a port": f'{SOURCE} port port="22" protocol="tcp" reject',
    "a range of ports": f'{SOURCE} port port="20-25" protocol="tcp" reject',
    "a service": f'{SOURCE} service name="ssh" drop',
    "a service that includes another": f'{SOURCE} service name="both" drop',
    "a protocol": f'{SOURCE} protocol value="tcp" drop',
    "a source port, which is free to choose": f'{SOURCE} source-port port="5" protocol="tcp" drop',
    "a set": 'rule source ipset="bad" drop',
    "every address but another": 'rule family="ipv4" source NOT address="10.1.0.0/16" drop',
    "every address but another, in the older way": 'rule family="ipv4" source address="10.1.0.0/16" invert="True" drop',
    "ahead of all": f"{SOURCE} reject".replace("rule", 'rule priority="-32768"'),
    "behind the door": f"{SOURCE} reject".replace("rule", 'rule priority="32767"'),
}
NO_BANS = {
    "an acceptance": f"{SOURCE} accept",
    "an acceptance that is logged": f'{SOURCE} log prefix="drop" accept',
    "another address": 'rule family="ipv4" source address="10.0.0.3" reject',
    "another network": 'rule family="ipv4" source address="10.1.0.0/16" reject',
    "another family": 'rule family="ipv6" source address="fd00::2" reject',
    "every source": "rule drop",
    "every source to the port": 'rule port port="22" protocol="tcp" reject',
    "every address": 'rule family="ipv4" source address="0.0.0.0/0" drop',
    "another port": f'{SOURCE} port port="23" protocol="tcp" reject',
    "the port of another protocol": f'{SOURCE} port port="22" protocol="udp" reject',
    "another service": f'{SOURCE} service name="web" reject',
    "a service that is unknown": f'{SOURCE} service name="gone" reject',
    "a message of ICMP": f'{SOURCE} icmp-block name="echo-request"',
    "some destinations": f'{SOURCE} destination address="10.0.0.1" reject',
    "a hardware address": 'rule source mac="52:54:00:12:34:56" drop',
    "another set": 'rule source ipset="other" drop',
    "a set with a timeout": 'rule source ipset="timed" drop',
    "every address but those of a set": 'rule source NOT ipset="bad" drop',
    "every address but this": 'rule family="ipv4" source NOT address="10.0.0.0/16" drop',
    "a mark": f'{SOURCE} mark set="1"',
}


def found_by(rule: str, *ports: Port) -> str:
    return Denials([rule]).find(ip_address("10.0.0.2"), ports or (Port(22),), SETS, SERVICES)


@pytest.mark.parametrize("rule", BANS.values(), ids=BANS)
def test_rule_that_denies_the_address_is_a_ban(rule: str) -> None:
    assert found_by(rule) == rule
    assert found_by(rule, *OTHERS_TOO, Port(22)) == rule, "one port of the door is enough"


@pytest.mark.parametrize("rule", NO_BANS.values(), ids=NO_BANS)
def test_rule_that_does_not_deny_the_address_is_no_ban(rule: str) -> None:
    assert found_by(rule) == ""


@pytest.mark.parametrize("rule", BANS.values(), ids=BANS)
def test_ban_ends_with_its_rule(rule: str) -> None:
    denials = Denials([rule, *NO_BANS.values()])
    assert denials.discard(rule.replace('"', ""))
    assert denials.find(ip_address("10.0.0.2"), (Port(22),), SETS, SERVICES) == ""
    assert not denials.discard(rule), "it is unknown by now"


@pytest.mark.parametrize("rule", [NO_BANS["every source"], NO_BANS["some destinations"], NO_BANS["a hardware address"]])
def test_rule_that_can_be_no_ban_is_not_missed(rule: str) -> None:
    assert Denials().discard(rule)


def test_two_rules_of_one_address_end_one_by_one() -> None:
    first, second = BANS["a port"], BANS["a network by an address in it"].replace("10.0.0.7/24", "10.0.0.2/32")
    denials = Denials([first, second])
    assert denials.discard(second)
    assert denials.find(ip_address("10.0.0.2"), (Port(22),), SETS, SERVICES) == first


def test_ipv6_address_is_banned_in_any_notation() -> None:
    denials = Denials(['rule family="ipv6" source address="FD00:0::0:2" reject'])
    assert denials.find(ip_address("fd00::2"), (Port(22),), SETS, SERVICES)
    assert not denials.find(ip_address("fd00::3"), (Port(22),), SETS, SERVICES)


def test_sets_and_services_are_those_that_rules_name() -> None:
    denials = Denials([*BANS.values(), *NO_BANS.values()])
    assert denials.sets == {"bad", "other", "timed"}
    assert denials.services == {"ssh", "both", "web", "gone"}


ZONES = {
    "a source of zone drop": ({"10.0.0.2": "drop"}, "address is in zone drop, whose target is DROP"),
    "a network of zone block": ({"10.0.0.0/24": "block"}, "address is in zone block, whose target is REJECT"),
    "a set of zone drop": ({"ipset:bad": "drop"}, "address is in zone drop, whose target is DROP"),
    "a source of a zone of another name": ({"10.0.0.2": "strict"}, "address is in zone strict, whose target is DROP"),
    "a source of another zone": ({"10.0.0.2": "work"}, ""),
    "a source of zone drop behind one of another zone": ({"10.0.0.2": "alpha", "10.0.0.0/8": "drop"}, ""),
    "a set with a timeout of zone drop": ({"ipset:timed": "drop"}, ""),
    "an interface of zone drop": ({}, ""),
}
TARGETS = {"drop": "DROP", "block": "%%REJECT%%", "strict": "DROP", "trusted": "ACCEPT"}


@pytest.mark.parametrize(("sources", "expected"), ZONES.values(), ids=ZONES)
def test_address_is_banned_by_a_source_of_its_zone(sources: dict[str, str], expected: str) -> None:
    zones = Zones("drop", {"eth0": "drop"}, sources=sources, sets=SETS, targets=TARGETS)
    assert zones.ban(ip_address("10.0.0.2"), "eth0", (Port(22),)) == expected


def test_address_is_banned_by_a_rule_of_its_own_zone_only() -> None:
    rule = BANS["an address"]
    zones = Zones("public", {"eth1": "work"}, denials={"public": Denials(), "work": Denials([rule])})
    address, ports = ip_address("10.0.0.2"), (Port(22),)
    assert zones.ban(address, "eth0", ports) == ""
    assert zones.ban(address, "eth1", ports) == f"rich rule `{rule}` of zone work denies the address"


@pytest.mark.parametrize(("zones", "is_banned"), [(["ANY"], True), (["public", "home"], True), (["work"], False)])
def test_address_is_banned_by_a_policy_from_its_zone(zones: list[str], is_banned: bool) -> None:
    rule = BANS["an address"]
    policy = PolicyDenials("strict", frozenset(zones), Denials([rule]))
    expected = f"rich rule `{rule}` of policy strict denies the address" if is_banned else ""
    assert Zones("public", policies=(policy,)).ban(ip_address("10.0.0.2"), "eth0", (Port(22),)) == expected
