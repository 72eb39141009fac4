"""A D-Bus daemon with a firewalld on it, in the test's own event loop, for failures that the real ones do not have.

Speaks enough of the protocol for `port_knocking_doors.firewall.bus`: SASL EXTERNAL, then messages in the encoding of
the library itself. Failures are set on the object: `greeting` for the connection, `errors`, `replies` and
`silent` for the calls.
"""

import asyncio
import io
import os
import struct
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from dbus_next._private.constants import LITTLE_ENDIAN, PROTOCOL_VERSION, HeaderField
from dbus_next._private.marshaller import Marshaller
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from port_knocking_doors.firewall import bus

NAME = "org.fedoraproject.FirewallD1"
PATH = "/org/fedoraproject/FirewallD1"
DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
PROPERTIES = DBUS + ".Properties"
FIREWALLD_ADDRESS = ":1.7"
"""The unique name of the firewalld here."""

Answer = tuple[str, list[Any]]
"""Signature and body."""


class Greeting(Enum):
    """The answer to a connection."""

    WELCOME = auto()
    SILENCE = auto()  # no answer to the authentication
    HALF_A_LINE = auto()  # closes the connection in the middle of the answer
    HANG_UP = auto()
    REJECT = auto()
    NO_HELLO = auto()  # authenticated, then no answer
    NO_MATCH = auto()  # greeted, then no answer


