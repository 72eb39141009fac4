"""What the table of knockers does, sequence by sequence and packet by packet, with no thought of speed or memory.

Written after the words of the design's table of dialects, to compare the table with.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from port_knocking_doors.knocks import dialects
from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import is_bare_syn, is_tcp
from port_knocking_doors.knocks.wrong_knocks import COST
from port_knocking_doors.model import Dialect, Sequence

NATIVE, KNOCKD = Dialect.NATIVE, Dialect.KNOCKD
Packet = tuple[int, int, float]
"""Code, packet id and time."""


@dataclass(frozen=True)
class Progress:
    """How far a source is in one sequence."""

    started: float
    packets: tuple[Packet, ...] = ()
    """What was accepted, a packet for each step."""
    is_complete: bool = False

    @property
    def stage(self) -> int:
        return 0 if self.is_complete else len(self.packets)


@dataclass
class Source:
    """What is remembered of one source."""

    progress: dict[Sequence, Progress] = field(default_factory=dict)
    ignored_until: float = float("-inf")
    wrong_until: float = float("-inf")
    """Until when its wrong knocks count, `COST` periods each."""
    strays: set[tuple[int, int]] = field(default_factory=set)
    """Packets of TCP that may come again, and that no progress has."""


@dataclass
class Judged:
    """What a packet did to sequences of some dialects."""

    progress: dict[Sequence, Progress]
    moved: dict[Sequence, int] = field(default_factory=dict)
    restarted: set[Sequence] = field(default_factory=set)
    is_repeated: bool = False
    is_second_syn: bool = False

    @property
    def is_right(self) -> bool:
        return bool(self.moved.keys() - self.restarted)


class KnockModel:
    """`period`: the ignoring period."""

    def __init__(self, sequences: Iterable[Sequence], period: float) -> None:
        self.sequences = tuple(sequences)
        self.period = period
        self.accepts = {one: dialects.accepted(one) for one in self.sequences}
        self.knocks = {one: codes for codes, those in dialects.subscriptions(self.sequences) for one in those}
        native = [len(one.steps) for one in self.sequences if one.dialect is NATIVE]
        self.leeway = (max(native, default=1) - 1) * COST * period
        self.sources: dict[bytes, Source] = {}

    def on_knock(self, source: bytes, code: int, packet_id: int, now: float) -> tuple[Verdict, dict[Sequence, int]]:
        """The verdict, and the steps done of each sequence that moved."""
        state = self.sources.setdefault(source, Source())
        packet = (code, packet_id, now)
        concerned = [one for one in self.sequences if code in self.knocks[one]]
        is_ignored = now < state.ignored_until
        is_stray = not is_ignored and (code, packet_id) in state.strays
        native = [one for one in concerned if one.dialect is NATIVE and not is_ignored and not is_stray]
        others = [one for one in concerned if one.dialect is not NATIVE]
        first = self._judge(state.progress, native, packet)
        second = self._judge(first.progress, others, packet)
        moved = first.moved | second.moved
        is_repeated = first.is_repeated or second.is_repeated or is_stray
        before, state.progress = state.progress, second.progress
        if native and not (first.is_right or second.is_right or is_repeated):
            return self._err(state, before, native, first, packet)
        if first.is_second_syn:
            state.strays.add((code, packet_id))
        if moved:
            is_complete = any(steps == len(one.steps) for one, steps in moved.items())
            return (Verdict.COMPLETE if is_complete else Verdict.ADVANCED), moved
        if is_repeated:
            return Verdict.REPEATED, {}
        return (Verdict.IGNORED if is_ignored and concerned and not others else Verdict.NOT_A_KNOCK), {}

    def _err(
        self, state: Source, before: dict[Sequence, Progress], native: list[Sequence], judged: Judged, packet: Packet
    ) -> tuple[Verdict, dict[Sequence, int]]:
        code, packet_id, now = packet
        steps = max(len(one.steps) for one in native)
        state.wrong_until = max(state.wrong_until, now) + COST * self.period
        is_ignored = state.wrong_until - now > (steps - 1) * COST * self.period + 1e-6
        if is_ignored:
            state.ignored_until = now + self.period
            state.wrong_until = now + self.period + self.leeway
        state.progress = {
            one: progress
            for one, progress in state.progress.items()
            if one.dialect is not NATIVE or (one in judged.restarted and not is_ignored)
        }
        for one, progress in before.items():
            for accepts, (its_code, its_id, _) in zip(self.accepts[one], progress.packets, strict=False):
                is_sure = is_tcp(its_code) and len(accepts) == 1
                if one.dialect is NATIVE and is_sure and self._has_time(one, progress, now):
                    state.strays.add((its_code, its_id))
        if is_tcp(code) and not judged.restarted:
            state.strays.add((code, packet_id))
        if is_ignored:
            return Verdict.WRONG, {}
        return (Verdict.ADVANCED, judged.moved) if judged.moved else (Verdict.FORGIVEN, {})

    def _judge(self, before: dict[Sequence, Progress], concerned: list[Sequence], packet: Packet) -> Judged:
        code, _, now = packet
        alive = {
            one: progress
            for one, progress in before.items()
            if one not in concerned
            or (now - progress.packets[-1][2] < one.lifetime and now - progress.started < one.timeout)
        }
        on_the_way = {one for one, progress in alive.items() if progress.stage and self._has_time(one, progress, now)}
        busy = {one.group for one in on_the_way if one.dialect is KNOCKD}
        judged = Judged(dict(alive))
        for one in concerned:
            progress = alive.get(one)
            is_knockd = one.dialect is KNOCKD
            repeated = self._repeats(one, progress, packet) if progress is not None else None
            if progress is not None and repeated == "surely" and one.dialect is NATIVE:
                judged.is_repeated = True
                continue
            if progress is not None and progress.stage and code in self.accepts[one][progress.stage]:
                self._advance(judged, one, progress, packet)
                continue
            is_first = code in self.accepts[one][0] and not (is_knockd and one.group in busy)
            if progress is not None and (progress.stage or not is_first):
                last = len(progress.packets) - 1
                is_second_syn = one.dialect is NATIVE and is_bare_syn(code) and code in self.accepts[one][last]
                if repeated is not None or is_second_syn:
                    judged.is_repeated = True
                    judged.is_second_syn |= is_second_syn and repeated is None
                    continue
                del judged.progress[one]
            if is_first:
                self._advance(judged, one, Progress(now), packet)
                if progress is not None and progress.stage and one.dialect is NATIVE:
                    judged.restarted.add(one)
        if judged.is_repeated and not judged.is_right:
            return Judged(dict(before), is_repeated=True, is_second_syn=judged.is_second_syn)
        return judged

    @staticmethod
    def _has_time(one: Sequence, progress: Progress, now: float) -> bool:
        return now - progress.packets[-1][2] < one.lifetime and now - progress.started < one.timeout

    def _advance(self, judged: Judged, one: Sequence, progress: Progress, packet: Packet) -> None:
        packets = (*progress.packets, packet)
        judged.moved[one] = len(packets)
        judged.progress[one] = replace(progress, packets=packets, is_complete=len(packets) == len(one.steps))

    def _repeats(self, one: Sequence, progress: Progress, packet: Packet) -> str | None:
        code, packet_id, now = packet
        accepted = zip(progress.packets, self.accepts[one], strict=False)
        for place, ((_, its_id, when), accepts) in enumerate(reversed(list(accepted))):
            if its_id == packet_id and code in accepts:
                if is_tcp(code):
                    return "surely"
                if progress.is_complete and place:
                    return None
                return "surely" if now - when < 0.05 else "perhaps"
        return None
