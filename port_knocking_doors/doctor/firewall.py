"""firewalld: whether it runs and accepts changes, its zones, and the knock ports."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.expected import Expected
from port_knocking_doors.doctor.finding import Finding, ok, problem, shortened, warning
from port_knocking_doors.doctor.guarded import about_guarded, examined
from port_knocking_doors.doctor.host import used_interfaces
from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import advice, error_codes, exposure, firewalld
from port_knocking_doors.firewall.bans import REFUSING
from port_knocking_doors.firewall.zone_doubts import doubt_text, filled_by_others, remedy
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Port, Protocol, Settings
from port_knocking_doors.system import firewalld_service
from port_knocking_doors.system.listening_ports import served_ports


class Answers(NamedTuple):
    """What firewalld answered."""

    findings: list[Finding]
    expected: Expected


async def about_firewalld(settings: Settings, mark: int, snapshot: Snapshot | None) -> Answers:
    """firewalld as a whole, over D-Bus."""
    findings: list[Finding] = []
    expected = Expected()
    try:
        async with firewalld.connected() as client:
            zones = await client.zones()
            expected = Expected(zones, failed=await client.has_failed())
            if expected.failed:
                findings.append(
                    problem(
                        "firewalld: in the state FAILED: its configuration is not active, and every port may be open "
                        "without a knock: firewall-cmd --check-config or its log (journalctl -u firewalld) names the "
                        "fault; mend it, then systemctl restart firewalld"
                    )
                )
            else:
                findings.append(ok("firewalld: running"))
            findings += await _about_rights(client, snapshot)
            if await client.panic_mode():
                expected = expected._replace(panic=True)
                findings.append(
                    problem("firewalld: panic mode is on, every packet is dropped: firewall-cmd --panic-off")
                )
            findings += about_zones(settings, zones, used_interfaces())
            own = [settings.zone] if settings.zone in zones.known else []
            rules, services = await client.firewall(dict.fromkeys((*own, *zones.active())))
            found = examined(settings, mark, rules, services)
            host = advice.host_of(settings, served_ports(), services, rules, zones.default)
            findings += about_guarded(settings, zones, found, host, has_daemon=snapshot is not None)
            shut = shut_knock_ports(settings, zones, rules, services)
            if settings.open_knock_ports and snapshot is None:
                shut = {}  # the daemon opens them while it runs
            findings += about_knock_ports_of_zones(settings, shut)
            expected = expected._replace(
                exposed=frozenset((one.zone, one.port) for one in found if one.is_open_to_all),
                limited=frozenset(one.port for one in found if one.seen.exposures),
                denied=frozenset((one.zone, one.port) for one in found if one.seen.denials),
                shut=frozenset(shut),
            )
    except FirewallError as error:
        findings.append(_failure(error))
    return Answers(findings, expected)


def _failure(error: FirewallError) -> Finding:
    if error.code == error_codes.UNREACHABLE and not firewalld_service.is_installed():
        return problem(f"firewalld is not installed: {firewalld_service.remedy()}")
    if error.code == error_codes.NOT_AUTHORIZED:
        return problem(f"firewalld: permission denied ({error}): run as root: sudo port-knocking-doors doctor")
    remedy = {
        error_codes.UNREACHABLE: (
            "systemctl enable --now firewalld (first see what its zones let in: firewall-offline-cmd --list-all-zones)"
        ),
        error_codes.UNANSWERED: "systemctl restart firewalld",
    }.get(error.code, "see its log: journalctl -u firewalld")
    text = str(error)
    return problem(f"{text if text.startswith('firewalld') else f'firewalld: {text}'}: {remedy}")


async def _about_rights(client: firewalld.Firewalld, snapshot: Snapshot | None) -> list[Finding]:
    try:
        await client.check_authorization()
    except FirewallError as error:
        if error.code != error_codes.NOT_AUTHORIZED and "ACCESS_DENIED" not in error.code:
            raise
        grade = warning if snapshot is not None and snapshot.rules else problem
        return [
            grade(
                "firewalld: permission denied to change it: run as root, or allow the daemon's user the polkit action "
                "org.fedoraproject.FirewallD1.config"
            )
        ]
    return [ok("firewalld: this user may change it")]


def about_zones(settings: Settings, zones: Zones, interfaces: Iterable[str]) -> Iterator[Finding]:
    """The active zones, with their interfaces and sources, and the configured zone."""
    rest = shortened(sorted(name for name in interfaces if name not in zones.interfaces), 8)
    for zone in zones.active():
        links = [name for name, of in zones.interfaces.items() if of == zone]
        sources = [source for source, of in zones.sources.items() if of == zone]
        what = [f"interfaces {', '.join(sorted(links))}"] if links else []
        what += [f"sources {', '.join(sorted(sources))}"] if sources else []
        if zone == zones.default:
            what.append(f"the default zone{f' ({rest})' if rest else ''}")
        yield ok(f"zone {zone}: {'; '.join(what)}")
    if not settings.zone:
        yield from about_doubts(zones)
        return
    if settings.zone not in zones.known:
        known = ", ".join(sorted(zones.known))
        yield problem(f"zone {settings.zone}: not found in firewalld; set zone to one of: {known}")
    elif settings.zone not in zones.active():
        yield problem(
            f"zone {settings.zone}: doors open in this zone, but no packet reaches it: remove zone from the "
            "configuration, or give the zone an interface once it lets in what is needed there "
            f"({_shown('--info-zone', settings.zone)} shows it)"
        )


def about_doubts(zones: Zones) -> Iterator[Finding]:
    """The zones that the address of a door may be in, which a knock does not show."""
    for doubt in (*zones.doubts(), *filled_by_others(zones)):
        grade = ok if zones.targets.get(doubt.zone) in REFUSING else warning
        yield grade(f"zone {doubt.zone}: an address {doubt_text(doubt)}: {remedy(doubt, zones)}")


def shut_knock_ports(
    settings: Settings, zones: Zones, rules: Iterable[ZoneSettings], services: dict[str, ServiceSettings]
) -> dict[str, int]:
    """The zones in which knocks of the opening sequence arrive, each with how many of its ports it does not open.

    The daemon's own rules count here. Zones that open all are left out.
    """
    ports = [Port(port, Protocol.UDP) for port in dict.fromkeys(settings.opening_sequence)]
    all_rules = list(rules)
    policies = [one for one in all_rules if one.is_policy]
    missing: dict[str, int] = {}
    for one in all_rules:
        if one.is_policy or (one.name not in zones.external() and one.name != settings.zone):
            continue
        if settings.open_knock_ports and settings.zone and one.name != settings.zone:
            continue
        through = [
            port
            for port in ports
            if any(
                not found.limited
                for each in (one, *policies)
                for found in exposure.find(port, each, services, None).exposures
            )
        ]
        if len(through) < len(ports):
            missing[one.name] = len(ports) - len(through)
    return missing


def about_knock_ports_of_zones(settings: Settings, shut: Mapping[str, int]) -> Iterator[Finding]:
    """Zones that do not let the UDP knocks of the opening sequence through."""
    count = len(set(settings.opening_sequence))
    for zone, missing in shut.items():
        text = f"zone {zone}: {missing} of {count} knock ports are not open"
        if settings.open_knock_ports:
            yield problem(f"{text}, though open_knock_ports is set: see the daemon's log and the zone's rich rules")
        else:
            yield problem(
                f"{text}: set open_knock_ports = true, or open them: {_shown('--zone', zone)} --add-port=PORT/udp, and "
                "the same with --permanent"
            )


def _shown(option: str, value: str) -> str:
    """A command for a shell."""
    return f"firewall-cmd {shlex.quote(f'{option}={value}')}"
