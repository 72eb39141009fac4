"""What becomes of packets from outside: test packets in a copy of this host, with the kernel's own rules."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from ipaddress import ip_address
from typing import NamedTuple

from port_knocking_doors.doctor.host_copy import HostCopy, Probe
from port_knocking_doors.doctor.kernel_tables import KernelTables, read
from port_knocking_doors.doctor.namespace import in_namespace
from port_knocking_doors.doctor.programs import NotProvenError, TimeLimit
from port_knocking_doors.doctor.trace import FIREWALLD, Decision
from port_knocking_doors.model import Address, Port
from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.rtnetlink import Link

TIME = 60.0
"""Seconds for everything; a large ruleset takes two."""
LINKS_MAX = 32
"""Links that are tested."""
ADDRESSES_MAX = 4
"""Addresses of each link and family that are tested."""
DECISIONS_MAX = 24
"""Guarded ports, and ways, for which the deciding rule is looked for; each takes a tenth of a second."""

SOURCES: tuple[Address, ...] = tuple(
    map(
        ip_address,
        (
            *("5.9.0.77", "23.20.0.77", "58.96.0.77", "192.0.2.77"),
            *("2a01:4f8::77", "2600:1f00::77", "2400:cb00::77", "2001:db8::77"),
        ),
    )
)
"""Addresses of three continents and of documentation, since a firewall may deny some of them: a list of a country's
networks, or of addresses that no honest packet has. No packet leaves the namespace."""

_DOORS = re.compile(r"chain (?P<chain>filter_IN_(?!policy_)(?P<zone>[^ ]+)_post) \{")
"""The chain of each of firewalld's zones in which doors are."""


class Way(NamedTuple):
    """A way for packets into this host."""

    interface: str
    version: int


class Passage(Enum):
    """Whether packets from outside get through."""

    OPEN = "open"  # from most addresses
    LIMITED = "limited"  # from some
    CLOSED = "closed"


class Observation(NamedTuple):
    """What was seen."""

    as_is: Mapping[tuple[Way, Port], Passage]
    with_doors: Mapping[tuple[Way, Port], Passage]
    """Of those that are closed: with the rule of a door."""
    decisions: Mapping[tuple[Way, Port], Decision | None]
    """What accepted an open one or denied a closed one; not of all."""
    redirected: frozenset[Port]
    has_firewalld: bool
    """Whether the kernel has firewalld's rules."""
    queues: bool
    """Whether a rule leaves packets to a program, so that the verdict cannot be known."""


def observe(guarded: Sequence[Port], knocks: Sequence[Port], zone: str, skipped: Iterable[str]) -> Observation:
    """What becomes of packets to these ports. `zone`: the zone of doors, empty for every zone; `skipped`: links.

    Raises `NotProvenError` where it cannot be seen.
    """
    limit = TimeLimit(TIME)
    with InterfaceMonitor() as monitor:
        links = list(monitor.links.values())
    ways = dict(list(_tested(links, frozenset(skipped)))[:LINKS_MAX])
    if not ways:
        raise NotProvenError("no interface is up and has an address")
    kernel = read(limit)
    text = "".join([*(table.text for table in kernel.tables), *(text for _, text in kernel.restores)])
    others = [link.name for link in links if link.name not in (*ways, "lo") and _names(text, link.name)]
    own = {address for found in ways.values() for address in found}
    sources = [address for address in SOURCES if address not in own]

    def work() -> Observation:
        with HostCopy(ways, others, sources, (*guarded, *knocks), limit) as host:
            return _Trial(host, ways, sources, kernel, guarded, knocks).run(zone)

    return in_namespace(work)


def _tested(links: Iterable[Link], skipped: frozenset[str]) -> Iterator[tuple[str, list[Address]]]:
    for link in links:
        addresses = sorted(map(ip_address, link.addresses), key=int) if link.up and link.name not in skipped else []
        usable = [one for one in addresses if not one.is_loopback and not one.is_link_local]
        if usable:
            yield (
                link.name,
                [one for version in (4, 6) for one in [a for a in usable if a.version == version][:ADDRESSES_MAX]],
            )


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", text) is not None


