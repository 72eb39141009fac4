"""The measurements beside knockd: what floods cost, whether an honest knocker gets through, how soon, and at rest."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

from port_knocking_doors.errors import SandboxError
from tests.benchmarks import probes
from tests.benchmarks.generator import ANYBODY, Hit, one_by_one
from tests.benchmarks.rivals import KNOCKERS, NOT_A_KNOCK, STEPS, Knockd, Ours, Rival, prefixes
from tests.benchmarks.stage import say

SHORT, LONG = 3, 5
"""Steps of the sequences."""
PACE = 0.05
"""Seconds from each knock of an honest client to its next."""
_PATIENCE = 2.0
"""Seconds for the command after the last knock; then the try counts as lost."""
_WARM_UP = 2.0
"""Seconds of a flood ahead of the first try, once the table is full."""
_FULL_WITHIN = 30.0
"""Seconds for that; a slow generator takes some."""
_HUSH = 0.05
_SETTLED_WITHIN = 60.0
SIEGE_WITHIN = 300.0
"""Seconds after which no further honest knocker tries: far below the flood's own limit."""

Packets = Sequence[tuple[str, Hit]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int
    packets: int
    tries: int
    peer_tries: int
    """knockd's: each costs it the whole patience."""
    knocks: int
    idle: float


FULL = Sizes(rounds=3, packets=500_000, tries=100, peer_tries=20, knocks=40, idle=60.0)
QUICK = Sizes(rounds=1, packets=100_000, tries=20, peer_tries=5, knocks=10, idle=10.0)


# What traffic costs. -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traffic:
    """One kind of packets."""

    name: str
    packets: Callable[[Rival], Packets]
    is_handled: bool = True
    """Whether the program gets to see them; of others the cost is told for each that came to the host."""


RATE = 100_000
"""Packets a second: neither of the two need lose much of one source's."""
ONE_SOURCE, FORGED, NOBODYS = "one source", "forged sources", "ports that nobody named"
TRAFFIC = (
    Traffic(ONE_SOURCE, lambda rival: [(str(rival.fixed_address()), STEPS[0])]),
    Traffic(FORGED, lambda _: [(ANYBODY, STEPS[0])]),
    Traffic(NOBODYS, lambda rival: [(str(rival.fixed_address()), NOT_A_KNOCK)], is_handled=False),
)


@dataclass(frozen=True)
class Cost:
    """What one kind of traffic cost one of the two, in one round."""

    traffic: str
    who: str
    arrived: int
    handled: int
    dropped: int
    """Of those that it should have been given."""
    rate: float
    seconds: float
    """Until all was worked off."""
    cpu: float
    resident_mib: float

    @property
    def each(self) -> float:
        """Microseconds of CPU for each packet that it handled, or else that arrived."""
        return self.cpu * 1e6 / (self.handled or self.arrived)


def cost(rival: Rival, traffic: Traffic, count: int) -> Cost:
    """Send the traffic to a program that knows nobody, and see what it used until all was worked off."""
    rival.start(SHORT)
    try:
        if isinstance(rival, Knockd):
            rival.repeats = traffic.name == ONE_SOURCE
        probes.wait_until_idle(rival.process.pid)
        handled, arrived, used = rival.handled(), rival.arrived(), probes.cpu(rival.process.pid)
        began = time.monotonic()
        rival.generator.send(traffic.packets(rival), count, RATE)
        sent_after = time.monotonic() - began
        probes.wait_until_idle(rival.process.pid, _SETTLED_WITHIN)
        used = probes.cpu(rival.process.pid).since(used)
        seconds = time.monotonic() - began
        arrived = rival.arrived() - arrived
        handled = rival.handled() - handled
        dropped = arrived - handled if traffic.is_handled else 0
        if isinstance(rival, Ours):
            dropped = rival.counts()["dropped"]
        return Cost(
            traffic=traffic.name,
            who=rival.name,
            arrived=arrived,
            handled=handled,
            dropped=max(0, dropped),
            rate=arrived / sent_after,
            seconds=seconds,
            cpu=used.exact,
            resident_mib=probes.memory_mib(rival.process.pid),
        )
    finally:
        rival.stop()


# An honest knocker in a flood. ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Siege:
    """How many honest knockers got in during a flood."""

    name: str
    who: str
    planned: int
    tries: int
    """Of those planned, as many as there was time for."""
    opened: int
    seconds: float
    """Of the tries, during which all that follows was counted."""
    rate: float
    """Packets a second that arrived."""
    handled: int
    dropped: int | None
    """None where it is not known."""
    cpu: float
    table: int | None
    """The most knockers that were remembered, as far as that was looked at."""
    resident_mib: list[float] = field(default_factory=list)
    """Ahead of the flood, ahead of the tries, half-way, at the end."""


def first_knocks() -> Packets:
    """From forged sources."""
    return [(ANYBODY, STEPS[0])]


def correct_prefixes() -> Packets:
    """From forged sources, in turns such as send 2, 3 and 4 of the sequence's 5 steps."""
    return [(one_by_one(crowd), hit) for crowd, hit in prefixes((2, 3, 4))]


def siege(rival: Rival, name: str, packets: Packets, steps: int, tries: int) -> Siege:
    """Let honest knockers try, one after the other, each from a fresh address, during a flood at the best rate."""
    rival.start(steps)
    try:
        pid = rival.process.pid
        resident = [probes.memory_mib(pid)]
        flood = rival.generator.start(packets)
        try:
            _wait_until_full(rival)
            time.sleep(_WARM_UP)
            resident.append(probes.memory_mib(pid))
            handled, arrived, used, table = rival.handled(), rival.arrived(), probes.cpu(pid), _table(rival)
            dropped = _dropped(rival)
            opened = tried = 0
            began = time.monotonic()
            while tried < tries and time.monotonic() - began < SIEGE_WITHIN:
                address = rival.fresh_address()
                rival.hit(address, steps, PACE)
                opened += rival.bell.wait(address, _PATIENCE) is not None
                tried += 1
                if tried == tries // 2:
                    resident.append(probes.memory_mib(pid))
                    table.extend(_table(rival))
            seconds = time.monotonic() - began
            if tried < tries // 2:
                resident.append(probes.memory_mib(pid))
            arrived = rival.arrived() - arrived
            used = probes.cpu(pid).since(used)
            if flood.poll() is not None:
                raise SandboxError(f"{flood}: {flood.stderr.tail()}")
            handled = rival.handled() - handled
            lost = _dropped(rival) - dropped if isinstance(rival, Ours) else None
            table.extend(_table(rival))
            resident.append(probes.memory_mib(pid))
        finally:
            rival.generator.stop(flood)
    finally:
        rival.stop()
    most = max(table, default=None)
    rate = arrived / seconds
    return Siege(name, rival.name, tries, tried, opened, seconds, rate, handled, lost, used.exact, most, resident)


def _wait_until_full(rival: Rival) -> None:
    deadline = time.monotonic() + _FULL_WITHIN
    while min(_table(rival), default=KNOCKERS) < KNOCKERS and time.monotonic() < deadline:
        time.sleep(0.2)


def _dropped(rival: Rival) -> int:
    return rival.counts()["dropped"] if isinstance(rival, Ours) else 0


def _table(rival: Rival) -> list[int]:
    return [rival.counts()["table"]] if isinstance(rival, Ours) else []


# How soon, and at rest. ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Latencies:
    """Seconds from the last knock's leaving the client until its command has written."""

    ours: list[float]
    peer: list[float]


def latencies(ours: Rival, peer: Rival, rounds: int) -> Latencies:
    """Both in each round, in changing order."""
    found = Latencies([], [])
    pairs = ((ours, found.ours), (peer, found.peer))
    for _, order in zip(range(rounds), cycle((pairs, pairs[::-1])), strict=False):
        for rival, values in order:
            address = rival.fresh_address()
            time.sleep(_HUSH)
            began = rival.hit(address, SHORT, _HUSH)
            rang = rival.bell.wait(address, _PATIENCE)
            if rang is None:
                raise SandboxError(f"{rival.name} did not open for {address}: {rival.process.stderr.tail(20)}")
            values.append(rang - began)
    return found


@dataclass(frozen=True)
class Rest:
    """CPU seconds of one of the two that nobody knocks at, and its memory."""

    who: str
    seconds: float
    cpu: float
    resident_mib: float


def rests(rivals: Sequence[Rival], seconds: float) -> list[Rest]:
    """What each uses while nothing happens; both at the same time."""
    for rival in rivals:
        probes.wait_until_idle(rival.process.pid)
    before = [probes.cpu(rival.process.pid).exact for rival in rivals]
    time.sleep(seconds)
    after = [probes.cpu(rival.process.pid).exact for rival in rivals]
    return [
        Rest(rival.name, seconds, end - begin, probes.memory_mib(rival.process.pid))
        for rival, begin, end in zip(rivals, before, after, strict=True)
    ]


@dataclass
class Results:
    """All raw numbers of a run."""

    sizes: Sizes
    latencies: Latencies
    rests: list[Rest]
    costs: list[Cost]
    sieges: list[Siege]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"cpu microseconds each": [(one.traffic, one.who, one.each) for one in self.costs]}


