"""Which of firewalld's zones a packet belongs to.

The order is that of firewalld's chains (`nft list chain inet firewalld filter_INPUT_ZONES`, or `…_POLICIES` and
`…_dispatch` in later releases). From 2.0 on: by the ingress priority of the zones (firewalld.zone(5)), then sources
before interfaces, then by the zones' names; the default zone comes last. Earlier releases have no priorities, and the
interface that was added last comes first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from port_knocking_doors.firewall.address_set import AddressSet
from port_knocking_doors.firewall.bans import REFUSING, Denials, PolicyDenials
from port_knocking_doors.firewall.source_set import HARDWARE, Membership, SourceSet
from port_knocking_doors.firewall.zone_settings import ServiceSettings
from port_knocking_doors.model import Address, Port

INNER = frozenset({"docker", "libvirt", "libvirt-routed"})
"""Zones that docker and libvirt make for their bridges, where no packet from outside arrives."""

SET = "ipset:"
"""What a source begins with that is a set."""
EVERY = "+"
"""The end of a pattern of interfaces; alone it is every interface."""
_ANY = "ANY"  # the symbolic zone of policies for every zone (firewalld.policies(5))
_BEHIND = 32768
"""Behind the last ingress priority, 32767: where firewalld puts zones of every interface, such as the default one."""


class Doubt(NamedTuple):
    """A zone that a packet may belong to, which cannot be known from a knock."""

    zone: str
    source: str
    """The zone's source that may match, as firewalld writes it."""
    reason: str


class ZoneMatch(NamedTuple):
    """The zone of a packet, as far as it is known."""

    zones: tuple[str, ...]
    """One; several where a release before 2.0 has the packet's interface in several zones, by name and by pattern."""
    by_source: bool = False
    """Whether the zone is that of the address, and not of the interface."""
    doubts: tuple[Doubt, ...] = ()
    """What comes before in firewalld's order, and may match."""


