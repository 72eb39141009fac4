"""How long a reload of firewalld and the daemon's end take with many doors open, on a real firewalld.

Run it from the project's folder: .venv/bin/python -m tests.benchmarks.many_doors
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

from port_knocking_doors.sandbox import Process
from tests.benchmarks import probes
from tests.benchmarks.report import Row, table
from tests.benchmarks.stage import LONG, ROOT, Stage, say
from tests.helpers.running import door_rule, doors, write_configuration
from tests.helpers.waiting import wait_until

DOORS = (100, 500, 1000)
BACK_AIM = 0.5
"""Seconds after the reload within which the door that was knocked for last is back."""
_PATIENCE = 300.0
_EVERY = 0.1
"""Seconds between two looks at the rules. firewalld needs some milliseconds for each, in which it restores nothing."""
_PAUSE = 0.002
"""Seconds between two sequences of knocks: no datagram is lost."""

_DESCRIPTION = """\
Measures the daemon inside a sandbox with a real firewalld, and prints a table. For each number of doors: open them by
knocks, each from an address of its own; reload firewalld, and wait for the door that was knocked for last and for all
of them; then SIGTERM, until the daemon has ended.

With --beside, another checkout's package does the same in turns, in the column "peer". On a busy machine compare the
CPU times: the others are those of everything that runs.
"""


@dataclass(frozen=True)
class Times:
    """Seconds of one run."""

    doors: int
    opened: float
    """From the first knock until every door was open."""
    reload: float
    """How long firewalld's own reload took."""
    latest_back: float
    """From the start of the reload until the door that was knocked for last was open again."""
    all_back: float
    """From the start of the reload until every door was open again."""
    back_cpu: float
    """CPU seconds of firewalld and the daemon, from the end of the reload until every door was open again."""
    ended: float
    """From SIGTERM to the daemon's end."""
    end_cpu: float
    """CPU seconds of firewalld meanwhile."""
    status: int
    """The daemon's exit status."""
    left: int
    """Doors that were open after its end."""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.many_doors",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--doors", type=int, nargs="+", default=DOORS, metavar="N", help="default: 100 500 1000")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout, to be measured in the same run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw numbers there, and the machine's")
    options = parser.parse_args()
    packages = [ROOT, *([options.beside.resolve()] if options.beside else [])]
    with Stage() as stage:
        machine = probes.machine(stage.box)
        found = [[measure(stage, package, number) for package in packages] for number in options.doors]
    machine["load after"] = Path("/proc/loadavg").read_text().strip()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(table([row for times in found for row in rows(*times)]))
    if options.json:
        raw = {"machine": machine, "times": [[asdict(one) for one in times] for times in found]}
        options.json.write_text(json.dumps(raw, indent=1) + "\n")


def measure(stage: Stage, package: Path, number: int) -> Times:
    """One run of the package in that folder, with so many doors."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        daemon = _start(stage, package, Path(folder))
        say(f"{package.name}: opening {number} doors")
        began = time.monotonic()
        for _ in range(number):
            address = stage.fresh_address()
            stage.knock(address, _PAUSE)
        opened = _wait_for_doors(stage, number) - began
        say(f"{package.name}: reloading firewalld")
        began = time.monotonic()
        stage.box.firewalld.ask("", "reload", timeout=_PATIENCE)
        reload = time.monotonic() - began
        firewalld = stage.box.firewalld.process.pid
        used = probes.cpu(firewalld).exact + probes.cpu(daemon.pid).exact
        latest_back = _wait_for_rule(stage, address) - began
        all_back = _wait_for_doors(stage, number) - began
        back_cpu = probes.cpu(firewalld).exact + probes.cpu(daemon.pid).exact - used
        say(f"{package.name}: ending the daemon")
        began, used = time.monotonic(), probes.cpu(firewalld).exact
        daemon.send_signal(signal.SIGTERM)
        status = daemon.wait(_PATIENCE)
        ended, end_cpu = time.monotonic() - began, probes.cpu(firewalld).exact - used
        left = len(doors(stage.box))
        wait_until(lambda: not doors(stage.box), _PATIENCE, "the crash guard closes what is left", every=_EVERY)
    return Times(number, opened, reload, latest_back, all_back, back_cpu, ended, end_cpu, status, left)


def _start(stage: Stage, package: Path, folder: Path) -> Process:
    conf = write_configuration(folder, max_opened_door_duration=LONG, max_open_doors=65536)
    argv = [sys.executable, "-m", "port_knocking_doors", "--conf", str(conf)]
    # `python -m` looks for the package in the working directory first.
    daemon = stage.box.server.popen(argv, cwd=package)
    daemon.wait_for(r"\bready\b", 20)
    return daemon


def _wait_for_doors(stage: Stage, number: int) -> float:
    wait_until(lambda: len(doors(stage.box)) >= number, _PATIENCE, f"{number} doors are open", every=_EVERY)
    return time.monotonic()


def _wait_for_rule(stage: Stage, address: str) -> float:
    rule = door_rule(ip_address(address))
    wait_until(lambda: rule in doors(stage.box), _PATIENCE, f"the door of {address} is open", every=_EVERY)
    return time.monotonic()


def rows(ours: Times, peer: Times | None = None) -> Iterator[Row]:
    """The table's lines for one number of doors."""
    number = ours.doors
    ends = [f"exit status {times.status}, {times.left} doors left" for times in (ours, peer) if times and times.status]
    for what, name, aim, note in (
        (f"{number} doors opened by knocks", "opened", None, ""),
        (f"{number} doors, reload: the latest is back", "latest_back", BACK_AIM, f"reload {ours.reload:.2f} s"),
        (f"{number} doors, reload: all are back", "all_back", None, ""),
        (f"{number} doors, reload: CPU until all are back", "back_cpu", None, "of firewalld and the daemon"),
        (f"{number} doors, SIGTERM to the end", "ended", None, "; ".join(ends)),
        (f"{number} doors, SIGTERM: CPU to the end", "end_cpu", None, "of firewalld"),
    ):
        value: float = getattr(ours, name)
        other: float | None = getattr(peer, name) if peer else None
        yield Row(
            what,
            f"{value:.2f} s",
            "-" if other is None else f"{other:.2f} s",
            "-" if other is None else f"{value / other:.2f}",
            "-" if aim is None else f"within {aim:g} s after it",
            None if aim is None else value - ours.reload <= aim,
            note,
        )


if __name__ == "__main__":
    main()
