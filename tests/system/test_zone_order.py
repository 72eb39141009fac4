"""The zone of a packet, beside where a marked rule of a real firewalld lets the packet in, and beside its chains.

One sandbox for a table of cases and for random zones, on whatever release of firewalld there is.
"""

import ipaddress
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, door_rule
from tests.helpers.zone_lookup import Packet, ZoneLookup

SETS = {
    "addresses": ("hash:ip", {}),
    "networks": ("hash:net", {}),
    "addresses6": ("hash:ip", {"family": "inet6"}),
    "networks6": ("hash:net", {"family": "inet6"}),
    "ports": ("hash:ip,port", {}),
    "netports": ("hash:net,port", {}),
    "marks": ("hash:ip,mark", {}),
    "links": ("hash:net,iface", {}),
    "machines": ("hash:mac", {}),
    "timed": ("hash:ip", {"timeout": "3600"}),
}
PRIORITIES = {"early": -10, "late": 10, "early2": -10}
"""Zones with an ingress priority, from firewalld 2.0 on."""
ZONES = ("block", "dmz", "external", "home", "internal", "work", *PRIORITIES)
PUBLIC = "public"


class Case(NamedTuple):
    """What zones get, as `firewall-cmd --add-…=` has it; CLIENT and MAC are those of the client's host."""

    zones: Mapping[str, list[str]]
    entries: Mapping[str, list[str]] = {}
    is_sure: bool = True
    """Whether the zone can be known from a knock."""
    priorities: bool = False
    ipv6: bool = False


CASES = {
    "nothing": Case({}),
    "an exact interface": Case({"work": ["to-client"]}),
    "a pattern": Case({"work": ["to-c+"]}),
    "a pattern of another interface": Case({"work": ["to-s+"]}),
    "a pattern, and the exact name in a later zone": Case({"home": ["to-+"], "work": ["to-client"]}),
    "a pattern, and the exact name in an earlier zone": Case({"work": ["to-+"], "home": ["to-client"]}),
    "two patterns": Case({"work": ["to-+"], "home": ["to-cl+"]}),
    "every interface": Case({"work": ["+"]}),
    "an address before an interface": Case({"work": ["CLIENT"], "home": ["to-client"]}),
    "an IPv6 address": Case({"work": ["CLIENT6"], "home": ["to-client"]}, ipv6=True),
    "a network": Case({"work": ["10.0.1.0/24"]}),
    "an IPv6 network": Case({"work": ["fd00:0:0:1::/64"]}, ipv6=True),
    "a network with a host's bits": Case({"work": ["10.0.1.77/24"]}),
    "two sources, the wide one's name first": Case({"home": ["10.0.0.0/8"], "work": ["CLIENT"]}),
    "two sources, the wide one's name last": Case({"work": ["10.0.0.0/8"], "home": ["CLIENT"]}),
    "a set of addresses": Case({"work": ["ipset:addresses"]}, {"addresses": ["10.9.9.9", "CLIENT"]}),
    "a set of other addresses": Case({"work": ["ipset:addresses"]}, {"addresses": ["10.9.9.9"]}),
    "a network in a set of addresses": Case({"work": ["ipset:addresses"]}, {"addresses": ["10.0.1.0/24"]}),
    "a set of networks": Case({"work": ["ipset:networks"]}, {"networks": ["10.9.0.0/16", "10.0.0.0/16"]}),
    "a set of IPv6 addresses": Case({"work": ["ipset:addresses6"]}, {"addresses6": ["CLIENT6"]}, ipv6=True),
    "a set of IPv6 networks": Case({"work": ["ipset:networks6"]}, {"networks6": ["fd00:0:0:1::/64"]}, ipv6=True),
    "a set before an address": Case({"home": ["ipset:networks"], "work": ["CLIENT"]}, {"networks": ["10.0.0.0/16"]}),
    "an address before a set": Case({"home": ["CLIENT"], "work": ["ipset:networks"]}, {"networks": ["10.0.0.0/16"]}),
    "a hardware address": Case({"work": ["MAC"]}, is_sure=False),
    "another hardware address": Case({"work": ["52:54:00:12:34:56"]}, is_sure=False),
    "a set of hardware addresses": Case({"work": ["ipset:machines"]}, {"machines": ["MAC"]}, is_sure=False),
    "an address before a hardware address": Case({"home": ["CLIENT"], "work": ["MAC"]}),
    "a set of ports": Case({"work": ["ipset:ports"]}, {"ports": ["CLIENT,tcp:1-65535"]}, is_sure=False),
    "a set of networks' ports": Case({"work": ["ipset:netports"]}, {"netports": ["10.0.1.0/24,udp:5"]}, is_sure=False),
    "a set of other addresses' ports": Case({"work": ["ipset:ports"]}, {"ports": ["10.9.9.9,tcp:1-65535"]}),
    "a set of marks": Case({"work": ["ipset:marks"]}, {"marks": ["CLIENT,0x0"]}, is_sure=False),
    "a set of interfaces": Case({"work": ["ipset:links"]}, {"links": ["10.0.1.0/24,to-client"]}, is_sure=False),
    "a set with a timeout": Case({"work": ["ipset:timed"]}, {"timed": ["CLIENT"]}, is_sure=False),
    "a set with a timeout, without the address": Case({"work": ["ipset:timed"]}, is_sure=False),
    "an empty set": Case({"work": ["ipset:networks"]}, is_sure=False),
    "a priority, an interface before a source": Case({"early": ["to-client"], "block": ["CLIENT"]}, priorities=True),
    "a priority, a source behind an interface": Case({"late": ["CLIENT"], "work": ["to-client"]}, priorities=True),
    "a priority, a pattern before an exact name": Case({"early": ["to-+"], "block": ["to-client"]}, priorities=True),
    "one priority, names in order": Case({"early2": ["CLIENT"], "early": ["10.0.1.0/24"]}, priorities=True),
    "one priority, sources first": Case({"early2": ["CLIENT"], "early": ["to-client"]}, priorities=True),
    "a priority of every interface": Case({"early": ["+"], "work": ["to-client"]}, priorities=True),
}


