"""Which of firewalld's zones a packet belongs to."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from port_knocking_doors.model import Address

INNER = frozenset({"docker", "libvirt", "libvirt-routed"})
"""Zones that docker and libvirt make for their bridges, where no packet from outside arrives."""


@dataclass(frozen=True)
class Zones:
    """firewalld's zones as they were when it was asked.

    `sources` are those of `getActiveZones`: addresses and networks, as text; `ipset:NAME` is looked up in `ipsets`
    (name → entries). Hardware addresses cannot be known from a knock and are ignored.
    """

    default: str
    interfaces: Mapping[str, str] = field(default_factory=dict)
    """Interface → zone, for the interfaces that are assigned to a zone."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source → zone."""
    ipsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    """Every zone, active or not."""

    def zone_of(self, address: Address, interface: str) -> str:
        """The zone of a packet: that of its source, else that of the interface that it arrived on, else the default.

        Where several zones have a matching source, firewalld takes the first by name (firewalld.zones(5)).
        """
        fitting = [zone for source, zone in self.sources.items() if self._holds(source, address)]
        if fitting:
            return min(fitting)
        return self.interfaces.get(interface, self.default)

    def active(self) -> tuple[str, ...]:
        """The zones that packets can belong to: those with an interface or a source, and the default one."""
        return tuple(sorted({self.default, *self.interfaces.values(), *self.sources.values()}))

    def external(self) -> tuple[str, ...]:
        """The zones of packets from outside: the default one and those with an interface, without those that container
        and virtual machine software makes for its own bridges."""
        return tuple(sorted({self.default, *self.interfaces.values()} - INNER))

    def _holds(self, source: str, address: Address) -> bool:
        if source.startswith("ipset:"):
            return any(_in_network(entry, address) for entry in self.ipsets.get(source.removeprefix("ipset:"), ()))
        return _in_network(source, address)


def _in_network(text: str, address: Address) -> bool:
    try:
        return address in ipaddress.ip_network(text, strict=False)
    except ValueError:  # a hardware address, or an entry of a set of another kind
        return False
