"""The D-Bus client of firewalld: what it can be asked for, and what it tells by itself. The only room with D-Bus in it.

Interfaces, members and error names are those of firewalld.dbus(5). Nothing here ever starts firewalld: an administrator
who stopped it meant it.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.message import Message

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.exposure import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.system.clock import wait_at_most

NAME = "org.fedoraproject.FirewallD1"
PATH = "/org/fedoraproject/FirewallD1"
CONFIG_PATH = PATH + "/config"
ZONE = NAME + ".zone"
IPSET = NAME + ".ipset"
POLICY = NAME + ".policy"
CONFIG = NAME + ".config"
CONFIG_ZONE = NAME + ".config.zone"
DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"

CALL_TIMEOUT = 5.0
"""Seconds after which a call counts as unanswered. An answer takes some milliseconds, a reload of a large firewall
seconds; what was asked may still happen later, so whoever asked must look before trusting anything."""

NO_TIMEOUT = 0
"""The time-out handed to firewalld with a rule: none, ever. Its own timers outlive a reload (1.3) or break it
(2.3.3 and later, firewalld#1597)."""

# What an error means, where firewalld has no code of its own for it.
UNREACHABLE = "UNREACHABLE"
UNANSWERED = "UNANSWERED"
NOT_AUTHORIZED = "NOT_AUTHORIZED"
# firewalld's codes (firewall/errors.py).
ALREADY_ENABLED = "ALREADY_ENABLED"
NOT_ENABLED = "NOT_ENABLED"
INVALID_ZONE = "INVALID_ZONE"
INVALID_RULE = "INVALID_RULE"

# The types of the results (D-Bus signatures).
_RESULTS = {
    "getDefaultZone": "s",
    "getActiveZones": "a{sa{sas}}",
    "getZones": "as",
    "getRichRules": "as",
    "getEntries": "as",
    "getZoneNames": "as",
    "getZoneByName": "o",
    "getZoneSettings2": "a{sv}",
    "getServiceSettings2": "a{sv}",
    "getPolicySettings": "a{sv}",
    "getActivePolicies": "a{sa{sas}}",
    "queryPanicMode": "b",
}
_ABSENT = frozenset(f"{DBUS}.Error.{name}" for name in ("ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected"))
_ZONE_SIGNALS = frozenset(
    {"InterfaceAdded", "InterfaceRemoved", "ZoneOfInterfaceChanged", "ZoneChanged"}
    | {"SourceAdded", "SourceRemoved", "ZoneOfSourceChanged", "DefaultZoneChanged"}
)
# Names of policies' zones that stand for more (firewalld.policy(5)).
_ANY, _HOST = "ANY", "HOST"
_SERVICE_IN_RULE = re.compile(r'\bservice name="([^"]+)"')
_BRIEF = 200  # characters of firewalld's text that get into a message
_FIRST_RETRY, _LAST_RETRY = 0.1, 2.0
_AUTHENTICATION_TIMEOUT = 10.0


class Event(Enum):
    """What firewalld or the bus told without being asked."""

    CAME = auto()  # firewalld owns its name (again): it knows nothing of earlier runtime rules
    GONE = auto()
    RELOADED = auto()  # runtime rules are gone
    ZONES_CHANGED = auto()
    PERMANENT_CHANGED = auto()  # somebody wrote the permanent configuration


class _Bus(MessageBus):
    """dbus-next's connection without some of its faults (0.2.3)."""

    def _setup_socket(self) -> None:
        try:
            super()._setup_socket()  # type: ignore[no-untyped-call]
        except Exception:
            # Nobody would close what could not be connected.
            self._stream.close()
            self._sock.close()
            raise

    async def _auth_readline(self) -> str:
        # The library reads on for ever, without ever giving way, when the bus goes away in the middle of this.
        line = b""
        while not line.endswith(b"\r\n"):
            byte = await self._loop.sock_recv(self._sock, 1)
            if not byte:
                raise ConnectionError("the bus hung up")
            line += byte
        return line[:-2].decode()

    async def ended(self) -> None:
        """Wait for its end, whatever ends it: the library passes that on."""
        with contextlib.suppress(Exception):
            await self.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Hang up; the library shuts the socket down but leaves it open, and after a failure watched by the loop."""
        with contextlib.suppress(OSError):
            self.disconnect()  # type: ignore[no-untyped-call]
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._stream.close()
        self._sock.close()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator["Firewalld"]:
    """A connection that does not come back by itself, for a look. Raises `FirewallError` where there is no bus."""
    client = Firewalld(lambda _event: None)
    try:
        bus = await client._connect()
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        raise FirewallError("there is no D-Bus system bus", UNREACHABLE) from error
    try:
        yield client
    finally:
        bus.close()


class Firewalld:
    """A connection to firewalld that comes back by itself.

    `run` keeps it for as long as it runs. Every other coroutine raises `FirewallError`, with `UNREACHABLE` while
    there is no bus or no firewalld on it. `on_event` is called from the event loop.
    """

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._bus: _Bus | None = None
        self._owner = ""
        self._owner_changes = 0
        self._has_ipsets = False
        self.connected = asyncio.Event()
        """Set while there is a bus, firewalld on it or not."""
        self.present = False
        """Whether firewalld is on the bus; it may hang all the same."""

    async def run(self) -> None:
        """Connect, watch, and connect again when the bus went away; until cancelled."""
        delay = _FIRST_RETRY
        while True:
            try:
                bus = await self._connect()
            except (OSError, EOFError, asyncio.TimeoutError, FirewallError):
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)
                continue
            delay = _FIRST_RETRY
            try:
                await bus.ended()
            finally:
                self._bus = None
                self.connected.clear()
                bus.close()
            self._set_owner("")

    async def _connect(self) -> _Bus:
        bus: _Bus | None = None
        try:
            bus = _Bus(bus_type=BusType.SYSTEM)
            await wait_at_most(_AUTHENTICATION_TIMEOUT, bus.connect())
            bus.add_message_handler(self._on_message)
            self._bus = bus
            for rule in _MATCHES:
                await self._call_bus("AddMatch", "s", rule)
            await self._look_for_owner(bus)
            self.connected.set()
        except BaseException as error:
            self._bus = None
            if bus is not None:
                bus.close()
            if isinstance(error, Exception) and not isinstance(error, OSError | FirewallError | asyncio.TimeoutError):
                raise FirewallError(f"no D-Bus: {error}", UNREACHABLE) from error
            raise
        return bus

    async def _look_for_owner(self, bus: _Bus) -> None:
        changes = self._owner_changes
        try:
            owner = await self._call_bus("GetNameOwner", "s", NAME)
        except FirewallError as error:
            if error.code != UNREACHABLE or bus.unique_name is None:
                raise
            owner = ""
        # A signal that follows the answer at once is taken note of before we go on here, and knows better.
        if self._owner_changes == changes:
            self._set_owner(owner)

    def _set_owner(self, owner: str) -> None:
        """firewalld is on the bus by this unique name now, or by none."""
        self._owner = owner
        if owner or self.present:
            self.present = bool(owner)
            self._on_event(Event.CAME if owner else Event.GONE)

    def _on_message(self, message: Message) -> None:
        """Take note of a signal. Anybody on the bus can send one straight to us: what counts is who did."""
        if message.message_type is not MessageType.SIGNAL:
            return
        member, interface = message.member, message.interface
        if message.sender == DBUS:
            if (interface, member, message.signature) == (DBUS, "NameOwnerChanged", "sss") and message.body[0] == NAME:
                self._owner_changes += 1
                self._set_owner(message.body[2])
        elif not self._owner or message.sender != self._owner:
            return
        elif interface == CONFIG_ZONE:
            self._on_event(Event.PERMANENT_CHANGED)
        elif interface == NAME and member == "Reloaded":
            self._on_event(Event.RELOADED)
        elif member in _ZONE_SIGNALS or (interface == IPSET and self._has_ipsets):
            self._on_event(Event.ZONES_CHANGED)

    async def zones(self) -> Zones:
        """All zones, and what falls into them now."""
        default, active, known = await asyncio.gather(
            self._call(NAME, "getDefaultZone"), self._call(ZONE, "getActiveZones"), self._call(ZONE, "getZones")
        )
        sources = {source: zone for zone, what in active.items() for source in what.get("sources", ())}
        names = [source.removeprefix("ipset:") for source in sources if source.startswith("ipset:")]
        self._has_ipsets = bool(names)
        entries = await asyncio.gather(*(self._call(IPSET, "getEntries", "s", name) for name in names))
        return Zones(
            default=default,
            interfaces={name: zone for zone, what in active.items() for name in what.get("interfaces", ())},
            sources=sources,
            ipsets={name: tuple(found) for name, found in zip(names, entries, strict=True)},
            known=frozenset(known),
        )

    async def rules(self, zone: str) -> list[str]:
        """The rich rules of a zone, as firewalld writes them."""
        return list(await self._call(ZONE, "getRichRules", "s", zone))

    async def add(self, zone: str, rule: str) -> None:
        """Let the rule stand, until it is removed; no matter if it does already."""
        with _no_matter(ALREADY_ENABLED):
            await self._call(ZONE, "addRichRule", "ssi", zone, rule, NO_TIMEOUT)

    async def remove(self, zone: str, rule: str) -> None:
        """Let the rule be gone; no matter if it is already."""
        with _no_matter(NOT_ENABLED):
            await self._call(ZONE, "removeRichRule", "ss", zone, rule)

    async def answer(self) -> None:
        """Wait for any answer at all, for as long as that takes; for firewalld's end too, which raises."""
        await self._call(NAME, "getDefaultZone", timeout=None)

    async def permanent_rules(self) -> dict[str, list[str]]:
        """The rich rules of the permanent configuration, by zone."""
        zones = await self._call(CONFIG, "getZoneNames", path=CONFIG_PATH)
        paths = [await self._permanent_zone(zone) for zone in zones]
        return {
            zone: list(await self._call(CONFIG_ZONE, "getRichRules", path=path))
            for zone, path in zip(zones, paths, strict=True)
        }

    async def remove_permanent(self, zone: str, rule: str) -> None:
        """Take the rule out of the permanent configuration; no matter if it is not there."""
        with _no_matter(NOT_ENABLED):
            await self._call(CONFIG_ZONE, "removeRichRule", "s", rule, path=await self._permanent_zone(zone))

    async def firewall(self, zones: Iterable[str]) -> tuple[list[ZoneSettings], dict[str, ServiceSettings]]:
        """What these zones are made of, and the policies for what comes from them to this host; and every service that
        is named there, with those that it includes. Reads only."""
        wanted = list(zones)
        rules = [_rules(zone, await self._call(ZONE, "getZoneSettings2", "s", zone)) for zone in wanted]
        rules += await self._policies({*wanted, _ANY})
        services: dict[str, ServiceSettings] = {}
        named = {name for one in rules for name in (*one.services, *_SERVICE_IN_RULE.findall(" ".join(one.rich_rules)))}
        while unknown := named - services.keys():
            for name in sorted(unknown):
                services[name] = await self._service(name)
                named.update(services[name].includes)
        return rules, services

    async def _policies(self, zones: set[str]) -> list[ZoneSettings]:
        try:
            active = await self._call(POLICY, "getActivePolicies")
            return [
                _rules(name, await self._call(POLICY, "getPolicySettings", "s", name), is_policy=True)
                for name, what in sorted(active.items())
                if _HOST in what.get("egress_zones", ()) and zones.intersection(what.get("ingress_zones", ()))
            ]
        except FirewallError as error:
            if error.code in (UNREACHABLE, UNANSWERED):
                raise
            return []  # before firewalld 0.9 there are none

    async def _service(self, name: str) -> ServiceSettings:
        try:
            settings = await self._call(NAME, "getServiceSettings2", "s", name)
        except FirewallError as error:
            if error.code in (UNREACHABLE, UNANSWERED):
                raise
            return ServiceSettings()  # it went meanwhile
        return ServiceSettings(
            ports=_pairs(settings, "ports"),
            source_ports=_pairs(settings, "source_ports"),
            protocols=_texts(settings, "protocols"),
            includes=_texts(settings, "includes"),
            limited=bool(_value(settings, "destination", "a{ss}", {})),
        )

    async def panics(self) -> bool:
        """Whether panic mode is on, in which every packet is dropped."""
        return bool(await self._call(NAME, "queryPanicMode"))

    async def try_right(self) -> None:
        """Raise `FirewallError` (`NOT_AUTHORIZED`) where this user may not change the firewall; nothing is changed.

        What is asked for is the removal of a rule that cannot be one: firewalld looks at the right first.
        """
        with _no_matter(INVALID_RULE):
            await self._call(ZONE, "removeRichRule", "ss", "", "rule")

    async def _permanent_zone(self, zone: str) -> str:
        return str(await self._call(CONFIG, "getZoneByName", "s", zone, path=CONFIG_PATH))

    async def _call_bus(self, member: str, signature: str, *arguments: Any) -> Any:
        message = Message(
            destination=DBUS, path=DBUS_PATH, interface=DBUS, member=member, signature=signature, body=list(arguments)
        )
        reply = await self._send(message, CALL_TIMEOUT)
        return reply.body[0] if reply.body else None

    async def _call(
        self,
        interface: str,
        member: str,
        signature: str = "",
        *arguments: Any,
        path: str = PATH,
        timeout: float | None = CALL_TIMEOUT,
    ) -> Any:
        """The call's one result, or None where it has none."""
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
        reply = await self._send(message, timeout)
        if reply.signature != _RESULTS.get(member, reply.signature):
            raise FirewallError(f"its answer to {member} is of the wrong type")
        return reply.body[0] if reply.body else None

    async def _send(self, message: Message, timeout: float | None) -> Message:
        if self._bus is None:
            raise FirewallError("there is no D-Bus system bus", UNREACHABLE)
        try:
            reply = await wait_at_most(timeout, self._bus.call(message))
        except asyncio.TimeoutError:
            raise FirewallError(f"firewalld has not answered for {CALL_TIMEOUT:g} s", UNANSWERED) from None
        except Exception as error:  # the library passes on whatever broke the connection
            raise FirewallError(f"the D-Bus system bus went away ({error})", UNREACHABLE) from error
        if reply is None:
            raise FirewallError("the D-Bus system bus went away", UNREACHABLE)
        if reply.message_type is MessageType.ERROR:
            raise _error(reply.error_name, " ".join(str(part) for part in reply.body))
        return reply


class QueryClient:
    """Asks what the daemon itself never asks, over a connection that it keeps while the bus does: the sandbox looks at
    firewalld from outside with it."""

    def __init__(self) -> None:
        self._client: Firewalld | None = None
        self._connecting = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def ask(self, interface: str, member: str, *arguments: str | int) -> Any:
        """One question; `interface` and `member` as of firewalld.dbus(5). Raises `FirewallError`."""
        async with self._connecting:
            client = self._client
            if client is None:
                client = Firewalld(lambda _event: None)
                self._watch = asyncio.create_task(self._forget(await client._connect()))
                self._client = client
        signature = "".join("s" if isinstance(argument, str) else "i" for argument in arguments)
        return await client._call(interface, member, signature, *arguments)

    async def _forget(self, bus: _Bus) -> None:
        await bus.ended()
        self._client = None
        bus.close()


def _rules(name: str, settings: Mapping[str, Any], *, is_policy: bool = False) -> ZoneSettings:
    return ZoneSettings(
        name,
        target=_value(settings, "target", "s", "default"),
        services=_texts(settings, "services"),
        ports=_pairs(settings, "ports"),
        source_ports=_pairs(settings, "source_ports"),
        protocols=_texts(settings, "protocols"),
        # Zones have them by their older name.
        rich_rules=_texts(settings, "rich_rules") + _texts(settings, "rules_str"),
        is_policy=is_policy,
    )


def _value(settings: Mapping[str, Any], key: str, signature: str, otherwise: Any) -> Any:
    """What is under the key, where firewalld leaves out what is empty."""
    if key not in settings:
        return otherwise
    if settings[key].signature != signature:
        raise FirewallError(f"its settings have {key} of the wrong type")
    return settings[key].value


def _texts(settings: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_value(settings, key, "as", ()))


def _pairs(settings: Mapping[str, Any], key: str) -> tuple[tuple[str, str], ...]:
    return tuple((one, other) for one, other in _value(settings, key, "a(ss)", ()))


def _error(name: str, text: str) -> FirewallError:
    if name in _ABSENT:
        return FirewallError("firewalld is not running", UNREACHABLE)
    if name.endswith((".NotAuthorizedException", ".AccessDenied")):
        return FirewallError(text, NOT_AUTHORIZED)
    code = text.partition(":")[0]
    # What follows the first line can be the whole rule, and with it a port of the sequence.
    brief = re.sub(r"\d", "#", text.partition("\n")[0].partition("JSON")[0])[:_BRIEF]
    return FirewallError(brief or name, code if code.isupper() else "")


@contextlib.contextmanager
def _no_matter(code: str) -> Iterator[None]:
    try:
        yield
    except FirewallError as error:
        if error.code != code:
            raise


_MATCHES = (
    f"type='signal',sender='{DBUS}',interface='{DBUS}',member='NameOwnerChanged',arg0='{NAME}'",
    f"type='signal',sender='{NAME}',interface='{NAME}',member='Reloaded'",
    f"type='signal',sender='{NAME}',interface='{NAME}',member='DefaultZoneChanged'",
    f"type='signal',sender='{NAME}',interface='{CONFIG_ZONE}',member='Updated'",
    f"type='signal',sender='{NAME}',interface='{IPSET}'",
    *(
        f"type='signal',sender='{NAME}',interface='{ZONE}',member='{member}'"
        for member in sorted(_ZONE_SIGNALS - {"DefaultZoneChanged"})
    ),
)
