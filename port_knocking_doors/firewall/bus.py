"""The connection to firewalld over the D-Bus system bus: connect, call, pass on signals. No other module has D-Bus.

Error names are those of dbus-daemon(1) and firewalld.dbus(5). Nothing here ever starts firewalld: an administrator who
stopped it had a reason.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

from dbus_next._private.constants import LITTLE_ENDIAN
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, Variant

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.error_codes import NOT_AUTHORIZED, UNANSWERED, UNREACHABLE
from port_knocking_doors.firewall.message_stream import ERROR, METHOD_RETURN, SIGNAL, Header, MessageStream
from port_knocking_doors.firewall.packed_strings import PackedStrings
from port_knocking_doors.system.clock import wait_at_most

NAME = "org.fedoraproject.FirewallD1"
PATH = "/org/fedoraproject/FirewallD1"
DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"

CALL_TIMEOUT = 5.0
"""Seconds after which a call counts as unanswered. An answer takes some milliseconds, a reload of a large firewall
seconds. firewalld may still do later what it was asked for: read back before anything is believed."""

_ABSENT = frozenset(f"{DBUS}.Error.{name}" for name in ("ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected"))
_OWNER_CHANGES = f"type='signal',sender='{DBUS}',interface='{DBUS}',member='NameOwnerChanged',arg0='{NAME}'"
_BRIEF = 200  # characters of firewalld's text that get into a message
_FIRST_RETRY, _LAST_RETRY = 0.1, 2.0
_AUTHENTICATION_TIMEOUT = 10.0
_READ_SIZE = 1 << 16
_READS = 8  # in one turn of the event loop: 0.5 MiB, about 0.3 ms where all of it is skipped
_MESSAGES = 20  # that are decoded in one turn of the event loop, at 0.1 to 0.5 ms each


class _PackingUnmarshaller(Unmarshaller):
    """dbus-next's, but that arrays of strings stay packed."""

    def read_array(self, type_: Any) -> Any:
        if type_.children[0].signature != "s":
            return super().read_array(type_)  # type: ignore[no-untyped-call]
        self.align(4)  # type: ignore[no-untyped-call]
        size = self.read_uint32()  # type: ignore[no-untyped-call]
        start = self.read(size)  # type: ignore[no-untyped-call]
        return PackedStrings(bytes(self.buf[start : start + size]), is_little_endian=self.endian == LITTLE_ENDIAN)

    def read_variant(self, _: Any = None) -> Variant:
        tree = SignatureTree._get(self.read_signature())  # type: ignore[no-untyped-call]
        if len(tree.types) != 1:
            raise FirewallError("a variant in its answer is malformed")
        # Its constructor would look at every member, and knows lists only.
        variant = Variant.__new__(Variant)
        variant.type = tree.types[0]
        variant.signature = tree.signature
        variant.value = self.read_argument(variant.type)  # type: ignore[no-untyped-call]
        return variant


