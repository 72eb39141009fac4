"""Attempts at the sequences of one table as attempts at those of another, after a reload or a used one-time line."""

from collections import defaultdict
from collections.abc import Callable, Hashable

from port_knocking_doors.knocks.attempts import Attempt
from port_knocking_doors.knocks.compiled import CompiledTable
from port_knocking_doors.knocks.prefix_tree import Prefix
from port_knocking_doors.model import Sequence


class Renewal:
    """Called with an attempt, it returns the attempts in the new table that go on where the old one is.

    An attempt goes on in the sequences whose `key` is the same in both.
    """

    def __init__(self, old: CompiledTable, new: CompiledTable, key: Callable[[Sequence], Hashable]) -> None:
        places = {key(sequence): place for sequence, place in new.places.items()}
        self._places = {tree: [places.get(key(sequence)) for sequence in tree.sequences] for tree in old.trees}
        self._known: dict[tuple[Prefix, int], list[tuple[Prefix, int]]] = {}
        """Sources by the ten thousand are at the same prefix."""

    def __call__(self, attempt: Attempt) -> list[Attempt]:
        where = (attempt.prefix, attempt.members)
        found = self._known.get(where)
        if found is None:
            found = self._known[where] = self._find(*where)
        return [
            Attempt(prefix, members, _packets(attempt, prefix), attempt.started, attempt.last_seen)
            for prefix, members in found
        ]

    def _find(self, prefix: Prefix, members: int) -> list[tuple[Prefix, int]]:
        found: dict[Prefix, int] = defaultdict(int)
        for number, place in enumerate(self._places[prefix.tree]):
            if place is not None and members >> number & 1:
                tree, new_number = place
                path = tree.paths[new_number]
                reached = path[prefix.depth - 1] if prefix.depth else path[-1].ended
                if reached is not None:
                    found[reached] |= 1 << new_number
        return list(found.items())


def _packets(attempt: Attempt, prefix: Prefix) -> int:
    """The packets of an attempt as one at this prefix has them: in another tree, each may have more bits or less."""
    old, new = attempt.prefix.packet_bits, prefix.packet_bits
    if old == new:
        return attempt.packets
    packets = 0
    for place in range(len(attempt.prefix.accepted)):
        packets |= (attempt.packets >> place * old & (1 << min(old, new)) - 1) << place * new
    return packets
