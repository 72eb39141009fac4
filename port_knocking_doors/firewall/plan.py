"""Which of the firewall's items are desired, which are active, and what to change next. No I/O, no clock.

An item is a thing that is added to firewalld and removed again by itself, such as a rule in a zone. An owner is a thing
that desires items: a door, the knock ports. An item may have several owners.

The order of changes:
1. What is due to be closed is removed, in the order in which it became due.
2. What is missing is added: the items of the owners with the latest `when` first. The knocker of the latest knock is
   the likeliest to wait for a door. So a new door comes before those that firewalld lost by a reload.
3. An item that its owner replaces by another stays until all of the owner's new items are active, so that there is no
   gap; then it is due to be closed.
"""

import heapq
import math
from collections.abc import Collection, Hashable
from itertools import count
from typing import NamedTuple, Protocol

FIRST = math.inf
"""A `when` that comes first."""

_SECONDS_A_RULE = 0.075
"""Three times the slowest removal that was measured: 9 to 25 ms (1,000 rules, two cores, firewalld 1.3 to 2.5)."""
_LEAST_TIME_TO_CLOSE = 10.0


class Item(Protocol):
    """What can be added to firewalld and removed again; hashable, and equal to what is read back."""

    @property
    def place(self) -> str:
        """What the item is read back with: the name of its zone."""


Place = tuple[type[Item], str]
"""Where items of one type are read."""


class RuleListener(Protocol):
    """Receives what firewalld confirmed."""

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        """Every item of the owner is active, in these zones."""

    def on_removed(self, owner: Hashable) -> None:
        """No item of the owner is active any more."""


class Change(NamedTuple):
    """What to do next: add the item, or remove it."""

    adds: bool
    item: Item


