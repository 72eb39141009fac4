"""The measurements: how soon a door is open, what traffic costs, how the daemon starts and rests."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from itertools import cycle, permutations
from typing import Any

from tests.benchmarks import probes
from tests.benchmarks.stage import CROWD_FIRST, PEER_PRIORITY, ROOT, Stage, rule_like_a_door, say, span
from tests.helpers.running import SEQUENCE

ZONE = "public"
_HUSH = 0.05
"""Seconds of rest ahead of each single measurement, and ahead of the last knock."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int
    doors: int
    datagrams: int
    starts: int
    """At the beginning, and once more at the end, since the machine may be busy at one of them."""
    idle: float


FULL = Sizes(rounds=42, doors=200, datagrams=500_000, starts=7, idle=20.0)
QUICK = Sizes(rounds=6, doors=200, datagrams=50_000, starts=3, idle=5.0)


# How soon a door is open. --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Latencies:
    """Seconds of each round, with this many doors open meanwhile."""

    doors: int
    ours: list[float]
    """From the last knock's leaving the client until the kernel told that the rule stands."""
    bare: list[float]
    """From ahead of the D-Bus call until then."""
    bare_answer: list[float]
    """Until the call was answered."""
    command: list[float]
    """From ahead of the start of `firewall-cmd` until the kernel told."""
    command_process: list[float]
    """Until the process had ended."""


def latencies(stage: Stage, rounds: int) -> Latencies:
    """All three in each round, so that whatever disturbs the machine disturbs all alike.

    Each comes as often in each place of a round, since what was before leaves its traces: `firewall-cmd` empties the
    caches of the processor, for one.
    """
    found = Latencies(stage.doors(), [], [], [], [], [])
    for _, order in zip(range(rounds), cycle(permutations((_ours, _bare, _command))), strict=False):
        for measurement in order:
            measurement(stage, found)
    return found


def _ours(stage: Stage, found: Latencies) -> None:
    time.sleep(_HUSH)
    address = stage.fresh_address()
    began = stage.knock(address, _HUSH)
    found.ours.append(stage.came(address) - began)
    stage.went(address)


def _bare(stage: Stage, found: Latencies) -> None:
    until, answered = _peer(stage, lambda rule: stage.caller.ask("add", zone=ZONE, rule=rule))
    found.bare.append(until)
    found.bare_answer.append(answered)


def _command(stage: Stage, found: Latencies) -> None:
    def add(rule: str) -> dict[str, Any]:
        return stage.caller.ask("run", argv=["firewall-cmd", f"--zone={ZONE}", f"--add-rich-rule={rule}"])

    until, ended = _peer(stage, add)
    found.command.append(until)
    found.command_process.append(ended)


def _peer(stage: Stage, add: Callable[[str], dict[str, Any]]) -> tuple[float, float]:
    """Until the rule stood, and until the peer was done."""
    time.sleep(_HUSH)
    address = stage.fresh_address()
    rule = rule_like_a_door(address)
    answer = add(rule)
    came = stage.came(address)
    stage.caller.ask("remove", zone=ZONE, rule=rule)
    stage.went(address)
    return came - answer["began"], span(answer)


# What traffic costs. -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traffic:
    """One kind of datagrams."""

    name: str
    port: int
    payload: bytes = b"knock\n"
    rate: float = 0.0
    sources: int = 1
    share: float = 1.0
    """Of the number of datagrams that the run is about."""


SLOW_RATE = 5000.0
FAST_RATE = 100_000.0
UNSERVED_PORT = 21999
ONE_SOURCE, MANY_SOURCES, WRONG_STEP = "right first knock, one source", "right first knock, many sources", "wrong step"
WRONG_PAYLOAD, WRONG_PORT, ONE_BY_ONE = "wrong payload", "port that nobody serves", "right first knock, one by one"

TRAFFIC = (
    Traffic(WRONG_PAYLOAD, SEQUENCE[0], payload=b"nock!\n"),
    Traffic(ONE_SOURCE, SEQUENCE[0], rate=FAST_RATE),
    Traffic(MANY_SOURCES, SEQUENCE[0], rate=FAST_RATE, sources=500_000),
    Traffic(WRONG_STEP, SEQUENCE[1], rate=FAST_RATE),
    Traffic(WRONG_PORT, UNSERVED_PORT),
    Traffic(ONE_BY_ONE, SEQUENCE[0], rate=SLOW_RATE, share=0.04),
)


@dataclass(frozen=True)
class Cost:
    """What one kind of traffic cost the daemon."""

    name: str
    sent: int
    failed: int
    received: int
    dropped: int
    overflowed: int
    seconds: float
    rate: float
    cpu_ticks: float
    cpu_exact: float
    resident_mib: float

    @property
    def each(self) -> float:
        """Microseconds of CPU (user and system) for each datagram that the daemon received, or else that was sent."""
        return self.cpu_ticks * 1e6 / (self.received or self.sent)

    @property
    def each_exact(self) -> float:
        """The same by the scheduler's own clock."""
        return self.cpu_exact * 1e6 / (self.received or self.sent)


