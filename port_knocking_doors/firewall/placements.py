"""Which items each owner desires, by the zones as they are: the placements of owners, and who is to be asked again."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice

from port_knocking_doors.firewall.plan import Item
from port_knocking_doors.firewall.zones import Zones

Placement = Callable[[Zones], Iterable[Item]]
"""Gives an owner's items for the zones as they are; called again whenever these change."""


_PART = 100
"""How many owners are asked in one turn of the event loop: 20 to 40 µs each."""


class Placements:
    """The placements of all owners. Iterates over the owners."""

    def __init__(self) -> None:
        self._placed: dict[Hashable, tuple[Placement, float]] = {}
        self._due: dict[Hashable, None] = {}
        """Owners that are to be asked again, in this order."""
        self._all_due = False

    def __len__(self) -> int:
        return len(self._placed)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._placed)

    def set(self, owner: Hashable, placement: Placement, when: float) -> None:
        """Note the owner's placement, in place of an earlier one; `when` orders what waits to be added."""
        self._placed[owner] = placement, when

    def touch(self, owner: Hashable, when: float) -> bool:
        """Note another `when` for the owner; whether there is such an owner."""
        if owner in self._placed:
            self._placed[owner] = self._placed[owner][0], when
        return owner in self._placed

    def remove(self, owner: Hashable) -> bool:
        """Forget the owner; whether there was such an owner."""
        return self._placed.pop(owner, None) is not None

    def ask_all(self) -> None:
        """Every owner is to be asked again. Requests that come together are one."""
        self._all_due = True

    @property
    def is_due(self) -> bool:
        """Whether owners are to be asked again."""
        return self._all_due or bool(self._due)

    async def ask_due(self, zones: Zones, desire: Callable[[Hashable, frozenset[Item], float], None]) -> None:
        """Ask them, a part of them in each turn of the event loop, and pass on owner, items and `when` of each."""
        while self.is_due:
            if self._all_due:
                self._all_due = False
                self._due |= dict.fromkeys(self._placed)  # those that wait already stay ahead
            for owner in list(islice(self._due, _PART)):
                del self._due[owner]
                if owner in self._placed:  # it may have been removed meanwhile
                    placement, when = self._placed[owner]
                    desire(owner, frozenset(placement(zones)), when)
            if self.is_due:
                await asyncio.sleep(0)
