"""What the table of knockers costs for one packet, and what a full one holds: two versions of it in one run.

    python -m tests.benchmarks.knocks OLD [NEW]

`OLD` and `NEW` are folders with a checkout of the project (`git worktree add FOLDER COMMIT`); `NEW` is this one if it
is left out. Both are measured in turns, each time in a process of its own, and the medians and their ratio are printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

LIMIT = 65_536
PORTS = (16001, 16004, 16002, 16005, 16003)
BATCH = 64
"""Packets that have the same time, as those of a block or a batch of datagrams."""
RATIO_MAX = 1.03

Packet = tuple[bytes, int, int]
"""Source, code, packet id."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.knocks", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=Path(__file__).parents[2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", default="", help="only the rows with this text in their names")
    parser.add_argument("--worker", choices=[*COSTS, *MEMORY], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps((COSTS | MEMORY)[options.worker]()))
        return
    trees = (options.old, options.new)
    print(f"{'':44}{'old':>10}{'new':>10}{'ratio':>8}")
    for name in (name for name in (*COSTS, *MEMORY) if options.rows in name):
        found: dict[Path, list[float]] = {tree: [] for tree in trees}
        for _ in range(options.rounds if name in COSTS else 1):
            for tree in trees:
                found[tree].append(measured(tree, name))
        old, new = (statistics.median(found[tree]) for tree in trees)
        # Of pairs: what else the machine does, it does to both.
        ratio = statistics.median(after / before for before, after in zip(*found.values(), strict=True))
        print(f"{name:44}{old:10.3f}{new:10.3f}{ratio:8.3f}{' !' if ratio > RATIO_MAX else ''}", flush=True)


def measured(tree: Path, name: str) -> float:
    """One number of a process that imports the package from there."""
    command = [sys.executable, str(Path(__file__).resolve()), ".", "--worker", name]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout))


# --- in a process with one version


def table() -> Any:
    """The table of knockers with the opening sequence."""
    from port_knocking_doors.model import Protocol, Sequence, Step

    try:
        from port_knocking_doors.knocks.table import KnockerTable
    except ImportError:  # 566bada
        from port_knocking_doors.knockers import Knockers as KnockerTable  # type: ignore[import-not-found,no-redef]
    steps = tuple(Step(Protocol.UDP, port) for port in PORTS)
    return KnockerTable([Sequence("main", steps, lifetime=30.0, listened=True)], 5.0, LIMIT)


def many_table(count: int, shared: int, dialect: str, limit: int = LIMIT) -> Any:
    """A table of sniffed sequences of three UDP steps, of which so many share the first ones."""
    from port_knocking_doors.knocks.table import KnockerTable
    from port_knocking_doors.model import Dialect, Protocol, Sequence, Step

    def ports(number: int) -> list[int]:
        own = [20_000 + 3 * number + place for place in range(3)]
        return [*(1001 + place for place in range(shared)), *own[shared:]]

    sequences = [
        Sequence(
            f"s{number}",
            tuple(Step(Protocol.UDP, port) for port in ports(number)),
            timeout=30.0,
            dialect=Dialect(dialect),
            group="f" if dialect == "knockd" else "",
        )
        for number in range(count)
    ]
    return KnockerTable(sequences, 5.0, limit)


def of_many(count: int, shared: int, dialect: str, port: int) -> float:
    """A forged first knock at this port, into a table that such ones have filled."""
    limit = 4096  # an older version takes milliseconds for one
    knockers = many_table(count, shared, dialect, limit)
    rounds = 16 if count == 1 or hasattr(knockers, "_judge") else 1
    each(knockers, [(source, 17 << 16 | port, 40000) for source in sources(limit, 1 << 20)])
    return each(knockers, [(source, 17 << 16 | port, 40000) for source in sources(rounds * limit)])


