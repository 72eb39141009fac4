"""What every measurement stands on: one sandbox, the agents on its hosts, and one daemon."""

import json
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any

from port_knocking_doors.sandbox import Host, Process, Sandbox
from tests.benchmarks import probes
from tests.helpers.running import GUARDED, SEQUENCE, start_daemon, write_configuration

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "10.77.0.0/16"
"""The client's addresses that knock, one for each door. `agents` looks for these in the kernel's messages."""
CROWD = "10.128.0.0/11"
"""The client's addresses of a flood from many sources."""
CROWD_FIRST = IPv4Address("10.128.0.1")
PEER_PRIORITY = 31312
"""The peers' rules are like the daemon's, but not its own."""
BRIEF = 0.5
"""Seconds that a door stays open where it shall go again at once."""
LONG = 3600.0
_PATIENCE = 40.0


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"benchmark: {text}", file=sys.stderr, flush=True)


class AgentError(Exception):
    """An agent could not do what it was asked for."""


class Remote:
    """One agent on a host."""

    def __init__(self, host: Host, role: str) -> None:
        self._sock, theirs = socket.socketpair()
        self._sock.settimeout(_PATIENCE)
        with theirs:
            argv = [sys.executable, "-m", "tests.benchmarks.agents", role]
            self._process = host.popen(argv, cwd=ROOT, stdin=theirs.fileno())
        self._answers = self._sock.makefile("rb")

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer."""
        self._sock.sendall(json.dumps({"operation": operation, **arguments}).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise AgentError(f"{self._process}: {self._process.stderr.tail(20)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AgentError(answer["error"])
        return answer

    def close(self) -> None:
        self._answers.close()
        self._sock.close()


class Stage:
    """A context manager: a sandbox whose client has many addresses, three agents, and a daemon once it is started."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._number = 0

    def __enter__(self) -> "Stage":
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
            self.box = stack.enter_context(Sandbox(say=say))
            self.client = self.box.hosts["client"]
            self._lay_routes()
            self.knocker = self._agent(stack, self.client, "knocker")
            self.watcher = self._agent(stack, self.box.server, "watcher")
            self.caller = self._agent(stack, self.box.server, "caller")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _agent(self, stack: ExitStack, host: Host, role: str) -> Remote:
        remote = Remote(host, role)
        stack.callback(remote.close)
        return remote

    def _lay_routes(self) -> None:
        """Both networks are the client's own, every address of them: as if each had been added to its interface."""
        for network in (NETWORK, CROWD):
            self.client.run(["ip", "route", "add", "local", network, "dev", "lo"])
            self.box.server.run(["ip", "route", "add", network, "via", str(self.client.address4)])

    # The daemon. -----------------------------------------------------------------------------------------------------

    daemon: Process

    def start(self) -> None:
        """Start the daemon, with brief doors."""
        self.daemon = start_daemon(self.box, self._folder, max_opened_door_duration=BRIEF)
        assert self.daemon.pid > 0, "the daemon ended"

    def stop(self) -> None:
        """End it; it closes its doors."""
        self.daemon.terminate()
        self.daemon.wait(_PATIENCE)

    def start_once(self) -> float:
        """Seconds from a start of the daemon until it was ready; it is ended then."""
        conf = str(write_configuration(self._folder))
        argv = [sys.executable, "-m", "port_knocking_doors", "--conf", conf]
        return span(self.caller.ask("start", argv=argv, line="ready"))

    def configure(self, door_duration: float) -> None:
        """Let doors that open from now on stay open for so long. The daemon forgets every knocker."""
        write_configuration(self._folder, max_opened_door_duration=door_duration)
        before = len(self.daemon.stderr.lines)
        self.daemon.send_signal(signal.SIGHUP)
        self.daemon.stderr.wait_for("configuration reloaded", _PATIENCE, start=before)

    @property
    def guardian(self) -> int:
        """The process that outlives the daemon."""
        (child,) = probes.children(self.daemon.pid)
        return child

    # Doors. ----------------------------------------------------------------------------------------------------------

    def fresh_address(self) -> str:
        """An address of the client that nobody has used yet."""
        self._number += 1
        return str(IPv4Address("10.77.0.0") + self._number)

    def knock(self, source: str, gap: float) -> float:
        """Knock the whole sequence; when the last datagram left, `gap` seconds after the others."""
        target = str(self.client.server4)
        answer = self.knocker.ask("knock", source=source, target=target, ports=list(SEQUENCE), gap=gap)
        return float(answer["began"])

    def came(self, address: str) -> float:
        """When the kernel told that a rule with the address stands."""
        return float(self.watcher.ask("came", address=address, timeout=10.0)["time"])

    def went(self, address: str) -> float:
        """When the kernel told that the rule is gone."""
        return float(self.watcher.ask("went", address=address, timeout=10.0)["time"])

    def open_doors(self, count: int) -> None:
        """Open doors that stay, each by the knocks of an address of its own."""
        self.configure(LONG)
        for _ in range(count):
            address = self.fresh_address()
            self.knock(address, 0.0)
            self.came(address)
        self.configure(BRIEF)

    def doors(self) -> int:
        """How many rules of doors stand, as firewalld tells."""
        rules = self.caller.ask("rules", zone="public")["value"]
        return sum(f'port="{GUARDED}"' in rule and 'priority="31313"' in rule for rule in rules)


def rule_like_a_door(address: str) -> str:
    """What the daemon hands to firewalld for a door, but for the mark."""
    return (
        f'rule priority="{PEER_PRIORITY}" family="ipv4" source address="{address}" '
        f'port port="{GUARDED}" protocol="tcp" accept'
    )


def span(answer: dict[str, Any]) -> float:
    """Seconds between beginning and end."""
    return float(answer["ended"] - answer["began"])
