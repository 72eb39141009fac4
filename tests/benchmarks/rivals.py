"""The daemon and Debian's knockd: each on the server of its own sandbox, with the same sequence."""

import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from port_knocking_doors.sandbox import Process
from tests.benchmarks.generator import Generator, Hit, arrived
from tests.benchmarks.stage import ROOT, Stage
from tests.helpers.running import write_configuration

STEPS: tuple[Hit, ...] = (("udp", 22007), ("tcp", 22003), ("udp", 22011), ("udp", 22001), ("tcp", 22005))
"""As many of them as a measurement wants."""
NOT_A_KNOCK: Hit = ("udp", 40000)
"""Neither a step nor, within the range of outgoing ports, ever a trap."""
TIMEOUT = 10
"""Seconds for a whole sequence."""
KNOCKERS = 65536
"""The table's bound: the default."""
SEQUENCE = "bell"
_READY = 30.0


class Bell:
    """A FIFO that commands write an address to, and when it came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        self._fifo = os.open(path, os.O_RDWR)
        self._rung: dict[str, float] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen, name="bell", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while (data := os.read(self._fifo, 4096)) != b"end\n":
            when = time.monotonic()
            with self._changed:
                for address in data.decode().split():
                    self._rung.setdefault(address, when)
                self._changed.notify_all()

    def wait(self, address: str, timeout: float) -> float | None:
        """When the address's command wrote, or None if it does not within the time."""
        with self._changed:
            self._changed.wait_for(lambda: address in self._rung, timeout)
            return self._rung.get(address)

    def close(self) -> None:
        os.write(self._fifo, b"end\n")
        self._thread.join(5)
        os.close(self._fifo)


_Rival = TypeVar("_Rival", bound="Rival")


class Rival(ABC):
    """A context manager: a sandbox, and in it one of the two programs once it is started."""

    name: str
    process: Process

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.stage = Stage()

    def __enter__(self: _Rival) -> _Rival:
        with ExitStack() as stack:
            stack.enter_context(self.stage)
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
            self.bell = Bell(self.folder / "bell")
            stack.callback(self.bell.close)
            self.generator = Generator(self.stage.client, self.stage.box.server, self.folder)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @abstractmethod
    def start(self, steps: int) -> None:
        """Start it with the first of `STEPS`; it knows nobody."""

    @abstractmethod
    def handled(self) -> int:
        """How many packets it was given so far, by what it tells itself."""

    def stop(self) -> None:
        """End it, one way or the other."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except Exception:  # it is too busy to hear
            self.process.kill()
            self.process.wait(5)

    def arrived(self) -> int:
        """Packets that came in from the client, for it or not."""
        return arrived(self.process.pid, self.stage.client.server_interface)

    def hit(self, source: str, steps: int, gap: float) -> float:
        """Knock as an honest client: each packet `gap` seconds after the one before; when the last one left."""
        target = str(self.stage.client.server4)
        answer = self.stage.knocker.ask("hit", source=source, target=target, hits=STEPS[:steps], gap=gap)
        return float(answer["began"])

    def fresh_address(self) -> str:
        """An address of the client that nobody has used yet."""
        return self.stage.fresh_address()

    def fixed_address(self) -> IPv4Address:
        return self.stage.client.address4

    @property
    def command(self) -> str:
        return f"echo %IP% >>{self.bell.path}"


class Ours(Rival):
    """The daemon."""

    name = "ours"

    def start(self, steps: int) -> None:
        conf = write_configuration(self.folder, max_knockers=KNOCKERS)
        names = [f"udp:{port}" if protocol == "udp" else f"tcp:{port}:s" for protocol, port in STEPS[:steps]]
        table = {"name": SEQUENCE, "steps": names, "timeout": TIMEOUT, "start_command": self.command}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        conf.write_text(f"{conf.read_text()}\n[[sequence]]\n{lines}")
        argv = [sys.executable, "-m", "tests.benchmarks.counted", "--conf", str(conf)]
        self.process = self.stage.box.server.popen(argv, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
        self.process.wait_for(r"\bready\b", _READY)

    def counts(self) -> dict[str, int]:
        """Of the sniffer: `seen` by the kernel, of those `dropped`; and `table`, how many knockers are remembered."""
        before = len(self.process.stdout.lines)
        self.process.send_signal(signal.SIGUSR1)
        counts: dict[str, int] = json.loads(self.process.stdout.wait_for(r"^\{.*\}$", 30.0, start=before))
        return counts

    def handled(self) -> int:
        counts = self.counts()
        return counts["seen"] - counts["dropped"]


class Knockd(Rival):
    """Debian's knockd, in the foreground.

    It keeps no count, and logs each first knock that it takes for one: `Stage 1`. One source that repeats its first
    knock is at stage 1 with every other packet (see `repeats`).
    """

    name = "knockd"
    repeats = False
    """Whether the traffic is one source's first knock again and again."""

    def start(self, steps: int) -> None:
        self._log = self.folder / "knockd.log"
        self._log.write_text("")
        conf = self.folder / "knockd.conf"
        names = ",".join(f"{port}:{protocol}" for protocol, port in STEPS[:steps])
        conf.write_text(
            f"[options]\nlogfile = {self._log}\n\n[{SEQUENCE}]\nsequence = {names}\nseq_timeout = {TIMEOUT}\n"
            f"tcpflags = syn\nstart_command = {self.command}\n"
        )
        interface = self.stage.client.server_interface
        self.process = self.stage.box.server.popen(["knockd", "-i", interface, "-c", str(conf)], cwd="/")
        deadline = time.monotonic() + _READY
        while "listening on" not in self._log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        # It says so ahead of the time.
        time.sleep(0.5)

    def handled(self) -> int:
        count = 0
        with self._log.open("rb") as file:
            for line in file:
                count += b"Stage 1" in line
        return count * 2 if self.repeats else count


def prefixes(lengths: Sequence[int]) -> list[tuple[int, Hit]]:
    """For each length a crowd, by its number, that knocks so many first steps."""
    return [(crowd, hit) for crowd, length in enumerate(lengths) for hit in STEPS[:length]]


def version(rival: Rival) -> str:
    """Of knockd."""
    found = re.search(r"knockd (\S+)", rival.stage.box.server.run(["knockd", "-V"], check=False).stdout)
    return found[1] if found else "unknown"
