"""A deadline for each of many keys, and the nearest of them at any time."""

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Deadlines(Generic[Key]):
    """Keys with a deadline each: seconds of any clock, `inf` for never.

    A heap has the deadlines, nearest first. To change or remove one leaves its entry in the heap; an entry that is not
    its key's deadline any more is stale. When most entries are stale the heap is made again, so memory is bounded by
    the number of keys.
    """

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}
        # The number breaks ties: keys are never compared.
        self._heap: list[tuple[float, int, Key]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._until)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._until)

    def __contains__(self, key: object) -> bool:
        return key in self._until

    def set(self, key: Key, until: float) -> None:
        """Give the key this deadline, whatever it had."""
        if self._until.get(key) == until:
            return
        self._until[key] = until
        if len(self._heap) > 2 * len(self._until) + 16:
            self._heap = [(deadline, number, one) for number, (one, deadline) in enumerate(self._until.items())]
            heapq.heapify(self._heap)
            self._pushed = len(self._heap)
        else:
            self._pushed += 1
            heapq.heappush(self._heap, (until, self._pushed, key))

    def get(self, key: Key) -> float | None:
        """The key's deadline, or None where it has none."""
        return self._until.get(key)

    def remove(self, key: Key) -> bool:
        """Take out the key; whether it had a deadline."""
        return self._until.pop(key, None) is not None

    def nearest(self) -> float | None:
        """The nearest deadline, or None where there is none."""
        while self._heap:
            until, _, key = self._heap[0]
            if self._until.get(key) == until:
                return until
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> list[Key]:
        """Take out the keys whose deadline is `now` or earlier, the longest overdue first."""
        found = []
        while (until := self.nearest()) is not None and until <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._until[key]
            found.append(key)
        return found