class Yard:
    """A sandbox with zones and sets of which nothing is assigned yet."""

    def __init__(self, box: Sandbox, lookup: ZoneLookup) -> None:
        self.box, self.lookup = box, lookup
        self.client: ClientHost = box.hosts["client"]
        self.has_priorities = not box.firewall_cmd("--version").startswith("1.")
        link = json.loads(self.client.run(["ip", "-json", "link", "show", "dev", "eth0"]).stdout)
        self._words = {
            "CLIENT6": str(self.client.address6),
            "CLIENT": str(self.client.address4),
            "MAC": str(link[0]["address"]),
        }
        for name, (type_, options) in SETS.items():
            options_given = [f"--option={key}={value}" for key, value in options.items()]
            box.firewall_cmd("--permanent", f"--new-ipset={name}", f"--type={type_}", *options_given)
        for zone, priority in PRIORITIES.items():
            box.firewall_cmd("--permanent", f"--new-zone={zone}")
            if self.has_priorities:
                box.firewall_cmd("--permanent", f"--zone={zone}", f"--set-ingress-priority={priority}")
        box.firewall_cmd("--reload")

    def _word(self, text: str) -> str:
        for name, value in self._words.items():
            text = text.replace(name, value)
        return text

    def change(self, member: str, case: Case) -> None:
        """`add` or `remove` all of a case."""
        for zone, what in case.zones.items():
            for item in map(self._word, what):
                is_source = ":" in item or "." in item
                self.box.firewalld.ask("zone", f"{member}{'Source' if is_source else 'Interface'}", zone, item)
        for name, entries in case.entries.items():
            for entry in map(self._word, entries):
                timed = "timeout" in SETS[name][1] and member == "remove"
                if not timed:  # firewalld knows no entries of such a set
                    self.box.firewalld.ask("ipset", f"{member}Entry", name, entry)

    def letting_in(self, case: Case) -> set[str]:
        """The zones in which a door lets the client in."""
        server = self.client.server6 if case.ipv6 else self.client.server4
        rule = door_rule(self.client.address6 if case.ipv6 else self.client.address4)
        found = set()
        for zone in dict.fromkeys((PUBLIC, *case.zones)):
            self.box.firewalld.ask("zone", "addRichRule", zone, rule, 0)
            if self.client.connect(server, GUARDED, timeout=0.3) == "open":
                found.add(zone)
            self.box.firewalld.ask("zone", "removeRichRule", zone, rule)
        return found


@pytest.fixture
def yard(box: Sandbox) -> Iterator[Yard]:
    with closing(ZoneLookup(box)) as lookup, box.server.listen(GUARDED):
        yield Yard(box, lookup)


