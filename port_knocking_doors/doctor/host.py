"""This host: the knock ports, the interfaces, and the right to sniff."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path

from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import Port, Protocol, Sequence, Settings
from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.listening_ports import listening_ports

PROC = Path("/proc")
CAP_NET_RAW = 13  # linux/capability.h


def about_knock_ports(settings: Settings) -> Iterator[Finding]:
    """Whether another program has a knock port, where no daemon runs that could have it."""
    served = listening_ports()
    ports = dict.fromkeys(settings.opening_sequence)
    taken = [place for place, port in enumerate(ports, 1) if Port(port, Protocol.UDP) in served]
    for place in taken:
        yield problem(
            f"knock ports: port number {place} of the opening sequence is in use by another program: choose another "
            "port, or end it (`ss -ulpn` shows whose it is)"
        )
    if not taken:
        yield ok("knock ports: no other program has one")


def about_links(settings: Settings) -> Iterator[Finding]:
    """Interfaces and addresses."""
    try:
        with InterfaceMonitor() as found:
            links = list(found.links.values())
    except DoorsError as error:
        yield warning(f"interfaces: {error}")
        return
    usable = []
    for link in links:
        shown = sorted(str(ip_address(packed)) for packed in link.addresses)
        shown = [text for text in shown if not ip_address(text).is_loopback]
        if link.up and shown:
            usable.append(f"{link.name} ({', '.join(shown[:4])}{' …' if len(shown) > 4 else ''})")
    if usable:
        yield ok(f"interfaces: {', '.join(usable[:8])}{' …' if len(usable) > 8 else ''}")
    else:
        yield problem("interfaces: none is up and has an address: `ip address` shows them")
    names = [name for link in links for name in link.names]
    local = {packed for link in links for packed in link.addresses}
    for pattern in dict.fromkeys(
        (*settings.interfaces, *(one for each in settings.sequences for one in each.scope.interfaces))
    ):
        if not any(fnmatchcase(name, pattern) for name in names):
            yield problem(f"interface {pattern}: there is none of this name: sniffed sequences are not heard there")
    for sequence in settings.sequences:
        if sequence.scope.target is not None and sequence.scope.target.packed not in local:
            yield problem(f"sequence {sequence.name}: its target {sequence.scope.target} is no address of this host")


def about_capability(settings: Settings, snapshot: Snapshot | None) -> Iterator[Finding]:
    """Whether sniffed sequences can be heard."""
    sniffed: list[Sequence] = [sequence for sequence in settings.sequences if not sequence.listened]
    if not sniffed:
        return
    if snapshot is not None:
        if snapshot.sniffing:
            yield ok(f"sniffing: the daemon does, {snapshot.sniffer_seen} packets so far")
        else:
            yield problem("sniffing: the daemon does not: `port-knocking-doors reload`, or restart it; see its log")
    elif _may_sniff(PROC / "self" / "status"):
        yield ok("sniffing: this user may (CAP_NET_RAW)")
    else:
        yield problem(
            "sniffing: this user may not: run the daemon as root, or grant it CAP_NET_RAW "
            "(AmbientCapabilities=CAP_NET_RAW in a systemd unit)"
        )


def _may_sniff(process: Path) -> bool:
    for line in process.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapPrm":
            return bool(int(value, 16) >> CAP_NET_RAW & 1)
    return os.geteuid() == 0
