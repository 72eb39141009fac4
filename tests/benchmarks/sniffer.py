"""What the sniffer costs and stands, beside Debian's knockd.

Run it from the project's folder: .venv/bin/python -m tests.benchmarks.sniffer
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks import contest, probes
from tests.benchmarks.contest import Cost, Results, Siege
from tests.benchmarks.generator import PROGRAM, missing
from tests.benchmarks.report import Row, milliseconds, table
from tests.benchmarks.rivals import KNOCKERS, Knockd, Ours, version

ONE_SOURCE_AIM = 0.6
FORGED_AIM = 0.05
NONE_AIM = 0.1
"""Microseconds that count as none that shows."""
IDLE_AIM = 0.1
"""Percent of a core."""
FLAT_AIM = 1.05
"""Memory at the end of a flood over that with a full table."""

_DESCRIPTION = """\
Measures the sniffer beside Debian's knockd, each in a sandbox of its own, and prints a table.

Both have the same sequence (UDP and TCP steps), traps as by default in ours; floods come from trafgen on the client's
host. CPU is user and system time of the daemon's process for each packet that it was given; what the kernel dropped
before is told beside. knockd keeps no count: what it was given is told by its log. knockd's drops are what arrived
and is not in there.

An honest knocker is a client with an address of its own that knocks once, with pauses; it got in if its command ran.

Needs knockd 0.8 and trafgen: apt install knockd netsniff-ng. The machine's other work shows: look at the ratios.
Whether an aim was met is printed, and is not an error.
"""


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.sniffer",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer of everything: some two minutes, and coarse")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw numbers there, and the machine's")
    options = parser.parse_args()
    if absent := [program for program in ("knockd", PROGRAM) if missing(program)]:
        sys.exit(f"benchmark: {' and '.join(absent)} not found; install both: apt install knockd netsniff-ng")
    with Ours() as ours, Knockd() as peer:
        machine = probes.machine(ours.stage.box) | {"knockd": version(peer)}
        results = contest.everything(ours, peer, contest.QUICK if options.quick else contest.FULL)
    machine["load after"] = Path("/proc/loadavg").read_text().strip()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(table(list(rows(results))))
    if options.json:
        raw = {"machine": machine, **results.as_json()}
        options.json.write_text(json.dumps(raw, indent=1) + "\n")


def rows(results: Results) -> Iterator[Row]:
    """The table's lines."""
    for traffic, aim in ((contest.ONE_SOURCE, ONE_SOURCE_AIM), (contest.FORGED, FORGED_AIM)):
        yield _cost_row(traffic, aim, *_of_both(results, traffic))
    ours, peer = _of_both(results, contest.NOBODYS)
    each, peer_each = _each(ours), _each(peer)
    yield Row(
        f"CPU of a packet: {contest.NOBODYS}",
        f"{each:.3f} µs",
        f"{peer_each:.3f} µs",
        aim=f"under {NONE_AIM:g} µs",
        met=each < NONE_AIM,
        note=_cost_note(ours, peer),
    )
    names = dict.fromkeys(siege.name for siege in results.sieges)
    for name in names:
        one, other = (
            next(siege for siege in results.sieges if (siege.name, siege.who) == (name, who))
            for who in (Ours.name, Knockd.name)
        )
        yield from _siege_rows(one, other)
    yield _latency_row(results)
    yield from _rest_rows(results)


def _of_both(results: Results, traffic: str) -> tuple[list[Cost], list[Cost]]:
    ours, peer = (
        [cost for cost in results.costs if (cost.traffic, cost.who) == (traffic, who)]
        for who in (Ours.name, Knockd.name)
    )
    return ours, peer


def _each(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.each for cost in costs)


def _cost_row(traffic: str, aim: float, ours: Sequence[Cost], peer: Sequence[Cost]) -> Row:
    each, peer_each = _each(ours), _each(peer)
    return Row(
        f"CPU of a packet that it saw: {traffic}",
        f"{each:.2f} µs",
        f"{peer_each:.2f} µs",
        f"{each / peer_each:.3f}",
        f"at most {aim:g}",
        each <= aim * peer_each,
        _cost_note(ours, peer),
    )


def _cost_note(ours: Sequence[Cost], peer: Sequence[Cost]) -> str:
    texts = []
    for costs in (ours, peer):
        one = costs[len(costs) // 2]
        texts.append(
            f"{one.who}: {one.arrived} came at {one.rate / 1000:.0f}k/s, {one.dropped} dropped, "
            f"{one.cpu:.2f} s of CPU in {one.seconds:.1f} s, {one.resident_mib:.0f} MiB"
        )
    return "; ".join(texts)


def _siege_rows(ours: Siege, peer: Siege) -> Iterator[Row]:
    yield Row(
        f"honest knockers let in, flood of {ours.name}",
        f"{ours.opened} of {ours.tries}",
        f"{peer.opened} of {peer.tries}",
        aim="all",
        met=ours.opened == ours.planned,
        note="; ".join(map(_siege_note, (ours, peer))),
    )
    if ours.table is not None:
        yield Row(
            f"table of knockers, flood of {ours.name}",
            f"{ours.table}",
            aim=f"at most {KNOCKERS}",
            met=ours.table <= KNOCKERS,
        )
    before, full, middle, end = ours.resident_mib
    theirs = " ".join(f"{mib:.0f}" for mib in peer.resident_mib)
    yield Row(
        f"memory before, full, half-way, at the end, flood of {ours.name}",
        f"{before:.1f} {full:.1f} {middle:.1f} {end:.1f} MiB",
        f"{theirs} MiB",
        aim="flat once full",
        met=end <= FLAT_AIM * full,
    )


def _siege_note(siege: Siege) -> str:
    dropped = "" if siege.dropped is None else f", {siege.dropped} dropped"
    short = "" if siege.tries == siege.planned else f" (no time for all {siege.planned} tries)"
    return (
        f"{siege.who}: {siege.rate / 1000:.0f}k/s for {siege.seconds:.1f} s, {siege.handled} seen{dropped}, "
        f"{siege.cpu / siege.seconds * 100:.0f} % of a core{short}"
    )


def _latency_row(results: Results) -> Row:
    ours, peer = results.latencies.ours, results.latencies.peer
    middle, peer_middle = statistics.median(ours), statistics.median(peer)
    return Row(
        "last knock to its command's output",
        milliseconds(ours),
        milliseconds(peer),
        f"{middle / peer_middle:.2f}",
        "below 1",
        middle < peer_middle,
        f"{len(ours)} rounds",
    )


def _rest_rows(results: Results) -> Iterator[Row]:
    ours, peer = (next(rest for rest in results.rests if rest.who == who) for who in (Ours.name, Knockd.name))
    percent, peer_percent = (rest.cpu / rest.seconds * 100 for rest in (ours, peer))
    yield Row(
        "CPU at rest",
        f"{percent:.3f} %",
        f"{peer_percent:.3f} %",
        f"{percent / peer_percent:.2f}" if peer_percent else "-",
        f"under {IDLE_AIM:g} % of a core",
        percent < IDLE_AIM,
        f"over {ours.seconds:g} s",
    )
    yield Row("resident, after some knocks", f"{ours.resident_mib:.1f} MiB", f"{peer.resident_mib:.1f} MiB")


if __name__ == "__main__":
    main()
