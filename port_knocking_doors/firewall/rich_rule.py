"""The text of firewalld's rich rules: the rules of a door, and the mark that distinguishes ours from others.

The text is the one that firewalld itself gives for a rule (firewalld.richlanguage(5), and `getRichRules`), so that a
rule that is read back can be compared letter by letter.
"""

import re

from port_knocking_doors.model import Address, Door, Port, PortOpening


def door_rules(door: Door, priority: int) -> tuple[str, ...]:
    """One rule for each port of the door, for its address alone."""
    assert isinstance(door.opening, PortOpening)
    return tuple(accept_rule(priority, door.address, port) for port in door.opening.ports)


def knock_port_rule(port: Port, priority: int) -> str:
    """Accepts knocks from every source on a port that a socket listens on."""
    return accept_rule(priority, None, port)


def is_marked(rule: str, priority: int) -> bool:
    """Whether the rule carries the mark of ownership: its priority."""
    found = re.match(r'\s*rule\b[^"]*?\bpriority\s*=\s*"?(-?\d+)\b', rule)
    return found is not None and int(found[1]) == priority


def accept_rule(priority: int, source: Address | None, port: Port) -> str:
    """Accepts packets to a port, from one address or from every source."""
    sender = f'family="ipv{source.version}" source address="{source}" ' if source is not None else ""
    return f'rule priority="{priority}" {sender}port port="{port.number}" protocol="{port.protocol}" accept'
