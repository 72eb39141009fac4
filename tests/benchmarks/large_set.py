"""How the daemon does with a large set as a zone's source and many doors, on a real firewalld.

Run it from the project's folder: .venv/bin/python -m tests.benchmarks.large_set
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from port_knocking_doors.sandbox import Process
from tests.benchmarks import probes
from tests.benchmarks.report import Row, table
from tests.benchmarks.stage import LONG, ROOT, Stage, rule_like_a_door, say
from tests.helpers.running import doors, write_configuration
from tests.helpers.waiting import wait_until

ENTRIES, DOORS, ROUNDS = 100_000, 1000, 15
TURN_AIM = 50.0
"""Milliseconds of CPU of the event loop's longest turn."""
LATENCY_AIM = 1.3
"""Of the time from the last knock to the rule, beside that of a bare call."""
SET = "block"
_PATIENCE = 300.0
_PAUSE = 0.002

_DESCRIPTION = """\
Measures the daemon inside a sandbox with a real firewalld, and prints a table: knocks without a large set; then a set
of many networks becomes a source of zone drop, doors are opened, and entries are added to the set and to another one.
"""


@dataclass(frozen=True)
class Found:
    """Seconds, but for `turn`."""

    entries: int
    doors: int
    plain: list[float]
    """From the last knock to the rule, without the set."""
    latencies: list[float]
    """The same with the set, and a few doors."""
    bare: list[float]
    """From a bare addRichRule to the rule, with the set."""
    read: float
    """CPU of the daemon to read the set after a reload."""
    entry: float
    """CPU of the daemon for an entry that is added, with all doors."""
    other: float
    """The same for an entry of another set."""
    turn: float
    """The longest turn of the event loop in all of this, in ms of CPU."""
    what: str


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.large_set",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--entries", type=int, default=ENTRIES, metavar="N", help=f"default: {ENTRIES}")
    parser.add_argument("--doors", type=int, default=DOORS, metavar="N", help=f"default: {DOORS}")
    options = parser.parse_args()
    with Stage() as stage, tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        found = measure(stage, Path(folder), options.entries, options.doors)
        machine = probes.machine(stage.box)
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(table(list(rows(found))))


def measure(stage: Stage, folder: Path, entries: int, number: int) -> Found:
    """One run."""
    turns = folder / "turns"
    conf = write_configuration(folder, max_opened_door_duration=LONG, max_open_doors=65536)
    argv = [sys.executable, "-m", "tests.helpers.turns", str(turns), "--conf", str(conf)]
    daemon = stage.box.server.popen(argv, cwd=ROOT)
    daemon.wait_for(r"\bready\b", 20)
    plain = [_latency(stage) for _ in range(ROUNDS)]
    say(f"a set of {entries} networks")
    _define(stage, SET, entries)
    _define(stage, "other", 10)
    used = probes.cpu(daemon.pid).exact
    # It may take longer than firewall-cmd waits.
    stage.box.server.run(["firewall-cmd", "--reload"], timeout=_PATIENCE, check=False)
    wait_until(lambda: stage.box.firewalld.answers(10.0), _PATIENCE, "firewalld is back")
    _wait_for_doors(stage, ROUNDS)
    probes.wait_until_idle(daemon.pid)
    read = probes.cpu(daemon.pid).exact - used
    latencies, bare = [], []
    for _ in range(ROUNDS):
        latencies.append(_latency(stage))
        bare.append(_bare(stage))
    say(f"opening {number} doors")
    for _ in range(number - 2 * ROUNDS):
        stage.knock(stage.fresh_address(), _PAUSE)
    _wait_for_doors(stage, number)
    say("adding entries")
    costs = {name: _cost(stage, daemon, name) for name in (SET, "other")}
    milliseconds, _, what = turns.read_text().strip().partition(" ")
    daemon.kill()
    return Found(entries, number, plain, latencies, bare, read, costs[SET], costs["other"], float(milliseconds), what)


def _latency(stage: Stage) -> float:
    address = stage.fresh_address()
    return -stage.knock(address, _PAUSE) + stage.came(address)


def _bare(stage: Stage) -> float:
    address = stage.fresh_address()
    answer = stage.caller.ask("add", zone="public", rule=rule_like_a_door(address))
    return stage.came(address) - float(answer["began"])


def _define(stage: Stage, name: str, entries: int) -> None:
    """A set in firewalld's permanent configuration; the large one is a source of zone drop."""
    lines = [f"<entry>{20 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24</entry>" for n in range(entries)]
    options = f'<option name="maxelem" value="{2 * entries}"/>'
    text = f'<?xml version="1.0"?>\n<ipset type="hash:net">{options}{"".join(lines)}</ipset>\n'
    stage.box.server.run(["tee", f"/etc/firewalld/ipsets/{name}.xml"], text=text)
    if name == SET:
        zone = f'<?xml version="1.0"?>\n<zone target="DROP"><source ipset="{name}"/></zone>\n'
        stage.box.server.run(["tee", "/etc/firewalld/zones/drop.xml"], text=zone)


def _wait_for_doors(stage: Stage, number: int) -> None:
    wait_until(lambda: len(doors(stage.box)) >= number, _PATIENCE, f"{number} doors are open", every=0.1)


def _cost(stage: Stage, daemon: Process, name: str) -> float:
    """CPU of the daemon for one entry that is added."""
    probes.wait_until_idle(daemon.pid)
    used, began = probes.cpu(daemon.pid).exact, time.monotonic()
    stage.box.server.run(["firewall-cmd", f"--ipset={name}", "--add-entry=198.51.100.0/24"], timeout=_PATIENCE)
    say(f"firewalld took {time.monotonic() - began:.2f} s for an entry of {name}")
    probes.wait_until_idle(daemon.pid)
    return probes.cpu(daemon.pid).exact - used


def rows(found: Found) -> Iterator[Row]:
    """The table's lines."""
    plain, latency, bare = map(median, (found.plain, found.latencies, found.bare))
    what = f"{found.entries} networks"
    yield Row(
        f"last knock to rule, {what}; bare addRichRule to rule",
        f"{latency * 1000:.1f} ms",
        f"{bare * 1000:.1f} ms",
        f"{latency / bare:.2f}",
        f"at most {LATENCY_AIM:g}",
        latency <= LATENCY_AIM * bare,
        f"without the networks {plain * 1000:.1f} ms",
    )
    yield Row(f"CPU to read {what}, after a reload", f"{found.read:.2f} s")
    yield Row(f"CPU for an entry that is added, {found.doors} doors", f"{found.entry * 1000:.1f} ms")
    yield Row("… to a set that is no source of a zone", f"{found.other * 1000:.1f} ms")
    turn, met = f"{found.turn:.1f} ms", found.turn <= TURN_AIM
    yield Row(
        "longest turn of the event loop in all of this", turn, "-", "-", f"at most {TURN_AIM:g} ms", met, found.what
    )


if __name__ == "__main__":
    main()
