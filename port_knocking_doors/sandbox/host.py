"""One host of a sandbox: processes, datagrams, connections and listeners on it."""

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple, cast

from port_knocking_doors.errors import SandboxError
from port_knocking_doors.model import Address
from port_knocking_doors.sandbox.process import AgentLink, Process, feed

_POLL = 0.005

ConnectionOutcome = Literal["open", "refused", "prohibited", "timeout", "unreachable"]
"""The outcome of a connection: accepted; refused by the host (TCP reset, or "port unreachable" for UDP), past the
firewall; rejected by the firewall; not answered; without a route."""

OutgoingDatagram = tuple[Address | str, int, bytes] | tuple[Address | str, int, bytes, int]
"""Destination address, destination port, payload, and the source port (left out or 0: any)."""


class ConnectionAttempt(NamedTuple):
    """One try of `Host.watch_connect`: the time of its end, on the monotonic clock, and its outcome."""

    time: float
    outcome: ConnectionOutcome


class Host:
    """A host with a network of its own; its processes share the machine's files and use the sandbox's bus."""

    def __init__(self, name: str, link: AgentLink, environment: Mapping[str, str], processes: list[Process]) -> None:
        self.name = name
        self._link = link
        self._environment = environment
        self._processes = processes

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> Process:
        """Start a process. `env` is added to the sandbox's environment; a stream that is given is a file descriptor."""
        process = Process(
            self._link,
            argv,
            env={**self._environment, **(env or {})},
            cwd=os.fspath(cwd) if cwd is not None else os.getcwd(),  # noqa: PTH109 (a plain text is wanted)
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self._processes.append(process)
        return process

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        text: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end, with `text` as its input. A failure is a `SandboxError` unless `check` is off."""
        stdin = feed(text) if text else None
        try:
            process = self.popen(argv, env=env, cwd=cwd, stdin=stdin)
        finally:
            if stdin is not None:
                os.close(stdin)
        status = self._finish(process, timeout)
        if check and status != 0:
            output = process.stderr.tail() if process.stderr.text else process.stdout.tail()
            raise SandboxError(f"sandbox: {' '.join(argv)} on {self.name} gave {status}: {output}")
        return subprocess.CompletedProcess(process.args, status, process.stdout.text, process.stderr.text)

    def _finish(self, process: Process, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise SandboxError(
                f"sandbox: {' '.join(process.args)} on {self.name} ran longer than {timeout:g} s"
            ) from None
        for output in (process.stdout, process.stderr):
            output.wait_for_end(max(0.0, deadline - time.monotonic()))
        return status

    def send(self, datagrams: Iterable[OutgoingDatagram], *, pause: float = 0.0, repeat: int = 1) -> None:
        """Send UDP datagrams in order, `pause` seconds apart, the whole row `repeat` times."""
        row = [(str(address), port, payload.hex(), *(source or [0])) for address, port, payload, *source in datagrams]
        # Far beyond the time of a flood on a slow machine.
        within = len(row) * repeat * (pause + 0.001)
        self._link.ask("send", within, datagrams=row, pause=pause, repeat=repeat)

    def connect(
        self, address: Address | str, port: int, *, timeout: float = 2.5, protocol: str = "tcp", source_port: int = 0
    ) -> ConnectionOutcome:
        """Try one connection; for UDP, wait for an echo. TCP tries again after a second: the kernel sometimes drops an
        ICMP answer while floods of other hosts keep its ICMP socket busy."""
        outcome = self._link.ask(
            "connect",
            timeout,
            address=str(address),
            port=port,
            timeout=timeout,
            protocol=protocol,
            source_port=source_port,
        )
        return cast(ConnectionOutcome, outcome)

    def listen(self, port: int, protocol: str = "tcp") -> "Listener":
        """Serve an echo on a port, for IPv4 and IPv6, until the listener is closed."""
        return Listener(self._link, self._link.ask("listen", port=port, protocol=protocol))

    def watch_connect(
        self,
        address: Address | str,
        port: int,
        *,
        interval: float = 0.005,
        duration: float = 60.0,
        timeout: float = 1.0,
        protocol: str = "tcp",
    ) -> "ConnectionWatch":
        """Try a connection again and again, `interval` after the last one, until stopped or for `duration`."""
        number = self._link.ask(
            "watch",
            address=str(address),
            port=port,
            interval=interval,
            duration=duration,
            timeout=timeout,
            protocol=protocol,
        )
        return ConnectionWatch(self._link, number, timeout)

    def await_link(self, interface: str, address: IPv6Address, timeout: float = 10.0) -> None:
        """Wait until a link that was set up from both ends works, which is some time after the command.

        Then it counts as up, and the host answers neighbours that ask for its IPv6 address.
        """
        questions = f"link show dev {interface}\nmaddress show dev {interface}\n"
        group = f" {_solicited_node(address)} "
        deadline = time.monotonic() + timeout
        while True:
            answer = self.run(["ip", "-oneline", "-batch", "-"], text=questions).stdout.replace("\n", " ")
            if " state UP " in answer and group in answer:
                return
            if time.monotonic() > deadline:
                raise SandboxError(f"sandbox: {interface} on {self.name} did not come up within {timeout:g} s")
            time.sleep(_POLL)

    def close(self) -> None:
        self._link.close()


def _solicited_node(address: IPv6Address) -> IPv6Address:
    """The multicast group on which neighbours ask for the address (RFC 4291)."""
    return IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(address) & 0xFFFFFF)


@dataclass(frozen=True)
class HostLink:
    """The cable between a client and the server: one subnet of each family."""

    server_interface: str
    interface: str
    server4: IPv4Address
    server6: IPv6Address
    address4: IPv4Address
    address6: IPv6Address


class ClientHost(Host):
    """A host on a link of its own to the server.

    `address4`, `address6` and `interface` are its own; `server4`, `server6` and `server_interface` are the server's
    end of the same link.
    """

    def __init__(
        self, name: str, link: AgentLink, environment: Mapping[str, str], processes: list[Process], cable: HostLink
    ) -> None:
        super().__init__(name, link, environment, processes)
        self.server_interface = cable.server_interface
        self.interface = cable.interface
        self.server4 = cable.server4
        self.server6 = cable.server6
        self.address4 = cable.address4
        self.address6 = cable.address6


class Listener:
    """A small server on a host; closes at the end of a `with`."""

    def __init__(self, link: AgentLink, number: int) -> None:
        self._link = link
        self._number = number

    def close(self) -> None:
        self._link.ask("close", server=self._number)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ConnectionWatch:
    """Repeated connections; `attempts` has them after `stop`, which the end of a `with` calls."""

    def __init__(self, link: AgentLink, number: int, timeout: float) -> None:
        self._link = link
        self._number = number
        self._timeout = timeout
        self._stopped = False
        self.attempts: list[ConnectionAttempt] = []

    def stop(self) -> list[ConnectionAttempt]:
        if not self._stopped:
            self._stopped = True
            tried = self._link.ask("watched", self._timeout, watch=self._number)
            self.attempts = [ConnectionAttempt(when, outcome) for when, outcome in tried]
        return self.attempts

    def __enter__(self) -> "ConnectionWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
