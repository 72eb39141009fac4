"""The connection to firewalld, on a bus and with a firewalld that fail in ways that the real ones cannot."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import bus as connection
from port_knocking_doors.firewall import error_codes
from port_knocking_doors.firewall.bans import Denials
from port_knocking_doors.firewall.firewalld import Firewalld, FirewalldEvent
from port_knocking_doors.firewall.query_client import QueryClient
from port_knocking_doors.firewall.zones import Zones
from tests.helpers.fake_bus import DBUS, DBUS_PATH, NAME, FakeBus, Greeting, encoded, open_descriptors, shorten_calls

SOON = 3.0
RULE = 'rule priority="31313" port port="1" protocol="udp" accept'


class Client:
    """A client under test, and the events that it reported."""

    def __init__(self) -> None:
        self.events: list[FirewalldEvent] = []
        self._changed = asyncio.Event()
        self.firewalld = Firewalld(self._on_event)

    def _on_event(self, event: FirewalldEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def reported(self, *events: FirewalldEvent) -> None:
        """Wait until it has reported these events, and no others."""
        with suppress(asyncio.TimeoutError):
            while tuple(self.events) != events:
                self._changed.clear()
                await asyncio.wait_for(self._changed.wait(), SOON)
        assert tuple(self.events) == events


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    shorten_calls(monkeypatch)
    monkeypatch.setattr(connection, "_AUTHENTICATION_TIMEOUT", 0.2)
    monkeypatch.setattr(connection, "_FIRST_RETRY", 0.01)
    monkeypatch.setattr(connection, "_LAST_RETRY", 0.05)


@asynccontextmanager
async def running() -> AsyncIterator[Client]:
    client = Client()
    connection = asyncio.create_task(client.firewalld.run())
    try:
        yield client
        assert not connection.done(), "the connection never ends by itself"
    finally:
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_zones_and_rules_are_read_added_and_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            assert await client.firewalld.zones() == Zones(
                "public", {"eth0": "public"}, known=frozenset({"public", "external"}), denials={"public": Denials()}
            )
            await client.firewalld.add("public", RULE)
            await client.firewalld.add("public", RULE)
            assert await client.firewalld.rules("public") == [RULE]
            await client.firewalld.remove("public", RULE)
            await client.firewalld.remove("public", RULE)
            assert bus.called("addRichRule") == 2 * [["public", RULE, 0]], "no rule has a time limit"
            assert all(MessageFlag.NO_AUTOSTART in call.flags for call in bus.calls)

    asyncio.run(main())


@pytest.mark.parametrize(("number", "rules"), [(0, 0), (2, 4), (100, 200), (300, 2)])
def test_sets_are_followed_with_a_bounded_number_of_match_rules(tmp_path: Path, number: int, rules: int) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            names = [f"set{one}" for one in range(number)]
            active = {"public": {"sources": [f"ipset:{name}" for name in names]}}
            bus.replies["getActiveZones"] = ("a{sa{sas}}", [active])
            bus.replies["getIPSetSettings"] = ("(ssssa{ss}as)", [["", "", "", "hash:net", {}, ["10.0.0.0/8"]]])
            zones = await client.firewalld.zones()
            assert zones.sets.keys() == set(names)
            assert sum("EntryAdded" in rule or "EntryRemoved" in rule for rule in bus.matches) == rules
            bus.replies["getActiveZones"] = ("a{sa{sas}}", [{"public": {}}])
            await client.firewalld.zones()
            assert not any("Entry" in rule for rule in bus.matches), "they are followed no longer"

    asyncio.run(main())


@pytest.mark.parametrize("owned", [False, True], ids=["appears", "disappears"])
def test_signal_right_behind_the_answer_about_the_owner_is_newer(tmp_path: Path, owned: bool) -> None:
    """The answer and the signal arrive in one read, and the signal is newer."""

    async def main() -> None:
        async with FakeBus(tmp_path) as bus:
            bus.owned, bus.fickle = owned, True
            async with running() as client:
                await until(client.firewalld.connected.is_set)
                assert client.firewalld.present is not owned

    asyncio.run(main())


@pytest.mark.parametrize("greeting", [greeting for greeting in Greeting if greeting is not Greeting.WELCOME])
def test_bus_that_denies_the_connection_is_tried_without_blocking(tmp_path: Path, greeting: Greeting) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus:
            bus.greeting = greeting
            async with running() as client:
                turns, start = 0, time.monotonic()
                while bus.connections < 3:
                    await asyncio.sleep(0.001)
                    turns += 1
                    assert time.monotonic() - start < SOON
                assert turns >= bus.connections, "the event loop is not blocked"
                assert not client.firewalld.present
                bus.greeting = Greeting.WELCOME
                await client.reported(FirewalldEvent.APPEARED)
                assert await client.firewalld.rules("public") == []

    asyncio.run(main())


@pytest.mark.parametrize("greeting", [Greeting.NO_HELLO, Greeting.NO_MATCH, Greeting.SILENCE])
def test_failed_connection_is_not_watched_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: Greeting
) -> None:
    """The next socket with the same descriptor, such as that of a knock port, would never be read."""

    async def main() -> None:
        monkeypatch.setattr(connection, "_FIRST_RETRY", 60)
        loop = asyncio.get_running_loop()
        async with FakeBus(tmp_path) as bus:
            bus.greeting = greeting
            async with running():
                await until(lambda: bus.connections == 1 and not bus.clients)
                watched = loop._selector.get_map()  # type: ignore[attr-defined]
                assert [number for number in watched if not Path(f"/proc/self/fd/{number}").exists()] == []

    asyncio.run(main())


def test_missing_bus_leaks_no_descriptors(tmp_path: Path) -> None:
    async def main() -> None:
        async with running() as client:
            await asyncio.sleep(0.1)
            gc.collect()
            before = open_descriptors()
            await asyncio.sleep(0.3)
            assert open_descriptors() <= before + 1
            async with FakeBus(tmp_path):
                await client.reported(FirewalldEvent.APPEARED)

    asyncio.run(main())


def test_bus_that_closes_the_connection_is_connected_to_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.silent.add("getRichRules")
            asked = asyncio.create_task(client.firewalld.rules("public"))
            await until(lambda: bus.called("getRichRules"))
            bus.hang_up()
            with pytest.raises(FirewallError) as raised:
                await asked
            assert raised.value.code == error_codes.UNREACHABLE
            await client.reported(FirewalldEvent.APPEARED, FirewalldEvent.DISAPPEARED, FirewalldEvent.APPEARED)

    asyncio.run(main())


def test_firewalld_that_appears_and_disappears_is_reported(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus:
            bus.owned = False
            async with running() as client:
                await until(lambda: bus.connections)
                await asyncio.sleep(0.05)
                with pytest.raises(FirewallError) as raised:
                    await client.firewalld.rules("public")
                assert raised.value.code == error_codes.UNREACHABLE
                bus.own(True)
                await client.reported(FirewalldEvent.APPEARED)
                bus.own(False)
                await client.reported(FirewalldEvent.APPEARED, FirewalldEvent.DISAPPEARED)
                assert not client.firewalld.present

    asyncio.run(main())


SIGNALS = {
    "a reload": (NAME, "Reloaded", "", [], FirewalldEvent.RELOADED),
    "another default zone": (NAME, "DefaultZoneChanged", "s", ["external"], FirewalldEvent.ZONES_CHANGED),
    "an interface": (f"{NAME}.zone", "InterfaceAdded", "ss", ["public", "eth1"], FirewalldEvent.ZONES_CHANGED),
    "an interface gone": (f"{NAME}.zone", "InterfaceRemoved", "ss", ["public", "eth1"], FirewalldEvent.ZONES_CHANGED),
    "a source": (f"{NAME}.zone", "SourceAdded", "ss", ["public", "10.0.0.0/8"], FirewalldEvent.ZONES_CHANGED),
    "the permanent configuration": (
        f"{NAME}.config.zone",
        "Updated",
        "s",
        ["public"],
        FirewalldEvent.PERMANENT_CHANGED,
    ),
}


@pytest.mark.parametrize(("interface", "member", "signature", "body", "event"), SIGNALS.values(), ids=SIGNALS)
def test_signal_of_firewalld_is_reported_as_an_event(
    tmp_path: Path, interface: str, member: str, signature: str, body: list[str], event: FirewalldEvent
) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.signal(interface, member, signature, *body)
            await client.reported(FirewalldEvent.APPEARED, event)

    asyncio.run(main())


@pytest.mark.parametrize(("interface", "member", "signature", "body", "event"), SIGNALS.values(), ids=SIGNALS)
def test_signal_of_another_sender_is_ignored(
    tmp_path: Path, interface: str, member: str, signature: str, body: list[str], event: FirewalldEvent
) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.signal(interface, member, signature, *body, sender=":1.666")
            bus.own(False)  # a true one, sent after it
            await client.reported(FirewalldEvent.APPEARED, FirewalldEvent.DISAPPEARED)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("signature", "body"),
    [("sss", [NAME, ":1.7", ""]), ("", []), ("s", [NAME]), ("i", [5])],
    ids=["that firewalld has stopped", "nothing", "the name alone", "a number"],
)
def test_owner_change_of_another_sender_than_the_bus_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, signature: str, body: list[str]
) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.signal(DBUS, "NameOwnerChanged", signature, *body, sender=":1.666", path="/x")
            assert await client.firewalld.rules("public") == []
            assert client.events == [FirewalldEvent.APPEARED]

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert caplog.text == ""


ERRORS = {
    "an unknown zone": (f"{NAME}.Exception", "INVALID_ZONE: nowhere", error_codes.INVALID_ZONE),
    "denied by firewalld": (
        f"{NAME}.NotAuthorizedException",
        "Not Authorized: org.fedoraproject.FirewallD1.config",
        error_codes.NOT_AUTHORIZED,
    ),
    "denied by the bus": (f"{DBUS}.Error.AccessDenied", "Rejected send message", error_codes.NOT_AUTHORIZED),
    "not on the bus": (f"{DBUS}.Error.ServiceUnknown", "The name is not provided", error_codes.UNREACHABLE),
    "gone before the answer": (f"{DBUS}.Error.NoReply", "Message recipient disconnected", error_codes.UNREACHABLE),
    "still starting": (f"{DBUS}.Error.UnknownMethod", 'No such method "addRichRule"', ""),
    "an empty text": (f"{NAME}.Exception", "", ""),
}


@pytest.mark.parametrize(("name", "text", "code"), ERRORS.values(), ids=ERRORS)
def test_error_answer_has_a_code_and_a_text(tmp_path: Path, name: str, text: str, code: str) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.errors["addRichRule"] = (name, text)
            with pytest.raises(FirewallError) as raised:
                await client.firewalld.add("public", RULE)
            assert raised.value.code == code
            assert str(raised.value)

    asyncio.run(main())


def test_missing_answer_is_an_error_and_a_late_one_is_ignored(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.silent.add("addRichRule")
            with pytest.raises(FirewallError) as raised:
                await client.firewalld.add("public", RULE)
            assert raised.value.code == error_codes.UNANSWERED
            bus.silent.clear()
            assert await client.firewalld.rules("public") == []

    asyncio.run(main())


Asked = Callable[[Firewalld], Awaitable[object]]
WRONG_ANSWERS: dict[str, tuple[str, str, list[object], Asked]] = {
    "zones as a text": ("getActiveZones", "s", ["public"], lambda client: client.zones()),
    "zones as numbers": ("getZones", "ai", [[1, 2]], lambda client: client.zones()),
    "an empty answer": ("getDefaultZone", "", [], lambda client: client.zones()),
    "rules as a number": ("getRichRules", "i", [5], lambda client: client.rules("public")),
    "rules as one text": ("getRichRules", "s", [RULE], lambda client: client.rules("public")),
    "no rules at all": ("getRichRules", "", [], lambda client: client.rules("public")),
}


@pytest.mark.parametrize(("member", "signature", "body", "ask"), WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_answer_of_the_wrong_type_is_an_error(
    tmp_path: Path, member: str, signature: str, body: list[object], ask: Asked
) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.replies[member] = (signature, body)
            with pytest.raises(FirewallError):
                await ask(client.firewalld)

    asyncio.run(main())


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"l\x09\0\1" + bytes(60), b"l\4\1\1" + b"\xff" * 12],
    ids=["zeros", "a web server", "a message of no type", "a message without end"],
)
def test_garbage_on_the_bus_is_an_error_and_reconnected_from(tmp_path: Path, garbage: bytes) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            bus.silent.add("getRichRules")
            asked = asyncio.create_task(client.firewalld.rules("public"))
            await until(lambda: bus.called("getRichRules"))
            bus.send(garbage)
            with pytest.raises(FirewallError):
                await asked
            bus.silent.clear()
            bus.hang_up()
            await until(lambda: bus.connections > 1 and client.firewalld.present)
            assert await client.firewalld.rules("public") == []

    asyncio.run(main())


def test_flood_of_signals_loses_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        shorten_calls(monkeypatch, 5)
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            for _ in range(3000):
                bus.signal(f"{NAME}.zone", "RichRuleAdded", "ssi", "public", RULE, 0)
            assert await client.firewalld.rules("public") == []
            assert client.events == [FirewalldEvent.APPEARED], "added rules are no event"

    asyncio.run(main())


def test_call_of_another_program_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus, running() as client:
            await client.reported(FirewalldEvent.APPEARED)
            call = Message(
                destination=":1.42", path=DBUS_PATH, interface="x.y", member="Boo", sender=":1.666", serial=7
            )
            bus.send(encoded(call))
            assert await client.firewalld.rules("public") == []

    asyncio.run(main())


def test_invalid_bus_address_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "nonsense")
        async with running() as client:
            await asyncio.sleep(0.05)
            async with FakeBus(tmp_path) as bus:
                monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
                await client.reported(FirewalldEvent.APPEARED)

    asyncio.run(main())


UNTRACKED = {
    "an entry of an unknown set": (f"{NAME}.ipset", "EntryAdded", ["unknown", "10.0.0.2"]),
    "an unknown signal": (f"{NAME}.zone", "Invented", ["public"]),
}


@pytest.mark.parametrize(("interface", "member", "body"), UNTRACKED.values(), ids=UNTRACKED)
def test_signal_that_changes_nothing_is_no_event(interface: str, member: str, body: list[str]) -> None:
    client = Client()
    client.firewalld._on_signal(interface, member, body)
    assert client.events == []


def test_connection_that_was_never_made_is_an_error_and_can_be_closed() -> None:
    async def main() -> None:
        bus = connection.FirewalldBus(lambda _: None, lambda *_: None)
        with pytest.raises(FirewallError, match=r"^there is no D-Bus system bus$") as raised:
            await bus.watch(["type=signal"])
        assert raised.value.code == error_codes.UNREACHABLE
        await bus.ended()
        bus.close()

    asyncio.run(main())


def test_connection_that_ends_without_an_answer_is_an_error() -> None:
    class Ended:
        async def call(self, _: Message) -> None:
            return None

    async def main() -> None:
        bus = connection.FirewalldBus(lambda _: None, lambda *_: None)
        bus._bus = Ended()  # type: ignore[assignment]
        with pytest.raises(FirewallError, match=r"^the D-Bus system bus went away$") as raised:
            await bus.watch(["type=signal"])
        assert raised.value.code == error_codes.UNREACHABLE

    asyncio.run(main())


def test_query_client_keeps_its_connection_until_it_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeBus(tmp_path) as bus:
            bus.replies["queryPanicMode"] = ("b", [True])
            client = QueryClient()
            for made in (1, 2):
                assert await client.ask(NAME, "queryPanicMode") is True
                assert await client.ask(NAME, "queryPanicMode") is True
                assert bus.connections == made
                bus.hang_up()
                await until(lambda: client._bus is None)

    asyncio.run(main())


def test_bus_that_does_not_name_the_owner_is_an_error() -> None:
    class Hung:
        unique_name = ":1.1"

        async def call(self, _: Message) -> None:
            raise asyncio.TimeoutError

    async def main() -> None:
        bus = connection.FirewalldBus(lambda _: None, lambda *_: None)
        hung: Any = Hung()
        bus._bus = hung
        with pytest.raises(FirewallError) as raised:
            await bus._look_up_owner(hung)
        assert raised.value.code == error_codes.UNANSWERED

    asyncio.run(main())


@pytest.mark.parametrize("sender", [DBUS, ":1.666"], ids=["the bus", "another program"])
def test_signal_that_is_not_about_firewalld_is_dropped(sender: str) -> None:
    seen: list[object] = []
    bus = connection.FirewalldBus(seen.append, lambda *signal: seen.append(signal))
    bus._on_message(
        Message(
            message_type=MessageType.SIGNAL,
            sender=sender,
            path=DBUS_PATH,
            interface=DBUS,
            member="NameAcquired",
            signature="s",
            body=[NAME],
        )
    )
    assert seen == []
