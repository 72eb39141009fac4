"""Why nothing happens when somebody knocks: everything that can stand in the way, looked at one after the other.

Nothing is changed by looking. Each finding is one line that says what to do next; ports of a sequence are never in it.
"""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control import client
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.errors import DoorsError, FirewallError, NoDaemonError
from port_knocking_doors.firewall import exposure, firewalld
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import FirewalldState, Port, Protocol, Sequence, Settings
from port_knocking_doors.system.clock import now, run
from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.listening_ports import listening_ports

PROC = Path("/proc")
NFT_TIME = 10.0
"""Seconds for `nft list ruleset`; a large firewall's takes one."""

CAP_NET_RAW = 13  # linux/capability.h
_MAIN = "the opening sequence"


class Grade(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """One line: what was found, and what to do next."""

    grade: Grade
    text: str

    def __str__(self) -> str:
        return f"{self.grade.value:<8} {self.text}"


def _ok(text: str) -> Finding:
    return Finding(Grade.OK, text)


def _warning(text: str) -> Finding:
    return Finding(Grade.WARNING, text)


def _problem(text: str) -> Finding:
    return Finding(Grade.PROBLEM, text)


def examine(load: Callable[[], Loaded], priority: int | None, listen: float | None) -> int:
    """Print every finding, then listen for so many seconds; the exit status: 1 where there is a problem."""
    problems = 0
    for finding in _findings(load, priority):
        print(finding, flush=True)
        problems += finding.grade is Grade.PROBLEM
    if listen is not None:
        mark = priority if priority is not None else load().settings.rule_priority
        for line in listened(mark, listen):
            print(line, flush=True)
    return 1 if problems else 0


def _findings(load: Callable[[], Loaded], priority: int | None) -> Iterator[Finding]:
    try:
        loaded = load()
    except DoorsError as error:
        yield _problem(f"configuration: {error}")
        yield _warning("nothing else was looked at: set the configuration right, then ask again")
        return
    settings = loaded.settings
    mark = priority if priority is not None else settings.rule_priority
    yield _ok(f"configuration: {loaded.path or 'none found, built-in defaults'}")
    yield from (_warning(f"configuration: {text}") for text in loaded.warnings)
    snapshot: Snapshot | None = None
    try:
        snapshot = client.snapshot(mark)
    except NoDaemonError as error:
        # Who may not ask cannot know whether it runs.
        yield (_warning if error.forbidden else _problem)(f"daemon: {error}")
    except DoorsError as error:
        yield _problem(f"daemon: {error}")
    else:
        yield from _about_daemon(snapshot, loaded)
    yield from run(_about_firewalld(settings, mark, snapshot))
    yield from about_redirections(settings)
    yield from about_services(settings)
    if snapshot is None:
        yield from about_knock_ports(settings)
    yield from about_links(settings)
    yield from about_capability(settings, snapshot)


# The daemon. ---------------------------------------------------------------------------------------------------------


def _about_daemon(snapshot: Snapshot, loaded: Loaded) -> Iterator[Finding]:
    if snapshot.configuration != str(loaded.path or ""):
        theirs = snapshot.configuration or "its built-in defaults"
        yield _warning(f"daemon: process {snapshot.pid} runs with {theirs}, and not with what was read here")
    else:
        yield _ok(f"daemon: process {snapshot.pid} runs")
    wanted = len(set(loaded.settings.opening_sequence))
    if snapshot.listeners != wanted:
        yield _warning(
            f"daemon: it listens on {snapshot.listeners} UDP ports, the configuration has {wanted}: "
            "`port-knocking-doors reload` lets it read the configuration again"
        )
    if snapshot.firewalld is FirewalldState.HUNG:
        yield _problem("daemon: it gets no answer from firewalld: systemctl restart firewalld")
    if snapshot.firewalld is FirewalldState.REFUSING:
        yield _problem(
            "daemon: firewalld does not let it do anything: its log says why; mostly the polkit rule is missing that "
            "allows the daemon's user the action org.fedoraproject.FirewallD1.config"
        )
    if snapshot.rules_refused:
        yield _problem(f"daemon: firewalld refused {snapshot.rules_refused} of its rules: its log says why")
    if snapshot.doors_open >= snapshot.doors_limit:
        yield _problem("daemon: as many doors are open as may be: raise max_open_doors, or `port-knocking-doors close`")
    if snapshot.sniffer_dropped:
        yield _warning(f"daemon: the kernel dropped {snapshot.sniffer_dropped} packets that might have been knocks")
    ignored = [knocker.address for knocker in snapshot.knockers if knocker.ignored_seconds > 0]
    if ignored:
        shown = ", ".join(ignored[:5]) + (" …" if len(ignored) > 5 else "")
        yield _warning(
            f"daemon: {snapshot.knockers_ignored} knockers are ignored for a wrong knock now ({shown}): they wait, or "
            "`port-knocking-doors forget ADDRESS`"
        )


# firewalld. ----------------------------------------------------------------------------------------------------------


async def _about_firewalld(settings: Settings, mark: int, snapshot: Snapshot | None) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with firewalld.connected() as client:
            zones = await client.zones()
            findings.append(_ok("firewalld: it answers"))
            findings += [finding async for finding in _about_firewall(client, zones, settings, mark, snapshot)]
    except FirewallError as error:
        remedy = {
            firewalld.UNREACHABLE: "systemctl enable --now firewalld",
            firewalld.UNANSWERED: "systemctl restart firewalld",
            firewalld.NOT_AUTHORIZED: "ask as root, with sudo",
        }.get(error.code, "see its log: journalctl -u firewalld")
        findings.append(_problem(f"firewalld: {error}: {remedy}"))
    return findings


async def _about_firewall(
    client: firewalld.Firewalld, zones: Zones, settings: Settings, mark: int, snapshot: Snapshot | None
) -> AsyncIterator[Finding]:
    try:
        await client.try_right()
        yield _ok("firewalld: this user may change it")
    except FirewallError as error:
        if error.code != firewalld.NOT_AUTHORIZED and "ACCESS_DENIED" not in error.code:
            raise
        grade = _warning if snapshot is not None and snapshot.rules else _problem
        yield grade(
            "firewalld: this user may not change it: run as root, or allow the daemon's user the polkit action "
            "org.fedoraproject.FirewallD1.config"
        )
    if await client.panics():
        yield _problem("firewalld: panic mode is on, every packet is dropped: firewall-cmd --panic-off")
    for finding in about_zones(settings, zones):
        yield finding
    own = [settings.zone] if settings.zone in zones.known else []
    looked_at = dict.fromkeys((*own, *zones.active()))
    rules, services = await client.firewall(looked_at)
    for finding in about_guarded(settings, mark, zones, rules, services):
        yield finding
    for finding in about_knocks_let_through(settings, zones, rules, services, snapshot):
        yield finding


def about_zones(settings: Settings, zones: Zones) -> Iterator[Finding]:
    """The zones that packets fall into, and the configured one."""
    for zone in zones.active():
        links = [name for name, of in zones.interfaces.items() if of == zone]
        sources = [source for source, of in zones.sources.items() if of == zone]
        what = [f"interfaces {', '.join(sorted(links))}"] if links else []
        what += [f"sources {', '.join(sorted(sources))}"] if sources else []
        what += ["whatever is in no other zone"] if zone == zones.default else []
        yield _ok(f"zone {zone}: {'; '.join(what)}")
    if not settings.zone:
        return
    if settings.zone not in zones.known:
        known = ", ".join(sorted(zones.known))
        yield _problem(f"zone {settings.zone}: firewalld does not know it; set zone to one of: {known}")
    elif settings.zone not in zones.active():
        yield _problem(
            f"zone {settings.zone}: the doors are made there, and no packet falls into it: give it an interface "
            f"(firewall-cmd --zone={settings.zone} --change-interface=NAME), or take zone out of the configuration"
        )


def _opened_by(settings: Settings) -> dict[Port, str]:
    """The guarded ports, with whose they are."""
    guarded = dict.fromkeys(settings.guarded_ports, _MAIN)
    for sequence in settings.sequences:
        for port in sequence.opens:
            guarded.setdefault(port, f"sequence {sequence.name}")
    return guarded


def about_guarded(
    settings: Settings,
    mark: int,
    zones: Zones,
    rules: Iterable[exposure.ZoneSettings],
    services: dict[str, exposure.ServiceSettings],
) -> Iterator[Finding]:
    """Whether guarded ports are closed to those who have not knocked, and can be opened for those who have."""
    loud = {*zones.external(), settings.zone}
    guarded = _opened_by(settings)
    found = False
    for one in rules:
        for port in guarded:
            seen = exposure.look(port, one, services, mark)
            for way in seen.ways:
                found = True
                if way.limited:
                    yield _warning(f"{one}: port {port} is open to some without a knock: {way.what}")
                elif one.is_policy or one.name in loud:
                    yield _problem(exposure.complaint(port, one, way))
                else:
                    yield _warning(exposure.complaint(port, one, way))
            for way in seen.denials:
                yield _problem(
                    f"{one}: port {port} is denied to everybody ahead of any door: {way.what}; "
                    f"{exposure.remedy(one, way)}"
                )
    if guarded and not found:
        yield _ok(f"guarded ports: closed without a knock ({', '.join(map(str, guarded))})")


def about_knocks_let_through(
    settings: Settings,
    zones: Zones,
    rules: Iterable[exposure.ZoneSettings],
    services: dict[str, exposure.ServiceSettings],
    snapshot: Snapshot | None,
) -> Iterator[Finding]:
    """Whether the UDP knocks of the opening sequence reach their sockets."""
    ports = [Port(port, Protocol.UDP) for port in dict.fromkeys(settings.opening_sequence)]
    if settings.open_knock_ports and snapshot is None:
        yield _ok("knock ports: the daemon lets them through while it runs (open_knock_ports)")
        return
    all_rules = list(rules)
    # Our own rules count here: what they let through is what is asked.
    policies = [one for one in all_rules if one.is_policy]
    for one in all_rules:
        if one.is_policy or (one.name not in zones.external() and one.name != settings.zone):
            continue
        if settings.open_knock_ports and settings.zone and one.name != settings.zone:
            continue
        through = [
            port
            for port in ports
            if any(
                not way.limited for each in (one, *policies) for way in exposure.look(port, each, services, None).ways
            )
        ]
        if len(through) == len(ports):
            yield _ok(f"zone {one.name}: the {len(ports)} knock ports are let through")
            continue
        missing = f"zone {one.name}: {len(ports) - len(through)} of {len(ports)} knock ports are not let through"
        if settings.open_knock_ports:
            yield _problem(f"{missing}, though the daemon should see to it: see its log, and rich rules that deny them")
        else:
            yield _problem(
                f"{missing}: set open_knock_ports = true, or add them yourself "
                f"(firewall-cmd --zone={one.name} --add-port=PORT/udp)"
            )


# This host. ----------------------------------------------------------------------------------------------------------


def about_redirections(settings: Settings) -> Iterator[Finding]:
    """Guarded ports whose packets go elsewhere before any zone sees them, as with containers' published ports."""
    guarded = _opened_by(settings)
    proxied = sorted(set(_proxied(PROC)) & guarded.keys())
    for port in proxied:
        yield _problem(
            f"port {port}: a container publishes it (docker-proxy), past the firewall: publish it on 127.0.0.1 only, "
            f"and not as -p {port.number}:…"
        )
    try:
        ruleset = _nft()
    except (OSError, subprocess.SubprocessError):
        yield _warning("redirections: `nft list ruleset` cannot be read here (as root, with nftables, it can)")
        return
    redirected = [port for port in exposure.redirected(ruleset, guarded) if port not in proxied]
    for port in redirected:
        yield _problem(
            f"port {port}: a rule sends its packets elsewhere, past the zone: a container publishes it, or the "
            "firewall forwards it (`nft list ruleset` shows the rule with dnat or redirect); no door is asked there"
        )
    if not redirected and not proxied:
        yield _ok("redirections: no container and no rule takes a guarded port past the firewall")


def _nft() -> str:
    if shutil.which("nft") is None:
        raise FileNotFoundError("nft")
    # --terse leaves out the elements of sets, which can be millions; --numeric names no service for a port.
    command = ["nft", "--terse", "--numeric", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, check=True, timeout=NFT_TIME).stdout.decode(errors="replace")


def _proxied(proc: Path) -> Iterator[Port]:
    """What docker's helper processes, one for each published port, were told."""
    for comm in proc.glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() != "docker-proxy":
                continue
            words = comm.with_name("cmdline").read_bytes().decode(errors="replace").split("\0")
            said = dict(pairwise(words))
            if not said.get("-host-ip", "").startswith(("127.", "::1")):
                yield Port(int(said["-host-port"]), Protocol(said["-proto"]))
        except (OSError, KeyError, ValueError):  # it ended, or it is something else
            continue


def about_services(settings: Settings) -> Iterator[Finding]:
    """Whether anything is behind the doors."""
    everywhere, outside = listening_ports(), listening_ports(from_outside=True)
    silent = [(port, whose) for port, whose in _opened_by(settings).items() if port not in outside]
    for port, whose in silent:
        if port in everywhere:
            yield _warning(f"port {port} ({whose}): what listens there listens on loopback only: no door leads to it")
        else:
            yield _warning(f"port {port} ({whose}): nothing listens there: start the service behind it")
    if not silent:
        yield _ok("services: something listens on every guarded port")


def about_knock_ports(settings: Settings) -> Iterator[Finding]:
    """Whether another program has a knock port, where no daemon runs that could have it."""
    served = listening_ports()
    ports = dict.fromkeys(settings.opening_sequence)
    taken = [place for place, port in enumerate(ports, 1) if Port(port, Protocol.UDP) in served]
    for place in taken:
        yield _problem(
            f"knock ports: port number {place} of the opening sequence is in use by another program: choose another "
            "port, or end it (`ss -ulpn` shows whose it is)"
        )
    if not taken:
        yield _ok("knock ports: no other program has one")


def about_links(settings: Settings) -> Iterator[Finding]:
    """Interfaces and addresses."""
    try:
        with InterfaceMonitor() as found:
            links = list(found.links.values())
    except DoorsError as error:
        yield _warning(f"interfaces: {error}")
        return
    usable = []
    for link in links:
        shown = sorted(str(ip_address(packed)) for packed in link.addresses)
        shown = [text for text in shown if not ip_address(text).is_loopback]
        if link.up and shown:
            usable.append(f"{link.name} ({', '.join(shown[:4])}{' …' if len(shown) > 4 else ''})")
    if usable:
        yield _ok(f"interfaces: {', '.join(usable[:8])}{' …' if len(usable) > 8 else ''}")
    else:
        yield _problem("interfaces: none is up and has an address: `ip address` shows them")
    names = [name for link in links for name in link.names]
    local = {packed for link in links for packed in link.addresses}
    for pattern in dict.fromkeys(
        (*settings.interfaces, *(one for each in settings.sequences for one in each.scope.interfaces))
    ):
        if not any(fnmatchcase(name, pattern) for name in names):
            yield _problem(f"interface {pattern}: there is none of this name: sniffed sequences are not heard there")
    for sequence in settings.sequences:
        if sequence.scope.target is not None and sequence.scope.target.packed not in local:
            yield _problem(f"sequence {sequence.name}: its target {sequence.scope.target} is no address of this host")


def about_capability(settings: Settings, snapshot: Snapshot | None) -> Iterator[Finding]:
    """Whether sniffed sequences can be heard."""
    sniffed: list[Sequence] = [sequence for sequence in settings.sequences if not sequence.listened]
    if not sniffed:
        return
    if snapshot is not None:
        if snapshot.sniffing:
            yield _ok(f"sniffing: the daemon does, {snapshot.sniffer_seen} packets so far")
        else:
            yield _problem("sniffing: the daemon does not: `port-knocking-doors reload`, or restart it; see its log")
    elif _may_sniff(PROC / "self" / "status"):
        yield _ok("sniffing: this user may (CAP_NET_RAW)")
    else:
        yield _problem(
            "sniffing: this user may not: run the daemon as root, or grant it CAP_NET_RAW "
            "(AmbientCapabilities=CAP_NET_RAW in a systemd unit)"
        )


def _may_sniff(process: Path) -> bool:
    for line in process.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapPrm":
            return bool(int(value, 16) >> CAP_NET_RAW & 1)
    return os.geteuid() == 0


# Listening. ----------------------------------------------------------------------------------------------------------

_NOTHING = (
    "Nothing was heard. If somebody knocked meanwhile: is it this host's address that they knock at, from another "
    "host? Does a firewall on the way (a provider's, a router's) let the knocks through? A datagram of the opening "
    'sequence must carry exactly "knock\\n"; a wrong port of it is not seen at all.'
)


def listened(mark: int, seconds: float) -> Iterator[str]:
    """Each knock as the daemon hears it, one line each. Raises `DoorsError`."""
    yield f"Listening for {seconds:g} s: knock now. Each knock shows here, and what it was judged; never its port."
    heard = 0
    end = now() + seconds
    for event in client.watch(mark, seconds):
        heard += "address" in event
        missed = f" ({event['missed']} more were too fast to be shown)" if "missed" in event else ""
        yield f"{_clean(event.get('time'))} {_clean(event.get('message'))}{_which(event)}{missed}"
    if now() < end - 1:
        raise DoorsError("the daemon stopped while it was listened to")
    if not heard:
        yield _NOTHING


def _which(event: dict[str, Any]) -> str:
    return f" ({_clean(event['sequence'])})" if event.get("event") == "knock" and "sequence" in event else ""


def _clean(value: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))
