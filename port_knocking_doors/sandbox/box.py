"""The whole sandbox: server, clients, bus and firewalld, started and ended together."""

import re
import signal
import sys
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from port_knocking_doors.errors import SandboxError
from port_knocking_doors.sandbox import launch
from port_knocking_doors.sandbox.host import ClientHost, Host, HostLink
from port_knocking_doors.sandbox.inside import BUS_SOCKET, RUNTIME_DIRECTORY
from port_knocking_doors.sandbox.process import AgentLink, Process, RequestError
from port_knocking_doors.system.resource import Resource

READY_WITHIN = 30.0
"""Seconds within which the bus or firewalld must be ready."""
STOPPED_WITHIN = 20.0
_POLL = 0.02

_BUS_CONFIGURATION = f"""\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={BUS_SOCKET}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
_FIREWALLD = "org.fedoraproject.FirewallD1"


def _say(line: str) -> None:
    print(f"sandbox: {line}", file=sys.stderr, flush=True)


class BoxService:
    """A program on the server that a test stops and starts; `runs` holds one process for each start."""

    def __init__(self, server: Host, argv: list[str]) -> None:
        self._server = server
        self._argv = argv
        self.runs: list[Process] = []

    @property
    def process(self) -> Process:
        """The latest run."""
        return self.runs[-1]

    @property
    def running(self) -> bool:
        return bool(self.runs) and self.process.poll() is None

    def start(self) -> None:
        """Start it and return once it answers."""
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Start it without waiting."""
        if self.running:
            raise SandboxError(f"sandbox: {self._argv[0]} is already running")
        self.runs.append(self._server.popen(self._argv, cwd="/"))

    def wait_until_ready(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End it with SIGTERM and return once it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL and return once it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it with SIGSTOP: it exists and does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def output(self) -> str:
        """The output of all its runs."""
        return "".join(run.stdout.text + run.stderr.text for run in self.runs)

    def _failure(self, what: str) -> SandboxError:
        self.process.stderr.drain()
        return SandboxError(f"sandbox: {what}: {self.process.stderr.tail()}")

    def _end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)  # a frozen process gets SIGTERM once it continues
        self.process.wait(STOPPED_WITHIN)


class BusService(BoxService):
    """The private system bus. firewalld ends with its bus, as on every host."""

    def __init__(self, server: Host) -> None:
        configuration = "/run/dbus/bus.conf"
        server.run(["tee", configuration], text=_BUS_CONFIGURATION)
        options = ["--nofork", "--nopidfile", "--print-address=1", f"--config-file={configuration}"]
        super().__init__(server, ["dbus-daemon", *options])

    def wait_until_ready(self) -> None:
        try:
            self.process.stdout.wait_for("^unix:", READY_WITHIN)
        except SandboxError:
            raise self._failure("the bus did not start") from None


class FirewalldService(BoxService):
    """The real firewalld of the sandbox."""

    def __init__(self, server: Host, link: AgentLink) -> None:
        super().__init__(server, ["firewalld", "--nofork", "--nopid"])
        self._link = link

    def wait_until_ready(self) -> None:
        """Wait for an answer: firewalld takes its bus name first, and answers only once its rules are active."""
        deadline = time.monotonic() + READY_WITHIN
        while not self.answers(deadline - time.monotonic()):
            if not self.running:
                raise self._failure("firewalld ended")
            if time.monotonic() > deadline:
                raise self._failure(f"firewalld is not ready after {READY_WITHIN:g} s")
            time.sleep(_POLL)

    def answers(self, timeout: float = 1.0) -> bool:
        """Whether it answers a question on the bus."""
        try:
            self.ask("", "getDefaultZone", timeout=max(timeout, _POLL))
        except RequestError:
            return False
        return True

    def ask(self, interface: str, member: str, *arguments: str | int, timeout: float = 10.0) -> Any:
        """One D-Bus call on the interface's suffix (`zone`, …); an error raises `RequestError`."""
        return self._link.ask(
            "ask",
            timeout,
            interface=f"{_FIREWALLD}.{interface}".rstrip("."),
            member=member,
            arguments=list(arguments),
            timeout=timeout,
        )


class Polkit(BoxService):
    """The real polkitd on the sandbox's bus, with rules of its own; it does not see those of this machine."""

    PROGRAM = "/usr/lib/polkit-1/polkitd"
    RULES = "/etc/polkit-1/rules.d"

    def __init__(self, server: Host) -> None:
        super().__init__(server, [self.PROGRAM, "--no-debug"])
        for directory in (self.RULES, "/usr/share/polkit-1/rules.d"):
            server.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "sandbox", directory])

    def wait_until_ready(self) -> None:
        ask = ["dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"]
        ask += ["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.PolicyKit1"]
        deadline = time.monotonic() + READY_WITHIN
        while "true" not in self._server.run(ask).stdout:
            if not self.running:
                raise self._failure("polkitd ended")
            if time.monotonic() > deadline:
                raise self._failure(f"polkitd is not ready after {READY_WITHIN:g} s")
            time.sleep(_POLL)


