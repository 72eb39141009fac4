"""The table of knockers: which source has done how many steps of which sequence; knocks in, outcomes out.

Knows no socket, no clock and no log. Time arrives with each knock, in seconds of any clock that never goes back, and is
never less than that of the knock before. Only the daemon's loop calls it, so it has no lock.

The rules of all dialects (the design's table; `dialects` says which packets are a step or a knock):

* a knock that is the next step of a sequence advances it; the last step completes it, and the next knock begins again;
* the very packet that was just accepted, once more, is not a knock;
* after a sequence's time limit, from the first knock or from the last, a source begins that sequence again.

Any other knock is wrong, and takes the sequence back to its start. Beyond that:

* native: a source whose knock was right for no sequence at all is ignored for a while, in which nothing that it sends
  changes anything;
* tportknockd: the wrong knock counts as a first step if it is one;
* knockd: it does not, and as long as a source is on its way through any door of a file it begins no other of it.

This is the hot path of a flood: what a packet is to the sequences is worked out beforehand (`compiled`), and nearly all
sources of a flood are remembered in a short form (`ranks`).
"""

from collections.abc import Hashable, Iterable, Mapping
from itertools import islice
from types import MappingProxyType

from port_knocking_doors.knocks.authenticator import (
    IGNORED,
    NOT_A_KNOCK,
    REPEATED,
    WRONG,
    Authenticator,
    Capture,
    KnockerView,
    Outcome,
    SourceCounts,
    merged,
)
from port_knocking_doors.knocks.code import LISTENED, WITHOUT_SCOPES
from port_knocking_doors.knocks.compiled import CompiledSequence, CompiledTable, Traps
from port_knocking_doors.knocks.ranks import Attempt, Knocker, Ranks
from port_knocking_doors.model import Dialect, Scope, Sequence


