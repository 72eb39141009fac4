"""Reads firewalld's zones, with the sets that are their sources and the rich rules that deny packets of some sources,
and keeps these sets and rules as firewalld's are.

A set may have 100,000 entries. It is read once, in slices between which the event loop does other work; from then on
the signals of each entry that is added or removed are followed. Other sets are neither read nor followed.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import dbus_settings
from port_knocking_doors.firewall.bans import Denials, PolicyDenials, may_deny
from port_knocking_doors.firewall.bus import NAME, FirewalldBus
from port_knocking_doors.firewall.error_codes import NO_ANSWER
from port_knocking_doors.firewall.source_set import SourceSet
from port_knocking_doors.firewall.zone_settings import ServiceSettings
from port_knocking_doors.firewall.zones import SET, Zones

ZONE = NAME + ".zone"
IPSET = NAME + ".ipset"
POLICY = NAME + ".policy"
PROPERTIES = "org.freedesktop.DBus.Properties"

HOST = "HOST"
"""The symbolic zone of policies for packets to this host (firewalld.policies(5))."""

_SLICE = 2000
"""Entries that are read in one turn of the event loop: 3 µs each."""
_RULES = 300
"""Rich rules that are read in one turn of the event loop: up to 30 µs each."""
_SORTED_SINCE = 2
"""The first major version of firewalld that sorts interfaces by zone, and has ingress priorities."""
_ADDED, _REMOVED = "EntryAdded", "EntryRemoved"
RULE_SIGNALS = ("RichRuleAdded", "RichRuleRemoved")
_RULE_REMOVED = RULE_SIGNALS[1]
_FOLLOW = f"type='signal',sender='{NAME}',interface='{IPSET}',member='{{}}'"
_FOLLOWED = 100
"""Sets that are followed one by one; of more, every set is: a connection may have 512 match rules (dbus-daemon(1))."""


class ZoneSurvey:
    """Reads zones over the connection. Each coroutine raises `FirewallError`."""

    def __init__(self, bus: FirewalldBus) -> None:
        self._bus = bus
        self._sets: dict[str, SourceSet] = {}
        self._missed: dict[str, list[tuple[str, str]]] = {}
        """Sets that are read at this moment → signals that arrived meanwhile, with their entries."""
        self._denials: dict[str, Denials] = {}
        self._services: dict[str, ServiceSettings] = {}
        self._missed_rules: list[tuple[str, str, str]] | None = None
        """While zones are read, the signals about rich rules that arrive: signal, zone and rule."""
        self._version = ""
        self._generation = 0

    def forget(self) -> None:
        """Note that firewalld has read its configuration, and made its sets again."""
        self._generation += 1
        self._sets, self._denials = {}, {}
        self._version = ""

    def on_entry(self, member: str, arguments: list[Any]) -> bool:
        """Follow a signal of a set. Whether it has changed a set that was read."""
        if member not in (_ADDED, _REMOVED) or len(arguments) < 2:
            return False
        name, entry = arguments[:2]
        if name in self._sets:
            _follow(self._sets[name], member, entry)
            return True
        if name in self._missed:
            self._missed[name].append((member, entry))
        return False

    def on_rule(self, member: str, arguments: list[Any]) -> bool:
        """Follow a signal about a rich rule. Whether the zones have to be read again for it."""
        if len(arguments) < 2 or not may_deny(arguments[1]):
            return False
        zone, rule = arguments[:2]
        if self._missed_rules is not None:
            self._missed_rules.append((member, zone, rule))
            return False
        return not self._follow_rule(member, zone, rule)

    def _follow_rule(self, member: str, zone: str, rule: str) -> bool:
        """Whether that could be done without a look at firewalld."""
        denials = self._denials.get(zone)
        if denials is None:
            return True  # of a zone that no packet belongs to
        if member == _RULE_REMOVED:
            return denials.discard(rule)
        denials.add(rule)
        return denials.sets <= self._sets.keys() and denials.services <= self._services.keys()

    async def read(self) -> Zones:
        """All zones, with their interfaces and sources, and who is banned from them."""
        generation, self._missed_rules = self._generation, []
        call = self._bus.call
        default, active, known = await asyncio.gather(
            call(NAME, "getDefaultZone"), call(ZONE, "getActiveZones"), call(ZONE, "getZones")
        )
        priorities, targets, denials = {}, {}, {}
        for zone in sorted({default, *active}):
            settings = await self._answer(ZONE, "getZoneSettings2", "s", zone) or {}
            priorities[zone] = dbus_settings.value(settings, "ingress_priority", "i", 0)
            targets[zone] = dbus_settings.value(settings, "target", "s", "default")
            denials[zone] = await _denials(dbus_settings.value(settings, "rules_str", "as", ()))
        policies = await self._policies()
        every = [*denials.values(), *(one.denials for one in policies)]
        sources = {source: zone for zone, what in active.items() for source in what.get("sources", ())}
        names = {source.removeprefix(SET) for source in sources if source.startswith(SET)}
        sets = await self._read_sets(names.union(*(one.sets for one in every)))
        services = await read_services(self._bus, set().union(*(one.services for one in every)))
        is_sorted = await self._is_sorted()
        missed, self._missed_rules = self._missed_rules, None
        if generation == self._generation:
            self._sets, self._denials, self._services = sets, denials, services
            for signal in missed:
                if not self._follow_rule(*signal) and signal[0] != _RULE_REMOVED:
                    return await self.read()  # the rule names a set or a service that was not read
        return Zones(
            default=default,
            interfaces={name: zone for zone, what in active.items() for name in what.get("interfaces", ())},
            sources=sources,
            sets=sets,
            known=frozenset(known),
            priorities={zone: priority for zone, priority in priorities.items() if priority},
            targets={zone: target for zone, target in targets.items() if target != "default"},
            denials=denials,
            policies=policies,
            services=services,
            is_sorted=is_sorted,
        )

    async def _policies(self) -> tuple[PolicyDenials, ...]:
        found = []
        for name, what in sorted((await self._answer(POLICY, "getActivePolicies", "") or {}).items()):
            if HOST in what.get("egress_zones", ()):
                settings = await self._answer(POLICY, "getPolicySettings", "s", name) or {}
                rules = await _denials(dbus_settings.value(settings, "rich_rules", "as", ()))
                found.append(PolicyDenials(name, frozenset(what.get("ingress_zones", ())), rules))
        return tuple(found)

    async def _is_sorted(self) -> bool:
        if not self._version:
            version = await self._answer(PROPERTIES, "Get", "ss", NAME, "version")
            self._version = str(version.value) if version else "unknown"
        major = self._version.partition(".")[0]
        return not major.isdecimal() or int(major) >= _SORTED_SINCE

    async def _read_sets(self, names: set[str]) -> dict[str, SourceSet]:
        new = names - self._sets.keys()
        # Followed before they are read, so that no entry is missed. One may be in the answer and in a signal, but the
        # last signal about an entry is always right.
        self._missed = {name: [] for name in new}
        few = [f",arg0='{name}'" for name in names] if len(names) <= _FOLLOWED else [""]
        await self._bus.watch(_FOLLOW.format(member) + name for name in few for member in (_ADDED, _REMOVED))
        found = {name: self._sets[name] for name in names - new}
        found |= {name: await self._read_set(name) for name in sorted(new)}
        missed, self._missed = self._missed, {}
        for name, signals in missed.items():
            for member, entry in signals:
                _follow(found[name], member, entry)
        return found

    async def _read_set(self, name: str) -> SourceSet:
        settings = await self._answer(IPSET, "getIPSetSettings", "s", name)
        if settings is None:
            return SourceSet.unknown()
        *_, type_, options, entries = settings
        found = SourceSet(type_, options)
        rest = iter(entries)
        while part := list(islice(rest, _SLICE)):
            found.add(part)
            await asyncio.sleep(0)
        return found

    async def _answer(self, interface: str, member: str, signature: str, *arguments: str) -> Any:
        return await _answer(self._bus, interface, member, signature, *arguments)


async def read_services(bus: FirewalldBus, names: Iterable[str]) -> dict[str, ServiceSettings]:
    """The definitions of services, and of those that they include. Raises `FirewallError`."""
    found: dict[str, ServiceSettings] = {}
    named = set(names)
    while unknown := named - found.keys():
        for name in sorted(unknown):
            # One that is removed meanwhile opens nothing.
            found[name] = dbus_settings.service(await _answer(bus, NAME, "getServiceSettings2", "s", name) or {})
            named.update(found[name].includes)
    return found


async def _answer(bus: FirewalldBus, interface: str, member: str, signature: str, *arguments: str) -> Any:
    """firewalld's answer; None where it is an error: it has no such thing any more, or its release never has."""
    try:
        return await bus.call(interface, member, signature, *arguments)
    except FirewallError as error:
        if error.code in NO_ANSWER:
            raise
        return None


async def _denials(rules: Iterable[str]) -> Denials:
    """Those among the rules of a zone, read in slices."""
    found, rest = Denials(), iter(rules)
    while part := list(islice(rest, _RULES)):
        for rule in part:
            found.add(rule)
        await asyncio.sleep(0)
    return found


def _follow(entries: SourceSet, member: str, entry: str) -> None:
    if member == _ADDED:
        entries.add([entry])
    else:
        entries.discard(entry)