def of_many_resident(count: int, shared: int, steps: int) -> float:
    """MiB that a full table adds: sources that have done so many steps."""

    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    knockers = many_table(count, shared, "native", 16_384)
    before = pages()
    for number, source in enumerate(sources(2 * 16_384)):
        for step in range(steps):
            knockers.on_knock(source, 17 << 16 | 1001 + step, 40_000, 1e6 + number // BATCH * 0.0001)
    return (pages() - before) * os.sysconf("SC_PAGESIZE") / 2**20


def code(step: int) -> int:
    return 1 << 30 | 17 << 16 | PORTS[step]


def sources(count: int, first: int = 0) -> list[bytes]:
    return [(0x0A000000 + first + number).to_bytes(4, "big") for number in range(count)]


def each(knockers: Any, packets: list[Packet]) -> float:
    """Microseconds of CPU for one packet, the loop around it included."""
    on_knock, batches = knockers.on_knock, [packets[at : at + BATCH] for at in range(0, len(packets), BATCH)]
    now, began = 1e6, time.process_time()
    for batch in batches:
        now += 0.0001
        for source, number, packet_id in batch:
            on_knock(source, number, packet_id, now)
    return (time.process_time() - began) / len(packets) * 1e6


def right() -> float:
    packets = [(source, code(step), 40000) for source in sources(20_000) for step in range(len(PORTS))]
    return each(table(), packets)


def first_step(limit: int = 2 * LIMIT) -> float:
    """From forged sources, into a table that they have filled."""
    knockers = table()
    each(knockers, [(source, code(0), 40000) for source in sources(LIMIT, 1 << 20)])
    return each(knockers, [(source, code(0), 40000) for source in sources(limit)])


def repeated() -> float:
    return each(table(), [(source, code(0), 40000) for source in sources(1) * 200_000])


def wrong_step() -> float:
    """From forged sources, into a table that they have filled."""
    knockers = table()
    each(knockers, [(source, code(2), 40000) for source in sources(LIMIT, 1 << 20)])
    return each(knockers, [(source, code(2), 40000) for source in sources(2 * LIMIT)])


def wrong_after_right() -> float:
    packets = [(source, code(step), 40000) for source in sources(30_000) for step in (0, 3)]
    return each(table(), packets)


def ignored() -> float:
    return each(table(), [(source, code(2), 40000) for source in sources(1) * 200_000])


def not_a_knock() -> float:
    return each(table(), [(source, 17 << 16 | 9, 40000) for source in sources(200_000)])


def resident(steps: Callable[[], Iterator[int]]) -> float:
    """MiB that a full table adds."""

    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    knockers = table()
    before = pages()
    now = 1e6
    for number in range(4 * LIMIT):  # the flood goes on: freed memory counts, too
        now += 0.0001 if number % BATCH == 0 else 0.0
        source = (0x0A000000 + number).to_bytes(4, "big")
        for step in steps():
            knockers.on_knock(source, code(step), 20000 + number % 40000, now)
    assert len(knockers) == LIMIT
    return (pages() - before) * os.sysconf("SC_PAGESIZE") / 2**20


COSTS: dict[str, Callable[[], float]] = {
    "right knock, µs": right,
    "first step, forged sources, µs": first_step,
    "repeated, µs": repeated,
    "wrong step, forged sources, µs": wrong_step,
    "right and then wrong step, µs": wrong_after_right,
    "ignored source, µs": ignored,
    "not a knock, µs": not_a_knock,
    "first step, 1 sequence, µs": partial(of_many, 1, 2, "native", 1001),
    "… 1,000 that share 2 of 3 steps, µs": partial(of_many, 1000, 2, "native", 1001),
    "… 1,000 doors of knockd's that share 2, µs": partial(of_many, 1000, 2, "knockd", 1001),
    "… 1,000 doors of knockd's that share none, µs": partial(of_many, 1000, 0, "knockd", 20_000),
    "no first step, 1,000 doors of knockd's, µs": partial(of_many, 1000, 0, "knockd", 20_001),
}
MEMORY: dict[str, Callable[[], float]] = {
    "full of first steps, MiB": partial(resident, lambda: iter((0,))),
    "full of wrong steps, MiB": partial(resident, lambda: iter((2,))),
    "full of two right steps, MiB": partial(resident, lambda: iter((0, 1))),
    "16,384 of two steps, 1 sequence, MiB": partial(of_many_resident, 1, 2, 2),
    "… 1,000 that share them, MiB": partial(of_many_resident, 1000, 2, 2),
}

if __name__ == "__main__":
    main()