class _Bus(MessageBus):
    """dbus-next's connection without some of its faults (0.2.3). It decodes what the bus and `owner` send, no more."""

    def __init__(self, *, packs_strings: bool) -> None:
        super().__init__(bus_type=BusType.SYSTEM)
        self._unmarshaller_type = _PackingUnmarshaller if packs_strings else Unmarshaller
        self.owner = ""
        """The unique name of firewalld, "" while it has none."""
        self._messages = MessageStream(self._wants)
        self._received: Iterator[bytes] = iter(())
        """Messages that are complete, and not decoded yet."""
        self._continuation: asyncio.Handle | None = None

    def _wants(self, header: Header) -> bool:
        if header.sender != DBUS and (not self.owner or header.sender != self.owner):
            return False
        if header.type in (METHOD_RETURN, ERROR):
            return header.reply_serial in self._method_return_handlers
        return header.type == SIGNAL

    def _message_reader(self) -> None:
        if self._continuation is None:  # else the rest of the last turn comes first
            self._read()

    def _read(self) -> None:
        self._continuation = None
        reads = messages = 0
        try:
            while messages < _MESSAGES:
                message = next(self._received, None)
                if message is not None:
                    messages += 1
                    self._on_message(self._unmarshaller_type(BytesIO(message)).unmarshall())  # type: ignore[no-untyped-call]
                    continue
                if reads == _READS:
                    return
                reads += 1
                data = self._sock.recv(_READ_SIZE)
                if not data:
                    raise EOFError
                self._received = self._messages.feed(data)
        except BlockingIOError:
            return
        except Exception as error:
            self._finalize(error)  # type: ignore[no-untyped-call]
            return
        # A flood of signals, as of an administrator's script, leaves the event loop to others in between.
        self._continuation = self._loop.call_soon(self._read)

    def _setup_socket(self) -> None:
        try:
            super()._setup_socket()  # type: ignore[no-untyped-call]
        except Exception:
            # The library leaves the socket open when the connection fails.
            self._stream.close()
            self._sock.close()
            raise

    async def _auth_readline(self) -> str:
        # The library reads on for ever, without ever giving way, when the bus goes away in the middle of this.
        line = b""
        while not line.endswith(b"\r\n"):
            byte = await self._loop.sock_recv(self._sock, 1)
            if not byte:
                raise ConnectionError("the bus closed the connection")
            line += byte
        return line[:-2].decode()

    async def ended(self) -> None:
        """Wait for the end of the connection, whatever ends it: the library raises that."""
        with contextlib.suppress(Exception):
            await self.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the socket, which the library only shuts down, and which the event loop may still watch."""
        with contextlib.suppress(OSError):
            self.disconnect()  # type: ignore[no-untyped-call]
        if self._continuation is not None:
            self._continuation.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._stream.close()
        self._sock.close()


class FirewalldBus:
    """A connection to firewalld that is made again after it broke, for as long as `run` runs.

    `on_presence` is called when firewalld appears on the bus (True) or leaves it (False), `on_signal` with interface,
    member and arguments of each signal that firewalld sends and a match rule selects (those of `matches`, and those of
    `watch`); both from the event loop. With `packs_strings`, arrays of strings are `PackedStrings`.
    """

    def __init__(
        self,
        on_presence: Callable[[bool], None],
        on_signal: Callable[[str, str, list[Any]], None],
        matches: Iterable[str] = (),
        results: Mapping[str, str] | None = None,
        *,
        packs_strings: bool = False,
    ) -> None:
        self._packs_strings = packs_strings
        self._on_presence = on_presence
        self._on_signal = on_signal
        self._matches = (_OWNER_CHANGES, *matches)
        self._watched: set[str] = set()
        """The match rules of `watch` that this connection has."""
        self._results = results or {}
        self._bus: _Bus | None = None
        self._owner = ""
        self._owner_changes = 0
        self.connected = asyncio.Event()
        """Set while there is a bus, with or without firewalld."""
        self.present = False
        """Whether firewalld is on the bus; it may hang all the same."""

    async def run(self) -> None:
        """Connect, and connect again whenever the bus went away; until cancelled."""
        delay = _FIRST_RETRY
        while True:
            try:
                await self.connect()
            except (OSError, EOFError, asyncio.TimeoutError, FirewallError):
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)
                continue
            delay = _FIRST_RETRY
            try:
                await self.ended()
            finally:
                self.close()
            self._set_owner("")

    async def connect(self) -> None:
        """Connect once. Raises `OSError`, `EOFError`, `asyncio.TimeoutError` or `FirewallError` where that fails."""
        bus: _Bus | None = None
        try:
            bus = _Bus(packs_strings=self._packs_strings)
            await wait_at_most(_AUTHENTICATION_TIMEOUT, bus.connect())
            bus.add_message_handler(self._on_message)
            self._bus = bus
            self._watched.clear()
            for rule in self._matches:
                await self._call_bus("AddMatch", "s", rule)
            await self._look_up_owner(bus)
            self.connected.set()
        except BaseException as error:
            self._bus = None
            if bus is not None:
                bus.close()
            if isinstance(error, Exception) and not isinstance(error, OSError | FirewallError | asyncio.TimeoutError):
                raise FirewallError(f"no D-Bus: {error}", UNREACHABLE) from error
            raise

    async def ended(self) -> None:
        """Wait for the end of the connection, whatever ends it."""
        if self._bus is not None:
            await self._bus.ended()

    def close(self) -> None:
        """Close the connection where there is one."""
        bus, self._bus = self._bus, None
        self.connected.clear()
        if bus is not None:
            bus.close()

    async def call(
        self,
        interface: str,
        member: str,
        signature: str = "",
        *arguments: Any,
        path: str = PATH,
        patient: bool = False,
    ) -> Any:
        """Call firewalld: the one result, or None where there is none. `patient` waits without a time limit.

        Raises `FirewallError`: with `UNREACHABLE` while firewalld is not on the bus, with `UNANSWERED` after
        `CALL_TIMEOUT` seconds, else with firewalld's own code; also where the result is of the wrong type.
        """
        if not self.present:
            raise FirewallError("firewalld is not running", UNREACHABLE)
        message = Message(
            destination=NAME,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(arguments),
            flags=MessageFlag.NO_AUTOSTART,
        )
        reply = await self._send(message, None if patient else CALL_TIMEOUT)
        if reply.signature != self._results.get(member, reply.signature):
            raise FirewallError(f"its answer to {member} is of the wrong type")
        return reply.body[0] if reply.body else None

    async def watch(self, matches: Iterable[str]) -> None:
        """From now on pass on the signals that these match rules select, and no longer those of an earlier call.

        Raises `FirewallError`.
        """
        wanted = set(matches)
        for rule in sorted(wanted - self._watched):
            await self._call_bus("AddMatch", "s", rule)
            self._watched.add(rule)
        for rule in sorted(self._watched - wanted):
            self._watched.discard(rule)
            await self._call_bus("RemoveMatch", "s", rule)

    async def _call_bus(self, member: str, signature: str, *arguments: Any) -> Any:
        message = Message(
            destination=DBUS, path=DBUS_PATH, interface=DBUS, member=member, signature=signature, body=list(arguments)
        )
        reply = await self._send(message, CALL_TIMEOUT)
        return reply.body[0] if reply.body else None

    async def _send(self, message: Message, timeout: float | None) -> Message:
        if self._bus is None:
            raise FirewallError("there is no D-Bus system bus", UNREACHABLE)
        try:
            reply = await wait_at_most(timeout, self._bus.call(message))
        except asyncio.TimeoutError:
            raise FirewallError(f"firewalld has not answered for {CALL_TIMEOUT:g} s", UNANSWERED) from None
        except Exception as error:  # the library raises whatever broke the connection
            raise FirewallError(f"the D-Bus system bus went away ({error})", UNREACHABLE) from error
        if reply is None:
            raise FirewallError("the D-Bus system bus went away", UNREACHABLE)
        if reply.message_type is MessageType.ERROR:
            raise _error(reply.error_name, " ".join(str(part) for part in reply.body))
        return reply

    async def _look_up_owner(self, bus: _Bus) -> None:
        changes = self._owner_changes
        try:
            owner = await self._call_bus("GetNameOwner", "s", NAME)
        except FirewallError as error:
            if error.code != UNREACHABLE or bus.unique_name is None:
                raise
            owner = ""
        # A signal that follows the answer at once is handled before this line runs, and is newer.
        if self._owner_changes == changes:
            self._set_owner(owner)

    def _set_owner(self, owner: str) -> None:
        """firewalld is on the bus by this unique name now, or by none."""
        self._owner = owner
        if self._bus is not None:
            self._bus.owner = owner
        if owner or self.present:
            self.present = bool(owner)
            self._on_presence(self.present)

    def _on_message(self, message: Message) -> None:
        """Handle a signal. Every program on the bus can send one directly to this one, so the sender is checked."""
        if message.message_type is not MessageType.SIGNAL:
            return
        member, interface = message.member, message.interface
        if message.sender == DBUS:
            if (interface, member, message.signature) == (DBUS, "NameOwnerChanged", "sss") and message.body[0] == NAME:
                self._owner_changes += 1
                self._set_owner(message.body[2])
        elif self._owner and message.sender == self._owner:
            self._on_signal(interface, member, message.body)


def _error(name: str, text: str) -> FirewallError:
    if name in _ABSENT:
        return FirewallError("firewalld is not running", UNREACHABLE)
    if name.endswith((".NotAuthorizedException", ".AccessDenied")):
        return FirewallError(text, NOT_AUTHORIZED)
    code = text.partition(":")[0]
    # What follows the first line can be the whole rule, and with it a port of the sequence.
    brief = re.sub(r"\d", "#", text.partition("\n")[0].partition("JSON")[0])[:_BRIEF]
    return FirewallError(brief or name, code if code.isupper() else "")