class Plan:
    """Desired items against active ones. What the listener is called with may call back."""

    def __init__(self, listener: RuleListener) -> None:
        self._listener = listener
        self._desired_by: dict[Hashable, frozenset[Item]] = {}
        self._owners: dict[Item, set[Hashable]] = {}
        """The desired items, with their owners."""
        self._when: dict[Hashable, float] = {}
        self._active: set[Item] = set()
        self._refused: set[Item] = set()
        self._pending_active: dict[Hashable, set[Item]] = {}
        """Owners whose items firewalld has not confirmed yet, with these items."""
        self._pending_removed: dict[Hashable, set[Item]] = {}
        """Cleared owners whose items may be active yet, with these items."""
        self._cleared_owners: dict[Item, set[Hashable]] = {}
        """The same by item."""
        self._in_flight: Item | None = None
        """What firewalld is asked for at this moment, or was without an answer: it may be active or not."""
        # Queues. An entry may be out of date by the time that it is taken.
        self._to_add: list[tuple[float, int, Item]] = []
        self._to_remove: dict[Item, None] = {}
        self._replaced: dict[Hashable, set[Item]] = {}
        """What an owner desires no more, and is kept until the owner's new items are active."""
        self._numbers = count()
        self._trusted = False

    # What owners desire. ---------------------------------------------------------------------------------------------

    def set_desired(self, owner: Hashable, items: frozenset[Item], when: float) -> None:
        """From now on the owner desires these items, and no others that it desired before."""
        before = self._desired_by.get(owner, frozenset())
        self._desired_by[owner] = items
        self._pending_removed.pop(owner, None)
        new = items - before
        for item in new:
            self._owners.setdefault(item, set()).add(owner)
            self._to_remove.pop(item, None)
        for item in before - items:
            self._disown(owner, item)
            self._replaced.setdefault(owner, set()).add(item)
        self._when[owner] = when
        self._queue_missing(owner)
        if items != before:
            # An item that is not known to be active any more is to be confirmed by reading back.
            self._pending_active[owner] = set(items - self._active if self._trusted else items)
            self._announce_active(owner)
        for item in new:
            for cleared in list(self._cleared_owners.get(item, ())):
                self._announce_removed(cleared)

    def touch(self, owner: Hashable, when: float) -> None:
        """Put what the owner waits for where it belongs with this `when`. Changes no rule."""
        if owner in self._when:
            self._when[owner] = when
            self._queue_missing(owner)

    def clear(self, owner: Hashable) -> None:
        """From now on the owner desires nothing."""
        items = self._desired_by.pop(owner, frozenset()) | self._replaced.pop(owner, set())
        self._when.pop(owner, None)
        self._pending_active.pop(owner, None)
        for item in items:
            self._disown(owner, item)
        left = {item for item in items if item in self._active or item == self._in_flight}
        self._to_remove |= dict.fromkeys(item for item in left if item not in self._owners)
        self._pending_removed[owner] = left
        for item in left:
            self._cleared_owners.setdefault(item, set()).add(owner)
        self._announce_removed(owner)

    def _disown(self, owner: Hashable, item: Item) -> None:
        owners = self._owners.get(item, set())
        owners.discard(owner)
        if not owners:
            self._owners.pop(item, None)

    def _queue_missing(self, owner: Hashable) -> None:
        for item in self._desired_by[owner]:
            if item not in self._active:
                self._queue(item, self._when[owner])

    def _queue(self, item: Item, when: float) -> None:
        heapq.heappush(self._to_add, (-when, next(self._numbers), item))

    # What firewalld has. ---------------------------------------------------------------------------------------------

    def distrust(self) -> None:
        """What is active is not known until it is read back; what was refused is tried again."""
        self._trusted = False
        self._refused.clear()

    def read_back(self, found: set[Item]) -> set[Item]:
        """These items of ours are active, and no others. The result is those that were neither known nor desired."""
        strangers = found - self._active - self._owners.keys() - {self._in_flight}
        self._in_flight = None
        self._active = set(found)
        self._trusted = True
        kept: set[Item] = set().union(*self._replaced.values())
        self._to_remove = dict.fromkeys(item for item in found if item not in self._owners and item not in kept)
        self._to_add = [
            (-max(self._when[owner] for owner in owners), next(self._numbers), item)
            for item, owners in self._owners.items()
            if item not in found
        ]
        heapq.heapify(self._to_add)
        for owner in list(self._pending_active):
            if owner in self._pending_active:  # the listener may have cleared it
                self._pending_active[owner] = set(self._desired_by[owner] - found)
                self._announce_active(owner)
        for item in self._cleared_owners.keys() - found:
            self._confirm_removed(item)
        return strangers

    def forget_active(self) -> None:
        """firewalld is gone, and its rules with it."""
        self._active.clear()

    def next_change(self, *, adds: bool = True) -> Change | None:
        """What to ask of firewalld now, or None. `added`, `removed` or `refused` is due before the next call.

        Without `adds` only what is due to be closed.
        """
        while self._to_remove:
            item = next(iter(self._to_remove))
            del self._to_remove[item]
            if self._is_excess(item):
                # Not active from the moment that its removal is asked for: an owner that desires the item again
                # meanwhile waits until it was added again.
                self._active.discard(item)
                self._in_flight = item
                return Change(False, item)
        while adds and self._to_add:
            _, _, item = heapq.heappop(self._to_add)
            if item in self._owners and item not in self._active and item not in self._refused:
                self._in_flight = item
                return Change(True, item)
        if not adds or not self._replaced:
            return None
        for owner in list(self._replaced):  # by items that firewalld refused
            self._release(owner)
        return self.next_change()

    def _is_excess(self, item: Item) -> bool:
        return item in self._active and item not in self._owners

    def added(self, item: Item) -> None:
        """firewalld confirmed the addition."""
        self._in_flight = None
        self._confirm_active(item)
        if self._is_excess(item):  # it was closed meanwhile
            self._to_remove[item] = None

    def removed(self, item: Item) -> None:
        """firewalld confirmed the removal."""
        self._in_flight = None
        self._confirm_removed(item)
        if owners := self._owners.get(item):  # it was opened again meanwhile
            self._queue(item, max(self._when[owner] for owner in owners))

    def refused(self, change: Change) -> None:
        """firewalld refused the change. It is tried again after the next reading back."""
        self._in_flight = None
        self._refused.add(change.item)
        if change.adds:
            self._confirm_removed(change.item)
        else:
            self._confirm_active(change.item)

    def _confirm_removed(self, item: Item) -> None:
        for owner in self._cleared_owners.pop(item, ()):
            if owner in self._pending_removed:
                self._pending_removed[owner].discard(item)
                self._announce_removed(owner)

    def _confirm_active(self, item: Item) -> None:
        self._active.add(item)
        for owner in list(self._owners.get(item, ())):
            if owner in self._pending_active:
                self._pending_active[owner].discard(item)
                self._announce_active(owner)

    # Counts. ---------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> Collection[Item]:
        """The items of ours that are active or may be, as far as is known."""
        return self._active if self._in_flight is None else self._active | {self._in_flight}

    @property
    def is_certain(self) -> bool:
        """Whether firewalld answered all that it was asked for."""
        return self._in_flight is None

    @property
    def waits_to_remove(self) -> bool:
        """Whether an item is due to be closed."""
        return any(map(self._is_excess, self._to_remove))

    @property
    def waits_to_add(self) -> bool:
        """Whether a desired item is not active, and was not refused."""
        return any(item not in self._active and item not in self._refused for item in self._owners)

    @property
    def active_count(self) -> int:
        """How many items of ours are active, as far as is known."""
        return len(self._active)

    @property
    def desired_count(self) -> int:
        """How many items are desired."""
        return len(self._owners)

    @property
    def refused_count(self) -> int:
        """How many items firewalld refused to add or to remove when that was tried last."""
        return len(self._refused)

    @property
    def pending_count(self) -> int:
        """How many items wait to be added or to be removed."""
        desired = self._owners.keys()
        return len((desired ^ self._active) - self._refused)

    def places(self) -> set[Place]:
        """Where desired and active items are."""
        return {(type(item), item.place) for item in (*self._owners, *self._active)}

    # What the listener gets. -----------------------------------------------------------------------------------------

    def _announce_active(self, owner: Hashable) -> None:
        if owner in self._pending_active and not self._pending_active[owner]:
            del self._pending_active[owner]
            self._release(owner)
            self._listener.on_active(owner, tuple(sorted({item.place for item in self._desired_by[owner]})))

    def _release(self, owner: Hashable) -> None:
        """What the owner replaced is due to be closed now."""
        replaced = self._replaced.pop(owner, set())
        self._to_remove |= dict.fromkeys(item for item in replaced if self._is_excess(item))

    def _announce_removed(self, owner: Hashable) -> None:
        """Report the owner as removed unless an item that only it desired may be active yet."""
        if owner in self._pending_removed and self._pending_removed[owner] <= self._owners.keys():
            del self._pending_removed[owner]
            self._listener.on_removed(owner)


def time_to_close(rules: int) -> float:
    """Seconds that firewalld gets to remove so many rules at the end: 10 at least, 75 ms a rule.

    firewalld works one call after the other, at 9 to 25 ms each.
    """
    return max(_LEAST_TIME_TO_CLOSE, rules * _SECONDS_A_RULE)