def everything(ours: Ours, peer: Knockd, sizes: Sizes) -> Results:
    """The whole run."""
    rivals: tuple[Rival, Rival] = (ours, peer)
    for rival in rivals:
        rival.start(SHORT)
    say(f"{sizes.knocks} rounds of a knock at each")
    found = latencies(ours, peer, sizes.knocks)
    say(f"{sizes.idle:g} s of rest")
    rest = rests(rivals, sizes.idle)
    for rival in rivals:
        rival.stop()
    costs = []
    for traffic in TRAFFIC:
        for number in range(sizes.rounds):
            for rival in rivals if number % 2 == 0 else rivals[::-1]:
                say(f"traffic: {traffic.name}, round {number + 1} of {sizes.rounds}, {rival.name}")
                costs.append(cost(rival, traffic, sizes.packets))
    sieges = []
    for name, packets, steps in (
        ("first knocks", first_knocks(), SHORT),
        ("prefixes of 2, 3, 4 steps", correct_prefixes(), LONG),
    ):
        for rival, tries in ((ours, sizes.tries), (peer, sizes.peer_tries)):
            say(f"flood of {name}: {tries} honest knockers, {rival.name}")
            sieges.append(siege(rival, name, packets, steps, tries))
    return Results(sizes, found, rest, costs, sieges)
