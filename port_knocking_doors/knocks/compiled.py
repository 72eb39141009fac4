"""Sequences and traps prepared for matching: a dictionary answers what a packet is to each tree of sequences.

The table of knockers asks it about every packet of a flood, so all that can be worked out before a packet arrives is
worked out here, outcomes included.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from port_knocking_doors.knocks import dialects
from port_knocking_doors.knocks.authenticator import Outcome, Verdict
from port_knocking_doors.knocks.code import LISTENED, SCOPE_SHIFT, is_tcp
from port_knocking_doors.knocks.prefix_tree import Concern, Prefix, StepTree, rules_of
from port_knocking_doors.model import Dialect, Scope, Sequence

Traps = Mapping[int, frozenset[Sequence]]
"""By the code of a trap, the sequences for which it counts as a wrong knock between two steps."""

MERGED_MAX = 256
"""Outcomes of several trees at once that are kept: to merge those of thousands of sequences takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Subscribers:
    """The sequences to which packets of one code are knocks.

    With slots, since it is read for each packet: a field of a named tuple takes ten times as long.
    """

    native: Mapping[StepTree, Concern]
    others: Mapping[StepTree, Concern]
    """Those of the other dialects."""
    steps: int
    """Of the longest native sequence among them."""
    begun: Prefix | None
    """The one prefix that such a packet begins, where it is one and each of its sequences has more steps."""
    only: Prefix | None
    """`begun`, where such a packet is nothing else to any sequence."""
    later: StepTree | None
    """The one tree with such sequences, where the packet begins none of them."""
    is_first: bool
    """Whether such a packet begins any sequence."""
    is_wrong_first: bool
    """Whether such a packet is a wrong knock from every source that has no progress, and is forgiven once."""
    is_wrong_datagram: bool
    """The same, and the packet is a datagram: TCP may send one of its own again."""
    is_received_twice: bool
    """Whether a socket and the sniffer receive such a packet, and it is judged twice, for different sequences: a wrong
    knock for one of them may be right for the other, so the source is not ignored for it."""


@dataclass(frozen=True, slots=True)
class Trapped:
    """The sequences that a packet is a trap for."""

    masks: Mapping[StepTree, int]
    steps: int
    """Of the longest native sequence among them."""