class KnockerTable(Authenticator):
    """The one table of knockers, whatever received their knocks.

    `ignoring_period`: seconds for which a source is ignored after a wrong knock. `limit`: how many sources are
    remembered at most, 1 or more. `traps`: by the code of a trap, the sequences for which it counts as a wrong knock
    between two steps.
    """

    def __init__(
        self,
        sequences: Iterable[Sequence],
        ignoring_period: float,
        limit: int,
        traps: Traps = MappingProxyType({}),
    ) -> None:
        self._ignoring_period = ignoring_period
        self._scopes: dict[int, frozenset[Scope]] = {}
        self._use(CompiledTable(sequences, traps))
        # Nothing about a source matters for longer than this after its last knock.
        self._memory = max([ignoring_period, *(one.span for one in self._compiled.sequences.values())])
        self._ranks = Ranks(limit, max(2, self._compiled.length), ignoring_period)
        # The hot path's own names for parts of it.
        self._known = self._ranks.known
        self._newcomers = self._ranks.newcomers
        self._wrong = self._ranks.wrong
        self._lowest = self._ranks.lowest
        self._limit = limit

    def _use(self, compiled: CompiledTable) -> None:
        self._compiled = compiled
        self._subscribers = compiled.subscribers
        self._trapped = compiled.trapped

    @property
    def traps(self) -> Traps:
        """As given."""
        return self._compiled.traps

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """Those that can be completed."""
        return tuple(self._compiled.sequences)

    @property
    def capture(self) -> Capture:
        """The ports of listened sequences in the order of their steps, and the codes of what only a sniffer sees."""
        listened = [sequence for sequence in self.sequences if sequence.listened]
        ports = dict.fromkeys(step.port for sequence in listened for step in sequence.steps)
        of_any = frozenset(step.port for sequence in listened if sequence.any_payload for step in sequence.steps)
        codes = frozenset(code for code in (*self._compiled.traps, *self._compiled.codes) if not code & LISTENED)
        scopes = frozenset(sequence.scope for sequence in self.sequences if not sequence.listened)
        return Capture(tuple(ports), "opening_sequence", of_any, codes=codes, scopes=scopes)

    def add_scopes(self, number: int, scopes: frozenset[Scope]) -> None:
        self._scopes[number] = scopes
        self._compiled.add_scopes(number, scopes)

    def __len__(self) -> int:
        return len(self._ranks)

    def on_knock(self, source: bytes, code: int, packet_id: int, now: float) -> Outcome:
        subscribers = self._subscribers.get(code)
        if subscribers is None:
            trapped = self._trapped.get(code)
            return NOT_A_KNOCK if trapped is None else self._on_trap(source, trapped, now)
        others = subscribers.others
        knocker = self._known.get(source)
        if knocker is None:
            newcomers, wrong = self._newcomers, self._wrong
            newcomer = newcomers.get(source)
            if newcomer is not None:
                # A flood from one source ends here (measured: 0.25 µs, against 1.5 µs by way of the rules below).
                sequence, last_seen, its_packet_id = newcomer
                if packet_id == its_packet_id and subscribers.only is sequence and now - last_seen < sequence.span:
                    return REPEATED
                knocker = Knocker((Attempt(sequence, 1, last_seen, its_packet_id),), last_seen, 1)
            elif wrong and (until := wrong.get(source)) is not None:
                if now < until and not others:
                    return IGNORED
                knocker = self._ranks.ignored(until)
            elif (begun := subscribers.begun) is not None:
                # Without `make_space` where the table is full of others like it (measured: 0.9 against 1.7 µs).
                if (
                    len(newcomers) + len(self._known) + len(wrong) < self._limit
                    or (
                        len(newcomers) >= self._ranks.share
                        and not wrong
                        and not self._lowest
                        and newcomers.popitem(False)
                    )
                    or self._ranks.make_space(1)
                ):
                    newcomers[source] = (begun, now, packet_id)
                return begun.advanced[1]
            elif subscribers.is_wrong_first:
                if (
                    len(newcomers) + len(self._known) + len(wrong) < self._limit
                    or (wrong and not self._lowest and wrong.popitem(False))  # as above
                    or self._ranks.make_space(0)
                ):
                    wrong[source] = now + self._ignoring_period
                return WRONG
            else:
                knocker = Knocker((), now, 0)
        native = subscribers.native
        is_ignored = now < knocker.ignored_until
        if is_ignored:
            if not others:
                return IGNORED
            native = ()
        code &= WITHOUT_SCOPES

        attempts = left = knocker.attempts
        outcome: Outcome | None = None
        repeated = False
        busy = _busy(attempts, now) if others and attempts else frozenset()
        for sequence in (*native, *others) if others else native:
            attempt = None
            for candidate in attempts:
                if candidate.sequence is sequence:
                    if now - candidate.last_seen >= sequence.lifetime or now - candidate.started >= sequence.timeout:
                        left = tuple(other for other in left if other is not candidate)
                    else:
                        attempt = candidate
                    break
            stage = attempt.stage if attempt is not None else 0
            accepts = sequence.accepts
            if code not in accepts[stage]:
                if attempt is None:
                    continue
                # At stage 0 the index is -1, and that is right: the packet just accepted was the last step.
                if attempt.packet_id == packet_id and code in accepts[stage - 1]:
                    repeated = True
                    continue
                left = tuple(other for other in left if other is not attempt)
                if sequence.dialect is not Dialect.TPORTKNOCKD or code not in accepts[0]:
                    continue
                attempt, stage = None, 0
            if stage == 0 and sequence.group in busy:
                continue
            if attempt is None:
                attempt = Attempt(sequence, 0, now, packet_id)
                left = (*left, attempt)
            elif stage == 0:
                attempt.started = now
            stage += 1
            if stage == sequence.length:
                stage = 0
                outcome = sequence.complete if outcome is None else merged(outcome, sequence.complete)
            else:
                outcome = sequence.advanced[stage] if outcome is None else merged(outcome, sequence.advanced[stage])
            attempt.stage = stage
            attempt.last_seen = now
            attempt.packet_id = packet_id

        if outcome is None:
            if repeated:
                return REPEATED
            if native and not subscribers.is_received_twice:
                return self._err(source, knocker, now, left)
            if left is attempts:
                return IGNORED if is_ignored else NOT_A_KNOCK
            outcome = NOT_A_KNOCK
        knocker.attempts = left
        knocker.last_seen = now
        self._ranks.file(source, knocker)
        return outcome

    def _on_trap(self, source: bytes, trapped: tuple[CompiledSequence, ...], now: float) -> Outcome:
        """A trap is a wrong knock from a source between two steps of one of its sequences, and nothing otherwise."""
        knocker = self._ranks.get(source)
        if knocker is None:
            return NOT_A_KNOCK
        caught = [attempt for attempt in knocker.attempts if attempt.sequence in trapped and attempt.is_on_its_way(now)]
        if not caught:
            return NOT_A_KNOCK
        left = tuple(attempt for attempt in knocker.attempts if attempt not in caught)
        if any(attempt.sequence.dialect is Dialect.NATIVE for attempt in caught) and now >= knocker.ignored_until:
            return self._err(source, knocker, now, left)
        knocker.attempts = left
        knocker.last_seen = now
        self._ranks.file(source, knocker)
        return NOT_A_KNOCK

    def _err(self, source: bytes, knocker: Knocker, now: float, left: tuple[Attempt, ...]) -> Outcome:
        """Ignore native knocks from the source for a while; its progress in other dialects is left to them."""
        if left:
            left = tuple(attempt for attempt in left if attempt.sequence.dialect is not Dialect.NATIVE)
        if left:
            knocker.attempts = left
            knocker.ignored_until = now + self._ignoring_period
            knocker.last_seen = now
            self._ranks.file(source, knocker)
        else:
            self._ranks.file_wrong(source, now + self._ignoring_period)
        return WRONG

    def stage(self, source: bytes, sequence: Sequence) -> int:
        """How many steps of the sequence the source has done, also if its time is over; 0 if it is not on its way."""
        knocker = self._ranks.get(source)
        if knocker is None:
            return 0
        return sum(attempt.stage for attempt in knocker.attempts if attempt.sequence.sequence == sequence)

    def adopt(self, other: Authenticator) -> None:
        """Take over, into an empty table, the progress in sequences that have the same steps under the same rules,
        whatever else about them has changed. Each source is put behind the others of its rank, as after a knock."""
        if not isinstance(other, KnockerTable):
            return
        new = {_progress_key(sequence): one for sequence, one in self._compiled.sequences.items()}
        renewed = {old: new.get(_progress_key(sequence)) for sequence, old in other._compiled.sequences.items()}
        self._ranks.adopt(other._ranks, renewed)

    def replace_steps(self, replaced: Mapping[Sequence, Sequence], traps: Traps) -> None:
        """Put other sequences in the place of some, which have other steps from now on and are the same otherwise.

        One without steps is left out; one whose predecessor is not in the table is added. `traps`: those of all
        sequences from now on. Progress in all other sequences stays; what was done of the old steps is worth nothing.
        """
        before = self._compiled
        sequences = [replaced.get(sequence, sequence) for sequence in before.sequences]
        sequences += (new for old, new in replaced.items() if old not in before.sequences)
        kept = {sequence: one for sequence, one in before.sequences.items() if sequence not in replaced}
        compiled = CompiledTable(sequences, traps, kept)
        for number, scopes in self._scopes.items():
            compiled.add_scopes(number, scopes)
        self._use(compiled)
        self._memory = max([self._memory, *(one.span for one in compiled.sequences.values())])
        self._ranks.grow(compiled.length)
        self._ranks.drop({before.sequences[old] for old in replaced if old in before.sequences})

    def expire(self, now: float) -> int:
        """See `Authenticator`: `on_knock` never counts an attempt whose time is over."""
        return self._ranks.expire(now, self._memory)

    def next_deadline(self) -> float | None:
        oldest = self._ranks.oldest()
        return oldest + self._memory if oldest is not None else None

    def counts(self, now: float) -> SourceCounts:
        return SourceCounts(len(self._ranks), self._ranks.count_ignored(now))

    def view(self, now: float, limit: int) -> list[KnockerView]:
        """The sources that are furthest first, then those that are ignored; each with the latest knock first."""
        views = (_view(source, knocker, now) for source, knocker in self._ranks.recent(now, self._memory))
        return list(islice((view for view in views if view.done or view.ignored), limit))

    def forget(self, source: bytes) -> bool:
        """Forget progress and ignored period of one source; whether it was known."""
        return self._ranks.forget(source)


def _view(source: bytes, knocker: Knocker, now: float) -> KnockerView:
    done = tuple(
        (attempt.sequence.sequence, attempt.stage) for attempt in knocker.attempts if attempt.is_on_its_way(now)
    )
    return KnockerView(source, done, max(0.0, knocker.ignored_until - now), now - knocker.last_seen)


def _busy(attempts: Iterable[Attempt], now: float) -> frozenset[str]:
    """The files of knockd's dialect with a door that these attempts are on their way through."""
    return frozenset(
        attempt.sequence.group
        for attempt in attempts
        if attempt.sequence.dialect is Dialect.KNOCKD and attempt.is_on_its_way(now)
    )


def _progress_key(sequence: Sequence) -> Hashable:
    return (sequence.name, sequence.steps, sequence.dialect, sequence.group, sequence.listened, sequence.one_time)
