"""Who is knocking, and how far they are: knocks in, outcomes out.

Knows no socket, no clock and no log. Time comes with each knock, in seconds of any clock that never goes back, and
never less than the knock before. Only the daemon's loop calls it, so it has no lock.

The rules of all dialects (the design's table; `dialects` says which packets are a step or a knock):

* a knock that is the next step of a sequence advances it; the last step completes it, and the next knock starts anew;
* the very packet that was just accepted, once more, is not a knock;
* after a sequence's time limit, from the first knock or from the last, a knocker starts that sequence anew.

Any other knock is wrong, and takes the sequence back to its start. Beyond that:

* native: a knocker whose knock was good for no sequence at all is ignored for a while, in which nothing that it sends
  changes anything;
* tportknockd: the wrong knock counts as a first step if it is one;
* knockd: it does not, and as long as a knocker is on the way through any door of a file it begins no other of it.

The table is bounded, and each rank, which is all who came equally far, has an equal share of it that nobody takes away
(those who got nowhere have none). What a rank does not need is everybody's. When the table is full, room is made in
the lowest rank that has more than its share, by forgetting whoever was heard longest ago there. So a flood of newcomers
pushes out newcomers, and a flood of those who know a part of the sequence pushes out their like: both leave room for
who knocks in earnest.

This is the hot path of a flood. Knockers have slots and are filed by how far they came, so that forgetting the right
one costs the same in a full table as in an empty one; outcomes are made once, not once a knock.
"""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from port_knocking_doors.knocks import dialects
from port_knocking_doors.knocks.dialects import Codes
from port_knocking_doors.model import LISTENED, Dialect, Scope, Sequence


class Verdict(Enum):
    """What a knock was judged to be."""

    NOT_A_KNOCK = auto()  # a step of no sequence: not a knock
    IGNORED = auto()  # its knocker erred a moment ago
    REPEATED = auto()  # the packet just accepted, once more
    WRONG = auto()  # the next step of no sequence: the knocker is ignored from now on
    ADVANCED = auto()
    COMPLETE = auto()


@dataclass(frozen=True)
class Outcome:
    """A verdict with the sequences that it is about, and for `ADVANCED` the number of steps done so far."""

    verdict: Verdict
    sequences: tuple[Sequence, ...] = ()
    stage: int = 0
    stages: tuple[tuple[Sequence, int], ...] = field(default=(), compare=False)
    """Every sequence that the knock moved, with the number of steps done."""

    needs_action: bool = field(init=False, compare=False)
    """Whether anything is to be done about it, if only to tell of each stage as knockd does; worked out beforehand, for
    the sake of a flood of those that don't."""

    def __post_init__(self) -> None:
        told = any(sequence.dialect is Dialect.KNOCKD for sequence, _ in self.stages)
        object.__setattr__(self, "needs_action", told or self.verdict in (Verdict.WRONG, Verdict.COMPLETE))


NOT_A_KNOCK = Outcome(Verdict.NOT_A_KNOCK)
IGNORED = Outcome(Verdict.IGNORED)
REPEATED = Outcome(Verdict.REPEATED)
WRONG = Outcome(Verdict.WRONG)


_NEVER = -math.inf
_SCOPE_SHIFT = 32
_CODE = (1 << _SCOPE_SHIFT) - 1
"""The part of a code that has nothing to do with its reach."""


Judge = Callable[[bytes, int, int, float], Outcome]
"""`KnockerTable.on_knock`, or what stands for it: source, code, echo and time of a knock → what it was judged to be."""

Act = Callable[[bytes, int, Outcome, float], None]
"""Called with source, index of the interface (0: not known), outcome and time, where the outcome needs action."""


class _CompiledSequence:
    """A sequence prepared for matching: what each step accepts, every outcome made beforehand."""

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
            Outcome(Verdict.ADVANCED, (sequence,), done, ((sequence, done),)) for done in range(self.length)
        )
        self.complete = Outcome(Verdict.COMPLETE, (sequence,), self.length, ((sequence, self.length),))


