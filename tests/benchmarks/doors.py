"""How fast and how cheap the daemon is, on a real firewalld, beside its peers.

Run it from the project's folder: .venv/bin/python -m tests.benchmarks.doors
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import measure, probes
from tests.benchmarks.measure import Cost, Latencies, Results
from tests.benchmarks.report import Row, milliseconds, quartiles, table
from tests.benchmarks.stage import Stage

BARE_AIM = 1.3
COMMAND_AIM = 15.0
DATAGRAM_AIM = 5.0
"""Microseconds of CPU for a right datagram."""
NONE_AIM = 0.1
"""Microseconds that count as next to none."""
READY_AIM = 0.5
MEMORY_AIM = 40.0

_DESCRIPTION = """\
Measures the daemon inside a sandbox with a real firewalld and real packets, and prints a table.

Doors: the time from the last knock's leaving the client until the rule stands, beside a bare addRichRule call over a
D-Bus connection that is open already, and beside firewall-cmd; all three in every round, in changing order, with no
door open and with 200. A rule stands, for all three, when the kernel tells the nf_tables netlink group of the change;
all hosts share a clock. Times are medians, in brackets the middle half.

Traffic: CPU time of the daemon (user and system) for each datagram that reached it. Also its start, its memory and
what it uses at rest.

The machine's other work shows: look at the ratios. Whether an aim was met is printed, and is not an error.
"""


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.doors",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and datagrams: about a minute, and coarse")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw numbers there, and the machine's")
    options = parser.parse_args()
    with Stage() as stage:
        machine = probes.machine(stage.box)
        results = measure.everything(stage, measure.QUICK if options.quick else measure.FULL)
    machine["load after"] = Path("/proc/loadavg").read_text().strip()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(table(list(rows(results))))
    if options.json:
        raw = {"machine": machine, **results.as_json()}
        options.json.write_text(json.dumps(raw, indent=1) + "\n")


def rows(results: Results) -> Iterator[Row]:
    """The table's lines."""
    for found in results.latencies:
        yield from _latency_rows(found)
    yield from map(_cost_row, results.costs)
    yield _start_row(results)
    yield from _memory_rows(results)
    for rest in results.rests:
        permille = rest.cpu / rest.seconds * 1000
        yield Row(f"CPU at rest, {rest.doors} doors", f"{permille:.2f} ms/s", note=f"over {rest.seconds:g} s")


def _latency_rows(found: Latencies) -> Iterator[Row]:
    ours = statistics.median(found.ours)
    bare, command, process = map(statistics.median, (found.bare, found.command, found.command_process))
    low = quartiles(found.ours)[0] / quartiles(found.bare)[0]
    what = f"last knock to rule, {found.doors} doors"
    yield Row(
        f"{what}; bare addRichRule to rule",
        milliseconds(found.ours),
        milliseconds(found.bare),
        f"{ours / bare:.2f}",
        f"at most {BARE_AIM:g}",
        ours <= BARE_AIM * bare,
        f"{len(found.ours)} rounds; the lower quartiles' ratio is {low:.2f}",
    )
    for peer, median, values in (
        ("firewall-cmd to rule", command, found.command),
        ("firewall-cmd to its end", process, found.command_process),
    ):
        times = f"1/{median / ours:.1f}"
        met = median >= COMMAND_AIM * ours
        yield Row(f"{what}; {peer}", milliseconds(found.ours), milliseconds(values), times, "at most 1/15", met)


def _cost_row(cost: Cost) -> Row:
    aim = {
        measure.WRONG_PAYLOAD: NONE_AIM,
        measure.WRONG_PORT: NONE_AIM,
        measure.ONE_SOURCE: DATAGRAM_AIM,
        measure.MANY_SOURCES: DATAGRAM_AIM,
        measure.WRONG_STEP: DATAGRAM_AIM,
    }.get(cost.name)
    return Row(
        f"CPU of a datagram: {cost.name}",
        f"{cost.each_exact:.3f} µs",
        aim=f"under {aim:g} µs" if aim else "-",
        met=cost.each_exact < aim if aim else None,
        note=f"{cost.sent} sent at {cost.rate / 1000:.0f}k/s, {cost.received} received, {cost.overflowed} overflowed",
    )


def _start_row(results: Results) -> Row:
    ready, bare = statistics.median(results.starts.ours), statistics.median(results.starts.bare)
    return Row(
        "start to ready; Python alone",
        milliseconds(results.starts.ours),
        milliseconds(results.starts.bare),
        f"{ready / bare:.1f}",
        f"within {READY_AIM * 1000:g} ms",
        ready <= READY_AIM,
        f"{len(results.starts.ours)} starts, the quickest {min(results.starts.ours) * 1000:.0f} ms",
    )


def _memory_rows(results: Results) -> Iterator[Row]:
    memory, aim = results.memory, f"at most {MEMORY_AIM:g} MiB"
    for what, mib in (
        ("resident, ready", memory.idle),
        (f"resident, {results.latencies[-1].doors} doors", memory.doors),
        ("resident at most, table of knockers full", memory.peak),
    ):
        yield Row(what, f"{mib:.1f} MiB", aim=aim, met=mib <= MEMORY_AIM)
    yield Row("resident, its guardian", f"{memory.guardian:.1f} MiB")


if __name__ == "__main__":
    main()
