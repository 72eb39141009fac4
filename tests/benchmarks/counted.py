"""The daemon, as it is, that tells its sniffer's counters on SIGUSR1.

    python -m tests.benchmarks.counted --conf FILE

A line of JSON on standard output for each signal. Nothing is added to what a packet passes through.
"""

import json
import os
import signal
from typing import Any

from port_knocking_doors import cli
from port_knocking_doors.capture.sniffer import Sniffer
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.system import clock

_latest: dict[type[Any], Any] = {}


def _remember(kind: type[Any]) -> None:
    """Keep the object of the class that was made last."""
    make = kind.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        _latest[kind] = self

    kind.__init__ = made


def _tell(*_: object) -> None:
    sniffer, knockers = _latest[Sniffer], _latest[KnockerTable]
    sniffer._look(clock.now())
    counts = {"seen": sniffer.seen, "dropped": sniffer.dropped, "table": len(knockers)}
    os.write(1, json.dumps(counts).encode() + b"\n")


if __name__ == "__main__":
    _remember(Sniffer)
    _remember(KnockerTable)
    signal.signal(signal.SIGUSR1, _tell)
    cli.main()