class _Hearing(NamedTuple):
    """What one code is to the sequences that hear it."""

    native: tuple[_CompiledSequence, ...] = ()
    foreign: tuple[_CompiledSequence, ...] = ()
    """Of the other dialects."""
    first: _CompiledSequence | None = None
    """The one course that it is the first of several steps of, where there is one such."""
    alone: _CompiledSequence | None = None
    """That course, where the code is nothing else to anybody."""


class _Attempt:
    """How far one knocker is in one sequence, and the packet that brought it there. Stage 0: it is through."""

    __slots__ = ("course", "heard", "packet_id", "stage", "started")

    def __init__(self, course: _CompiledSequence, stage: int, now: float, packet_id: int) -> None:
        self.course = course
        self.stage = stage
        self.started = now
        self.heard = now
        self.packet_id = packet_id

    def is_on_its_way(self, now: float) -> bool:
        """Whether there are steps behind it and steps ahead, and time left."""
        course = self.course
        return self.stage > 0 and now - self.heard < course.lifetime and now - self.started < course.timeout


class _Knocker:
    __slots__ = ("attempts", "heard", "ignored_until", "rank")

    def __init__(self, attempts: tuple[_Attempt, ...], now: float, rank: int) -> None:
        self.attempts = attempts
        self.ignored_until = _NEVER
        self.heard = now
        self.rank = rank


class Seen(NamedTuple):
    """What is known of one knocker."""

    source: bytes
    done: tuple[tuple[Sequence, int], ...]
    """The sequences that it has begun, and how many steps of each are done."""
    ignored: float
    """Seconds for which it is still ignored; 0 for not."""
    heard: float
    """Seconds since it was heard last."""


