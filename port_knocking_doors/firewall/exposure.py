"""What lets a port through without a knock: a zone's settings (or a policy's) and a port in, ways through out.

The order is firewalld's (firewalld.richlanguage(5), "Rule structure"): rich rules of negative priority, then denying
ones, then accepting ones together with services, ports and the like, then rich rules of positive priority, then the
target. A denial for everybody shuts every way behind it. How zones and policies come one after the other is left out:
each is looked at alone.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from port_knocking_doors.firewall import rich_rule
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.model import PORT_MAX, Port

ACCEPT = "ACCEPT"
"""The target of zones and policies that let everything through (firewalld.zone(5))."""

_DENIALS, _PASSAGES = 0.0, 0.5  # where rich rules of priority 0 stand
_TARGET = 32768  # behind the last rich rule (firewalld.richlanguage(5): priorities end at 32767)


@dataclass(frozen=True)
class Exposure:
    """One thing that lets a port through, or denies it."""

    what: str
    option: str
    """What `firewall-cmd` takes to be rid of it."""
    limited: bool = False
    """Whether it is for some senders only, or for packets to some addresses."""


def complaint(port: Port, rules: ZoneSettings, way: Exposure) -> str:
    """What to tell of a guarded port that is open to everybody, and what to do."""
    return f"{rules}: port {port} is OPEN WITHOUT A KNOCK: {way.what} lets it through; {remedy(rules, way)}"


def remedy(rules: ZoneSettings, way: Exposure) -> str:
    """How to be rid of it."""
    command = f"firewall-cmd --{'policy' if rules.is_policy else 'zone'}={rules.name} {way.option}"
    more = ", then firewall-cmd --reload" if way.option.startswith("--permanent") else ", and the same with --permanent"
    return command + more


@dataclass(frozen=True)
class Look:
    """What became of a port in a zone."""

    ways: tuple[Exposure, ...]
    """What lets it through without a knock."""
    denials: tuple[Exposure, ...]
    """Rich rules that refuse it to everybody, ahead of any door."""


@dataclass(frozen=True)
class _Rich:
    """A rich rule, as far as it matters here."""

    text: str
    priority: int = 0
    limited: bool = False
    family: str = ""
    action: str = ""
    elements: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def look(
    port: Port,
    rules: ZoneSettings,
    services: Mapping[str, ServiceSettings],
    mark: int | None,
) -> Look:
    """What lets the port through, and what denies it; rules that carry the mark, our own, are passed over."""
    rich = [_parsed(text) for text in rules.rich_rules if mark is None or not rich_rule.is_marked(text, mark)]
    fitting = [rule for rule in rich if _fits(rule, port, services)]
    denials = [(rule.priority or _DENIALS, rule) for rule in fitting if rule.action in ("reject", "drop")]
    denials = [(rank, rule) for rank, rule in denials if not rule.limited]
    # One for a single family leaves the other open.
    shut = min((rank for rank, rule in denials if not rule.family), default=math.inf)
    ways = [(rule.priority or _PASSAGES, _rich_way(rule)) for rule in fitting if rule.action == "accept"]
    ways += [(_PASSAGES, way) for way in _plain_ways(port, rules, services)]
    if rules.target == ACCEPT:
        target = "CONTINUE" if rules.is_policy else "default"
        ways.append(
            (_TARGET, Exposure("target ACCEPT, which lets everything through", f"--permanent --set-target={target}"))
        )
    return Look(
        tuple(way for rank, way in ways if rank < shut),
        tuple(_rich_way(rule) for rank, rule in denials if mark is None or rank < mark),
    )


def _rich_way(rule: _Rich) -> Exposure:
    return Exposure(f"rich rule `{rule.text}`", f"--remove-rich-rule='{rule.text}'", rule.limited)


def _plain_ways(port: Port, rules: ZoneSettings, services: Mapping[str, ServiceSettings]) -> Iterator[Exposure]:
    for name in rules.services:
        found = [_in_service(port, service) for service in _with_included(name, services)]
        if ways := [limited for opened, limited in found if opened]:
            yield Exposure(f"service {name}", f"--remove-service={name}", all(ways))
    for ports, protocol in rules.ports:
        if _holds(ports, protocol, port):
            yield Exposure(f"port {ports}/{protocol}", f"--remove-port={ports}/{protocol}")
    for protocol in rules.protocols:
        if protocol == port.protocol.value:
            yield Exposure(f"protocol {protocol}", f"--remove-protocol={protocol}")
    for ports, protocol in rules.source_ports:
        # Anybody can send from any port: this is for everybody who knows.
        if protocol == port.protocol.value:
            yield Exposure(f"source port {ports}/{protocol}", f"--remove-source-port={ports}/{protocol}")


def _with_included(name: str, services: Mapping[str, ServiceSettings]) -> Iterator[ServiceSettings]:
    seen, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in seen and one in services:
            seen.add(one)
            yield services[one]
            waiting += services[one].includes


def _in_service(port: Port, service: ServiceSettings) -> tuple[bool, bool]:
    """Whether the service opens the port, and whether only to some addresses."""
    opened = (
        any(_holds(ports, protocol, port) for ports, protocol in service.ports)
        or port.protocol.value in service.protocols
        or any(protocol == port.protocol.value for _, protocol in service.source_ports)
    )
    return opened, service.limited


def _holds(ports: str, protocol: str, port: Port) -> bool:
    """Whether `ports`, one or a range, has this one. An empty one, which firewalld reads as all, has."""
    if protocol != port.protocol.value:
        return False
    low, _, high = ports.partition("-")
    try:
        first = int(low) if low else 0
        return first <= port.number <= (int(high) if high else first if low else PORT_MAX)
    except ValueError:
        return False


# Rich rules. ---------------------------------------------------------------------------------------------------------

_WORD = re.compile(r'(?P<name>[A-Za-z-]+)(?:=(?:"(?P<quoted>[^"]*)"|(?P<bare>\S+)))?')
_ACTIONS = frozenset({"accept", "reject", "drop", "mark"})
_ELEMENTS: Mapping[str, Callable[[Mapping[str, str], Port], bool]] = {
    "port": lambda said, port: _holds(said.get("port", ""), said.get("protocol", ""), port),
    # Anybody can send from any port.
    "source-port": lambda said, port: said.get("protocol") == port.protocol.value,
    "protocol": lambda said, port: said.get("value") == port.protocol.value,
}
# They have an action too, or none, and are not about our ports.
_OTHER_ELEMENTS = frozenset({"icmp-block", "icmp-type", "masquerade", "forward-port", "tcp-mss-clamp"})


def _parsed(text: str) -> _Rich:
    """Its parts: names without a value begin one, those with a value belong to the latest."""
    parts: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    negated = False
    for word in _WORD.finditer(text):
        value = word["quoted"] if word["quoted"] is not None else word["bare"]
        if value is not None:
            current[word["name"]] = value
        elif word["name"].upper() == "NOT":
            negated = True
        elif word["name"] == "limit" or (word["name"] == "prefix" and parts):
            current = {}  # how often; not whether
        else:
            current = parts.setdefault(word["name"], {})
    try:
        priority = int(parts.get("rule", {}).get("priority", "0"))
    except ValueError:
        priority = 0
    limited = bool(parts.keys() & {"source", "destination"}) or negated
    action = next((name for name in parts if name in _ACTIONS), "")
    elements = {name: said for name, said in parts.items() if name in (*_ELEMENTS, *_OTHER_ELEMENTS, "service")}
    return _Rich(text, priority, limited, parts.get("rule", {}).get("family", ""), action, elements)


def _fits(rule: _Rich, port: Port, services: Mapping[str, ServiceSettings]) -> bool:
    if not rule.elements:
        return True
    for name, said in rule.elements.items():
        if name == "service":
            found = (_in_service(port, service) for service in _with_included(said.get("name", ""), services))
            return any(opened for opened, _ in found)
        if name in _ELEMENTS:
            return _ELEMENTS[name](said, port)
    return False


# A firewall's rules, whoever made them. ------------------------------------------------------------------------------

_REDIRECTED = re.compile(r"\bdnat\b|\bredirect\b|xt target \"?(?:DNAT|REDIRECT)", re.IGNORECASE)
_LOOPBACK = re.compile(r"\bip6? daddr (?:127\.|::1\b)")
_MATCHED = re.compile(r"\b(?:(?P<protocol>tcp|udp|th) )?dport (?!!=)(?P<ports>\{[^}]*\}|[\d-]+)")
_MAPPED = re.compile(r"\b(?P<protocol>tcp|udp|th) dport map (?P<ports>\{[^}]*\})")


def redirected(ruleset: str, ports: Iterable[Port]) -> tuple[Port, ...]:
    """The ports whose packets are sent elsewhere, by what `nft list ruleset` printed: past the zone, then.

    What a container publishes is such a rule, and so is a forwarded port of firewalld. Rules that name no destination
    port, and ones that look it up in a set of their own, are not found.
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
        if any(_holds(side, protocol or port.protocol.value, port) for side, protocol in found)
    )