class Sandbox(Resource):
    """A context manager: a server with a real firewalld, and one client host for each name.

    `users`: the sandbox has other users than root, for which many machines require root.
    """

    def __init__(self, clients: Iterable[str] = ("client",), *, users: bool = False, say: launch.Say = _say) -> None:
        self._wanted = tuple(clients)
        self._users = users
        self._say = say
        self._environment = launch.environment(
            {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={BUS_SOCKET}", "XDG_RUNTIME_DIR": RUNTIME_DIRECTORY}
        )
        self._entrance: launch.Entrance | None = None
        self._links: list[AgentLink] = []
        self.hosts: dict[str, ClientHost] = {}
        """The clients by name."""
        self.processes: list[Process] = []
        """Every process started on a host since set-up, and the services; tests show their output."""

    server: Host
    bus: BusService
    firewalld: FirewalldService

    @property
    def isolation(self) -> str:
        """The method that worked: "a user namespace", "sudo" or "root"."""
        assert self._entrance is not None
        return self._entrance.isolation.name

    def open(self) -> None:
        """Make the hosts, and start the bus and firewalld. Raises `SandboxError`."""
        self._entrance = launch.enter(self._say, users=self._users)
        link, _ = self._new_link("server", own_network=False)
        self.server = Host("server", link, self._environment, self.processes)
        self.bus = BusService(self.server)
        self.bus.start()
        self.firewalld = FirewalldService(self.server, link)
        self.firewalld.begin()
        for name in self._wanted:
            self.add_client(name)
        self.firewalld.wait_until_ready()
        self.processes[:] = [process for process in self.processes if process.poll() is None]

    def close(self) -> None:
        """End every process and every host; safe to call twice."""
        entrance, self._entrance = self._entrance, None
        if entrance is not None:
            entrance.close()
        while self._links:
            self._links.pop().close()

    def add_client(self, name: str) -> ClientHost:
        """One more client host, on a link and a subnet of its own."""
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,11}", name) or name in self.hosts:
            raise ValueError(
                f"{name!r}: the name of a host is at most 12 small letters, digits and hyphens, and unique"
            )
        number = len(self.hosts) + 1
        cable = HostLink(
            server_interface=f"to-{name}",
            interface="eth0",
            server4=IPv4Address(f"10.0.{number}.1"),
            server6=IPv6Address(f"fd00:0:0:{number}::1"),
            address4=IPv4Address(f"10.0.{number}.2"),
            address6=IPv6Address(f"fd00:0:0:{number}::2"),
        )
        link, pid = self._new_link(name, own_network=True)
        host = ClientHost(name, link, self._environment, self.processes, cable)
        self.server.run(["ip", "-batch", "-"], text=_server_commands(cable, pid))
        host.run(["ip", "-batch", "-"], text=_client_commands(cable))
        self.server.await_link(cable.server_interface, cable.server6)
        host.await_link(cable.interface, cable.address6)
        self.hosts[name] = host
        return host

    def rules(self, zone: str = "") -> list[str]:
        """The rich rules of a zone (empty: the default zone), as firewalld writes them."""
        rules: list[str] = self.firewalld.ask("zone", "getRichRules", zone)
        return rules

    def nft(self) -> str:
        """The server's whole nftables ruleset."""
        return self.server.run(["nft", "list", "ruleset"]).stdout

    def firewall_cmd(self, *arguments: str) -> str:
        """`firewall-cmd` on the server; returns what it printed."""
        return self.server.run(["firewall-cmd", *arguments]).stdout.strip()

    def _new_link(self, name: str, *, own_network: bool) -> tuple[AgentLink, int]:
        assert self._entrance is not None
        link = AgentLink(name, self._entrance.new_host(own_network=own_network))
        self._links.append(link)
        return link, link.hello()


def _server_commands(cable: HostLink, client: int) -> str:
    return (
        f"link add {cable.server_interface} type veth peer name {cable.interface} netns {client}\n"
        f"address add {cable.server4}/24 dev {cable.server_interface}\n"
        f"address add {cable.server6}/64 dev {cable.server_interface} nodad\n"
        f"link set {cable.server_interface} up\n"
    )


def _client_commands(cable: HostLink) -> str:
    return (
        f"address add {cable.address4}/24 dev {cable.interface}\n"
        f"address add {cable.address6}/64 dev {cable.interface} nodad\n"
        f"link set {cable.interface} up\n"
        f"route add default via {cable.server4}\n"
        f"route add default via {cable.server6}\n"
    )