class _Sources:
    """The sources of one zone."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self._addresses = AddressSet()
        self._sets: dict[str, SourceSet] = {}
        self._hardware: list[str] = []

    def add(self, source: str, sets: Mapping[str, SourceSet]) -> None:
        if source.startswith(SET):
            self._sets[source] = sets.get(source.removeprefix(SET)) or SourceSet.unknown()
            return
        try:
            self._addresses.add(source)
        except ValueError:
            self._hardware.append(source)

    def match(self, address: Address, interface: str) -> tuple[ZoneMatch | None, list[Doubt]]:  # noqa: ARG002
        if address in self._addresses:
            return ZoneMatch((self.zone,), by_source=True), []
        doubts = [Doubt(self.zone, source, HARDWARE) for source in self._hardware]
        for source, entries in self._sets.items():
            membership = entries.membership(address)
            if membership is Membership.INSIDE:
                return ZoneMatch((self.zone,), by_source=True), []
            if membership is Membership.PERHAPS:
                doubts.append(Doubt(self.zone, source, entries.doubt))
        return None, doubts


def is_hardware(source: str) -> bool:
    """Whether the source is a hardware address."""
    return source.count(":") == 5 and all(len(part) == 2 for part in source.split(":"))


class _Interfaces:
    """Interfaces of one zone, or of all zones where firewalld does not sort them."""

    def __init__(self, zones: Mapping[str, str]) -> None:
        # By name before by pattern: a program that makes an interface puts it into its zone after the start.
        self._zones = sorted(zones.items(), key=lambda item: item[0].endswith(EVERY))

    def match(self, address: Address, interface: str) -> tuple[ZoneMatch | None, list[Doubt]]:  # noqa: ARG002
        found = dict.fromkeys(zone for pattern, zone in self._zones if fits(pattern, interface))
        return (ZoneMatch(tuple(found)) if found else None), []


def fits(pattern: str, interface: str) -> bool:
    """Whether the interface is the one that is named, or begins with what is before `+`."""
    return interface.startswith(pattern[:-1]) if pattern.endswith(EVERY) else interface == pattern


@dataclass(frozen=True)
class Zones:
    """firewalld's zones. What was read once stays as it was, but for `sets` and `denials`, which follow firewalld's."""

    default: str
    interfaces: Mapping[str, str] = field(default_factory=dict)
    """Interface → zone, for the interfaces that are assigned to a zone; `tun+` is every one that begins with `tun`."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source → zone: addresses, networks, hardware addresses, and `ipset:NAME`, which is looked up in `sets`."""
    sets: Mapping[str, SourceSet] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    """Every zone, active or not."""
    priorities: Mapping[str, int] = field(default_factory=dict)
    """Zone → ingress priority, for the zones that have one."""
    targets: Mapping[str, str] = field(default_factory=dict)
    """Zone → target, as firewalld writes it (firewalld.zone(5)), of the active zones."""
    denials: Mapping[str, Denials] = field(default_factory=dict)
    """Zone → the rich rules that deny packets of some sources, of the active zones; they follow firewalld's."""
    policies: tuple[PolicyDenials, ...] = ()
    """The same of the active policies for packets to this host."""
    services: Mapping[str, ServiceSettings] = field(default_factory=dict)
    """The services that these rules name, and those that they include."""
    is_sorted: bool = True
    """Whether firewalld sorts interfaces by zone, as it does from 2.0 on."""

    def zone_of(self, address: Address, interface: str) -> str:
        """The zone of a packet from the address that arrives on the interface."""
        return self.match(address, interface).zones[0]

    def match(self, address: Address, interface: str) -> ZoneMatch:
        """The zone of a packet from the address that arrives on the interface, and those that it may belong to."""
        doubts: list[Doubt] = []
        for one in self._dispatch:
            found, more = one.match(address, interface)
            doubts += more
            if found is not None:
                break
        else:
            found = ZoneMatch((self.default,))
        return found._replace(doubts=tuple(doubt for doubt in doubts if doubt.zone not in found.zones))

    def doubts(self) -> list[Doubt]:
        """The sources of which a knock does not show whether they match."""
        found = []
        for source, zone in sorted(self.sources.items()):
            entries = self.sets.get(source.removeprefix(SET)) if source.startswith(SET) else None
            reason = entries.doubt if entries is not None else HARDWARE if is_hardware(source) else ""
            found += [Doubt(zone, source, reason)] if reason else []
        return found

    def ban(self, address: Address, interface: str, ports: Iterable[Port]) -> str:
        """Why the address is banned from a port, to be followed by the remedy; empty where it is not."""
        match = self.match(address, interface)
        for zone in match.zones:
            target = REFUSING.get(self.targets.get(zone, ""))
            if match.by_source and target:
                return f"address is in zone {zone}, whose target is {target}"
            places = [(f"zone {zone}", self.denials[zone])] if zone in self.denials else []
            places += [(f"policy {one.name}", one.denials) for one in self.policies if one.zones & {zone, _ANY}]
            for place, denials in places:
                if rule := denials.find(address, ports, self.sets, self.services):
                    return f"rich rule `{rule}` of {place} denies the address"
        return ""

    @cached_property
    def _dispatch(self) -> list[_Sources | _Interfaces]:
        """What is asked for the zone, one after the other: made once, and only for zones with sources or interfaces."""
        sources: dict[str, _Sources] = {}
        for source, zone in self.sources.items():
            sources.setdefault(zone, _Sources(zone)).add(source, self.sets)
        if not self.is_sorted:
            by_name: list[_Sources | _Interfaces] = [sources[zone] for zone in sorted(sources)]
            return [*by_name, _Interfaces(self.interfaces)]
        keyed: list[tuple[tuple[int, int, str], _Sources | _Interfaces]]
        keyed = [((self.priorities.get(zone, 0), 1, zone), one) for zone, one in sources.items()]
        every = {EVERY: self.default}
        for name, zone in [*self.interfaces.items(), *every.items()]:
            priority = _BEHIND if name == EVERY else self.priorities.get(zone, 0)
            keyed.append(((priority, 2, zone), _Interfaces({name: zone})))
        return [one for _, one in sorted(keyed, key=lambda pair: pair[0])]

    def active(self) -> tuple[str, ...]:
        """The zones that packets can belong to: those with an interface or a source, and the default one."""
        return tuple(sorted({self.default, *self.interfaces.values(), *self.sources.values()}))

    def external(self) -> tuple[str, ...]:
        """The zones of packets from outside: the default one and those with an interface, without those that container
        and virtual machine software makes for its own bridges."""
        return tuple(sorted({self.default, *self.interfaces.values()} - INNER))