class FakeBus:
    """An async context manager; `address` is what DBUS_SYSTEM_BUS_ADDRESS has to be."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bus"
        self.address = f"unix:path={self._path}"
        self.greeting = Greeting.WELCOME
        self.owned = True
        """Whether firewalld is on the bus."""
        self.fickle = False
        """Whether firewalld appears or disappears right behind the next answer to whether it is on the bus."""
        self.zones: dict[str, list[str]] = {"public": [], "external": []}
        self.permanent: dict[str, list[str]] = {"public": [], "external": []}
        self.errors: dict[str, tuple[str, str]] = {}
        """Member → name and text of the error that it is answered with."""
        self.replies: dict[str, Answer] = {}
        """Member → what it is answered with, right or wrong."""
        self.silent: set[str] = set()
        """Members that are never answered."""
        self.properties = {
            "state": "RUNNING",
            "version": "2.1.1",
            "CleanupOnExit": "yes",
            "FirewallBackend": "iptables",
        }
        """firewalld's properties; without a back end no test depends on this machine's kernel."""
        self.calls: list[Message] = []
        """Every call to firewalld, in order, but for those that read properties."""
        self.on_reload: Callable[[], None] = lambda: None
        """What the method `reload` does."""
        self.matches: list[str] = []
        """The match rules of every connection."""
        self.connections = 0
        self._unanswered: list[tuple[Message, asyncio.StreamWriter]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._serial = 0
        self._server: asyncio.AbstractServer | None = None

    async def __aenter__(self) -> "FakeBus":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        for task in self._tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in list(self._tasks) if task is not None))
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    def hang_up(self) -> None:
        """End every connection."""
        while self._writers:
            self._writers.pop().close()

    def send(self, data: bytes) -> None:
        """Send any bytes to every client."""
        for writer in self._writers:
            writer.write(data)

    def signal(
        self,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        sender: str = FIREWALLD_ADDRESS,
        path: str = PATH,
    ) -> None:
        """Send a signal to every client."""
        message = Message(
            message_type=MessageType.SIGNAL,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            sender=sender,
        )
        self.send(self._encoded(message))

    def own(self, owned: bool) -> None:
        """firewalld appears or disappears, and the bus sends the signal."""
        self.owned = owned
        while not owned and self._unanswered:
            call, writer = self._unanswered.pop(0)
            gone = Message.new_error(call, f"{DBUS}.Error.NoReply", "Message recipient disconnected from message bus")
            gone.sender = DBUS
            writer.write(self._encoded(gone))
        old, new = ("", FIREWALLD_ADDRESS) if owned else (FIREWALLD_ADDRESS, "")
        self.signal(DBUS, "NameOwnerChanged", "sss", NAME, old, new, sender=DBUS, path=DBUS_PATH)

    def called(self, member: str) -> list[list[Any]]:
        """The arguments of every call of this member."""
        return [message.body for message in self.calls if message.member == member]

    # The connection. -------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task: asyncio.Task[None] | None = asyncio.current_task()
        self._tasks.add(task)
        self._writers.append(writer)
        try:
            if await self._greet(reader, writer):
                while True:
                    self._take(await _read_message(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            if writer in self._writers:
                self._writers.remove(writer)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        assert (await reader.readuntil(b"\r\n")).startswith(b"\0AUTH EXTERNAL ")
        if self.greeting is Greeting.SILENCE:
            await reader.read()
        elif self.greeting is Greeting.HALF_A_LINE:
            writer.write(b"OK 12")
            await writer.drain()
        elif self.greeting is Greeting.REJECT:
            writer.write(b"REJECTED EXTERNAL\r\n")
            await writer.drain()
        elif self.greeting is not Greeting.HANG_UP:
            writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
            assert await reader.readuntil(b"\r\n") == b"BEGIN\r\n"
            return True
        return False

    def _take(self, message: Message, writer: asyncio.StreamWriter) -> None:
        if message.message_type is not MessageType.METHOD_CALL:
            return
        if message.destination == DBUS:
            answer = self._bus_answer(message)
        else:
            if message.interface != PROPERTIES:
                self.calls.append(message)
            answer = self._firewalld_answer(message)
            if answer is None:
                self._unanswered.append((message, writer))
        if answer is not None:
            answer.sender = DBUS if message.destination == DBUS else FIREWALLD_ADDRESS
            writer.write(self._encoded(answer))
            if self.fickle and message.member == "GetNameOwner":
                self.fickle = False
                self.own(not self.owned)

    def _encoded(self, message: Message) -> bytes:
        self._serial += 1
        message.serial = self._serial
        return encoded(message)

    # The answers. ----------------------------------------------------------------------------------------------------

    def _bus_answer(self, call: Message) -> Message | None:
        match call.member:
            case "Hello" if self.greeting is not Greeting.NO_HELLO:
                return _returned(call, "s", [":1.42"])
            case "AddMatch" if self.greeting is not Greeting.NO_MATCH:
                self.matches.append(call.body[0])
                return _returned(call, "", [])
            case "RemoveMatch":
                self.matches.remove(call.body[0])
                return _returned(call, "", [])
            case "NameHasOwner":
                return _returned(call, "b", [self.owned])
            case "GetNameOwner" if self.owned:
                return _returned(call, "s", [FIREWALLD_ADDRESS])
            case "GetNameOwner":
                return Message.new_error(call, f"{DBUS}.Error.NameHasNoOwner", "no such name")
        return None

    def _firewalld_answer(self, call: Message) -> Message | None:
        if not self.owned:
            return Message.new_error(call, f"{DBUS}.Error.ServiceUnknown", "not provided by any .service files")
        if call.interface == PROPERTIES:
            return _returned(call, "v", [Variant("s", self.properties[call.body[1]])])
        if call.member in self.silent:
            return None
        if call.member in self.errors:
            return Message.new_error(call, *self.errors[call.member])
        if call.member in self.replies:
            return _returned(call, *self.replies[call.member])
        method = self._methods.get(f"{call.interface.removeprefix(NAME)}:{call.member}")
        if method is None:
            return Message.new_error(call, f"{DBUS}.Error.UnknownMethod", call.member)
        try:
            return _returned(call, *method(call))
        except _FirewalldError as error:
            return Message.new_error(call, f"{NAME}.Exception", str(error))

    @property
    def clients(self) -> int:
        """How many connections exist now."""
        return len(self._writers)

    @property
    def _methods(self) -> dict[str, Callable[[Message], Answer]]:
        return {
            ":reload": lambda _: self._reload(),
            ":getDefaultZone": lambda _: ("s", ["public"]),
            ".zone:getActiveZones": lambda _: ("a{sa{sas}}", [{"public": {"interfaces": ["eth0"]}}]),
            ".zone:getZoneSettings2": lambda _: ("a{sv}", [{}]),
            ".policy:getActivePolicies": lambda _: ("a{sa{sas}}", [{}]),
            ".zone:getZones": lambda _: ("as", [sorted(self.zones)]),
            ".zone:getRichRules": lambda call: ("as", [self.zones[call.body[0]]]),
            ".zone:addRichRule": lambda call: self._add(self.zones, call.body[0], call.body[1]),
            ".zone:removeRichRule": lambda call: self._remove(self.zones, call.body[0], call.body[1]),
            ".config:getZoneNames": lambda _: ("as", [sorted(self.permanent)]),
            ".config:getZoneByName": lambda call: ("o", [f"{PATH}/config/zone/{call.body[0]}"]),
            ".config.zone:getRichRules": lambda call: ("as", [self.permanent[call.path.rpartition("/")[2]]]),
            ".config.zone:removeRichRule": lambda call: self._remove(
                self.permanent, call.path.rpartition("/")[2], call.body[0]
            ),
        }

    def _reload(self) -> Answer:
        self.on_reload()
        return "", []

    def _add(self, where: dict[str, list[str]], zone: str, rule: str) -> Answer:
        if zone not in where:
            raise _FirewalldError(f"INVALID_ZONE: {zone}")
        if rule in where[zone]:
            raise _FirewalldError(f"ALREADY_ENABLED: {rule}")
        where[zone].append(rule)
        return "s", [zone]

    def _remove(self, where: dict[str, list[str]], zone: str, rule: str) -> Answer:
        if zone not in where:
            raise _FirewalldError(f"INVALID_ZONE: {zone}")
        if rule not in where[zone]:
            raise _FirewalldError(f"NOT_ENABLED: {rule}")
        where[zone].remove(rule)
        return "s", [zone]


class _FirewalldError(Exception):
    """An answer of firewalld's own kind."""


