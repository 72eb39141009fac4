"""The parts of a rich rule's text, and whether it is about packets to a port (firewalld.richlanguage(5))."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from port_knocking_doors.firewall.zone_settings import ServiceSettings
from port_knocking_doors.model import PORT_MAX, Port


@dataclass(frozen=True)
class RichParts:
    """A rich rule, as far as it matters here."""

    text: str
    priority: int = 0
    limited: bool = False
    """Whether it is for some source or destination addresses only."""
    family: str = ""
    action: str = ""
    elements: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    """`address`, `mac` or `ipset`; empty for every source."""
    is_source_negated: bool = False
    """Whether it is for every other source."""
    has_destination: bool = False


def with_included(name: str, services: Mapping[str, ServiceSettings]) -> Iterator[ServiceSettings]:
    """The service, and those that it includes."""
    seen, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in seen and one in services:
            seen.add(one)
            yield services[one]
            waiting += services[one].includes


def in_service(port: Port, service: ServiceSettings) -> tuple[bool, bool]:
    """Whether the service opens the port, and whether only to some addresses."""
    opened = (
        any(holds(ports, protocol, port) for ports, protocol in service.ports)
        or port.protocol.value in service.protocols
        or any(protocol == port.protocol.value for _, protocol in service.source_ports)
    )
    return opened, service.limited


def holds(ports: str, protocol: str, port: Port) -> bool:
    """Whether `ports`, one or a range, contains the port; an empty one does, since firewalld reads it as all."""
    if protocol != port.protocol.value:
        return False
    low, _, high = ports.partition("-")
    try:
        first = int(low) if low else 0
        return first <= port.number <= (int(high) if high else first if low else PORT_MAX)
    except ValueError:
        return False


_WORD = re.compile(r'(?P<name>[A-Za-z-]+)(?:=(?:"(?P<quoted>[^"]*)"|(?P<bare>\S+)))?')
_ACTIONS = frozenset({"accept", "reject", "drop", "mark"})
_ELEMENTS: Mapping[str, Callable[[Mapping[str, str], Port], bool]] = {
    "port": lambda values, port: holds(values.get("port", ""), values.get("protocol", ""), port),
    # Every sender can choose its source port.
    "source-port": lambda values, port: values.get("protocol") == port.protocol.value,
    "protocol": lambda values, port: values.get("value") == port.protocol.value,
}
# Elements that are not about ports of this host.
_OTHER_ELEMENTS = frozenset({"icmp-block", "icmp-type", "masquerade", "forward-port", "tcp-mss-clamp"})


Word = tuple[str, str | None]
"""A name in a rule's text, and its value."""


def words(text: str) -> frozenset[Word]:
    """The words of a rule: the same for texts that differ in quotation marks, spaces, and in the order of words."""
    return frozenset(
        (word["name"], word["quoted"] if word["quoted"] is not None else word["bare"]) for word in _WORD.finditer(text)
    )


def parsed(text: str) -> RichParts:
    """Its parts: a name without a value begins a part, a name with a value belongs to the latest part."""
    parts: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    negated = set()
    latest = ""
    for word in _WORD.finditer(text):
        value = word["quoted"] if word["quoted"] is not None else word["bare"]
        if value is not None:
            current[word["name"]] = value
        elif word["name"].upper() == "NOT":
            negated.add(latest)
        elif word["name"] == "limit" or (word["name"] == "prefix" and parts):
            current = {}  # of a log or a limit, not of the rule
        else:
            latest = word["name"]
            current = parts.setdefault(latest, {})
    try:
        priority = int(parts.get("rule", {}).get("priority", "0"))
    except ValueError:
        priority = 0
    return RichParts(
        text,
        priority,
        limited=bool(parts.keys() & {"source", "destination"}) or bool(negated),
        family=parts.get("rule", {}).get("family", ""),
        action=next((name for name in parts if name in _ACTIONS), ""),
        elements={name: values for name, values in parts.items() if name in (*_ELEMENTS, *_OTHER_ELEMENTS, "service")},
        source=parts.get("source", {}),
        is_source_negated="source" in negated or parts.get("source", {}).get("invert", "").lower() in ("yes", "true"),
        has_destination="destination" in parts,
    )


def fits(rule: RichParts, port: Port, services: Mapping[str, ServiceSettings]) -> bool:
    """Whether the rule is about packets to the port."""
    if not rule.elements:
        return True
    for name, values in rule.elements.items():
        if name == "service":
            found = (in_service(port, service) for service in with_included(values.get("name", ""), services))
            return any(opened for opened, _ in found)
        if name in _ELEMENTS:
            return _ELEMENTS[name](values, port)
    return False
