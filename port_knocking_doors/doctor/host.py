"""The host: its interfaces and addresses, its knock ports, and the permission to sniff."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path

from port_knocking_doors.config import reserve
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.finding import Finding, ok, problem, shortened, warning
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import Port, Protocol, Sequence, Settings
from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.listening_ports import listening_ports, outgoing_ports
from port_knocking_doors.system.rtnetlink import Link

PROC = Path("/proc")
CAP_NET_RAW = 13  # linux/capability.h


def about_knock_ports(settings: Settings) -> Iterator[Finding]:
    """Whether another program uses a knock port; for when no daemon listens on them itself."""
    served = listening_ports()
    ports = dict.fromkeys(settings.opening_sequence)
    taken = [place for place, port in enumerate(ports, 1) if Port(port, Protocol.UDP) in served]
    for place in taken:
        yield problem(
            f"knock ports: port number {place} of the opening sequence is in use by another program: choose "
            "another port, or stop that program (`ss -ulpn` shows it)"
        )
    if not taken:
        yield ok("knock ports: not in use by another program")


def about_ephemeral_ports(settings: Settings) -> Iterator[Finding]:
    """How to reserve the knock ports that outgoing sockets may have at the daemon's next start; the configuration's
    warning says how many these are."""
    outgoing = outgoing_ports()
    if reserve.at_risk(settings.opening_sequence, outgoing):
        now, at_boot = reserve.commands(settings.opening_sequence, outgoing)
        yield warning(f"knock ports: keep outgoing sockets off them: `{now}`, and for each boot `{at_boot}`")


def about_links(settings: Settings) -> Iterator[Finding]:
    """The interfaces and addresses that the host has, and those that the configuration names."""
    try:
        with InterfaceMonitor() as found:
            links = list(found.links.values())
    except DoorsError as error:
        yield warning(f"interfaces: {error}")
        return
    usable = [f"{link.name} ({shortened(shown, 4)})" for link in links if (shown := _usable(link))]
    if usable:
        yield ok(f"interfaces: {shortened(usable, 8)}")
    else:
        yield problem("interfaces: none is up and has an address: `ip address` shows them")
    names = [name for link in links for name in link.names]
    local = {packed for link in links for packed in link.addresses}
    for pattern in dict.fromkeys(
        (*settings.interfaces, *(one for each in settings.sequences for one in each.scope.interfaces))
    ):
        if not any(fnmatchcase(name, pattern) for name in names):
            yield problem(f"interface {pattern}: not found, so no sniffed knock is received there")
    for sequence in settings.sequences:
        if sequence.scope.target is not None and sequence.scope.target.packed not in local:
            yield problem(f"sequence {sequence.name}: its target {sequence.scope.target} is no address of this host")


def used_interfaces() -> list[str]:
    """The names of the interfaces that are up and have an address beyond loopback; none if the kernel refuses."""
    try:
        with InterfaceMonitor() as found:
            return [link.name for link in found.links.values() if _usable(link)]
    except DoorsError:
        return []


def _usable(link: Link) -> list[str]:
    """The addresses of a link that is up, without loopback."""
    addresses = [ip_address(packed) for packed in link.addresses] if link.up else []
    return sorted(str(address) for address in addresses if not address.is_loopback)


def about_capability(settings: Settings, snapshot: Snapshot | None) -> Iterator[Finding]:
    """Whether packets can be captured, if a sequence is sniffed."""
    sniffed: list[Sequence] = [sequence for sequence in settings.sequences if not sequence.listened]
    if not sniffed:
        return
    if snapshot is not None:
        if snapshot.sniffing:
            yield ok(f"sniffing: running, {snapshot.sniffer_seen} packets so far")
        else:
            yield problem("sniffing: not running: run `port-knocking-doors reload`, or restart the daemon; see its log")
    elif _may_sniff(PROC / "self" / "status"):
        yield ok("sniffing: permitted (CAP_NET_RAW)")
    else:
        yield problem(
            "sniffing: permission denied: run the daemon as root, or grant it CAP_NET_RAW "
            "(AmbientCapabilities=CAP_NET_RAW in a systemd unit)"
        )


def _may_sniff(process: Path) -> bool:
    for line in process.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapPrm":
            return bool(int(value, 16) >> CAP_NET_RAW & 1)
    return os.geteuid() == 0
