"""The slow and obvious model: for whom a door must be open, for whom it may be, and who must stay out.

It gets what was sent, what was asked for and what was broken, in the order of time, and works out what a daemon that
keeps its promises may look like. Where that cannot be known (a packet may have been lost, a deadline is near, something
is broken just now) it allows both. Knows no clock and no sandbox; all times are seconds of one monotonic clock.

Native dialect only. It shares no code with the daemon.
"""

import heapq
import math
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

ACK_OR_RST = 0x14
SYN = 0x02


class Hit(NamedTuple):
    """One packet as a sequence sees it: "udp" or "tcp", the destination port, and for TCP the flags."""

    protocol: str
    port: int
    flags: int = 0


@dataclass(frozen=True)
class Plan:
    """What one sequence promises."""

    name: str
    steps: tuple[Hit, ...]
    duration: float
    listened: bool = False
    """Received by sockets, which accept the right payload alone, behind the firewall."""
    lifetime: float = math.inf
    timeout: float = math.inf
    opens: int = 0
    """The guarded port; 0 where commands run instead."""


@dataclass(frozen=True)
class Orders:
    """The daemon's configuration."""

    plans: tuple[Plan, ...]
    ignoring: float


@dataclass(frozen=True)
class Tolerances:
    """Seconds within which the model allows both."""

    opens: float = 1.5
    """From the last knock to the open door."""
    late: float = 1.5
    """From the deadline to the shut door."""
    settle: float = 2.5
    """From the end of a fault to all doors as they should be."""
    killed: float = 4.0
    """From a SIGKILL to no door at all; the promise is 2, but not with a hundred doors on a busy machine."""
    blur: float = 0.4
    """From a packet's way out to its being judged."""

    def times(self, patience: float) -> "Tolerances":
        """More of everything, for a machine that has other things to do."""
        return Tolerances(*(patience * value for value in vars(self).values()))


class Packet(NamedTuple):
    """One packet that was sent between two moments."""

    start: float
    end: float
    source: str
    hit: Hit
    right_payload: bool
    echo: tuple[int, int]
    """Its source port and for TCP its number: the same for the same packet once more."""


@dataclass
class Window:
    """A time in which something is not as usual."""

    begin: float
    end: float = math.inf
    deaf: bool = False
    """Whether a packet may be lost."""
    deaf_listened: bool = False
    """Whether one for a socket may be, because the firewall may not let it through."""
    blind: bool = False
    """Whether rules may be anything."""
    cut: bool = False
    """Whether connections may fail for other reasons than the firewall."""
    source: str | None = None
    """The address that it affects; None for every address."""

    def overlaps(self, start: float, end: float, source: str | None = None) -> bool:
        return self.begin <= end and start <= self.end and self.source in (None, source)


@dataclass
class _Attempt:
    stage: int
    started: float
    received: float
    packets: tuple[tuple[Hit, tuple[int, int]], ...]
    """What it accepted."""


@dataclass
class _Knocker:
    attempts: dict[str, _Attempt] = field(default_factory=dict)
    ignored_until: float = -math.inf
    wrong_until: float = -math.inf
    """Until when its wrong knocks count: two ignoring periods each."""
    wrong: int = 0
    """How many those are."""
    strays: set[tuple[Hit, tuple[int, int]]] = field(default_factory=set)
    """Packets of TCP that are no knocks once more."""
    unsure_until: float = -math.inf
    """Until when the daemon's state of it is uncertain, unless its log says more meanwhile."""
    last: float = -math.inf


@dataclass
class _Door:
    must_from: float = math.inf
    must_until: float = -math.inf
    may_from: float = math.inf
    may_until: float = -math.inf
    completed: float = -math.inf
    starts: list[float] = field(default_factory=list)
    """When a start command must have begun, at the latest."""
    most_starts: int = 0


