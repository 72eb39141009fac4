"""Readings of /proc: what a process has used, what a host's sockets have seen, what machine this is."""

import os
import platform
import re
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.sandbox import Host, Sandbox

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """CPU seconds of a process, all its threads: as accounted in ticks, and as the scheduler knows it."""

    ticks: float
    """utime and stime of /proc/PID/stat, which go in steps of 10 ms."""
    exact: float
    """Of /proc/PID/task/*/schedstat, in nanoseconds; threads that have ended are not in it (the daemon starts none)."""

    def since(self, before: "Cpu") -> "Cpu":
        return Cpu(self.ticks - before.ticks, self.exact - before.exact)


def cpu(pid: int) -> Cpu:
    """What the process has used so far."""
    folder = Path(f"/proc/{pid}")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    ran = sum(int(path.read_text().split()[0]) for path in folder.glob("task/*/schedstat"))
    return Cpu((int(fields[11]) + int(fields[12])) * _TICK, ran / 1e9)


def memory_mib(pid: int, what: str = "VmRSS") -> float:
    """A line of /proc/PID/status: VmRSS is resident now, VmHWM the most that ever was."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, what
    return int(found[1]) / 1024


def children(pid: int) -> list[int]:
    """The processes that it started."""
    return [int(child) for path in Path(f"/proc/{pid}").glob("task/*/children") for child in path.read_text().split()]


class Counters(NamedTuple):
    """What the UDP sockets of a host have seen so far, of IPv4."""

    received: int
    """Handed to a program."""
    dropped: int
    """By a socket's filter or because its buffer was full: the column `drops` of the port's sockets."""
    overflowed: int
    """Because a buffer was full."""

    def since(self, before: "Counters") -> "Counters":
        return Counters(*(now - then for now, then in zip(self, before, strict=True)))


def counters(host: Host, port: int) -> Counters:
    """Read them on the host."""
    text = host.run(["cat", "/proc/net/snmp", "/proc/net/udp6", "/proc/net/udp"]).stdout
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Udp:"))
    udp = dict(zip(names, map(int, values), strict=True))
    sockets = [line.split() for line in text.splitlines() if re.match(r"\s*\d+:", line)]
    drops = sum(int(fields[-1]) for fields in sockets if fields[1].endswith(f":{port:04X}"))
    return Counters(udp["InDatagrams"], drops, udp["RcvbufErrors"])


def wait_until_idle(pid: int, timeout: float = 20.0) -> None:
    """Return once the process has done next to nothing for a moment: it has worked off what waited."""
    deadline = time.monotonic() + timeout
    before = cpu(pid).exact
    while time.monotonic() < deadline:
        time.sleep(0.2)
        after = cpu(pid).exact
        if after - before < 0.002:
            return
        before = after


def machine(box: Sandbox) -> dict[str, str]:
    """Where and when this was measured."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "python": platform.python_version(),
        "firewalld": box.firewall_cmd("--version"),
        "nft": box.server.run(["nft", "--version"]).stdout.strip(),
        "dbus-next": metadata.version("dbus-next"),
        "load before": Path("/proc/loadavg").read_text().strip(),
    }
