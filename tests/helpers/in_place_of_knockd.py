"""`port-knocking-doors knockd` on a sandbox's server, and what its commands leave behind."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from port_knocking_doors.model import Address
from port_knocking_doors.sandbox import Host, Process
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors", "knockd"]
SOON = 20.0


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@contextmanager
def running(
    host: Host, conf: Path, *options: object, program: list[str] = PROGRAM, env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A daemon in the foreground, ready; it is gone at the end."""
    daemon = host.popen([*program, "-c", str(conf), *map(str, options)], env=env)
    try:
        daemon.wait_for(r"\bready\b", SOON)
        yield daemon
    finally:
        if daemon.poll() is None:
            daemon.terminate()
        daemon.wait(SOON)


def knock(host: Host, address: Address, ports: Iterable[int]) -> None:
    """UDP knocks, each with a payload and a port of its own."""
    host.send([(address, port, b"x", 0) for port in ports], pause=0.002)


def ran(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def await_run(log: Path, *lines: str) -> None:
    """Wait until commands have written these lines, and no others."""
    wait_until(lambda: ran(log) == list(lines), SOON, lambda: f"{lines}; it is {ran(log)}")


def log_lines(log: Path) -> list[str]:
    """The lines of a log of knockd's without their times."""
    return [line.partition("] ")[2] for line in ran(log)]


def await_line(log: Path, line: str, times: int = 1) -> None:
    wait_until(lambda: log_lines(log).count(line) >= times, SOON, lambda: f"{line}; it is {log_lines(log)}")
