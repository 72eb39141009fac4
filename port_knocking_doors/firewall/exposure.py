"""What accepts packets for a port without a knock: exposures, from the settings of a zone or a policy.

The order is firewalld's (firewalld.richlanguage(5), "Rule structure"): rich rules of negative priority, then denying
ones, then accepting ones together with services, ports and the like, then rich rules of positive priority, then the
target. A denial for all sources disables every exposure behind it. Each zone and policy is examined alone, without the
order among them.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from port_knocking_doors.firewall import rich_match, rich_rule
from port_knocking_doors.firewall.rich_match import RichParts
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.model import Port

ACCEPT = "ACCEPT"
"""The target of zones and policies that accept every packet (firewalld.zone(5))."""

_DENIALS, _ACCEPTS = 0.0, 0.5  # the ranks of rich rules of priority 0
_TARGET = 32768  # behind the last rich rule (firewalld.richlanguage(5): priorities end at 32767)


class SettingKind(Enum):
    """A kind of setting; the value is its name in the options of `firewall-cmd`."""

    SERVICE = "service"
    PORT = "port"
    PROTOCOL = "protocol"
    SOURCE_PORT = "source-port"
    RICH_RULE = "rich-rule"
    TARGET = "target"


@dataclass(frozen=True)
class Exposure:
    """One setting that accepts packets for a port, or denies them."""

    kind: SettingKind
    value: str
    """As `firewall-cmd` takes it."""
    limited: bool = False
    """Whether it is for some source or destination addresses only."""
    exact: bool = False
    """Whether it is about this port and no other."""
    plain: bool = True
    """Whether it is for both families, at any rate."""

    @property
    def what(self) -> str:
        """The setting in a few words."""
        if self.kind is SettingKind.RICH_RULE:
            return f"rich rule `{self.value}`"
        return f"{'the ' if self.kind is SettingKind.TARGET else ''}{self.kind.value.replace('-', ' ')} {self.value}"


@dataclass(frozen=True)
class PortExposure:
    """How a zone or a policy treats a port."""

    exposures: tuple[Exposure, ...]
    """What accepts its packets without a knock."""
    denials: tuple[Exposure, ...]
    """Rich rules that deny it to every source, ahead of any door."""


def find(port: Port, settings: ZoneSettings, services: Mapping[str, ServiceSettings], mark: int | None) -> PortExposure:
    """What accepts the port, and what denies it. Rules that carry the mark, our own, are left out."""
    texts = (text for text in settings.rich_rules if mark is None or not rich_rule.is_marked(text, mark))
    rich = [rich_match.parsed(text) for text in texts]
    fitting = [rule for rule in rich if rich_match.fits(rule, port, services)]
    denials = [(rule.priority or _DENIALS, rule) for rule in fitting if rule.action in ("reject", "drop")]
    denials = [(rank, rule) for rank, rule in denials if not rule.limited]
    # A denial of a single family leaves the other one open.
    denied_from = min((rank for rank, rule in denials if not rule.family), default=math.inf)
    found = [(rule.priority or _ACCEPTS, _rich_exposure(rule, port)) for rule in fitting if rule.action == "accept"]
    found += [(_ACCEPTS, exposure) for exposure in _plain_exposures(port, settings, services)]
    if settings.target == ACCEPT:
        found.append((_TARGET, Exposure(SettingKind.TARGET, ACCEPT)))
    return PortExposure(
        tuple(exposure for rank, exposure in found if rank < denied_from),
        tuple(_rich_exposure(rule, port) for rank, rule in denials if mark is None or rank < mark),
    )


def _rich_exposure(rule: RichParts, port: Port) -> Exposure:
    exact = rule.elements == {"port": {"port": str(port.number), "protocol": port.protocol.value}}
    return Exposure(
        SettingKind.RICH_RULE, rule.text, rule.limited, exact, plain=not rule.family and " limit " not in rule.text
    )


def _plain_exposures(port: Port, settings: ZoneSettings, services: Mapping[str, ServiceSettings]) -> Iterator[Exposure]:
    for name in settings.services:
        found = [rich_match.in_service(port, service) for service in rich_match.with_included(name, services)]
        if limits := [limited for opened, limited in found if opened]:
            yield Exposure(SettingKind.SERVICE, name, all(limits))
    for ports, protocol in settings.ports:
        if rich_match.holds(ports, protocol, port):
            yield Exposure(SettingKind.PORT, f"{ports}/{protocol}", exact=ports == str(port.number))
    for protocol in settings.protocols:
        if protocol == port.protocol.value:
            yield Exposure(SettingKind.PROTOCOL, protocol)
    for ports, protocol in settings.source_ports:
        # Every sender can choose its source port.
        if protocol == port.protocol.value:
            yield Exposure(SettingKind.SOURCE_PORT, f"{ports}/{protocol}")


# nftables rules. ------------------------------------------------------------------------------------------------------

_REDIRECTED = re.compile(r"\bdnat\b|\bredirect\b|xt target \"?(?:DNAT|REDIRECT)", re.IGNORECASE)
_LOOPBACK = re.compile(r"\bip6? daddr (?:127\.|::1\b)")
_MATCHED = re.compile(r"\b(?:(?P<protocol>tcp|udp|th) )?dport (?!!=)(?P<ports>\{[^}]*\}|[\d-]+)")
_MAPPED = re.compile(r"\b(?P<protocol>tcp|udp|th) dport map (?P<ports>\{[^}]*\})")


def redirected(ruleset: str, ports: Iterable[Port]) -> tuple[Port, ...]:
    """The ports whose packets are redirected past the zone, by the output of `nft list ruleset`.

    A published port of a container is such a rule, and so is a forwarded port of firewalld. Rules without a destination
    port, and rules that look it up in a set of their own, are not found.
    """
    found: list[tuple[str, str]] = []
    for line in ruleset.splitlines():
        if not _REDIRECTED.search(line) or _LOOPBACK.search(line):
            continue
        for match in (*_MATCHED.finditer(line), *_MAPPED.finditer(line)):
            protocol = match["protocol"] or ""
            if protocol not in ("tcp", "udp"):
                protocol = next((name for name in ("tcp", "udp") if re.search(rf"l4proto {name}\b", line)), "")
            # Of a map the left sides are ports: `{ 80 : 10.0.0.2 . 8080, 443 : … }`.
            sides = (one.partition(":")[0].strip() for one in match["ports"].strip("{}").split(","))
            found += [(side, protocol) for side in sides if side]
    return tuple(
        port
        for port in dict.fromkeys(ports)
        if any(rich_match.holds(side, protocol or port.protocol.value, port) for side, protocol in found)
    )
