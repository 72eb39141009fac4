"""Floods by trafgen (Debian's netsniff-ng): packets from forged sources, at any rate that one processor makes."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from port_knocking_doors.errors import SandboxError
from port_knocking_doors.sandbox import ClientHost, Host, Process

PROGRAM = "trafgen"
Hit = tuple[str, int]
"""Protocol and port."""

ANYBODY = "drnd()"
"""A source address for each packet, at random."""
LONGEST = 900
"""Seconds after which a flood ends in any case."""
_CROWDS = 0x14000001  # 20.0.0.1
_CROWD = 0x02000000


def missing(program: str) -> bool:
    """Whether it is not on the PATH, nor where Debian has what only root needs."""
    return shutil.which(program) is None and not Path("/usr/sbin", program).exists()


def one_by_one(crowd: int) -> str:
    """Source addresses counted up, the same for each packet of a set that names the same crowd (0 to 9)."""
    first = _CROWDS + crowd * _CROWD
    return f"dinc({first:#x}, {first + _CROWD - 2:#x})"


class Generator:
    """On the client of a sandbox, towards its server. One processor is its own, the other the receiver's."""

    def __init__(self, client: ClientHost, server: Host, folder: Path) -> None:
        self._client = client
        self._conf = folder / "flood.cfg"
        found = json.loads(server.run(["ip", "-json", "link", "show", client.server_interface]).stdout)
        self._mac = found[0]["address"]

    def _packet(self, source: str, hit: Hit) -> str:
        protocol, port = hit
        rest = f'udp(sp=4444, dp={port}, csum=0) "knock\\n"'
        if protocol == "tcp":
            rest = f"tcp(sp=4444, dp={port}, seq=77, win=1000, syn)"
        return f"{{ eth(da={self._mac}) ipv4(saddr={source}, daddr={self._client.server4}, ttl=64) {rest} }}\n"

    def start(self, packets: Sequence[tuple[str, Hit]], *, count: int = 0, rate: int = 0) -> Process:
        """Send the packets (source and hit) in turns: `count` of them, or without end; at a `rate`, or at the best."""
        self._conf.write_text("".join(self._packet(*packet) for packet in packets))
        argv = ["timeout", str(LONGEST), PROGRAM, "--dev", self._client.interface, "--conf", str(self._conf)]
        # The kernel's own way out is the faster one on a veth, and loses nothing.
        argv += ["--cpus", "1", "--qdisc-path", "--num", str(count)]
        if rate:
            argv += ["--rate", f"{rate}pps"]
        return self._client.popen(argv)

    def send(self, packets: Sequence[tuple[str, Hit]], count: int, rate: int = 0) -> None:
        """Send so many, and return once they are sent."""
        process = self.start(packets, count=count, rate=rate)
        if process.wait(LONGEST + 5) != 0:
            raise SandboxError(f"{process}: {process.stderr.tail()} {process.stdout.tail()}")

    def stop(self, flood: Process) -> None:
        """End a flood."""
        flood.terminate()
        with suppress(subprocess.TimeoutExpired):
            flood.wait(5)
            return
        flood.kill()


def arrived(pid: int, interface: str) -> int:
    """Packets that came in by an interface of the network that the process is in."""
    text = Path(f"/proc/{pid}/net/dev").read_text()
    found = re.search(rf"^\s*{interface}:\s*\d+\s+(\d+)", text, re.MULTILINE)
    assert found is not None, interface
    return int(found[1])
