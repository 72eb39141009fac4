"""Rich rules in zones: one kind of item."""

from typing import NamedTuple

from port_knocking_doors.firewall import rich_rule
from port_knocking_doors.firewall.firewalld import Firewalld
from port_knocking_doors.firewall.zones import Zones


class ZoneRule(NamedTuple):
    """A rich rule in a zone."""

    zone: str
    rule: str

    @property
    def place(self) -> str:
        """The zone."""
        return self.zone


class ZoneRules:
    """The kind of item that `ZoneRule` is (`kinds.Kind`); a rule is ours by its priority."""

    def __init__(self, firewalld: Firewalld, priority: int) -> None:
        self._firewalld = firewalld
        self._priority = priority

    def places(self, zones: Zones) -> frozenset[str]:
        return zones.known

    def is_ours(self, item: ZoneRule) -> bool:
        return rich_rule.is_marked(item.rule, self._priority)

    async def read(self, place: str) -> list[ZoneRule]:
        return [ZoneRule(place, rule) for rule in await self._firewalld.rules(place)]

    async def add(self, item: ZoneRule) -> None:
        await self._firewalld.add(*item)

    async def remove(self, item: ZoneRule) -> None:
        await self._firewalld.remove(*item)

    async def read_permanent(self) -> list[ZoneRule]:
        permanent = await self._firewalld.permanent_rules()
        return [ZoneRule(zone, rule) for zone, rules in permanent.items() for rule in rules]

    async def remove_permanent(self, item: ZoneRule) -> None:
        await self._firewalld.remove_permanent(*item)
