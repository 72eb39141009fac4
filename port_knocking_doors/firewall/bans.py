"""Who is banned in firewalld: by the zone of the address, or by a rich rule for it.

A ban is made for a source. Its address, network or set is a source of a zone that refuses every packet (target DROP or
REJECT, as of the zones drop and block), or of a rich rule that drops or rejects packets to a port of the door, whatever
the rule's priority; a rule of its zone, or of a policy from there to this host. What is for every source is no ban, but
how a zone answers: a zone of an interface or the default zone, whatever its target, and a rule without a source or for
0.0.0.0/0 and ::/0. Nor is a rule for a hardware address, which a knock does not show, or for some destinations.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from port_knocking_doors.firewall import rich_match
from port_knocking_doors.firewall.address_set import AddressSet
from port_knocking_doors.firewall.rich_match import RichParts
from port_knocking_doors.firewall.source_set import Membership, SourceSet
from port_knocking_doors.firewall.zone_settings import ServiceSettings
from port_knocking_doors.model import Address, Port

REFUSING = {"DROP": "DROP", "REJECT": "REJECT", "%%REJECT%%": "REJECT"}
"""Targets of zones that refuse every packet, as firewalld writes them and as its options have them."""
_DENIALS = ("reject", "drop")
_EVERY = ("0.0.0.0/0", "::/0")


class Denials:
    """The rich rules of a zone that deny packets of some sources; others that are added are left out."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._rules: dict[frozenset[rich_match.Word], RichParts] = {}
        self._addresses = AddressSet()
        self._networks: dict[str, set[frozenset[rich_match.Word]]] = {}
        """Network → the rules for it, by their words."""
        self._others: set[frozenset[rich_match.Word]] = set()
        """The rules for sets, and for every other source than theirs."""
        for text in texts:
            self.add(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Denials) and self._rules.keys() == other._rules.keys()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, text: str) -> None:
        """Add a rule."""
        rule, words = rich_match.parsed(text), rich_match.words(text)
        if not _is_ban(rule):
            return
        network = _network(rule.source.get("address", ""))
        if network and not rule.is_source_negated:
            self._addresses.add(network)
            self._networks.setdefault(network, set()).add(words)
        else:
            self._others.add(words)
        self._rules[words] = rule

    def discard(self, text: str) -> bool:
        """Remove a rule. Not if it is unknown: it may have been written in another way when it was added."""
        words = rich_match.words(text)
        rule = self._rules.pop(words, None)
        if rule is None:
            return not _is_ban(rich_match.parsed(text))
        self._others.discard(words)
        network = _network(rule.source.get("address", ""))
        if network in self._networks:
            self._networks[network].discard(words)
            if not self._networks[network]:
                del self._networks[network]
                self._addresses.discard(network)
        return True

    @property
    def sets(self) -> set[str]:
        """The sets that rules have as their sources."""
        return {self._rules[words].source["ipset"] for words in self._others if "ipset" in self._rules[words].source}

    @property
    def services(self) -> set[str]:
        """The services that rules name."""
        return {rule.elements["service"].get("name", "") for rule in self._rules.values() if "service" in rule.elements}

    def find(
        self,
        address: Address,
        ports: Iterable[Port],
        sets: Mapping[str, SourceSet],
        services: Mapping[str, ServiceSettings],
    ) -> str:
        """A rule that denies packets of the address to one of the ports; empty for none."""
        for words in self._for_address(address, sets):
            rule = self._rules[words]
            if any(rich_match.fits(rule, port, services) for port in ports):
                return rule.text
        return ""

    def _for_address(self, address: Address, sets: Mapping[str, SourceSet]) -> list[frozenset[rich_match.Word]]:
        found = []
        if address in self._addresses:
            for bits in range(address.max_prefixlen, 0, -1):
                network = str(ipaddress.ip_network((address, bits), strict=False))
                found += sorted(self._networks.get(network, ()), key=str)
        for words in sorted(self._others, key=str):
            rule = self._rules[words]
            if rule.family in ("", f"ipv{address.version}") and _is_source(rule, address, sets):
                found.append(words)
        return found


class PolicyDenials(NamedTuple):
    """Those of a policy for packets to this host."""

    name: str
    zones: frozenset[str]
    """The zones that it is for, or `ANY`."""
    denials: Denials


def _is_ban(rule: RichParts) -> bool:
    if rule.action not in _DENIALS or rule.has_destination:
        return False
    network = _network(rule.source.get("address", ""))
    return "ipset" in rule.source or (bool(network) and (network not in _EVERY or rule.is_source_negated))


def may_deny(text: str) -> bool:
    """Whether the rule may deny packets of some sources: most rules do not, and need no more than this look."""
    return "source" in text and any(action in text for action in _DENIALS)


def _is_source(rule: RichParts, address: Address, sets: Mapping[str, SourceSet]) -> bool:
    if "ipset" in rule.source:
        membership = sets.get(rule.source["ipset"], SourceSet.unknown()).membership(address)
        return membership is (Membership.OUTSIDE if rule.is_source_negated else Membership.INSIDE)
    network = ipaddress.ip_network(_network(rule.source["address"]))
    return network.version == address.version and address not in network


def _network(text: str) -> str:
    """The network in one notation; empty where it is none."""
    try:
        return str(ipaddress.ip_network(text.strip("[]"), strict=False))
    except ValueError:
        return ""