class KnockerTable:
    """The one table of knockers, whatever heard them.

    `ignoring_period`: seconds for which a knocker that erred is not heard.
    `limit`: how many knockers are remembered at most, 1 or more.
    `traps`: by the code of a trap, the sequences for which it counts as a wrong knock between two steps.
    """

    def __init__(
        self,
        sequences: Iterable[Sequence],
        ignoring_period: float,
        limit: int,
        traps: Mapping[int, frozenset[Sequence]] = MappingProxyType({}),
    ) -> None:
        every = tuple(sequence for sequence in sequences if sequence.steps)
        self._courses = {sequence: _CompiledSequence(sequence) for sequence in every}
        courses = self._courses.values()
        self._heard = dialects.subscribed_codes(every)
        self._traps = traps
        self._hearings: dict[int, _Hearing] = {}
        self._trapped_by: dict[int, tuple[_CompiledSequence, ...]] = {}
        self._numbers: dict[frozenset[Scope], int] = {}
        self._number(self.scopes)
        # On a port that both ears hear, one packet is judged twice, for different sequences: what is wrong for the one
        # may be right for the other, and its knocker is not ignored for it.
        every_code = frozenset(self._every_code())
        self._heard_twice = frozenset(code for code in every_code if code ^ LISTENED in every_code)
        self._ignoring_period = ignoring_period
        self._limit = limit
        # Nothing about a knocker matters for longer than this after it was heard last.
        self._memory = max([ignoring_period, *(min(course.lifetime, course.timeout) for course in courses)])
        # Rank r holds those whose furthest attempt has r steps done, the one heard longest ago first. An OrderedDict
        # and not a dict: taking the first key of a dict walks over the keys removed before it (measured: 3.2 µs in a
        # table of 65,536 under a flood of newcomers, against 0.26 µs).
        self._ranks: tuple[OrderedDict[bytes, _Knocker], ...] = tuple(
            OrderedDict() for _ in range(max([2, *(course.length for course in courses)]))
        )
        self._nowhere = self._ranks[0]
        self._share = max(1, limit // (len(self._ranks) - 1))
        self._knockers: dict[bytes, _Knocker] = {}
        # Who has made the first step of one sequence, and nothing else, is of rank 1, too: sequence, time and echo.
        # Nearly all of a flood from forged sources is that, and costs a third like this (measured: 0.8 against 1.3 µs).
        self._newcomers: OrderedDict[bytes, tuple[_CompiledSequence, float, int]] = OrderedDict()

    @property
    def sniffed(self) -> frozenset[int]:
        """The codes of all that matters and that no socket hears: what the sniffer has to bring."""
        return frozenset(code for code in (*self._traps, *self._every_code()) if not code & LISTENED)

    @property
    def scopes(self) -> frozenset[Scope]:
        """Which packets its sequences hear."""
        return frozenset(sequence.scope for sequence in self._courses)

    def scope_bits(self, scopes: frozenset[Scope]) -> int | None:
        """What to add to the codes of packets that are within these of `scopes`, and no others; None if in none."""
        return self._number(scopes) << _SCOPE_SHIFT if scopes else None

    def _every_code(self) -> Iterator[int]:
        """What any sequence hears. Thousands may hear the very same, which is not gone through for each of them."""
        return chain(*{id(codes): codes for codes in self._heard.values()}.values())

    def _number(self, scopes: frozenset[Scope]) -> int:
        """All of them are number 0; the others are worked out when the first packet of their kind comes."""
        known = self._numbers.get(scopes)
        if known is not None:
            return known
        number = self._numbers[scopes] = len(self._numbers)
        added = number << _SCOPE_SHIFT
        included = [
            (place, sequence, course)
            for place, (sequence, course) in enumerate(self._courses.items())
            if sequence.scope in scopes
        ]
        # By what they hear, since the doors of one file hear the same: to list each door for each code took a minute
        # where there are hundreds of doors.
        alike: dict[int, list[int]] = defaultdict(list)
        begun: dict[int, list[_CompiledSequence]] = defaultdict(list)
        sets: dict[int, Codes] = {}
        for place, sequence, course in included:
            codes = self._heard[sequence]
            sets[id(codes)] = codes
            alike[id(codes)].append(place)
            for code in course.accepts[0]:
                begun[code].append(course)
        heard_by: dict[int, list[int]] = defaultdict(list)
        for which, codes in sets.items():
            for code in codes:
                heard_by[code].append(which)
        every = tuple(self._courses.values())
        listening: dict[tuple[int, ...], tuple[_CompiledSequence, ...]] = {}
        made: dict[tuple[tuple[int, ...], _CompiledSequence | None, bool], _Hearing] = {}
        for code, which_sets in heard_by.items():
            key = tuple(which_sets)
            if key not in listening:
                listening[key] = tuple(every[place] for place in sorted(chain(*map(alike.__getitem__, key))))
            first = begun[code][0] if len(begun.get(code, ())) == 1 and begun[code][0].length > 1 else None
            is_alone = first is not None and len(listening[key]) == 1 and code not in first.accepts[1]
            kind = (key, first, is_alone)
            if kind not in made:
                made[kind] = _hearing(listening[key], first, is_alone=is_alone)
            self._hearings[code | added] = made[kind]
        trapped: dict[frozenset[Sequence], tuple[_CompiledSequence, ...]] = {}
        for code, of_trap in self._traps.items():
            if of_trap not in trapped:
                trapped[of_trap] = tuple(self._courses[one] for one in of_trap if one.scope in scopes)
            if trapped[of_trap]:
                self._trapped_by[code | added] = trapped[of_trap]
        return number

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._knockers)

    def on_knock(self, source: bytes, code: int, packet_id: int, now: float) -> Outcome:
        """Judge one knock.

        `source`: the canonical address, packed (4 or 16 bytes). `code`: `Step.code` of what arrived, with `LISTENED`
        if a socket heard it, and with what `scope_bits` says. `packet_id`: what tells a packet from a later one with
        the same step: its source port (and for TCP its sequence number).
        """
        hearing = self._hearings.get(code)
        if hearing is None:
            trapped = self._trapped_by.get(code)
            return NOT_A_KNOCK if trapped is None else self._on_trap(source, trapped, now)
        knocker = self._knockers.get(source)
        if knocker is None:
            newcomers = self._newcomers
            newcomer = newcomers.get(source)
            if newcomer is not None:
                # A flood from one source ends here (measured: 0.35 µs, against 1.5 µs by way of the rules below).
                course, heard, its_packet_id = newcomer
                if packet_id == its_packet_id and hearing.alone is course and now - heard < course.span:
                    return REPEATED
                knocker = self._known(newcomer)
            else:
                first = hearing.first
                if first is not None:
                    if len(newcomers) + len(self._knockers) < self._limit:
                        newcomers[source] = (first, now, packet_id)
                    elif not self._nowhere and len(newcomers) >= self._share:
                        # What `_make_room` would do, for a flood of forged sources (measured: 0.9 against 1.7 µs).
                        newcomers.popitem(False)
                        newcomers[source] = (first, now, packet_id)
                    elif self._make_room(1):
                        newcomers[source] = (first, now, packet_id)
                    return first.advanced[1]
                knocker = _Knocker((), now, 0)
        native, foreign, _, _ = hearing
        is_ignored = now < knocker.ignored_until
        if is_ignored:
            if not foreign:
                return IGNORED
            native = ()
        code &= _CODE

        attempts = left = knocker.attempts
        outcome: Outcome | None = None
        repeated = False
        busy = _busy(attempts, now) if foreign and attempts else frozenset()
        for course in (*native, *foreign) if foreign else native:
            attempt = None
            for candidate in attempts:
                if candidate.course is course:
                    if now - candidate.heard >= course.lifetime or now - candidate.started >= course.timeout:
                        left = tuple(other for other in left if other is not candidate)
                    else:
                        attempt = candidate
                    break
            stage = attempt.stage if attempt is not None else 0
            accepts = course.accepts
            if code not in accepts[stage]:
                if attempt is None:
                    continue
                # At stage 0 the index is -1, and that is right: the packet just accepted was the last step.
                if attempt.packet_id == packet_id and code in accepts[stage - 1]:
                    repeated = True
                    continue
                left = tuple(other for other in left if other is not attempt)
                if course.dialect is not Dialect.TPORTKNOCKD or code not in accepts[0]:
                    continue
                attempt, stage = None, 0
            if stage == 0 and course.group in busy:
                continue
            if attempt is None:
                attempt = _Attempt(course, 0, now, packet_id)
                left = (*left, attempt)
            elif stage == 0:
                attempt.started = now
            stage += 1
            if stage == course.length:
                stage = 0
                outcome = course.complete if outcome is None else _both(outcome, course.complete)
            else:
                outcome = course.advanced[stage] if outcome is None else _both(outcome, course.advanced[stage])
            attempt.stage = stage
            attempt.heard = now
            attempt.packet_id = packet_id

        if outcome is None:
            if repeated:
                return REPEATED
            if native and code not in self._heard_twice:
                return self._err(source, knocker, now, left)
            if left is attempts:
                return IGNORED if is_ignored else NOT_A_KNOCK
            outcome = NOT_A_KNOCK
        knocker.attempts = left
        knocker.heard = now
        self._file(source, knocker)
        return outcome

    def _on_trap(self, source: bytes, trapped: tuple[_CompiledSequence, ...], now: float) -> Outcome:
        """A trap is a wrong knock for whoever is between two steps of one of its sequences, and nothing otherwise."""
        knocker = self._knockers.get(source)
        if knocker is None:
            newcomer = self._newcomers.get(source)
            if newcomer is None:
                return NOT_A_KNOCK
            knocker = self._known(newcomer)
        caught = [attempt for attempt in knocker.attempts if attempt.course in trapped and attempt.is_on_its_way(now)]
        if not caught:
            return NOT_A_KNOCK
        left = tuple(attempt for attempt in knocker.attempts if attempt not in caught)
        if any(attempt.course.dialect is Dialect.NATIVE for attempt in caught) and now >= knocker.ignored_until:
            return self._err(source, knocker, now, left)
        knocker.attempts = left
        knocker.heard = now
        self._file(source, knocker)
        return NOT_A_KNOCK

    def _err(self, source: bytes, knocker: _Knocker, now: float, left: tuple[_Attempt, ...]) -> Outcome:
        """Nothing native that it sends counts for a while; what it does in other dialects is left to them."""
        knocker.attempts = tuple(attempt for attempt in left if attempt.course.dialect is not Dialect.NATIVE)
        knocker.ignored_until = now + self._ignoring_period
        knocker.heard = now
        self._file(source, knocker)
        return WRONG

    def stage(self, source: bytes, sequence: Sequence) -> int:
        """How many steps of the sequence it has done, also where its time is up; 0 where it is not on its way."""
        knocker = self._knockers.get(source)
        if knocker is None:
            newcomer = self._newcomers.get(source)
            return int(newcomer is not None and newcomer[0].sequence == sequence)
        return sum(attempt.stage for attempt in knocker.attempts if attempt.course.sequence == sequence)

    def adopt(self, other: "KnockerTable") -> None:
        """Take over, into an empty table, what another one knows of knockers on the way through sequences of this one.

        Those are the ones with the same steps under the same rules, whatever else about them has changed. Each knocker
        is put behind the others of its rank, as after a knock.
        """
        course_of = {_progress_key(sequence): course for sequence, course in self._courses.items()}
        renewed = {old: course_of.get(_progress_key(sequence)) for sequence, old in other._courses.items()}
        known = [(source, knocker) for rank in other._ranks for source, knocker in rank.items()]
        for source, newcomer in other._newcomers.items():
            known.append((source, self._known(newcomer)))
        for source, knocker in sorted(known, key=lambda one: one[1].heard):
            attempts = []
            for attempt in knocker.attempts:
                if (course := renewed[attempt.course]) is not None:
                    same = _Attempt(course, attempt.stage, attempt.heard, attempt.packet_id)
                    same.started = attempt.started
                    attempts.append(same)
            if attempts or knocker.ignored_until > knocker.heard:
                taken = _Knocker(tuple(attempts), knocker.heard, 0)
                taken.ignored_until = knocker.ignored_until
                self._file(source, taken)

    def expire(self, now: float) -> int:
        """Drop the knockers about whom nothing matters any more; how many those were.

        Only memory depends on it: `on_knock` never counts what has lapsed.
        """
        dropped = 0
        for rank in range(len(self._ranks)):
            while (heard := self._oldest(rank)) is not None and now - heard >= self._memory:
                self._forget_oldest(rank)
                dropped += 1
        return dropped

    def next_deadline(self) -> float | None:
        """When `expire` will next find something to drop, or None while the table is empty."""
        oldest = [heard for rank in range(len(self._ranks)) if (heard := self._oldest(rank)) is not None]
        return min(oldest) + self._memory if oldest else None

    @staticmethod
    def _known(newcomer: tuple[_CompiledSequence, float, int]) -> _Knocker:
        course, heard, packet_id = newcomer
        return _Knocker((_Attempt(course, 1, heard, packet_id),), heard, 1)

    def _file(self, source: bytes, knocker: _Knocker) -> None:
        """Put the knocker behind the others of its rank."""
        rank = 0
        for attempt in knocker.attempts:
            if attempt.stage > rank:
                rank = attempt.stage
        is_new = self._newcomers.pop(source, None) is None and self._ranks[knocker.rank].pop(source, None) is None
        if is_new and len(self) >= self._limit and not self._make_room(rank):
            return
        knocker.rank = rank
        self._ranks[rank][source] = knocker
        self._knockers[source] = knocker

    def _size(self, rank: int) -> int:
        return len(self._ranks[rank]) + (len(self._newcomers) if rank == 1 else 0)

    def _make_room(self, rank: int) -> bool:
        """Forget one knocker for one of this rank; whether there was one to be forgotten."""
        if self._size(0):  # who got nowhere has no share
            self._forget_oldest(0)
            return True
        for candidate in range(1, len(self._ranks) if rank else 0):
            # Who is of the rank itself counts already.
            if self._size(candidate) and self._size(candidate) + (candidate == rank) > self._share:
                self._forget_oldest(candidate)
                return True
        return False

    def _oldest(self, rank: int) -> float | None:
        """When the one of the rank who would be forgotten next was heard."""
        if rank == 1 and self._newcomers:
            return next(iter(self._newcomers.values()))[1]
        knockers = self._ranks[rank]
        return next(iter(knockers.values())).heard if knockers else None

    def _forget_oldest(self, rank: int) -> None:
        if rank == 1 and self._newcomers:
            self._newcomers.popitem(last=False)
        else:
            source, _ = self._ranks[rank].popitem(last=False)
            del self._knockers[source]

    # A look inside. --------------------------------------------------------------------------------------------------

    def forget(self, source: bytes) -> bool:
        """Forget one knocker, progress and ignored period; whether there was one."""
        if self._newcomers.pop(source, None) is not None:
            return True
        knocker = self._knockers.pop(source, None)
        if knocker is None:
            return False
        del self._ranks[knocker.rank][source]
        return True

    def ignored(self, now: float) -> int:
        """How many are ignored."""
        count = 0
        for knocker in reversed(self._ranks[0].values()):
            if now - knocker.heard >= self._ignoring_period:
                break
            count += now < knocker.ignored_until
        return count

    def snapshot(self, now: float, limit: int) -> list[Seen]:
        """At most `limit` of the knockers about whom something matters: those who are furthest first, then those who
        are ignored; each with the one heard last first."""
        found: list[Seen] = []
        for rank in (*range(len(self._ranks) - 1, 0, -1), 0):
            for source, knocker in reversed(self._ranks[rank].items()):
                if now - knocker.heard >= self._memory:
                    break
                self._add_seen(found, source, knocker, now)
                if len(found) >= limit:
                    return found
            if rank == 1:
                for source, newcomer in reversed(self._newcomers.items()):
                    course, heard, _ = newcomer
                    if now - heard >= self._memory:
                        break
                    if now - heard >= course.span:
                        continue  # a full table of them is passed over in some 20 ms
                    self._add_seen(found, source, self._known(newcomer), now)
                    if len(found) >= limit:
                        return found
        return found

    @staticmethod
    def _add_seen(found: list[Seen], source: bytes, knocker: _Knocker, now: float) -> None:
        done = tuple(
            (attempt.course.sequence, attempt.stage)
            for attempt in knocker.attempts
            if attempt.stage > 0
            and now - attempt.heard < attempt.course.lifetime
            and now - attempt.started < attempt.course.timeout
        )
        ignored = max(0.0, knocker.ignored_until - now)
        if done or ignored:
            found.append(Seen(source, done, ignored, now - knocker.heard))