def test_door_in_the_zone_that_is_found_lets_the_knocker_in(yard: Yard) -> None:
    wrong = {}
    for name, case in CASES.items():
        if case.priorities and not yard.has_priorities:
            continue
        yard.change("add", case)
        packet = (str(yard.client.address6 if case.ipv6 else yard.client.address4), yard.client.server_interface)
        ((zones, doubts),) = yard.lookup.ask([packet])
        actual = yard.letting_in(case)
        yard.change("remove", case)
        # A release before 2.0 does not sort interfaces: then the door is in each zone that may be the right one.
        is_right = len(actual) == 1 and actual <= {*zones, *doubts} and (len(zones) == 1 or not yard.has_priorities)
        if not is_right or bool(doubts) == case.is_sure or (case.is_sure and not actual <= set(zones)):
            wrong[name] = (zones, doubts, actual)
    assert wrong == {}


# --- firewalld's own order, in its chains


def test_random_zones_are_found_in_the_order_of_firewallds_chains(yard: Yard) -> None:
    choice = random.Random(11)
    wrong = {}
    for number in range(12):
        case = _random_case(choice)
        yard.change("add", case)
        packets = [(_address(choice), interface) for interface in INTERFACES for _ in range(6)]
        ruleset = json.loads(yard.box.server.run(["nft", "-j", "list", "table", "inet", "firewalld"]).stdout)
        for packet, (zones, doubts) in zip(packets, yard.lookup.ask(packets), strict=True):
            actual = zone_by_chains(ruleset["nftables"], packet)
            if actual not in zones or doubts or (len(zones) > 1 and yard.has_priorities):
                wrong[number, packet] = (zones, doubts, actual, case)
        yard.change("remove", case)
    assert wrong == {}


INTERFACES = ("tun0", "tun1", "tun", "eth0", "lo1")
PATTERNS = ("tun0", "tun1", "tun+", "tu+", "eth0", "e+", "eth+")
SOURCES = ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1", "10.2.0.0/16", "10.2.1.1", "fd00::/8", "fd00::1")


def _address(choice: random.Random) -> str:
    return choice.choice(("10.1.1.1", "10.1.1.2", "10.1.2.3", "10.2.1.1", "10.9.0.1", "192.0.2.1", "fd00::1", "fd01::"))


def _random_case(choice: random.Random) -> Case:
    zones: dict[str, list[str]] = {}
    sets = {"networks": ["10.1.1.0/24"], "addresses": ["10.2.1.1"], "networks6": ["fd00::/16"]}
    chosen = {name: entries for name, entries in sets.items() if choice.random() < 0.6}
    items = [*choice.sample(PATTERNS, 4), *choice.sample(SOURCES, 4), *(f"ipset:{name}" for name in chosen)]
    for item in items:
        zones.setdefault(choice.choice(ZONES), []).append(item)
    return Case(zones, chosen)


def zone_by_chains(ruleset: list[dict[str, Any]], packet: Packet) -> str:
    """The zone whose chain firewalld's rules lead the packet into."""
    sets = {item["set"]["name"]: item["set"].get("elem", []) for item in ruleset if "set" in item}
    for item in ruleset:
        rule = item.get("rule", {})
        if rule.get("chain") not in ("filter_INPUT_ZONES", "filter_INPUT_POLICIES", "filter_INPUT_dispatch"):
            continue
        *matches, verdict = rule["expr"]
        target = next(iter(verdict.values())) or {}
        name = target.get("target", "") if isinstance(target, dict) else ""
        if name.startswith("filter_IN_") and all(_matches(one["match"], packet, sets) for one in matches):
            zone = name.removeprefix("filter_IN_").removesuffix("_to_HOST")
            if not zone.startswith("policy_"):
                return str(zone)
    raise AssertionError(f"no zone for {packet}")


def _matches(match: dict[str, Any], packet: Packet, sets: Mapping[str, list[Any]]) -> bool:
    address, interface = ipaddress.ip_address(packet[0]), packet[1]
    left, right = match["left"], match["right"]
    if left.get("meta", {}).get("key") == "iifname":
        names = right["set"] if isinstance(right, dict) else [right]
        return any(interface.startswith(one[:-1]) if one.endswith("*") else interface == one for one in names)
    payload = left["payload"]
    if payload["field"] != "saddr" or payload["protocol"] != ("ip" if address.version == 4 else "ip6"):
        return False
    entries = sets[right[1:]] if isinstance(right, str) and right.startswith("@") else [right]
    return any(address in _network(entry) for entry in entries)


def _network(entry: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    text = f"{entry['prefix']['addr']}/{entry['prefix']['len']}" if isinstance(entry, dict) else entry
    return ipaddress.ip_network(text)