def _returned(call: Message, signature: str, body: list[Any]) -> Message:
    answer: Message = Message.new_method_return(call, signature, body)
    return answer


async def _read_message(reader: asyncio.StreamReader) -> Message:
    start = await reader.readexactly(16)
    body, _serial, fields = struct.unpack_from("<III", start, 4)
    rest = await reader.readexactly(fields + -fields % 8 + body)
    message: Message = Unmarshaller(io.BytesIO(start + rest)).unmarshall()  # type: ignore[no-untyped-call]
    return message


def encoded(message: Message) -> bytes:
    """The message as a bus forwards it: with its sender, which a bus adds and the library cannot."""
    body = Marshaller(message.signature, message.body)  # type: ignore[no-untyped-call]
    body.marshall()  # type: ignore[no-untyped-call]
    fields = [
        [field.value, Variant(kind, value)]
        for field, kind, value in (
            (HeaderField.PATH, "o", message.path),
            (HeaderField.INTERFACE, "s", message.interface),
            (HeaderField.MEMBER, "s", message.member),
            (HeaderField.ERROR_NAME, "s", message.error_name),
            (HeaderField.REPLY_SERIAL, "u", message.reply_serial),
            (HeaderField.DESTINATION, "s", message.destination),
            (HeaderField.SENDER, "s", message.sender),
            (HeaderField.SIGNATURE, "g", message.signature),
        )
        if value
    ]
    start: list[Any] = [LITTLE_ENDIAN, message.message_type.value, message.flags.value, PROTOCOL_VERSION]
    start += [len(body.buffer), message.serial, fields]
    header = Marshaller("yyyyuua(yv)", start)  # type: ignore[no-untyped-call]
    header.marshall()  # type: ignore[no-untyped-call]
    header.align(8)  # type: ignore[no-untyped-call]
    return bytes(header.buffer + body.buffer)


def shorten_calls(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.5) -> None:
    """Let calls count as unanswered sooner than in production."""
    monkeypatch.setattr(bus, "CALL_TIMEOUT", seconds)


def open_descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 a count is all