def _both(one: Outcome, other: Outcome) -> Outcome:
    """Two sequences moved by the same knock: a completed one is what matters, then the one that is further."""
    stages = one.stages + other.stages
    if one.verdict is other.verdict is Verdict.COMPLETE:
        return Outcome(Verdict.COMPLETE, one.sequences + other.sequences, max(one.stage, other.stage), stages)
    if one.verdict is Verdict.COMPLETE or (other.verdict is not Verdict.COMPLETE and one.stage >= other.stage):
        return replace(one, stages=stages)
    return replace(other, stages=stages)


def _hearing(courses: tuple[_CompiledSequence, ...], first: _CompiledSequence | None, *, is_alone: bool) -> _Hearing:
    native = tuple(course for course in courses if course.dialect is Dialect.NATIVE)
    foreign = tuple(course for course in courses if course.dialect is not Dialect.NATIVE)
    return _Hearing(native, foreign, first, first if is_alone else None)


def _busy(attempts: Iterable[_Attempt], now: float) -> frozenset[str]:
    """The files of knockd's dialect with a door that these attempts are on the way through."""
    return frozenset(
        attempt.course.group
        for attempt in attempts
        if attempt.course.dialect is Dialect.KNOCKD and attempt.is_on_its_way(now)
    )


def _progress_key(sequence: Sequence) -> Hashable:
    return (sequence.name, sequence.steps, sequence.dialect, sequence.group, sequence.listened, sequence.one_time)
