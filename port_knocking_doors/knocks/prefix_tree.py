"""Sequences under the same rules as one tree of their steps: first steps that several share are there once.

So one attempt stands for all sequences that begin as it did, and a thousand sequences that share their first steps cost
a packet no more than one. Which of a tree's sequences something concerns is a mask: bit n is the sequence n.

Sequences are in one tree if they differ in nothing but name, steps, traps and access (`rules_of`).
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from port_knocking_doors.knocks import dialects
from port_knocking_doors.knocks.authenticator import Grant, Outcome, Verdict
from port_knocking_doors.knocks.code import is_tcp
from port_knocking_doors.model import Dialect, Protocol, Sequence

PACKET_BITS = 48
"""Of a packet id."""
PORT_BITS = 16
"""Of the packet id of a datagram, which is its source port."""


class Prefix:
    """The first steps that some sequences of a tree share: a node of it. The attributes are read for each packet."""

    __slots__ = (
        "accepted",
        "depth",
        "ended",
        "following",
        "is_plain",
        "is_timed",
        "last",
        "lifetime",
        "mask",
        "next",
        "only_next",
        "outcome",
        "packet_bits",
        "span",
        "terminal",
        "timeout",
        "tree",
    )

    def __init__(self, tree: "StepTree", accepted: tuple[dialects.Codes, ...]) -> None:
        self.tree = tree
        self.lifetime = tree.lifetime
        self.timeout = tree.timeout
        self.span = min(tree.lifetime, tree.timeout)
        self.packet_bits = tree.packet_bits
        self.accepted = accepted
        """The codes that each of the steps accepts, the last step first."""
        self.last: dialects.Codes = accepted[0] if accepted else frozenset()
        self.depth = len(accepted)
        """How many steps are done; 0 for none, and once a sequence is complete."""
        self.mask = 0
        """The sequences that begin with these steps."""
        self.terminal = 0
        """Of those, the sequences that have no further step."""
        self.next: dict[int, tuple[Prefix, ...]] = {}
        """By the code of a packet, what is done after it: several where steps accept some of the same packets."""
        self.only_next: dict[int, Prefix] = {}
        """`next` for the packets after which all that there is to do is to go there."""
        self.following: Prefix = self
        """What an attempt that got here has done: this, or `ended` where no sequence has a further step."""
        self.ended: Prefix | None = None
        """The attempt of `terminal` sequences that are complete: their steps count again from the first."""
        self.is_plain = tree.dialect is Dialect.NATIVE and not any(is_tcp(code) for one in accepted for code in one)
        """Whether native sequences have these steps, and all are datagrams."""
        self.is_timed = False
        """Whether the last step comes again further on, and the time of its datagram has to be remembered for it."""
        self.outcome: Outcome
        """Of a packet that brings all these sequences here."""

    def outcome_of(self, members: int) -> Outcome:
        """The outcome of a packet that brings these of the sequences here."""
        return self.outcome if members == self.mask else self._outcome_of(members)

    def _outcome_of(self, members: int) -> Outcome:
        stages = tuple((sequence, self.depth) for sequence in self.tree.members(members))
        complete = tuple(self.tree.members(members & self.terminal))
        if complete:
            grants = tuple(Grant(sequence.access, sequence) for sequence in complete)
            return Outcome.of(Verdict.COMPLETE, complete, self.depth, stages, grants)
        return Outcome.of(Verdict.ADVANCED, (stages[0][0],), self.depth, stages)

    def finish(self) -> None:
        """Work out what follows from the tree below."""
        self.outcome = self._outcome_of(self.mask)
        if self.terminal:
            self.ended = Prefix(self.tree, self.accepted)
            self.ended.depth, self.ended.mask = 0, self.terminal
            if self.terminal == self.mask:
                self.following = self.ended
        for below in self._below():
            below.is_timed = not is_tcp(next(iter(below.last))) and any(
                below.last == after.last for after in below._all_below()
            )
            below.finish()
        for code, prefixes in self.next.items() if self.depth else ():  # of no step there are no attempts
            # A mixed one is part complete, and a packet may be one that was accepted already.
            is_plain = len(prefixes) == 1 and prefixes[0].terminal in (0, prefixes[0].mask)
            if is_plain and not prefixes[0].is_timed and not any(code in accepts for accepts in self.accepted):
                self.only_next[code] = prefixes[0]

    def _below(self) -> Iterable["Prefix"]:
        return dict.fromkeys(below for prefixes in self.next.values() for below in prefixes)

    def _all_below(self) -> Iterator["Prefix"]:
        for below in self._below():
            yield below
            yield from below._all_below()


@dataclass(frozen=True, slots=True)
class Concern:
    """The sequences of one tree that some packets are a knock for."""

    mask: int
    firsts: tuple[Prefix, ...] = ()
    """The prefixes that such a packet begins."""
    first_mask: int = 0
    """The sequences that it begins."""


class StepTree:
    """Sequences under the same rules, at least one, each with one step or more."""

    __slots__ = ("dialect", "group", "length", "lifetime", "packet_bits", "paths", "root", "sequences", "timeout")

    def __init__(self, sequences: Iterable[Sequence]) -> None:
        self.sequences = tuple(sequences)
        one = self.sequences[0]
        self.dialect = one.dialect
        self.group = one.group if one.dialect is Dialect.KNOCKD else None
        self.lifetime = one.lifetime
        self.timeout = one.timeout
        is_short = all(
            all(step.protocol is Protocol.UDP for step in one.steps) and len(set(one.steps)) == len(one.steps)
            for one in self.sequences
        )
        self.packet_bits = PORT_BITS if is_short else PACKET_BITS
        """Bits that an attempt keeps of each packet: where all steps are datagrams, and none comes twice, the port."""
        self.root = Prefix(self, ())
        self.paths = tuple(self._path(number, sequence) for number, sequence in enumerate(self.sequences))
        """For each sequence, the prefix of its first step, of its first two steps …"""
        self.length = max(map(len, self.paths))
        """Steps of the longest sequence."""
        self.root.finish()

    def _path(self, number: int, sequence: Sequence) -> tuple[Prefix, ...]:
        path = [self.root]
        for codes in dialects.accepted(sequence):
            path[-1].mask |= 1 << number
            path.append(_child(path[-1], codes))
        path[-1].mask |= 1 << number
        path[-1].terminal |= 1 << number
        return tuple(path[1:])

    def members(self, mask: int) -> Iterator[Sequence]:
        """The sequences of a mask."""
        while mask:
            lowest = mask & -mask
            yield self.sequences[lowest.bit_length() - 1]
            mask ^= lowest


def _child(parent: Prefix, codes: dialects.Codes) -> Prefix:
    """The prefix with one more step, which accepts these codes."""
    for prefix in parent.next.get(next(iter(codes)), ()):
        if prefix.last == codes:
            return prefix
    child = Prefix(parent.tree, (codes, *parent.accepted))
    for code in codes:
        parent.next[code] = (*parent.next.get(code, ()), child)
    return child


def rules_of(sequence: Sequence) -> Hashable:
    """What sequences of one tree have in common. Those of a one-time file have a tree of their own, since others keep
    theirs when its next line becomes active."""
    rules = (sequence.lifetime, sequence.timeout, sequence.listened, sequence.dialect, sequence.group, sequence.flags)
    return (*rules, sequence.scope, sequence.one_time)
