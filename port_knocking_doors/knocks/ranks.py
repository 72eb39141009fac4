"""Which sources are remembered, filed by how far they came, and which are forgotten when there are too many.

The number of sources is bounded. A rank is all sources that came equally far, and has an equal share of the limit that
no other rank takes away; rank 0, without progress, has none. Unused shares are free for every rank. When all is full,
the source with the oldest knock is forgotten in the lowest rank that has more than its share. So a flood of new sources
pushes out new sources, a flood of those that know a part of a sequence pushes out their like, and both leave space for
honest knockers.

Each source has a place in the file of its rank, so that forgetting the right one costs the same in a full table as in
an empty one.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from heapq import merge
from itertools import takewhile

from port_knocking_doors.knocks.compiled import CompiledSequence

NEVER = -math.inf


class Attempt:
    """How far one source is in one sequence, and the packet that brought it there. Stage 0: the sequence is done."""

    __slots__ = ("last_seen", "packet_id", "sequence", "stage", "started")

    def __init__(self, sequence: CompiledSequence, stage: int, now: float, packet_id: int) -> None:
        self.sequence = sequence
        self.stage = stage
        self.started = now
        self.last_seen = now
        self.packet_id = packet_id

    def is_on_its_way(self, now: float) -> bool:
        """Whether there are steps behind it and steps ahead, and time left."""
        sequence = self.sequence
        return self.stage > 0 and now - self.last_seen < sequence.lifetime and now - self.started < sequence.timeout


class Knocker:
    """What is remembered of one source."""

    __slots__ = ("attempts", "ignored_until", "last_seen", "rank")

    def __init__(
        self, attempts: tuple[Attempt, ...], last_seen: float, rank: int, ignored_until: float = NEVER
    ) -> None:
        self.attempts = attempts
        self.ignored_until = ignored_until
        self.last_seen = last_seen
        self.rank = rank


Newcomer = tuple[CompiledSequence, float, int]
"""The sequence that a source has made the first step of, time and packet id of that step."""


class Ranks:
    """The sources that are remembered, `limit` at the most, in `count` ranks.

    `ignoring_period`: seconds for which a source is ignored after a wrong knock.

    Nearly all sources of a flood are in one of two short forms, which cost less time and memory than a `Knocker`
    (measured: 0.8 against 1.3 µs): `newcomers` and `wrong`. The table of knockers reads and fills both by itself.
    """

    def __init__(self, limit: int, count: int, ignoring_period: float) -> None:
        self.limit = limit
        self._ignoring_period = ignoring_period
        self.known: dict[bytes, Knocker] = {}
        # An OrderedDict and not a dict: taking the first key of a dict walks over the keys removed before it (measured:
        # 3.2 µs in a table of 65,536 under a flood of newcomers, against 0.26 µs). The oldest knock is first.
        self.newcomers: OrderedDict[bytes, Newcomer] = OrderedDict()
        """Sources that have made the first step of one sequence, and nothing else: a part of rank 1."""
        self.wrong: OrderedDict[bytes, float] = OrderedDict()
        """Sources without any attempt, and until when they are ignored for a wrong knock: a part of rank 0."""
        self._ranks: list[OrderedDict[bytes, Knocker]] = []
        """Rank r has the sources in the long form whose furthest attempt has r steps done."""
        self.share = 0
        """Sources of a rank that no other rank pushes out."""
        self.grow(count)
        self.lowest = self._ranks[0]
        """The rest of rank 0."""

    def __len__(self) -> int:
        return len(self.newcomers) + len(self.wrong) + len(self.known)

    def grow(self, count: int) -> None:
        """Have so many ranks at the least, 2 or more."""
        self._ranks += (OrderedDict() for _ in range(len(self._ranks), count))
        self.share = max(1, self.limit // (len(self._ranks) - 1))

    def get(self, source: bytes) -> Knocker | None:
        """What is remembered of the source, in the long form; `file` it once it has changed."""
        knocker = self.known.get(source)
        if knocker is None:
            if (newcomer := self.newcomers.get(source)) is not None:
                return long_form(newcomer)
            if (until := self.wrong.get(source)) is not None:
                return self.ignored(until)
        return knocker

    def ignored(self, until: float) -> Knocker:
        """The long form of a source that is ignored until then, and of which nothing else is known."""
        return Knocker((), until - self._ignoring_period, 0, until)

    def file(self, source: bytes, knocker: Knocker) -> None:
        """Put the source behind the others of its rank, which follows from its attempts."""
        rank = 0
        for attempt in knocker.attempts:
            if attempt.stage > rank:
                rank = attempt.stage
        is_new = (
            self._ranks[knocker.rank].pop(source, None) is None
            and self.newcomers.pop(source, None) is None
            and self.wrong.pop(source, None) is None
        )
        if is_new and len(self) >= self.limit and not self.make_space(rank):
            return
        knocker.rank = rank
        self._ranks[rank][source] = knocker
        self.known[source] = knocker

    def file_wrong(self, source: bytes, until: float) -> None:
        """Put the source, ignored until then and without any attempt, behind the others of rank 0."""
        if not self.forget(source) and len(self) >= self.limit and not self.make_space(0):
            return
        self.wrong[source] = until

    def make_space(self, rank: int) -> bool:
        """Forget one source for one of this rank; whether there was one to be forgotten."""
        if self._size(0):
            self._forget_oldest(0)
            return True
        for candidate in range(1, len(self._ranks) if rank else 0):
            # A new one of the same rank counts already.
            if self._size(candidate) and self._size(candidate) + (candidate == rank) > self.share:
                self._forget_oldest(candidate)
                return True
        return False

    def forget(self, source: bytes) -> bool:
        """Forget one source; whether it was known."""
        if self.newcomers.pop(source, None) is not None or self.wrong.pop(source, None) is not None:
            return True
        knocker = self.known.pop(source, None)
        if knocker is None:
            return False
        del self._ranks[knocker.rank][source]
        return True

    def adopt(self, other: "Ranks", renewed: Mapping[CompiledSequence, CompiledSequence | None]) -> None:
        """Take over the sources of another one; `renewed`: for each of its sequences the one that goes on, or None."""
        for source, knocker in sorted(other, key=lambda one: one[1].last_seen):
            attempts = []
            for attempt in knocker.attempts:
                if (sequence := renewed[attempt.sequence]) is not None:
                    same = Attempt(sequence, attempt.stage, attempt.last_seen, attempt.packet_id)
                    same.started = attempt.started
                    attempts.append(same)
            if attempts or knocker.ignored_until > knocker.last_seen:
                self.file(source, Knocker(tuple(attempts), knocker.last_seen, 0, knocker.ignored_until))

    def drop(self, sequences: Collection[CompiledSequence]) -> None:
        """Forget all attempts in these sequences, and the sources of which nothing else is known."""
        for source in [source for source, newcomer in self.newcomers.items() if newcomer[0] in sequences]:
            del self.newcomers[source]
        for source, knocker in list(self.known.items()):
            left = tuple(attempt for attempt in knocker.attempts if attempt.sequence not in sequences)
            if len(left) == len(knocker.attempts):
                continue
            knocker.attempts = left
            if left or knocker.ignored_until > knocker.last_seen:
                self.file(source, knocker)
            else:
                self.forget(source)
        for rank in self._ranks:  # the oldest knock first
            by_age = sorted(rank.items(), key=lambda one: one[1].last_seen)
            rank.clear()
            rank.update(by_age)

    def expire(self, now: float, memory: float) -> int:
        """Forget the sources whose last knock was `memory` seconds ago or longer; how many those were."""
        dropped = 0
        for rank in range(len(self._ranks)):
            while (last_seen := self._oldest(rank)) is not None and last_seen + memory <= now:
                self._forget_oldest(rank)
                dropped += 1
        return dropped

    def oldest(self) -> float | None:
        """The time of the oldest knock that `expire` would find, or None without any source."""
        return min(
            (last_seen for rank in range(len(self._ranks)) if (last_seen := self._oldest(rank)) is not None),
            default=None,
        )

    def count_ignored(self, now: float) -> int:
        """How many sources are ignored."""
        count = 0
        for until in reversed(self.wrong.values()):
            if now >= until:
                break
            count += 1
        for knocker in reversed(self._ranks[0].values()):
            if now - knocker.last_seen >= self._ignoring_period:
                break
            count += now < knocker.ignored_until
        return count

    def __iter__(self) -> Iterator[tuple[bytes, Knocker]]:
        """All sources in the long form."""
        for rank in self._ranks:
            yield from rank.items()
        for source, newcomer in self.newcomers.items():
            yield source, long_form(newcomer)
        for source, until in self.wrong.items():
            yield source, self.ignored(until)

    def recent(self, now: float, memory: float) -> Iterator[tuple[bytes, Knocker]]:
        """The sources with a knock in the last `memory` seconds: the furthest first, and of those the latest."""
        wrong = ((source, self.ignored(until)) for source, until in reversed(self.wrong.items()))
        for rank in range(len(self._ranks) - 1, -1, -1):
            knockers: Iterator[tuple[bytes, Knocker]] = reversed(self._ranks[rank].items())
            if rank == 0:
                knockers = merge(knockers, wrong, key=lambda one: one[1].last_seen, reverse=True)
            yield from takewhile(lambda one: now - one[1].last_seen < memory, knockers)
            if rank == 1:
                for source, newcomer in reversed(self.newcomers.items()):
                    if now - newcomer[1] >= memory:
                        break
                    if now - newcomer[1] < newcomer[0].span:  # a full table of others is passed over in some 20 ms
                        yield source, long_form(newcomer)

    def _size(self, rank: int) -> int:
        if rank > 1:
            return len(self._ranks[rank])
        return len(self._ranks[rank]) + len(self.newcomers if rank else self.wrong)

    def _oldest(self, rank: int) -> float | None:
        """The time of the last knock of the source that would be forgotten next in the rank."""
        knockers = self._ranks[rank]
        if rank == 1 and self.newcomers:
            return next(iter(self.newcomers.values()))[1]
        if rank == 0 and self._is_wrong_oldest():
            return next(iter(self.wrong.values())) - self._ignoring_period
        return next(iter(knockers.values())).last_seen if knockers else None

    def _forget_oldest(self, rank: int) -> None:
        if rank == 1 and self.newcomers:
            self.newcomers.popitem(last=False)
        elif rank == 0 and self._is_wrong_oldest():
            self.wrong.popitem(last=False)
        else:
            source, _ = self._ranks[rank].popitem(last=False)
            del self.known[source]

    def _is_wrong_oldest(self) -> bool:
        """Whether the oldest source of rank 0 is in the short form."""
        if not self.wrong:
            return False
        knockers = self._ranks[0]
        since = next(iter(self.wrong.values())) - self._ignoring_period
        return not knockers or since <= next(iter(knockers.values())).last_seen


def long_form(newcomer: Newcomer) -> Knocker:
    """A source that has made one first step, and nothing else."""
    sequence, last_seen, packet_id = newcomer
    return Knocker((Attempt(sequence, 1, last_seen, packet_id),), last_seen, 1)
