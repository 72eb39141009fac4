"""Sequences and traps prepared for matching: a dictionary answers what a packet is to each sequence.

The table of knockers asks it about every packet of a flood, so all that can be worked out before a packet arrives is
worked out here, outcomes included.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from port_knocking_doors.knocks import dialects
from port_knocking_doors.knocks.authenticator import Grant, Outcome, Verdict
from port_knocking_doors.knocks.code import LISTENED, SCOPE_SHIFT
from port_knocking_doors.model import Dialect, Scope, Sequence

Traps = Mapping[int, frozenset[Sequence]]
"""By the code of a trap, the sequences for which it counts as a wrong knock between two steps."""


class CompiledSequence:
    """A sequence prepared for matching: the codes that each step accepts, and every outcome."""

    __slots__ = (
        "accepts",
        "advanced",
        "complete",
        "dialect",
        "group",
        "length",
        "lifetime",
        "sequence",
        "span",
        "timeout",
    )

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.dialect = sequence.dialect
        self.group = sequence.group
        self.accepts = dialects.accepted(sequence)
        self.length = len(self.accepts)
        self.lifetime = sequence.lifetime
        self.timeout = sequence.timeout
        self.span = min(sequence.timeout, sequence.lifetime)
        self.advanced = tuple(
            Outcome.of(Verdict.ADVANCED, (sequence,), done, ((sequence, done),)) for done in range(self.length)
        )
        self.complete = Outcome.of(
            Verdict.COMPLETE,
            (sequence,),
            self.length,
            ((sequence, self.length),),
            (Grant(sequence.access, sequence),),
        )


@dataclass(frozen=True, slots=True)
class Subscribers:
    """The sequences to which packets of one code are knocks.

    With slots, since it is read for each packet: a field of a named tuple takes ten times as long.
    """

    native: tuple[CompiledSequence, ...]
    others: tuple[CompiledSequence, ...]
    """Those of the other dialects."""
    begun: CompiledSequence | None
    """The one sequence that such a packet begins, where it is one and has more steps."""
    only: CompiledSequence | None
    """`begun`, where such a packet is nothing else to any sequence."""
    is_wrong_first: bool
    """Whether such a packet is a wrong knock from every source that has no progress."""
    is_received_twice: bool
    """Whether a socket and the sniffer receive such a packet, and it is judged twice, for different sequences: a wrong
    knock for one of them may be right for the other, so the source is not ignored for it."""


class CompiledTable:
    """All sequences and their traps, prepared for matching.

    `known`: sequences that are compiled already, and are taken over as they are.
    """

    def __init__(
        self, sequences: Iterable[Sequence], traps: Traps, known: Mapping[Sequence, CompiledSequence] | None = None
    ) -> None:
        known = known or {}
        every = [sequence for sequence in sequences if sequence.steps]
        self.sequences = {sequence: known.get(sequence) or CompiledSequence(sequence) for sequence in every}
        self.traps = traps
        self.subscribers: dict[int, Subscribers] = {}
        """By code, that of each scope included."""
        self.trapped: dict[int, tuple[CompiledSequence, ...]] = {}
        """By code, the sequences that it is a trap for."""
        self._subscriptions = dialects.subscriptions(every)
        # Several subscriptions may have the very same codes; no code is in the list twice.
        self.codes = frozenset(chain.from_iterable(codes for codes, _ in self._subscriptions))
        """Of all that is a knock for any sequence, whatever its scope."""
        self.add_scopes(0, self.scopes)

    @property
    def scopes(self) -> frozenset[Scope]:
        """The packets that the sequences listen to."""
        return frozenset(sequence.scope for sequence in self.sequences)

    @property
    def length(self) -> int:
        """Steps of the longest sequence; 0 without any."""
        return max((sequence.length for sequence in self.sequences.values()), default=0)

    def add_scopes(self, number: int, scopes: frozenset[Scope]) -> None:
        """Prepare for packets that are within these scopes and no other ones: their codes carry this number."""
        scope_bits = number << SCOPE_SHIFT
        place = {sequence: place for place, sequence in enumerate(self.sequences)}
        begun: dict[int, list[CompiledSequence]] = defaultdict(list)
        subscribed: dict[int, list[int]] = defaultdict(list)
        members: list[list[int]] = []
        # By subscription, since the doors of one file have the same: to list each door for each code took a minute
        # where there are hundreds of doors.
        for which, (codes, sequences) in enumerate(self._subscriptions):
            included = [sequence for sequence in sequences if sequence.scope in scopes]
            members.append([place[sequence] for sequence in included])
            for sequence in included:
                for code in self.sequences[sequence].accepts[0]:
                    begun[code].append(self.sequences[sequence])
            if included:
                for code in codes:
                    subscribed[code].append(which)
        every = tuple(self.sequences.values())
        concerned: dict[tuple[int, ...], _Concerned] = {}
        made: dict[tuple[object, ...], Subscribers] = {}  # the same for many codes
        for code, which_ones in subscribed.items():
            key = tuple(which_ones)
            if key not in concerned:
                concerned[key] = _Concerned.of(every[one] for one in sorted(chain(*map(members.__getitem__, key))))
            of_code = concerned[key]
            starts = begun.get(code, ())
            first = starts[0] if len(starts) == 1 and starts[0].length > 1 else None
            is_only = (
                first is not None and len(of_code.native) + len(of_code.others) == 1 and code not in first.accepts[1]
            )
            is_twice = code ^ LISTENED in self.codes
            is_wrong_first = not of_code.others and not starts and not is_twice
            kind = (key, first, is_only, is_wrong_first, is_twice)
            if kind not in made:
                only = first if is_only else None
                made[kind] = Subscribers(of_code.native, of_code.others, first, only, is_wrong_first, is_twice)
            self.subscribers[code | scope_bits] = made[kind]
        trapped: dict[frozenset[Sequence], tuple[CompiledSequence, ...]] = {}
        for code, of_trap in self.traps.items():
            if of_trap not in trapped:
                trapped[of_trap] = tuple(self.sequences[one] for one in of_trap if one.scope in scopes)
            if trapped[of_trap]:
                self.trapped[code | scope_bits] = trapped[of_trap]


class _Concerned(NamedTuple):
    """The sequences to which some packets are knocks."""

    native: tuple[CompiledSequence, ...]
    others: tuple[CompiledSequence, ...]

    @classmethod
    def of(cls, sequences: Iterable[CompiledSequence]) -> "_Concerned":
        every = tuple(sequences)
        return cls(
            tuple(one for one in every if one.dialect is Dialect.NATIVE),
            tuple(one for one in every if one.dialect is not Dialect.NATIVE),
        )
