"""A new kind of opening, observer, authenticator or receiver: a dozen lines and a line in a table, nothing else.

Each test adds a toy to one of the four tables and drives it through a real daemon, which listens on ports of this host
and has no use for firewalld.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from port_knocking_doors.capture import receiver
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.daemon import active, components
from port_knocking_doors.daemon.components import Parts
from port_knocking_doors.daemon.daemon import Daemon
from port_knocking_doors.doors.opener import DoorListener
from port_knocking_doors.events import DoorClosed, DoorOpened, Handlers, Ready, SequenceCompleted
from port_knocking_doors.knocks.authenticator import Authenticator, Capture, Grant, Outcome, Verdict
from port_knocking_doors.knocks.code import listened_code
from port_knocking_doors.model import PAYLOAD, Access, Door, Opening, Protocol, Sequence, Settings, Step
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.instance import command_mark
from tests.helpers.ports import free_ports

SOON = 20.0
PORTS = 3


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))


class Recorder:
    """The toy observer."""

    def __init__(self, *kinds: type) -> None:
        self.kinds = kinds
        self.seen: list[object] = []

    def handlers(self) -> Handlers:
        return dict.fromkeys(self.kinds, self.seen.append)

    async def saw(self, kind: type) -> None:
        while not any(isinstance(event, kind) for event in self.seen):
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class NoteOpening(Opening):
    """The toy opening: a note on a list, for as long as the door is open."""

    text: str

    def describe(self, access: str) -> str:
        return f"{access}'s note"


class NoteOpener:
    """The toy opener."""

    is_available, uses_interface, counts_from_open = True, False, False
    listener: DoorListener

    def __init__(self, notes: list[Door]) -> None:
        self.notes = notes

    def start(self) -> None: ...

    def denial(self, _: Door) -> str:
        return ""

    def stays_open(self, _: Door) -> bool:
        return True

    def seconds(self, _: Door, access: Access) -> float:
        return access.duration

    def open(self, door: Door) -> None:
        self.notes.append(door)
        self.listener.on_open(door, ())

    def close(self, door: Door) -> None:
        self.notes.remove(door)
        self.listener.on_closed(door)

    async def settled(self) -> None: ...

    async def close_all(self) -> None:
        self.notes.clear()


def knock(ports: tuple[int, ...]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in ports:
            sock.sendto(PAYLOAD, ("127.0.0.1", port))


class OneKnock(Authenticator):
    """The toy authenticator: one datagram at its port proves everything."""

    def __init__(self, port: int, access: Access) -> None:
        self._port = port
        self._proven = Outcome.of(Verdict.COMPLETE, grants=(Grant(access),))

    @property
    def capture(self) -> Capture:
        return Capture((self._port,))

    def on_knock(self, source: bytes, code: int, packet_id: int, now: float) -> Outcome:  # noqa: ARG002
        return self._proven


class Pipe:
    """The toy receiver: each byte in a pipe is a knock of a host at the next port of a sequence."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._ends = [*os.pipe()]

    @property
    def counters(self) -> dict[str, int]:
        return {}

    def start(self, capture: Capture) -> None:
        self._codes = iter(map(listened_code, capture.ports))
        asyncio.get_running_loop().add_reader(self._ends[0], self._read)
        PIPES.append(self._ends[1])

    def stop(self) -> None:
        if self._ends:
            asyncio.get_running_loop().remove_reader(self._ends[0])
        while self._ends:
            os.close(self._ends.pop())

    def replacing(self, _: Capture) -> AbstractContextManager[None]:
        return nullcontext()

    def _read(self) -> None:
        for number in os.read(self._ends[0], 100):
            code, source, when = next(self._codes), bytes((192, 0, 2, 1)), now()
            outcome = self._dispatch.judges[code](source, code, number, when)
            if outcome.needs_action:
                self._dispatch.act(source, 0, outcome, when)


PIPES: list[int] = []


def run(access: Access, story: Callable[[tuple[int, ...]], Awaitable[None]], recorder: Recorder) -> None:
    """Run a daemon with a sequence that grants this access, and end it after the story."""

    async def main() -> None:
        ports = free_ports(PORTS)
        steps = tuple(Step(Protocol.UDP, port) for port in ports)
        settings = Settings(
            guarded_ports=(),
            opening_sequence=ports,
            open_knock_ports=False,
            rule_priority=command_mark("toy"),
            sequences=(Sequence("toy", steps, access, listened=True),),
        )
        loaded = Loaded(settings, None, ())
        daemon = Daemon(loaded, lambda: loaded, [recorder])
        running = asyncio.create_task(daemon.run())
        try:
            await recorder.saw(Ready)
            await story(ports)
        finally:
            daemon.stop()
            await running

    asyncio.run(asyncio.wait_for(main(), SOON))


def test_new_kind_of_opening_opens_and_closes_through_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[Door] = []
    recorder = Recorder(Ready, DoorOpened, DoorClosed)
    monkeypatch.setitem(components.OPENERS, NoteOpening, lambda _: NoteOpener(notes))

    async def story(ports: tuple[int, ...]) -> None:
        knock(ports)
        await recorder.saw(DoorOpened)
        assert [str(door) for door in notes] == ["toy's note"]
        await recorder.saw(DoorClosed)
        assert notes == []

    run(Access("toy", (NoteOpening("hello"),), 0.2), story, recorder)


def test_new_observer_sees_what_the_daemon_does(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, added = Recorder(Ready), Recorder(SequenceCompleted)

    def make(_: Parts) -> Recorder:
        return added

    monkeypatch.setattr(components, "OBSERVERS", [*components.OBSERVERS, make])

    async def story(ports: tuple[int, ...]) -> None:
        knock(ports)
        await added.saw(SequenceCompleted)

    run(Access("toy"), story, recorder)
    assert [event.sequence.name for event in added.seen if isinstance(event, SequenceCompleted)].count("toy") == 1


def test_new_authenticator_grants_access_through_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[Door] = []
    (port,) = free_ports(1)
    recorder = Recorder(Ready, DoorOpened)
    monkeypatch.setitem(components.OPENERS, NoteOpening, lambda _: NoteOpener(notes))
    toy = OneKnock(port, Access("one", (NoteOpening("hello"),)))
    monkeypatch.setitem(active.AUTHENTICATORS, "one knock", lambda *_: toy)

    async def story(_: tuple[int, ...]) -> None:
        knock((port,))
        await recorder.saw(DoorOpened)
        assert [str(door) for door in notes] == ["one's note"]

    run(Access("toy"), story, recorder)


def test_new_receiver_brings_knocks_to_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(Ready, SequenceCompleted)
    monkeypatch.setitem(receiver.RECEIVERS, "pipe", Pipe)

    async def story(_: tuple[int, ...]) -> None:
        os.write(PIPES.pop(), bytes(range(PORTS)))
        await recorder.saw(SequenceCompleted)
        assert {event.source for event in recorder.seen if isinstance(event, SequenceCompleted)} == {b"\xc0\0\2\1"}

    run(Access("toy"), story, recorder)
