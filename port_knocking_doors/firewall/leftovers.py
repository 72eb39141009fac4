"""Rules of ours that the kernel still holds although firewalld does not know them."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable

from port_knocking_doors.firewall.kernel_rules import Accept, KernelRules
from port_knocking_doors.firewall.rich_rule import accept_rule
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.model import Port, Protocol

_ACCEPT = re.compile(
    r'rule priority="[1-9]\d*" (?:family="ipv[46]" )?(?:source address="([^"/]+)" )?'
    r'port port="(\d+)" protocol="(tcp|udp)" accept'
)
"""A rich rule whose rule in the kernel has the form of ours: the kernel does not know the priority."""


def in_kernel(kernel: KernelRules, priority: int) -> Counter[ZoneRule]:
    """The kernel's rules that have the form of ours, as the rules with this priority that they would be."""
    return Counter(_zone_rule(accept, priority) for accept in kernel.accepts)


def unknown_to_firewalld(kernel: KernelRules, rules: Iterable[ZoneRule], priority: int) -> frozenset[ZoneRule]:
    """What the kernel holds of the form of ours beyond `rules`, which are all rich rules that firewalld knows.

    None as long as firewalld did not start on top of an earlier one's rules: then its own account is right, and a rule
    of this form can come from a service in a rich rule.
    """
    if not kernel.are_doubled:
        return frozenset()
    known = Counter(_zone_rule(accept, priority) for rule in rules if (accept := _read(rule)) is not None)
    return frozenset(in_kernel(kernel, priority) - known)


def is_door(item: ZoneRule) -> bool:
    """Whether the rule is a door's: it lets in one address, where those for knock ports let in every one."""
    return " source address=" in item.rule


def _zone_rule(accept: Accept, priority: int) -> ZoneRule:
    return ZoneRule(accept.zone, accept_rule(priority, accept.source, accept.port))


def _read(item: ZoneRule) -> Accept | None:
    found = _ACCEPT.fullmatch(item.rule)
    if found is None:
        return None
    try:
        source = ipaddress.ip_address(found[1]) if found[1] else None
    except ValueError:
        return None
    return Accept(item.zone, source, Port(int(found[2]), Protocol(found[3])))
