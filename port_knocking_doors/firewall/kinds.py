"""The kinds of items that are added to firewalld: a module for each kind, and a line in the table."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from port_knocking_doors.firewall.firewalld import Firewalld
from port_knocking_doors.firewall.plan import Change, Item, Place
from port_knocking_doors.firewall.zone_rules import ZoneRule, ZoneRules
from port_knocking_doors.firewall.zones import Zones

T = TypeVar("T", bound=Item)


class Kind(Protocol[T]):
    """How items of one kind are read back, added and removed. Each coroutine raises `FirewallError`."""

    def places(self, zones: Zones) -> Collection[str]:
        """Every place that items of this kind can be in: `Item.place`."""

    def is_ours(self, item: T) -> bool:
        """Whether the item carries our mark of ownership: only then it is ever removed."""

    async def read(self, place: str) -> Iterable[T]:
        """The items in this place, those of others too; with the same text as in `add`."""

    async def add(self, item: T) -> None:
        """Add the item, without a time limit; one that is active already is no error."""

    async def remove(self, item: T) -> None:
        """Remove the item; one that is not there is no error."""

    async def read_permanent(self) -> Iterable[T]:
        """The items of the permanent configuration, in every place."""

    async def remove_permanent(self, item: T) -> None:
        """Remove the item from the permanent configuration."""


KINDS: Mapping[type[Any], Callable[[Firewalld, int], Kind[Any]]] = {
    ZoneRule: ZoneRules,
}
"""The type of an item, and its kind, made for a connection and a mark (the priority of our rules)."""


class FirewallItems:
    """Items of every kind in firewalld. Each coroutine raises `FirewallError`."""

    def __init__(self, firewalld: Firewalld, priority: int) -> None:
        self._kinds = {item: kind(firewalld, priority) for item, kind in KINDS.items()}

    def places(self, zones: Zones) -> set[Place]:
        """Every place that items can be in."""
        return {(item, place) for item, kind in self._kinds.items() for place in kind.places(zones)}

    async def read(self, places: Iterable[Place]) -> set[Item]:
        """The items of ours in these places."""
        found: set[Item] = set()
        for item_type, place in sorted(places, key=str):
            kind = self._kinds[item_type]
            found.update(item for item in await kind.read(place) if kind.is_ours(item))
        return found

    async def apply(self, change: Change) -> None:
        """Add or remove an item."""
        kind = self._kinds[type(change.item)]
        await (kind.add(change.item) if change.adds else kind.remove(change.item))

    async def remove_permanent(self) -> AsyncIterator[Item]:
        """Remove the items of ours from the permanent configuration; yields each that was removed."""
        for kind in self._kinds.values():
            for item in await kind.read_permanent():
                if kind.is_ours(item):
                    await kind.remove_permanent(item)
                    yield item
