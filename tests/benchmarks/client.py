"""How soon the client knocks, beside Debian's `knock`, and how fast its relay is, beside `nc`.

Run it from the project's folder: .venv/bin/python -m tests.benchmarks.client
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.benchmarks.report import Row, milliseconds, table
from tests.helpers.running import GUARDED, write_configuration

FIRST_AIM = 0.25
STEPS = ("7000:udp", "7001:udp")
RELAYED = 256 << 20
"""Bytes."""

_DESCRIPTION = """\
Measures inside a sandbox, with real packets. First packet: from starting the process until the kernel counts its first
packet, seen by a socket on the same link. All commands take turns in each round. Bare Python, and Python with typer
alone, tell what no client in Python with this command line can avoid. Relay: bytes a second through --connect, from a
pipe to a server that throws them away, beside nc.
"""

# Prints when a first knock came, on the clock that all hosts share.
_EAR = """
import socket, time
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("", 7000))
print("listening", flush=True)
while True:
    ear.recv(100)
    print(time.monotonic(), flush=True)
"""
_SINK = f"""
import socket
server = socket.create_server(("", {GUARDED}))
print("listening", flush=True)
while True:
    peer, _ = server.accept()
    while peer.recv(1 << 20):
        pass
    peer.close()
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.client",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with Sandbox() as box, tempfile.TemporaryDirectory() as folder:
        box.firewalld.ask("zone", "addPort", "", "7000-7001", "udp", 0)
        box.firewalld.ask("zone", "addPort", "", str(GUARDED), "tcp", 0)
        print(f"load: {Path('/proc/loadavg').read_text().strip()}\nPython {sys.version.split()[0]}\n")
        print(table(list(rows(box, box.hosts["client"], Path(folder), options.rounds))))


def rows(box: Sandbox, client: ClientHost, folder: Path, rounds: int) -> Iterator[Row]:
    """The table's lines."""
    python = [sys.executable, "-m", "port_knocking_doors", "knock"]
    server = str(client.server4)
    sequence = [7000, 7001, 7003, 7002, 7005]
    conf = write_configuration(folder, opening_sequence=sequence)
    commands = {
        "steps": [*python, server, *STEPS],
        "configuration": [*python, "-c", str(conf), server],
        "knock": ["knock", server, *STEPS],
    }
    bare = {"python": [sys.executable, "-c", "pass"], "typer": [sys.executable, "-c", "import typer"]}
    times: dict[str, list[float]] = {name: [] for name in (*commands, *bare)}
    ear = box.server.popen([sys.executable, "-c", _EAR])
    ear.stdout.wait_for("listening", 10)
    for _ in range(rounds):
        for name, argv in commands.items():
            heard = len(ear.stdout.lines)
            began = time.monotonic()
            client.run(argv)
            ear.stdout.wait_for(r"^\d", 10, start=heard)
            times[name].append(float(ear.stdout.lines[heard]) - began)
        for name, argv in bare.items():
            began = time.monotonic()
            client.run(argv)
            times[name].append(time.monotonic() - began)
    theirs = statistics.median(times["knock"])
    for name, what in (("steps", "start to first packet, steps given"), ("configuration", "… from a configuration")):
        ours = statistics.median(times[name])
        yield Row(
            what,
            milliseconds(times[name]),
            milliseconds(times["knock"]),
            f"{ours / theirs:.1f}",
            f"under {FIRST_AIM * 1000:g} ms",
            ours < FIRST_AIM,
            "peer: knock",
        )
    yield Row("Python alone, to its end", milliseconds(times["python"]))
    yield Row("Python and typer alone, to their end", milliseconds(times["typer"]))
    sink = box.server.popen([sys.executable, "-c", _SINK])
    sink.stdout.wait_for("listening", 10)
    ours, peer = (
        statistics.median(relayed(client, argv) for _ in range(3))
        for argv in ([*python, server, "7000:udp", "--connect", str(GUARDED)], ["nc", "-N", server, str(GUARDED)])
    )
    mine, its = (f"{RELAYED / seconds / 1e6:.0f} MB/s" for seconds in (ours, peer))
    yield Row(f"relay of {RELAYED >> 20} MiB, its start included", mine, its, f"{peer / ours:.2f}", note="peer: nc -N")


def relayed(client: ClientHost, argv: list[str]) -> float:
    """Seconds that it takes to send it all, until the server has it."""
    reading, writing = os.pipe()
    began = time.monotonic()
    process = client.popen(argv, stdin=reading)
    os.close(reading)
    piece = memoryview(bytes(1 << 16))
    with os.fdopen(writing, "wb", buffering=0) as stream:
        for _ in range(RELAYED // len(piece)):
            rest = piece
            while rest:
                rest = rest[stream.write(rest) or 0 :]
    if process.wait(60):
        raise SystemExit(f"benchmark: {process}: {process.stderr.tail()}")
    return time.monotonic() - began


if __name__ == "__main__":
    main()
