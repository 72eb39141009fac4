"""The start: what it waits for, and what the service manager is sent meanwhile. Real sockets, no firewalld."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from port_knocking_doors.capture.receiver import KnockReceiver
from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.daemon import startup
from port_knocking_doors.daemon.daemon import Daemon
from port_knocking_doors.errors import DoorsError, PortInUseError
from port_knocking_doors.knocks.authenticator import NOT_A_KNOCK, Authenticator, Capture, Outcome
from port_knocking_doors.model import Access, CommandOpening, Protocol, Sequence, Settings, Step
from port_knocking_doors.system import sd_notify
from port_knocking_doors.system.instance import command_mark
from tests.helpers.ports import free_ports

SOON = 15.0
FILE = "/etc/port_knocker.toml:3"


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(sd_notify, "_ready_sent", False)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Manager"]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield Manager(listening)


class Manager:
    """In place of systemd: everything that it was sent."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._received: list[str] = []

    @property
    def received(self) -> list[str]:
        with suppress(BlockingIOError):
            while True:
                self._received += self._listening.recv(4096).decode().splitlines()
        return self._received

    @property
    def status(self) -> str:
        """As `systemctl status` shows it."""
        return next((line[7:] for line in reversed(self.received) if line.startswith("STATUS=")), "")

    async def has(self, line: str) -> None:
        await until(lambda: line in self.received)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def a_daemon(ports: tuple[int, ...], sequences: tuple[Sequence, ...] = ()) -> tuple[Daemon, list[Loaded]]:
    """A daemon that never asks firewalld, and its configuration, which a reload takes from the list."""
    settings = Settings(
        guarded_ports=(),
        opening_sequence=ports,
        open_knock_ports=False,
        rule_priority=command_mark("startup"),
        sequences=sequences,
    )
    configurations = [Loaded(settings, Path("/etc/port_knocker.toml"), (), {"opening_sequence": FILE})]
    return Daemon(configurations[0], lambda: configurations[-1]), configurations


def occupy(port: int) -> socket.socket:
    """As an outgoing socket does."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.bind(("::", port))
    return sock


def tell(story: Callable[[], Awaitable[None]], daemon: Callable[[], Daemon]) -> None:
    """Run a daemon, and end it after the story."""

    async def main() -> None:
        one = daemon()
        running = asyncio.create_task(one.run())
        telling = asyncio.ensure_future(story())
        try:
            await asyncio.wait({running, telling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            telling.cancel()
            one.stop()
            await running
        await telling

    asyncio.run(asyncio.wait_for(main(), SOON))


def test_port_in_use_is_waited_for_under_service_manager(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    ports = free_ports(3)
    taken = occupy(ports[1])

    async def story() -> None:
        await manager.has("EXTEND_TIMEOUT_USEC=30000000")
        assert manager.status.startswith("waiting for a knock port: opening_sequence: port number 2 of it is in use")
        assert "READY=1" not in manager.received
        taken.close()
        await manager.has("READY=1")
        await until(lambda: manager.status.startswith("ready: listening on 3 UDP ports"))

    tell(story, lambda: a_daemon(ports)[0])
    said = [record.getMessage() for record in caplog.records]
    (line,) = (line for line in said if "in use" in line)
    assert line.startswith(f"{FILE}: opening_sequence: port number 2 of it is in use by another program")
    assert line.endswith(": waiting until it is free")
    assert not any(str(port) in text for port in ports for text in (*said, *manager.received))


def test_port_in_use_without_service_manager_fails_at_once_with_status_1() -> None:
    ports = free_ports(3)
    with occupy(ports[2]), pytest.raises(DoorsError) as failed:
        asyncio.run(asyncio.wait_for(a_daemon(ports)[0].run(), SOON))
    assert failed.value.exit_status == 1, "the unit does not retry 2"
    assert str(failed.value).startswith(f"{FILE}: opening_sequence: port number 3 of it is in use by another program")


def test_port_in_use_for_too_long_ends_with_status_1(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "PORT_PATIENCE", 0.2)
    ports = free_ports(3)
    with occupy(ports[0]), pytest.raises(DoorsError, match="port number 1 of it is in use") as failed:
        asyncio.run(asyncio.wait_for(a_daemon(ports)[0].run(), SOON))
    assert failed.value.exit_status == 1
    assert "READY=1" not in manager.received


def test_end_during_wait_for_port_is_no_failure(manager: Manager) -> None:
    ports = free_ports(3)

    async def story() -> None:
        await until(lambda: "in use" in manager.status)

    with occupy(ports[1]):
        tell(story, lambda: a_daemon(ports)[0])
    assert "STOPPING=1" in manager.received
    assert "READY=1" not in manager.received


def test_reload_during_wait_for_port_listens_on_the_new_ones(manager: Manager) -> None:
    old, new = free_ports(3), free_ports(3)
    made: list[tuple[Daemon, list[Loaded]]] = []

    def make() -> Daemon:
        made.append(a_daemon(old))
        return made[0][0]

    async def story() -> None:
        await until(lambda: "in use" in manager.status)
        daemon, configurations = made[0]
        configurations.append(Loaded(replace(configurations[0].settings, opening_sequence=new), None, ()))
        daemon.handler.reload()
        await manager.has("READY=1")
        assert daemon.handler.snapshot().listeners == 3

    with occupy(old[1]):
        tell(story, make)


def test_port_in_use_keeps_no_sniffed_sequence_from_being_received(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "PORT_PATIENCE", 0.3)
    ports, others = free_ports(3), free_ports(2)
    # Listened, and in the way of a sniffer that a test may not have.
    sniffed = Sequence(
        "ssh",
        tuple(Step(Protocol.UDP, port) for port in others),
        access=Access.of("ssh", command=CommandOpening("true")),
    )
    received: list[str] = []
    monkeypatch.setattr(
        "port_knocking_doors.capture.on_demand.OnDemandSniffer.start", lambda *_: received.append("ssh")
    )
    taken = occupy(ports[1])

    async def story() -> None:
        await until(lambda: received)
        assert "READY=1" not in manager.received
        await manager.has("READY=1")
        assert "in use" in manager.status
        taken.close()
        await until(lambda: manager.status.startswith("ready: listening on 3 UDP ports, sniffing for ssh"))
        assert received == ["ssh"], "it was not started again"

    tell(story, lambda: a_daemon(ports, (sniffed,))[0])


def test_listen_error_names_the_key_of_its_own_authenticator() -> None:
    free, taken, other = free_ports(3)

    class Toy(Authenticator):
        def __init__(self, key: str, *ports: int) -> None:
            self._ports, self._key = ports, key

        @property
        def capture(self) -> Capture:
            return Capture(self._ports, self._key)

        def on_knock(self, *_: object) -> Outcome:
            return NOT_A_KNOCK

    cases = {
        "spa_port": "spa_port: port number 1 of it is in use",
        "": "a knock port is in use by another program",
    }

    async def main() -> None:
        for key, said in cases.items():
            receiver = KnockReceiver([Toy("opening_sequence", free, other), Toy(key, taken)], lambda *_: None)
            with occupy(taken), pytest.raises(PortInUseError) as failed, receiver:
                pass
            assert failed.value.problem.startswith(said)
            assert failed.value.field == key

    asyncio.run(main())
