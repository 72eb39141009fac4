"""What one command of another program does to the firewall, as values that the readers of all programs make."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.model import PORT_MAX, Port, Protocol

KNOCKER = frozenset({"%IP%", "%IP%/32", "%IP%/128"})
"""The knocker's address, as a source of packets."""
OF_OTHER_PACKETS = re.compile(r"forward|fwd|prerouting|postrouting|output|ingress|egress|docker", re.IGNORECASE)
"""Chains of packets that do not end at this host, by their usual names: no door is for them."""
DENYING = re.compile(r"black|block|ban(?!k)|den(?:y|ied)|drop|reject", re.IGNORECASE)
"""Sets and zones of addresses that are denied, by their usual names."""
PORTS_MAX = 64
"""Ports of a door, as for `readers.guarded_ports`."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PERIOD = re.compile(r"(?:\d{1,9}[smhdw]?)+")


class Act(Enum):
    """What a command does with a rule that accepts packets."""

    OPEN = "open"
    CLOSE = "close"
    CHECK = "check"  # whether it exists
    IGNORED = "ignored"  # a door needs nothing of the kind


class Unclear(Enum):
    """Why a rule is not one for some ports and the knocker; the texts say what to write for a door."""

    EVERY_ADDRESS = "This opens to every address, and a door opens to the knocker only. For one, write instead:"
    EVERY_PORT = "This opens every port to the knocker. For a door, write instead, with all ports that are needed:"
    ELSEWHERE = "Other rules of the firewall decide which ports this opens. For a door, write them instead:"
    NO_PROTOCOL = "iptables refuses --dport without -p tcp or -p udp ahead of it. For a door, write instead:"
    TOO_MANY = f"These are more ports than the {PORTS_MAX} of a door."


@dataclass(frozen=True)
class Effect:
    """One command's effect on the firewall."""

    act: Act
    ports: tuple[Port, ...] = ()
    """In order; empty where `unclear` says why, and for the removal of a rule that is named by its number."""
    place: str = ""
    """The chain or set that has the rule."""
    family: int = 0
    """IP's version; 0 for both."""
    seconds: float | None = None
    """The time after which the firewall itself closes the ports."""
    unclear: Unclear | None = None
    told: tuple[str, ...] = field(default=())
    """Whatever else the command says, in sentences."""

    def undoes(self, other: "Effect") -> bool:
        """Whether this removes the rule that `other` adds: by what it accepts, or by its number in the same place."""
        if self.act is not Act.CLOSE or other.act is not Act.OPEN:
            return False
        if self.family and other.family and self.family != other.family:
            return False
        if not self.ports and self.unclear is None:
            return self.place == other.place
        return (self.ports, self.unclear) == (other.ports, other.unclear)


def ports_of(
    texts: Iterable[str], protocols: tuple[Protocol, ...], services: ServiceNames
) -> tuple[Port, ...] | Unclear | None:
    """The ports of numbers, ranges (`80:82`, `80-82`) and names of services; None if one of them is none of these."""
    found: set[Port] = set()
    for text in texts:
        more = set(_ports_of(text.strip(), protocols, services))
        if not more:
            return None
        found |= more
        if len(found) > PORTS_MAX:
            return Unclear.TOO_MANY
    return tuple(sorted(found)) or None


def _ports_of(text: str, protocols: tuple[Protocol, ...], services: ServiceNames) -> Iterator[Port]:
    if limits := re.fullmatch(r"(\d{1,5})(?:[:-](\d{1,5}))?", text):
        low, high = int(limits[1]), int(limits[2] or limits[1])
        if 0 < low <= high <= PORT_MAX:
            for number in range(low, min(high, low + PORTS_MAX * 2) + 1):
                yield from (Port(number, protocol) for protocol in protocols)
    else:
        for protocol in protocols:
            if (port := services.port(text, protocol)) is not None:
                yield Port(port, protocol)


def seconds_of(text: str) -> float | None:
    """A period such as `60`, `30s`, `1h30m`; None for anything else, and for none at all."""
    if not _PERIOD.fullmatch(text):
        return None
    parts = re.findall(r"(\d+)([smhdw]?)", text)
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts)) or None
