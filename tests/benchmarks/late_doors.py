"""How late doors close while others open as fast as knocks come, and while firewalld's rules are restored.

Run it from the project's folder: .venv/bin/python -m tests.benchmarks.late_doors
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks import probes
from tests.benchmarks.report import Row, table
from tests.benchmarks.stage import LONG, Stage, say
from tests.helpers.running import doors
from tests.helpers.waiting import wait_until

RATES = (10, 50, 100, 300)
"""Doors that are knocked for in each second."""
SECONDS = 8.0
DURATION = 3.0
"""Seconds that a door stays open."""
AIMS = {10: 0.3, 50: 0.3}
"""Seconds after its deadline within which the last door has to be closed, by rate."""
RESTORED = 1000
"""Doors that a reload of firewalld has to restore."""
_DUE = 20
"""Doors that are due while that is done; max_open_doors is 1,024."""
_PATIENCE = 300.0

_DESCRIPTION = """\
Measures the daemon inside a sandbox with a real firewalld, and prints a table. Doors of 3 s are knocked for at each
rate for 8 s, each from an address of its own; for each that opened, how late the kernel reported the end of its rule.
Then 1,000 doors are open, firewalld is reloaded, and doors are due while the others are restored.
"""


@dataclass(frozen=True)
class Lateness:
    """Of one run."""

    rate: int
    """0: while doors are restored."""
    knocked: float
    """Doors that were knocked for in each second, as it came out."""
    opened: int
    """Doors that were open at all; the others were due before firewalld got to them."""
    late: list[float]
    """Seconds from the deadline to the rule's end, for each door."""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.late_doors",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, metavar="N", help="default: 10 50 100 300")
    parser.add_argument("--restored", type=int, default=RESTORED, metavar="N", help="default: 1000; 0 for none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw numbers there, and the machine's")
    options = parser.parse_args()
    found = []
    with Stage() as stage:
        machine = probes.machine(stage.box)
        for rate in options.rates:
            say(f"{rate} doors a second")
            found.append(at_rate(stage, rate))
        if options.restored:
            found.append(while_restoring(stage, options.restored))
    machine["load after"] = Path("/proc/loadavg").read_text().strip()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(table([row for one in found for row in rows(one, options.restored)]))
    if options.json:
        raw = {"machine": machine, "lateness": [asdict(one) for one in found]}
        options.json.write_text(json.dumps(raw, indent=1) + "\n")


def at_rate(stage: Stage, rate: int) -> Lateness:
    """Knock for so many doors a second, and see each closed."""
    stage.start()
    stage.configure(DURATION)
    start = time.monotonic()
    due: dict[str, float] = {}
    while (since := time.monotonic() - start) < SECONDS:
        if len(due) / rate > since:
            time.sleep(len(due) / rate - since)
        address = stage.fresh_address()
        due[address] = stage.knock(address, 0.0) + DURATION
    knocked = len(due) / (time.monotonic() - start)
    late = _await_closed(stage, due)
    stage.stop()
    return Lateness(rate, knocked, len(late), sorted(late.values()))


def while_restoring(stage: Stage, number: int) -> Lateness:
    """Reload firewalld with so many doors open, and have others due while these are restored."""
    stage.start()
    stage.configure(LONG)
    say(f"opening {number} doors")
    for _ in range(number):
        stage.knock(stage.fresh_address(), 0.002)
    wait_until(lambda: len(doors(stage.box)) >= number, _PATIENCE, f"{number} doors are open", every=0.5)
    stage.configure(DURATION)
    due: dict[str, float] = {}
    for _ in range(_DUE):
        address = stage.fresh_address()
        due[address] = stage.knock(address, 0.02) + DURATION
    stage.came(address)
    say("reloading firewalld")
    stage.box.firewalld.ask("", "reload", timeout=_PATIENCE)
    late = _await_closed(stage, due)
    stage.stop()
    return Lateness(0, 0.0, len(late), sorted(late.values()))


def _await_closed(stage: Stage, due: Mapping[str, float]) -> dict[str, float]:
    """Wait until none of the doors has a rule; for each that had one, how late its last rule went."""
    went: dict[str, float] = {}

    def closed() -> bool:
        answer = stage.watcher.ask("ends")
        went.update(answer["went"])
        return time.monotonic() > max(due.values()) and not due.keys() & set(answer["left"])

    wait_until(closed, _PATIENCE, "every door is closed", every=0.2)
    return {address: went[address] - deadline for address, deadline in due.items() if address in went}


def rows(one: Lateness, restored: int) -> Iterator[Row]:
    """The table's line for one run."""
    what = f"{one.rate} doors a second" if one.rate else f"{restored} doors restored meanwhile"
    worst, median, aim = max(one.late), statistics.median(one.late), AIMS.get(one.rate)
    yield Row(
        f"{what}: the last to close",
        f"{max(worst, 0.0):.2f} s late",
        aim="-" if aim is None else f"<= {aim:g} s",
        met=None if aim is None else worst <= aim,
        note=f"median {median:.2f} s; {one.opened} doors opened, {one.knocked:.0f} knocked a second",
    )


if __name__ == "__main__":
    main()
