"""The guarded ports: closed without a knock, not redirected past the firewall, with a service behind them."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.firewall import advice, exposure
from port_knocking_doors.firewall.advice import HostFacts
from port_knocking_doors.firewall.exposure import PortExposure
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Port, Protocol, Settings
from port_knocking_doors.system.listening_ports import listening_ports

PROC = Path("/proc")
NFT_TIME = 10.0
"""Seconds for `nft list ruleset`; a large firewall's takes one."""

_MAIN = "the opening sequence"


def opened_by(settings: Settings) -> dict[Port, str]:
    """The guarded ports, each with the sequence that opens it."""
    guarded = dict.fromkeys(settings.guarded_ports, _MAIN)
    for sequence in settings.sequences:
        for port in sequence.access.ports:
            guarded.setdefault(port, f"sequence {sequence.name}")
    return guarded


class Examined(NamedTuple):
    """A guarded port in a zone or a policy."""

    place: ZoneSettings
    port: Port
    seen: PortExposure

    @property
    def zone(self) -> str:
        """The name of the zone; empty for a policy."""
        return "" if self.place.is_policy else self.place.name

    @property
    def is_open_to_all(self) -> bool:
        """Whether a setting accepts the port from every address."""
        return any(not one.limited for one in self.seen.exposures)


def examined(
    settings: Settings, mark: int, rules: Iterable[ZoneSettings], services: dict[str, ServiceSettings]
) -> list[Examined]:
    """How each of these zones and policies treats each guarded port, without our own rules."""
    return [
        Examined(one, port, exposure.find(port, one, services, mark)) for one in rules for port in opened_by(settings)
    ]


def about_guarded(
    settings: Settings, zones: Zones, found: Iterable[Examined], host: HostFacts, *, has_daemon: bool
) -> Iterator[Finding]:
    """The settings that accept guarded ports without a knock, or deny them to every door."""
    # Closed before a knock opens it, ssh itself would be out of reach.
    first = "" if has_daemon else " (first start the daemon, and see that a knock lets you in)"
    loud = {*zones.external(), settings.zone}
    for place, port, seen in found:
        for one in seen.exposures:
            if one.limited:
                yield warning(f"{place}: port {port} is open to some addresses without a knock: {one.what}")
            elif place.is_policy or place.name in loud:
                yield problem(advice.warning_line(port, place, one, host) + first)
            else:
                yield warning(advice.warning_line(port, place, one, host) + first)
        for denial in seen.denials:
            yield problem(
                f"{place}: port {port} is denied before any door: {denial.what}; "
                f"{advice.denial_remedy(port, place, denial, host)}"
            )


def about_redirections(settings: Settings, seen: Iterable[Port]) -> Iterator[Finding]:
    """Guarded ports whose packets are redirected before any zone sees them, such as a container's published port.

    `seen`: those of test packets that were.
    """
    guarded = opened_by(settings)
    proxied = sorted(set(_proxied(PROC)) & guarded.keys())
    for port in proxied:
        yield problem(
            f"port {port}: a container publishes it (docker-proxy), past the firewall: publish it on 127.0.0.1 only, "
            f"not with -p {port.number}:…"
        )
    try:
        ruleset = _nft()
    except (OSError, subprocess.SubprocessError):
        yield warning("redirections: cannot run `nft list ruleset` (needs root and nftables)")
        return
    found = {*exposure.redirected(ruleset, guarded), *seen}
    redirected = [port for port in guarded if port in found and port not in proxied]
    for port in redirected:
        yield problem(
            f"port {port}: a rule redirects its packets past the zone, where a door has no effect: a container "
            "publishes it, or the firewall forwards it (`nft list ruleset` shows the rule with dnat or redirect)"
        )
    if not redirected and not proxied:
        yield ok("redirections: no container and no rule redirects a guarded port past the firewall")


def _nft() -> str:
    if shutil.which("nft") is None:
        raise FileNotFoundError("nft")
    # --terse leaves out the elements of sets, which can be millions; --numeric names no service for a port.
    command = ["nft", "--terse", "--numeric", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, check=True, timeout=NFT_TIME).stdout.decode(errors="replace")


def _proxied(proc: Path) -> Iterator[Port]:
    """The ports of docker's helper processes, of which each published port has one."""
    for comm in proc.glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() != "docker-proxy":
                continue
            words = comm.with_name("cmdline").read_bytes().decode(errors="replace").split("\0")
            options = dict(pairwise(words))
            if not options.get("-host-ip", "").startswith(("127.", "::1")):
                yield Port(int(options["-host-port"]), Protocol(options["-proto"]))
        except (OSError, KeyError, ValueError):  # it ended, or is another program
            continue


def about_services(settings: Settings) -> Iterator[Finding]:
    """Whether a service listens on each guarded port."""
    everywhere, outside = listening_ports(), listening_ports(from_outside=True)
    missing = [(port, whose) for port, whose in opened_by(settings).items() if port not in outside]
    for port, whose in missing:
        if port in everywhere:
            yield warning(f"port {port} ({whose}): its service listens on loopback only, where a door has no effect")
        else:
            yield warning(f"port {port} ({whose}): nothing listens there: start its service")
    if not missing:
        yield ok("services: a service listens on every guarded port")