class CompiledTable:
    """All sequences and their traps, prepared for matching.

    `known`: trees that exist already; those with the same sequences are taken over as they are.
    """

    def __init__(self, sequences: Iterable[Sequence], traps: Traps, known: Iterable[StepTree] = ()) -> None:
        every = tuple(dict.fromkeys(sequence for sequence in sequences if sequence.steps))
        self.traps = traps
        self.subscribers: dict[int, Subscribers] = {}
        """By code, that of each scope included."""
        self.trapped: dict[int, Trapped] = {}
        """By code, the sequences that it is a trap for."""
        alike: dict[Hashable, list[Sequence]] = defaultdict(list)
        for sequence in every:
            alike[rules_of(sequence)].append(sequence)
        kept = {rules_of(tree.sequences[0]): tree for tree in known}
        self.trees = tuple(
            kept[rules] if rules in kept and kept[rules].sequences == tuple(those) else StepTree(those)
            for rules, those in alike.items()
        )
        self.places = {one: (tree, number) for tree in self.trees for number, one in enumerate(tree.sequences)}
        """The tree that a sequence is in, and its number there."""
        self.sequences = every
        """In the order that they were given in."""
        self._subscriptions = [
            (codes, self._masks(those).items()) for codes, those in dialects.subscriptions(self.sequences)
        ]
        # Several subscriptions may have the very same codes; no code is in the list twice.
        self.codes = frozenset(chain.from_iterable(codes for codes, _ in self._subscriptions))
        """Of all that is a knock for any sequence, whatever its scope."""
        self._merged: dict[tuple[int, ...], tuple[list[Outcome], Outcome]] = {}
        self._made: dict[Hashable, Subscribers] = {}
        self.add_scopes(0, self.scopes)

    @property
    def scopes(self) -> frozenset[Scope]:
        """The packets that the sequences listen to."""
        return frozenset(tree.sequences[0].scope for tree in self.trees)

    @property
    def length(self) -> int:
        """Steps of the longest sequence; 0 without any."""
        return max((tree.length for tree in self.trees), default=0)

    @property
    def native_length(self) -> int:
        """Steps of the longest native sequence; 0 without any."""
        return max((tree.length for tree in self.trees if tree.dialect is Dialect.NATIVE), default=0)

    def merged(self, outcomes: list[Outcome]) -> Outcome:
        """The outcome of a packet that has several: what is complete matters most, then what is further, and then the
        native sequences, in the order that the sequences were given in."""
        if len(outcomes) == 1:
            return outcomes[0]
        key = tuple(map(id, outcomes))
        if key not in self._merged:
            if len(self._merged) >= MERGED_MAX:
                self._merged.clear()
            self._merged[key] = (outcomes, self._merge(outcomes))  # the outcomes, too, so that their ids stay theirs
        return self._merged[key][1]

    def _merge(self, outcomes: list[Outcome]) -> Outcome:
        def place(sequence: Sequence | None) -> tuple[bool, int]:
            assert sequence is not None
            return sequence.dialect is not Dialect.NATIVE, order[sequence]

        order = {sequence: number for number, sequence in enumerate(self.sequences)}
        stages = tuple(sorted(chain(*(one.stages for one in outcomes)), key=lambda stage: place(stage[0])))
        if complete := [one for one in outcomes if one.verdict is Verdict.COMPLETE]:
            sequences = tuple(sorted(chain(*(one.sequences for one in complete)), key=place))
            grants = tuple(sorted(chain(*(one.grants for one in complete)), key=lambda grant: place(grant.sequence)))
            return Outcome.of(Verdict.COMPLETE, sequences, max(one.stage for one in complete), stages, grants)
        furthest = max(one.stage for one in outcomes)
        first = next(sequence for sequence, stage in stages if stage == furthest)
        return Outcome.of(Verdict.ADVANCED, (first,), furthest, stages)

    def add_scopes(self, number: int, scopes: frozenset[Scope]) -> None:
        """Prepare for packets that are within these scopes and no other ones: their codes carry this number."""
        scope_bits = number << SCOPE_SHIFT
        trees = [tree for tree in self.trees if tree.sequences[0].scope in scopes]
        begun: dict[int, list[Prefix]] = defaultdict(list)
        for tree in trees:
            for code, firsts in tree.root.next.items():
                begun[code] += firsts
        subscribed: dict[int, list[int]] = defaultdict(list)
        # By subscription, since the doors of one file have the same: to list each door for each code took a minute
        # where there are hundreds of doors.
        for which, (codes, masks) in enumerate(self._subscriptions):
            if any(tree.sequences[0].scope in scopes for tree, _ in masks):
                for code in codes:
                    subscribed[code].append(which)
        masks_of: dict[tuple[int, ...], dict[StepTree, int]] = {}
        for code, which_ones in subscribed.items():
            key = tuple(which_ones)
            if key not in masks_of:
                every = dict.fromkeys(trees, 0)
                for tree, mask in chain.from_iterable(self._subscriptions[one][1] for one in key):
                    if tree in every:
                        every[tree] |= mask
                masks_of[key] = {tree: mask for tree, mask in every.items() if mask}
            starts = tuple(begun.get(code, ()))
            is_twice = code ^ LISTENED in self.codes
            is_next = any(code in first.next for first in starts)
            kind = (number, key, starts, is_twice, is_next, is_tcp(code))
            if kind not in self._made:
                self._made[kind] = _subscribers(
                    masks_of[key], starts, is_next=is_next, is_twice=is_twice, is_datagram=not is_tcp(code)
                )
            self.subscribers[code | scope_bits] = self._made[kind]
        trapped: dict[frozenset[Sequence], Trapped] = {}
        for code, of_trap in self.traps.items():
            if of_trap not in trapped:
                trapped[of_trap] = self._trapped(one for one in of_trap if one.scope in scopes)
            if trapped[of_trap].masks:
                self.trapped[code | scope_bits] = trapped[of_trap]

    def _masks(self, sequences: Iterable[Sequence]) -> dict[StepTree, int]:
        masks: dict[StepTree, int] = defaultdict(int)
        for sequence in sequences:
            tree, number = self.places[sequence]
            masks[tree] |= 1 << number
        return masks

    def _trapped(self, sequences: Iterable[Sequence]) -> Trapped:
        masks = self._masks(sequences)
        return Trapped(masks, _steps(masks))


def _subscribers(
    masks: Mapping[StepTree, int], starts: tuple[Prefix, ...], *, is_next: bool, is_twice: bool, is_datagram: bool
) -> Subscribers:
    concerns = {}
    for tree, mask in masks.items():
        firsts = tuple(first for first in starts if first.tree is tree)
        first_mask = 0
        for first in firsts:
            first_mask |= first.mask
        concerns[tree] = Concern(mask, firsts, first_mask)
    native = {tree: concern for tree, concern in concerns.items() if tree.dialect is Dialect.NATIVE}
    others = {tree: concern for tree, concern in concerns.items() if tree.dialect is not Dialect.NATIVE}
    steps = _steps(masks)
    begun = starts[0] if len(starts) == 1 and not starts[0].terminal else None
    is_wrong_first = not others and not starts and not is_twice and steps > 1
    return Subscribers(
        native,
        others,
        steps,
        begun,
        only=begun if len(concerns) == 1 and not is_next else None,
        later=next(iter(concerns)) if len(concerns) == 1 and not starts else None,
        is_first=bool(starts),
        is_wrong_first=is_wrong_first,
        is_wrong_datagram=is_wrong_first and is_datagram,
        is_received_twice=is_twice,
    )


def _steps(masks: Mapping[StepTree, int]) -> int:
    """Of the longest native sequence."""
    native = ((tree, mask) for tree, mask in masks.items() if tree.dialect is Dialect.NATIVE)
    return max((len(sequence.steps) for tree, mask in native for sequence in tree.members(mask)), default=0)