class _Trial:
    def __init__(
        self,
        host: HostCopy,
        links: Mapping[str, Sequence[Address]],
        sources: Sequence[Address],
        kernel: KernelTables,
        guarded: Sequence[Port],
        knocks: Sequence[Port],
    ) -> None:
        self._host = host
        self._kernel = kernel
        self._guarded = guarded
        self._knocks = knocks
        self._packets: dict[tuple[Way, Port], list[Probe]] = {}
        for interface, addresses in links.items():
            for destination in addresses:
                for port in dict.fromkeys((*guarded, *knocks)):
                    self._packets.setdefault((Way(interface, destination.version), port), []).extend(
                        Probe(interface, source, destination, port)
                        for source in sources
                        if source.version == destination.version
                    )
        self._sample: dict[tuple[Way, Port], Probe] = {}
        """A packet that arrived, if one did."""
        self._decisions: dict[tuple[Way, Port], Decision | None] = {}

    def run(self, zone: str) -> Observation:
        if any(passage is not Passage.OPEN for passage in self._passages(self._packets).values()):
            raise NotProvenError("test packets are lost even without rules")
        self._host.load(self._kernel)
        as_is = self._passages(self._packets)
        closed = [key for key, passage in as_is.items() if passage is Passage.CLOSED]
        self._decide(key for key in as_is if key not in closed and key[1] in self._guarded)
        self._decide(key for key in closed if key[1] in self._knocks)
        redirected = self._host.redirected()
        with_doors: dict[tuple[Way, Port], Passage] = {}
        if self._open_doors(zone):
            with_doors = self._passages(closed)
            self._decide(key for key, passage in with_doors.items() if passage is Passage.CLOSED)
        return Observation(
            as_is,
            with_doors,
            self._decisions,
            redirected,
            self._kernel.has_firewalld,
            any(table.queues for table in self._kernel.tables)
            or any("NFQUEUE" in text for _, text in self._kernel.restores),
        )

    def _passages(self, keys: Iterable[tuple[Way, Port]]) -> dict[tuple[Way, Port], Passage]:
        wanted = list(keys)
        arrived = self._host.arriving(packet for key in wanted for packet in self._packets[key])
        found = {}
        for key in wanted:
            sent = {packet.source for packet in self._packets[key]}
            through = {packet.source for packet in self._packets[key] if packet in arrived}
            self._sample[key] = next(
                (packet for packet in self._packets[key] if packet in arrived), self._packets[key][0]
            )
            some = Passage.LIMITED if through else Passage.CLOSED
            found[key] = Passage.OPEN if 2 * len(through) > len(sent) else some
        return found

    def _decide(self, keys: Iterable[tuple[Way, Port]]) -> None:
        """Find the deciding rules: for each guarded port by one way, and for one knock port by each way."""
        chosen: dict[object, tuple[Way, Port]] = {}
        for way, port in keys:
            chosen.setdefault(way if port in self._knocks else port, (way, port))
        for key in list(chosen.values())[:DECISIONS_MAX]:
            self._decisions[key] = self._host.decision(self._sample[key])

    def _open_doors(self, zone: str) -> bool:
        """Let the test packets into all guarded ports and knock ports where firewalld has rules of doors."""
        ruleset = "".join(table.text for table in self._kernel.tables if table.name == FIREWALLD)
        chains = [found["chain"] for found in _DOORS.finditer(ruleset) if not zone or found["zone"] == zone]
        rules = {
            f"insert rule inet {FIREWALLD} {chain} {protocol} dport {{ {', '.join(map(str, sorted(numbers)))} }} accept"
            for chain in chains
            for protocol in dict.fromkeys(port.protocol for port in (*self._guarded, *self._knocks))
            if (numbers := {port.number for port in (*self._guarded, *self._knocks) if port.protocol is protocol})
        }
        if rules:
            self._host.change("\n".join(sorted(rules)))
        return bool(rules)