def cost(stage: Stage, traffic: Traffic, datagrams: int) -> Cost:
    """Send the traffic to a daemon that knows nobody, and see what it used until all was worked off."""
    stage.configure(1.0)
    probes.wait_until_idle(stage.daemon.pid)
    seen, used = probes.counters(stage.box.server, traffic.port), probes.cpu(stage.daemon.pid)
    sent = _flood(stage, traffic, int(datagrams * traffic.share))
    probes.wait_until_idle(stage.daemon.pid)
    used = probes.cpu(stage.daemon.pid).since(used)
    seen = probes.counters(stage.box.server, traffic.port).since(seen)
    return Cost(
        name=traffic.name,
        sent=int(sent["sent"]),
        failed=int(sent["failed"]),
        **seen._asdict(),
        seconds=sent["seconds"],
        rate=sent["rate"],
        cpu_ticks=used.ticks,
        cpu_exact=used.exact,
        resident_mib=probes.memory_mib(stage.daemon.pid),
    )


def _flood(stage: Stage, traffic: Traffic, count: int) -> dict[str, float]:
    source = CROWD_FIRST if traffic.sources > 1 else IPv4Address(stage.fresh_address())
    words = (stage.client.server4, traffic.port, traffic.payload.hex(), count, traffic.rate, source, traffic.sources)
    argv = [sys.executable, "-m", "tests.benchmarks.flood", *map(str, words)]
    result: dict[str, float] = json.loads(stage.client.run(argv, cwd=ROOT, timeout=150.0).stdout)
    return result


# How it starts and rests. --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rest:
    """CPU seconds of a daemon that nobody knocks at."""

    doors: int
    seconds: float
    cpu: float


def rest(stage: Stage, seconds: float) -> Rest:
    """What it uses while nothing happens."""
    doors = stage.doors()
    probes.wait_until_idle(stage.daemon.pid)
    before = probes.cpu(stage.daemon.pid)
    time.sleep(seconds)
    return Rest(doors, seconds, probes.cpu(stage.daemon.pid).since(before).exact)


@dataclass(frozen=True)
class Starts:
    """Seconds of each start."""

    ours: list[float]
    """Until the daemon was ready."""
    bare: list[float]
    """Until Python had started and ended with nothing to do."""


def measure_starts(stage: Stage, found: Starts, times: int) -> None:
    """Start the daemon and Python alone in turns."""
    say(f"{times} starts of the daemon")
    for _ in range(times):
        found.ours.append(stage.start_once())
        found.bare.append(span(stage.caller.ask("run", argv=[sys.executable, "-c", "pass"])))


@dataclass(frozen=True)
class Memory:
    """Resident, in MiB."""

    idle: float
    """Once ready."""
    guardian: float
    doors: float = 0.0
    """With all doors of the run open."""
    peak: float = 0.0
    """The most of the whole run, in which the table of knockers was full."""


@dataclass
class Results:
    """All raw numbers of a run."""

    sizes: Sizes
    starts: Starts
    memory: Memory
    rests: list[Rest]
    latencies: list[Latencies]
    costs: list[Cost]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "cpu microseconds each": {cost.name: [cost.each, cost.each_exact] for cost in self.costs},
            "peer priority": PEER_PRIORITY,
        }


def everything(stage: Stage, sizes: Sizes) -> Results:
    """The whole run."""
    starts = Starts([], [])
    measure_starts(stage, starts, sizes.starts)
    stage.start()
    time.sleep(1.0)
    idle, guardian = probes.memory_mib(stage.daemon.pid), probes.memory_mib(stage.guardian)
    rests, found = [], []
    for doors in (0, sizes.doors):
        say(f"{doors} doors: opening them")
        stage.open_doors(doors)
        say(f"{doors} doors: {sizes.idle:g} s of rest")
        rests.append(rest(stage, sizes.idle))
        say(f"{doors} doors: {sizes.rounds} rounds of a knock, a bare call and firewall-cmd")
        found.append(latencies(stage, sizes.rounds))
    with_doors = probes.memory_mib(stage.daemon.pid)
    costs = []
    for traffic in TRAFFIC:
        say(f"traffic: {traffic.name}")
        costs.append(cost(stage, traffic, sizes.datagrams))
    memory = Memory(idle, guardian, with_doors, probes.memory_mib(stage.daemon.pid, "VmHWM"))
    say("the daemon ends and closes its doors")
    stage.stop()
    measure_starts(stage, starts, sizes.starts)
    return Results(sizes, starts, memory, rests, found, costs)
