"""firewalld: whether it answers and obeys, its zones, and what it lets through."""

from collections.abc import AsyncIterator, Iterable, Iterator

from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.doctor.guarded import about_guarded
from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import error_codes, exposure, firewalld
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Port, Protocol, Settings


async def about_firewalld(settings: Settings, mark: int, snapshot: Snapshot | None) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with firewalld.connected() as client:
            zones = await client.zones()
            findings.append(ok("firewalld: it answers"))
            findings += [finding async for finding in _about_firewall(client, zones, settings, mark, snapshot)]
    except FirewallError as error:
        remedy = {
            error_codes.UNREACHABLE: "systemctl enable --now firewalld",
            error_codes.UNANSWERED: "systemctl restart firewalld",
            error_codes.NOT_AUTHORIZED: "ask as root, with sudo",
        }.get(error.code, "see its log: journalctl -u firewalld")
        findings.append(problem(f"firewalld: {error}: {remedy}"))
    return findings


async def _about_firewall(
    client: firewalld.Firewalld, zones: Zones, settings: Settings, mark: int, snapshot: Snapshot | None
) -> AsyncIterator[Finding]:
    try:
        await client.check_authorization()
        yield ok("firewalld: this user may change it")
    except FirewallError as error:
        if error.code != error_codes.NOT_AUTHORIZED and "ACCESS_DENIED" not in error.code:
            raise
        grade = warning if snapshot is not None and snapshot.rules else problem
        yield grade(
            "firewalld: this user may not change it: run as root, or allow the daemon's user the polkit action "
            "org.fedoraproject.FirewallD1.config"
        )
    if await client.panic_mode():
        yield problem("firewalld: panic mode is on, every packet is dropped: firewall-cmd --panic-off")
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
        yield ok(f"zone {zone}: {'; '.join(what)}")
    if not settings.zone:
        return
    if settings.zone not in zones.known:
        known = ", ".join(sorted(zones.known))
        yield problem(f"zone {settings.zone}: firewalld does not know it; set zone to one of: {known}")
    elif settings.zone not in zones.active():
        yield problem(
            f"zone {settings.zone}: the doors are made there, and no packet falls into it: give it an interface "
            f"(firewall-cmd --zone={settings.zone} --change-interface=NAME), or take zone out of the configuration"
        )


def about_knocks_let_through(
    settings: Settings,
    zones: Zones,
    rules: Iterable[ZoneSettings],
    services: dict[str, ServiceSettings],
    snapshot: Snapshot | None,
) -> Iterator[Finding]:
    """Whether the UDP knocks of the opening sequence reach their sockets."""
    ports = [Port(port, Protocol.UDP) for port in dict.fromkeys(settings.opening_sequence)]
    if settings.open_knock_ports and snapshot is None:
        yield ok("knock ports: the daemon lets them through while it runs (open_knock_ports)")
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
                not way.limited
                for each in (one, *policies)
                for way in exposure.find(port, each, services, None).exposures
            )
        ]
        if len(through) == len(ports):
            yield ok(f"zone {one.name}: the {len(ports)} knock ports are let through")
            continue
        missing = f"zone {one.name}: {len(ports) - len(through)} of {len(ports)} knock ports are not let through"
        if settings.open_knock_ports:
            yield problem(f"{missing}, though the daemon should see to it: see its log, and rich rules that deny them")
        else:
            yield problem(
                f"{missing}: set open_knock_ports = true, or add them yourself "
                f"(firewall-cmd --zone={one.name} --add-port=PORT/udp)"
            )
