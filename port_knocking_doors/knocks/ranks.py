"""Which sources are remembered, filed by how far they came, and which are forgotten when there are too many.

The number of sources is bounded. A rank is all sources that came equally far, and has an equal share of the limit that
no other rank takes away; rank 0, without progress, has none. Unused shares are free for every rank. When all is full,
the source with the oldest knock is forgotten in the lowest rank that has more than its share. So a flood of new sources
pushes out new sources, a flood of those that know a part of a sequence pushes out their like, and both leave space for
honest knockers.

Each source has a place in the file of its rank, so that forgetting the right one costs the same in a full table as in
an empty one.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile

from port_knocking_doors.knocks.attempts import Attempt, packet_entry
from port_knocking_doors.knocks.prefix_tree import Prefix
from port_knocking_doors.knocks.wrong_knocks import NEVER, WrongKnockLimit
from port_knocking_doors.model import Dialect

STRAYS_MAX = 16
"""Packets of ended attempts that are remembered of one source, since TCP may send them again."""


class Knocker:
    """What is remembered of one source."""

    __slots__ = ("attempts", "ignored_until", "last_seen", "rank")

    strays: tuple[int, ...] = ()
    """Packets of TCP (`packet_key`) that no attempt has, and that may come again: they are no knocks then."""

    def __init__(
        self, attempts: tuple[Attempt, ...], last_seen: float, rank: int, ignored_until: float = NEVER
    ) -> None:
        self.attempts = attempts
        self.ignored_until = ignored_until
        """See `WrongKnockLimit`: in the past, it says how many wrong knocks count still."""
        self.last_seen = last_seen
        self.rank = rank

    def with_strays(self, more: Iterable[int]) -> "Knocker":
        """The same with more strays; the oldest are forgotten."""
        strays = tuple(dict.fromkeys((*self.strays, *more)))[-STRAYS_MAX:]
        if strays == self.strays:
            return self
        return StrayingKnocker(strays, self.attempts, self.last_seen, self.rank, self.ignored_until)


class StrayingKnocker(Knocker):
    """A class of its own, since hardly a source has strays, and space for them takes 16 bytes of each."""

    __slots__ = ("strays",)

    def __init__(
        self, strays: tuple[int, ...], attempts: tuple[Attempt, ...], last_seen: float, rank: int, ignored_until: float
    ) -> None:
        super().__init__(attempts, last_seen, rank, ignored_until)
        self.strays = strays


Newcomer = tuple[Prefix, float, int]
"""The first step that a source has made, time and packet id of it."""

Wrong = float | tuple[float, int]
"""The time of a wrong knock, and of TCP with its `packet_key`."""


class Ranks:
    """The sources that are remembered, `limit` at the most, in `count` ranks.

    Nearly all sources of a flood are in one of two short forms, which cost less time and memory than a `Knocker`
    (measured: 0.8 against 1.3 µs): `newcomers` and `wrong`. The table of knockers reads and fills both by itself.
    """

    def __init__(self, limit: int, count: int, wrong_knocks: WrongKnockLimit) -> None:
        self.limit = limit
        self._wrong_knocks = wrong_knocks
        self.known: dict[bytes, Knocker] = {}
        # An OrderedDict and not a dict: taking the first key of a dict walks over the keys removed before it (measured:
        # 3.2 µs in a table of 65,536 under a flood of newcomers, against 0.26 µs). The oldest knock is first.
        self.newcomers: OrderedDict[bytes, Newcomer] = OrderedDict()
        """Sources that have made one first step, and nothing else: a part of rank 1."""
        self.wrong: OrderedDict[bytes, Wrong] = OrderedDict()
        """Sources without any attempt, and their one wrong knock: a part of rank 0."""
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
            if (wrong := self.wrong.get(source)) is not None:
                return self.forgiven(wrong)
        return knocker

    def forgiven(self, wrong: Wrong) -> Knocker:
        """The long form of a source of which nothing but this wrong knock is known."""
        when = _time_of(wrong)
        knocker = Knocker((), when, 0, self._wrong_knocks.after_one(when))
        return knocker.with_strays([wrong[1]]) if isinstance(wrong, tuple) else knocker

    def file(self, source: bytes, knocker: Knocker) -> None:
        """Put the source behind the others of its rank, which follows from its attempts."""
        rank = 0
        for attempt in knocker.attempts:
            if attempt.prefix.depth > rank:
                rank = attempt.prefix.depth
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

    def file_wrong(self, source: bytes, now: float) -> None:
        """Put the source, of which nothing else matters than its wrong knock now, behind the others of rank 0."""
        if not self.forget(source) and len(self) >= self.limit and not self.make_space(0):
            return
        self.wrong[source] = now

    def err(
        self, source: bytes, knocker: Knocker, left: tuple[Attempt, ...], steps: int, strays: list[int], now: float
    ) -> bool:
        """Remember a wrong knock in native sequences of so many steps at most; whether the source is ignored for it.

        `left`: the attempts that are left to it, among them native ones only if the packet began them again. `strays`:
        the packet, if TCP may send it again.
        """
        before = knocker.ignored_until
        knocker.ignored_until = self._wrong_knocks.after_another(before, steps, now)
        is_ignored = now < knocker.ignored_until
        for attempt in knocker.attempts:
            if attempt.prefix.tree.dialect is Dialect.NATIVE and not attempt.is_over(now):
                strays += attempt.tcp_packets()
        if is_ignored:
            left = tuple(one for one in left if one.prefix.tree.dialect is not Dialect.NATIVE)
        if strays or knocker.strays or left or is_ignored or before + self._wrong_knocks.leeway > now:
            knocker = knocker.with_strays(strays)
            knocker.attempts = left
            knocker.last_seen = now
            self.file(source, knocker)
        else:
            self.file_wrong(source, now)
        return is_ignored

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

    def adopt(self, other: "Ranks", renew: Callable[[Attempt], list[Attempt]]) -> None:
        """Take over the sources of another one, each with its renewed attempts."""
        for source, knocker in sorted(other, key=lambda one: one[1].last_seen):
            attempts = tuple(new for attempt in knocker.attempts for new in renew(attempt))
            if attempts or knocker.ignored_until + self._wrong_knocks.leeway > knocker.last_seen:
                same = Knocker(attempts, knocker.last_seen, 0, knocker.ignored_until)
                self.file(source, same.with_strays(knocker.strays))

    def renew(self, is_old: Callable[[Prefix], bool], renew: Callable[[Attempt], list[Attempt]]) -> None:
        """Renew the attempts with an old prefix, and forget the sources of which nothing is known after that."""
        changed = [(source, long_form(one)) for source, one in self.newcomers.items() if is_old(one[0])]
        for source, knocker in self.known.items():
            if any(is_old(attempt.prefix) for attempt in knocker.attempts):
                changed.append((source, knocker))
        for source, knocker in changed:
            before = knocker.attempts
            knocker.attempts = tuple(
                new for attempt in before for new in (renew(attempt) if is_old(attempt.prefix) else [attempt])
            )
            if knocker.attempts or knocker.ignored_until + self._wrong_knocks.leeway > knocker.last_seen:
                self.file(source, knocker)
            else:
                self.forget(source)
        for rank in self._ranks if changed else ():  # the oldest knock first
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
        for knocker in reversed(self._ranks[0].values()):
            if now - knocker.last_seen >= self._wrong_knocks.period:
                break
            count += now < knocker.ignored_until
        return count

    def __iter__(self) -> Iterator[tuple[bytes, Knocker]]:
        """All sources in the long form."""
        for rank in self._ranks:
            yield from rank.items()
        for source, newcomer in self.newcomers.items():
            yield source, long_form(newcomer)
        for source, wrong in self.wrong.items():
            yield source, self.forgiven(wrong)

    def recent(self, now: float, memory: float) -> Iterator[tuple[bytes, Knocker]]:
        """The sources with a knock in the last `memory` seconds: the furthest first, and of those the latest. Without
        those that were wrong once, and are not ignored."""
        for rank in range(len(self._ranks) - 1, -1, -1):
            yield from takewhile(lambda one: now - one[1].last_seen < memory, reversed(self._ranks[rank].items()))
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
            return _time_of(next(iter(self.wrong.values())))
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
        return not knockers or _time_of(next(iter(self.wrong.values()))) <= next(iter(knockers.values())).last_seen


def _time_of(wrong: Wrong) -> float:
    return wrong[0] if isinstance(wrong, tuple) else wrong


def long_form(newcomer: Newcomer) -> Knocker:
    """A source that has made one first step, and nothing else."""
    prefix, last_seen, packet_id = newcomer
    packets = packet_entry(prefix, packet_id, last_seen)
    return Knocker((Attempt(prefix, prefix.mask, packets, last_seen, last_seen),), last_seen, 1)