class Model:
    """Everything known; faults may report from another thread.

    `every_order`: the configurations that the daemon may have had, over the whole time.
    """

    def __init__(self, orders: Orders, every_order: Iterable[Orders], tolerances: Tolerances) -> None:
        self.tolerances = tolerances
        self._orders = orders
        self._every_plan = [plan for one in every_order for plan in one.plans]
        longest = max(len(plan.steps) for plan in self._every_plan)
        self._quiet = tolerances.blur + max(
            max(one.ignoring for one in every_order) * 2 * longest,
            *(min(plan.lifetime, plan.timeout) for plan in self._every_plan),
        )
        self._knockers: dict[str, _Knocker] = {}
        self._doors: dict[tuple[str, str], _Door] = {}
        self._windows: list[Window] = []
        self._disturbances: list[float] = []
        """When the table of knockers was full of others: it may not have known a newcomer, or what one had done."""
        self._events: list[tuple[float, int, tuple[object, ...]]] = []
        self._order = count()
        self._reporting = threading.Lock()
        self._history: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=30))
        self.counts: Counter[str] = Counter()

    # What is reported to it. ------------------------------------------------------------------------------------------

    def begins(self, window: Window) -> Window:
        """Something is not as usual, from a moment that has just gone by."""
        self._windows.append(window)
        return window

    def note(self, when: float, *event: object) -> None:
        """Something happened at that time: `("sent", Packet)`, `("died", seconds until all is shut)`, `("disturbed",)`,
        `("orders_given", Orders)`, `("opened", start, address, sequence)`, `("closed", start, address or None)` or
        `("forgotten", start, address)`."""
        with self._reporting:
            heapq.heappush(self._events, (when, next(self._order), event))

    def advance(self) -> None:
        """Work out what follows from the reports so far."""
        while self._events:
            with self._reporting:
                when, _, (what, *about) = heapq.heappop(self._events)
            getattr(self, f"_{what}")(when, *about)

    def forget_windows(self, before: float) -> None:
        """Nothing from before that time is reported any more."""
        self._windows = [window for window in self._windows if window.end > before - self._quiet]
        self._disturbances = [when for when in self._disturbances if when > before - 2 * self._quiet]

    # What it says. ---------------------------------------------------------------------------------------------------

    def is_calm(self, start: float, end: float) -> bool:
        """Whether rules can be judged that were read in this time."""
        return not any(
            window.blind and window.source is None and window.overlaps(start, end) for window in self._windows
        )

    def is_connected(self, start: float, end: float) -> bool:
        """Whether a connection can be judged that was tried in this time."""
        return self.is_calm(start, end) and not any(
            window.cut and window.overlaps(start, end) for window in self._windows
        )

    def is_heard(self, start: float, end: float) -> bool:
        """Whether the daemon was there for all of this time, and nothing in the way."""
        return not any(
            window.deaf and window.source is None and window.overlaps(start, end) for window in self._windows
        )

    def usual_at(self) -> float:
        """When everything is as usual again."""
        return max((window.end for window in self._windows), default=-math.inf)

    def quiet_at(self) -> float:
        """When every door is shut as well, at the latest."""
        return max([self.usual_at(), *(door.may_until for door in self._doors.values())])

    def must(self, start: float, end: float) -> set[tuple[str, int]]:
        """Addresses and ports whose door is open for all of this time, unless the daemon breaks its promise."""
        opens = {plan.name: plan.opens for plan in self._every_plan}
        return {
            (source, opens[name])
            for (source, name), door in self._doors.items()
            if opens[name] and door.must_from <= start and end <= door.must_until and not self._free(source, start, end)
        }

    def may(self, start: float, end: float, source: str, port: int) -> bool:
        """Whether this door may be open at some moment of this time."""
        if self._free(source, start, end):
            return True
        names = {plan.name for plan in self._every_plan if plan.opens == port}
        return any(
            door.may_from <= end and start <= door.may_until
            for name in names
            if (door := self._doors.get((source, name))) is not None
        )

    def starts(self, source: str, name: str) -> tuple[int, int]:
        """How often the start command ran at the least, and at the most."""
        door = self._doors.get((source, name), _Door())
        return len(door.starts), door.most_starts

    def history(self, source: str) -> list[str]:
        """What is known of an address, for people."""
        doors = [(name, door) for (owner, name), door in self._doors.items() if owner == source]
        attempts = [
            f"{name}: must {door.must_from:.2f} to {door.must_until:.2f},"
            f" may {door.may_from:.2f} to {door.may_until:.2f}"
            for name, door in doors
        ]
        return [f"{source}:", *self._history[source], *attempts]

    def _free(self, source: str, start: float, end: float) -> bool:
        return any(window.blind and window.overlaps(start, end, source) for window in self._windows)

    # What follows. ---------------------------------------------------------------------------------------------------

    def _died(self, when: float, grace: float) -> None:
        self._knockers.clear()
        for door in self._doors.values():
            door.must_until = min(door.must_until, when)
            door.may_until = min(door.may_until, when + grace)
            door.starts = [moment for moment in door.starts if moment <= when]

    def _disturbed(self, when: float) -> None:
        self._disturbances.append(when)
        for knocker in self._knockers.values():
            self._lose_track(knocker, when)

    def _orders_given(self, _when: float, orders: Orders) -> None:
        before = {plan.name: plan.steps for plan in self._orders.plans}
        changed = {plan.name for plan in orders.plans if before.get(plan.name) != plan.steps}
        for knocker in self._knockers.values():
            for name in changed:
                knocker.attempts.pop(name, None)
        self._orders = orders

    def _opened(self, when: float, start: float, source: str, name: str) -> None:
        plan = next(plan for plan in self._orders.plans if plan.name == name)
        self._complete(source, plan, start, when)

    def _closed(self, when: float, start: float, source: str | None) -> None:
        for (owner, _), door in self._doors.items():
            if source in (None, owner):
                door.must_until = min(door.must_until, start)
                if door.completed < start - self.tolerances.blur:
                    door.may_until = min(door.may_until, when + self.tolerances.late)

    def _forgotten(self, when: float, start: float, source: str) -> None:
        knocker = self._knockers.get(source)
        if knocker is not None and knocker.last > start - self.tolerances.blur:
            self._lose_track(knocker, when)
        elif knocker is not None:
            del self._knockers[source]

    def _sent(self, _when: float, packet: Packet) -> None:
        source, hit = packet.source, packet.hit
        word = "" if packet.right_payload else " with the wrong payload"
        self._history[source].append(
            f"  {packet.end:.3f} {hit.protocol}:{hit.port} {hit.flags:#x} {packet.echo[1]}{word}"
        )
        is_step = any(hit[:2] == step[:2] for plan in self._orders.plans for step in plan.steps)
        listened = any(plan.listened and hit in plan.steps for plan in self._every_plan)
        if listened and not packet.right_payload:
            return  # the socket's filter takes it for nothing
        knocker = self._knockers.setdefault(source, _Knocker())
        knocker.last = packet.end
        if packet.start < knocker.unsure_until or self._may_be_lost(packet, listened):
            self._guess(knocker, packet)
            return
        if hit.protocol == "tcp" and is_step and self._is_of_a_connection(hit):
            return
        if not is_step:
            if knocker.attempts:  # it may be a trap, or not
                self._lose_track(knocker, packet.end)
            return
        try:
            self._judge(knocker, packet)
        except _UnsureError:
            self._guess(knocker, packet)

    def _may_be_lost(self, packet: Packet, listened: bool) -> bool:
        start, end = packet.start - 0.01, packet.end + 0.05
        return any(when <= end and start < when + self._quiet for when in self._disturbances) or any(
            (window.deaf or (window.deaf_listened and listened)) and window.overlaps(start, end, packet.source)
            for window in self._windows
        )

    def _is_of_a_connection(self, hit: Hit) -> bool:
        steps = [step for plan in self._orders.plans for step in plan.steps if step[:2] == hit[:2]]
        return all(step.flags == SYN for step in steps) and bool(hit.flags & ACK_OR_RST)

    def _judge(self, knocker: _Knocker, packet: Packet) -> None:
        if self._is_past(knocker.ignored_until, packet):
            knocker.ignored_until = -math.inf
        else:
            return
        key = (packet.hit, packet.echo)
        if key in knocker.strays:
            return
        advanced: dict[str, _Attempt] = {}
        restarted: dict[str, _Attempt] = {}
        gone: set[str] = set()
        completed: list[Plan] = []
        repeated = False
        for plan in self._orders.plans:
            attempt = knocker.attempts.get(plan.name)
            if attempt is not None and (
                self._is_past(attempt.received + plan.lifetime, packet)
                or self._is_past(attempt.started + plan.timeout, packet)
            ):
                gone.add(plan.name)
                attempt = None
            stage = attempt.stage if attempt is not None else 0
            if attempt is not None and key in attempt.packets:
                repeated = True
            elif packet.hit == plan.steps[stage]:
                started = attempt.started if attempt is not None and stage else packet.end
                packets = attempt.packets if attempt is not None and stage else ()
                done = (stage + 1) % len(plan.steps)
                advanced[plan.name] = _Attempt(done, started, packet.end, (*packets, key))
                if not done:
                    completed.append(plan)
            elif attempt is not None:
                if packet.hit == attempt.packets[-1][0] and packet.hit.flags == SYN:
                    repeated = True
                    knocker.strays.add(key)
                    continue
                gone.add(plan.name)
                if packet.hit == plan.steps[0]:
                    restarted[plan.name] = _Attempt(1, packet.end, packet.end, (key,))
        if advanced:
            for name in gone:
                knocker.attempts.pop(name, None)
            knocker.attempts.update(advanced | restarted)
            for plan in completed:
                self.counts["surely completed"] += 1
                self._complete(packet.source, plan, packet.start, packet.end)
        elif not repeated:
            self._err(knocker, packet, restarted)

    def _err(self, knocker: _Knocker, packet: Packet, restarted: dict[str, _Attempt]) -> None:
        """A wrong knock: forgiven, unless it is one more than a lost packet explains."""
        period, now = self._orders.ignoring, packet.end
        concerned = [plan for plan in self._orders.plans if any(step[:2] == packet.hit[:2] for step in plan.steps)]
        allowed = max(len(plan.steps) for plan in concerned) - 1
        if abs(knocker.wrong_until - now) < self.tolerances.blur:
            raise _UnsureError
        if knocker.wrong_until < now:
            knocker.wrong_until, knocker.wrong = now, 0
        knocker.wrong += 1
        knocker.wrong_until += 2 * period
        beyond = knocker.wrong_until - now - 2 * allowed * period
        if knocker.wrong > allowed and abs(beyond) < self.tolerances.blur:
            raise _UnsureError
        if packet.hit.protocol == "tcp":
            knocker.strays.add((packet.hit, packet.echo))
        for attempt in knocker.attempts.values():
            knocker.strays.update(key for key in attempt.packets if key[0].protocol == "tcp")
        if knocker.wrong > allowed and beyond > 0:
            self.counts["surely wrong"] += 1
            self._history[packet.source].append("    wrong, ignored")
            knocker.attempts.clear()
            knocker.ignored_until = now + period
            longest = max(len(plan.steps) for plan in self._orders.plans)
            knocker.wrong_until = now + period + 2 * period * (longest - 1)
        else:
            self.counts["surely forgiven"] += 1
            self._history[packet.source].append("    wrong, forgiven")
            knocker.attempts = restarted

    def _is_past(self, limit: float, packet: Packet) -> bool:
        """Whether the time was over when the packet was judged; raises where that is uncertain."""
        if packet.start > limit + self.tolerances.blur:
            return True
        if packet.end + self.tolerances.blur < limit:
            return False
        raise _UnsureError

    def _guess(self, knocker: _Knocker, packet: Packet) -> None:
        self.counts["judged either way"] += 1
        self._history[packet.source].append("    either way")
        self._lose_track(knocker, packet.end)
        for plan in {plan.name: plan for plan in self._every_plan if packet.hit == plan.steps[-1]}.values():
            self._maybe(packet.source, plan, packet.start, packet.end)

    def _lose_track(self, knocker: _Knocker, when: float) -> None:
        knocker.attempts.clear()
        knocker.strays.clear()
        knocker.ignored_until = knocker.wrong_until = -math.inf
        knocker.unsure_until = max(knocker.unsure_until, when + self._quiet)

    def _maybe(self, source: str, plan: Plan, start: float, end: float) -> _Door:
        door = self._doors.setdefault((source, plan.name), _Door())
        if door.may_until < start:
            door.may_from = start
        longest = max(other.duration for other in self._every_plan if other.name == plan.name)
        door.may_until = max(door.may_until, end + longest + self.tolerances.late)
        door.completed = end
        door.most_starts += 1
        return door

    def _complete(self, source: str, plan: Plan, start: float, end: float) -> None:
        self._history[source].append(f"    {plan.name} complete")
        before = self._doors.get((source, plan.name), _Door())
        is_new = before.may_until < start
        is_open = end + self.tolerances.blur < before.must_until
        door = self._maybe(source, plan, start, end)
        if not is_open:
            door.must_from = end + self.tolerances.opens
        door.must_until = max(door.must_until, start + plan.duration)
        if is_new and not plan.opens:
            door.starts.append(end + self.tolerances.opens)


class _UnsureError(Exception):
    """The outcome is uncertain."""
