"""The guarded ports: closed without a knock, not redirected past the firewall, with a service behind them."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.firewall import exposure
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Port, Protocol, Settings
from port_knocking_doors.system.listening_ports import listening_ports

PROC = Path("/proc")
NFT_TIME = 10.0
"""Seconds for `nft list ruleset`; a large firewall's takes one."""

_MAIN = "the opening sequence"


def _opened_by(settings: Settings) -> dict[Port, str]:
    """The guarded ports, each with the sequence that opens it."""
    guarded = dict.fromkeys(settings.guarded_ports, _MAIN)
    for sequence in settings.sequences:
        for port in sequence.access.ports:
            guarded.setdefault(port, f"sequence {sequence.name}")
    return guarded


def about_guarded(
    settings: Settings,
    mark: int,
    zones: Zones,
    rules: Iterable[ZoneSettings],
    services: dict[str, ServiceSettings],
) -> Iterator[Finding]:
    """Whether guarded ports are closed without a knock, and can be opened by one."""
    loud = {*zones.external(), settings.zone}
    guarded = _opened_by(settings)
    is_open = False
    for one in rules:
        for port in guarded:
            seen = exposure.find(port, one, services, mark)
            for found in seen.exposures:
                is_open = True
                if found.limited:
                    yield warning(f"{one}: port {port} is open to some addresses without a knock: {found.what}")
                elif one.is_policy or one.name in loud:
                    yield problem(exposure.warning_line(port, one, found))
                else:
                    yield warning(exposure.warning_line(port, one, found))
            for denial in seen.denials:
                yield problem(
                    f"{one}: port {port} is denied before any door: {denial.what}; {exposure.remedy(one, denial)}"
                )
    if guarded and not is_open:
        yield ok(f"guarded ports: closed without a knock ({', '.join(map(str, guarded))})")


def about_redirections(settings: Settings) -> Iterator[Finding]:
    """Guarded ports whose packets are redirected before any zone sees them, such as a container's published port."""
    guarded = _opened_by(settings)
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
    redirected = [port for port in exposure.redirected(ruleset, guarded) if port not in proxied]
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
    missing = [(port, whose) for port, whose in _opened_by(settings).items() if port not in outside]
    for port, whose in missing:
        if port in everywhere:
            yield warning(f"port {port} ({whose}): its service listens on loopback only, where a door has no effect")
        else:
            yield warning(f"port {port} ({whose}): nothing listens there: start its service")
    if not missing:
        yield ok("services: a service listens on every guarded port")
