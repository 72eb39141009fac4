"""What to do about a guarded port that is open without a knock, or denied to every door: text with a command.

A command may be copied into a shell as it is, and closes nothing but the guarded port: what else a setting lets through
is let through first, by itself. Where that cannot be known, there is no command, and the text says what to decide.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from port_knocking_doors.firewall import exposure, rich_match
from port_knocking_doors.firewall.exposure import Exposure, SettingKind
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zones import INNER
from port_knocking_doors.model import PORT_MAX, Port, Protocol, Settings

_BOTH = ", and the same with --permanent"
_PRIVATE = re.compile(
    r"wg|tun|tap|vpn|ipsec|vti|tailscale|zt|nordlynx|docker|br-|podman|cni|flannel|cali|veth|virbr|vnet|lxcbr|lxdbr|incusbr"
)
"""Beginnings of the names that VPNs, containers and virtual machines give to their interfaces."""
_KEPT_MAX = 8
"""Ports that a command lets through by themselves; of more, the administrator makes a choice."""


@dataclass(frozen=True)
class HostFacts:
    """What advice takes into account."""

    guarded: Collection[Port] = ()
    serving: Collection[Port] = ()
    """Other ports that services of this host listen on, without any port of a sequence."""
    services: Mapping[str, ServiceSettings] = field(default_factory=dict)
    default: ZoneSettings | None = None
    """The default zone."""


def host_of(
    settings: Settings,
    served: Iterable[Port],
    services: Mapping[str, ServiceSettings],
    places: Iterable[ZoneSettings],
    default: str,
) -> HostFacts:
    """`served`: ports that programs listen on; `places`: the zones and policies that were read."""
    sequences = settings.sequences
    guarded = dict.fromkeys(
        (*settings.guarded_ports, *(port for sequence in sequences for port in sequence.access.ports))
    )
    knocks = {Port(port, Protocol.UDP) for port in settings.opening_sequence}
    for sequence in sequences:
        knocks |= {Port(step.port, step.protocol) for step in (*sequence.steps, *sequence.close_steps)}
    zone = next((one for one in places if one.name == default and not one.is_policy), None)
    serving = sorted(port for port in {*served} - knocks if port not in guarded)
    return HostFacts(tuple(guarded), tuple(serving), services, zone)


def warning_line(port: Port, settings: ZoneSettings, found: Exposure, host: HostFacts) -> str:
    """The warning about a guarded port that is open to every source, with the remedy."""
    through = "lets every packet through" if found.kind is SettingKind.TARGET else "lets it through"
    advice = remedy(port, settings, found, host)
    return f"{settings}: port {port} is OPEN WITHOUT A KNOCK: {found.what} {through}; {advice}"


def remedy(port: Port, settings: ZoneSettings, found: Exposure, host: HostFacts) -> str:
    """What closes the port, and nothing else."""
    if found.kind is SettingKind.TARGET:
        return _about_target(settings, host)
    if found.kind is SettingKind.SERVICE:
        return _without_service(settings, found, host)
    if found.kind is SettingKind.PORT and not found.exact:
        if settings.is_policy:  # of a policy, firewalld 1.3 takes no part of a range away
            return f"replace it by ranges without port {port.number} ({_show(settings)} shows it)"
        return f"{_command(settings, f'--remove-port={port}')}{_BOTH}"
    return _without(settings, found, _kept(settings, found, host))


def denial_remedy(port: Port, settings: ZoneSettings, denial: Exposure, host: HostFacts) -> str:
    """What lets doors to the port work again, and nothing else through."""
    if not denial.exact:
        return f"change it so that it leaves out port {port} ({_show(settings)} shows it): it may deny more than this"
    without = settings.without_rule(denial.value)
    hidden = [one for one in exposure.find(port, without, host.services, None).exposures if not one.limited]
    if hidden:
        return f"without it, {hidden[0].what} opens the port to all: remove that first, then the rule"
    return f"{_command(settings, _removal(denial))}{_BOTH}"


# By kind. ------------------------------------------------------------------------------------------------------------


def _about_target(settings: ZoneSettings, host: HostFacts) -> str:
    """A choice, and not a command that cuts others off: a VPN or containers may need every packet let through."""
    if settings.is_policy:
        return (
            f"if it should not, give it the target CONTINUE, and the services that must stay open ({_show(settings)} "
            "shows it)"
        )
    where = ", ".join((*settings.interfaces, *settings.sources)) or "every interface without a zone"
    text = f"all from {where} passes"
    outer = [name for name in settings.interfaces if not _PRIVATE.match(name)]
    if settings.name in INNER or (not outer and (settings.interfaces or settings.sources)):
        return f"{text}, as a VPN or containers need it; if a knock is to be needed there, too, give them another zone"
    text += ": a VPN or containers may need that; if strangers come this way,"
    default = host.default
    if default is None or default.name == settings.name or default.target == exposure.ACCEPT:
        return f"{text} make another zone the default one (firewall-cmd --set-default-zone)"
    closed = [port for port in host.serving if not _is_open(port, default, host)]
    moves = " && ".join(_command(default, f"--change-interface={name}") for name in outer)
    if closed:
        return (
            f"{text} move {', '.join(outer)} to another zone, which must let in what is served there: "
            f"zone {default.name} would close {_ports(closed)}"
        )
    return f"{text} move {', '.join(outer)} to zone {default.name}: {moves}{_BOTH}"


def _without_service(settings: ZoneSettings, found: Exposure, host: HostFacts) -> str:
    parts = list(rich_match.with_included(found.value, host.services))
    if any(part.protocols or part.source_ports or part.limited for part in parts):
        return f"replace the service by the ports that must stay open ({_show(settings)} shows it)"
    rest = dict.fromkeys(
        kept for part in parts for ports, protocol in part.ports for kept in _apart(ports, protocol, host.guarded)
    )
    return _without(
        settings, found, [kept for kept in rest if not _stays_open(kept, settings, host)], why="for its other ports: "
    )


def _without(settings: ZoneSettings, found: Exposure, kept: Sequence[str] | None, why: str = "") -> str:
    """The commands that let `kept` through by itself, and remove what was found."""
    removal = _command(settings, _removal(found))
    if kept is None or len(kept) > _KEPT_MAX:
        return f"replace it by what must stay open ({_show(settings)} shows it)"
    if not kept:
        return f"{removal}{_BOTH}"
    adding = _command(settings, *(f"--add-port={one}" for one in kept))
    return f"{why}{adding} && {removal}{_BOTH}"


def _kept(settings: ZoneSettings, found: Exposure, host: HostFacts) -> list[str] | None:
    """Served ports that nothing else lets through; None where a port by itself is not the same."""
    kept = [str(port) for port in host.serving if found.what in _openings(port, settings, host)]
    kept = [one for one in kept if not _stays_open(one, settings, host)]
    return None if kept and found.kind is SettingKind.RICH_RULE and not found.plain else kept


def _openings(port: Port, settings: ZoneSettings, host: HostFacts) -> set[str]:
    return {one.what for one in exposure.find(port, settings, host.services, None).exposures if not one.limited}


def _is_open(port: Port, settings: ZoneSettings, host: HostFacts) -> bool:
    return bool(_openings(port, settings, host))


def _stays_open(kept: str, settings: ZoneSettings, host: HostFacts) -> bool:
    """Whether all of a range is open by settings that no advice removes."""
    ports, _, protocol = kept.partition("/")
    low, _, high = ports.partition("-")
    if not low.isdecimal():
        return False
    removed = {
        one.what
        for guarded in host.guarded
        for one in exposure.find(guarded, settings, host.services, None).exposures
        if one.kind is not SettingKind.PORT
    }
    return all(
        _openings(Port(number, Protocol(protocol)), settings, host) - removed
        for number in range(int(low), int(high or low) + 1)
    )


def _apart(ports: str, protocol: str, guarded: Collection[Port]) -> Iterator[str]:
    """The port or range without the guarded ports, as `firewall-cmd` takes it."""
    low, _, high = ports.partition("-")
    try:
        first = int(low) if low else 0
        last = int(high) if high else first if low else PORT_MAX
    except ValueError:  # a name
        yield f"{ports}/{protocol}"
        return
    for number in sorted(port.number for port in guarded if port.protocol.value == protocol):
        if first <= number <= last:
            if first < number:
                yield _range(first, number - 1, protocol)
            first = number + 1
    if first <= last:
        yield _range(first, last, protocol)


def _range(first: int, last: int, protocol: str) -> str:
    return f"{first if first == last else f'{first}-{last}'}/{protocol}"


# Texts. --------------------------------------------------------------------------------------------------------------


_REMOVALS = {
    SettingKind.SERVICE: "--remove-service=",
    SettingKind.PORT: "--remove-port=",
    SettingKind.PROTOCOL: "--remove-protocol=",
    SettingKind.SOURCE_PORT: "--remove-source-port=",
    SettingKind.RICH_RULE: "--remove-rich-rule=",
}


def _removal(found: Exposure) -> str:
    return _REMOVALS[found.kind] + found.value


def _command(settings: ZoneSettings, *options: str) -> str:
    name = shlex.quote(settings.name)
    program = f"firewall-cmd --policy={name}" if settings.is_policy else f"firewall-cmd --zone={name}"
    return " ".join((program, *map(shlex.quote, options)))


def _show(settings: ZoneSettings) -> str:
    name = shlex.quote(settings.name)
    return f"firewall-cmd --info-policy={name}" if settings.is_policy else f"firewall-cmd --info-zone={name}"


def _ports(ports: Sequence[Port]) -> str:
    return ", ".join(map(str, ports[:_KEPT_MAX])) + (" …" if len(ports) > _KEPT_MAX else "")
