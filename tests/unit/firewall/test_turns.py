"""The event loop never stands still: 100,000 networks in a set that is a zone's source, 1,000 doors, and a busy bus."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from port_knocking_doors.doors.opener import DoorListener
from port_knocking_doors.firewall.rule_opener import RuleOpener
from port_knocking_doors.model import Door, Port, PortOpening, Settings
from tests.helpers.fake_bus import NAME, FakeBus
from tests.helpers.turns import Turns

ENTRIES = 100_000
DOORS = 1000
SIGNALS = 3000
TURN_MAX = 0.05
"""Seconds of CPU."""
PATIENCE = 60.0
NETWORKS = [f"{10 + number // 65536}.{number // 256 % 256}.{number % 256}.0/24" for number in range(ENTRIES)]


class Ignorant(DoorListener):
    """A listener that does nothing."""

    def on_open(self, door: Door, zones: tuple[str, ...]) -> None:
        pass

    def on_closed(self, door: Door) -> None:
        pass

    def on_denied(self, door: Door, reason: str) -> None:
        pass

    def on_failed(self, door: Door) -> None:
        pass


@contextmanager
def bus_in_a_thread(folder: Path) -> Iterator[tuple[FakeBus, asyncio.AbstractEventLoop]]:
    """A bus whose work is not that of the test's own thread."""
    bus, loop = FakeBus(folder), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(bus.start(), loop).result(PATIENCE)
        yield bus, loop
        asyncio.run_coroutine_threadsafe(bus.stop(), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


def door(number: int) -> Door:
    return Door(IPv4Address("192.0.2.0") + number, "eth0", "opening sequence", PortOpening((Port(22),)))


async def until_zone(bus: FakeBus, zone: str, rules: int) -> None:
    while len(bus.zones[zone]) != rules:
        await asyncio.sleep(0.01)


def test_no_turn_of_the_loop_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(bus: FakeBus, elsewhere: asyncio.AbstractEventLoop) -> None:
        opener = RuleOpener(Settings(open_knock_ports=False), uses_firewalld=True)
        opener.listener = Ignorant()
        worker = asyncio.create_task(opener.run())
        await opener.prepare()
        for number in range(DOORS):
            opener.open(door(number))
            await asyncio.sleep(0)
        await opener.settled()
        assert len(bus.zones["public"]) == DOORS

        def signal_entries() -> None:
            for number in range(SIGNALS):
                bus.signal(f"{NAME}.ipset", "EntryAdded", "ss", "block", f"203.0.{number // 256}.{number % 256}")
            bus.signal(f"{NAME}.ipset", "EntryAdded", "ss", "block", "192.0.2.0/24")

        elsewhere.call_soon_threadsafe(signal_entries)
        await until_zone(bus, "external", 256)
        await opener.settled()
        elsewhere.call_soon_threadsafe(bus.zones["public"].clear)
        elsewhere.call_soon_threadsafe(bus.signal, NAME, "Reloaded")
        await asyncio.sleep(0.1)
        await opener.settled()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    with bus_in_a_thread(tmp_path) as (bus, elsewhere), Turns() as turns:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        active = {"public": {"interfaces": ["eth0"]}, "external": {"sources": ["ipset:block"]}}
        bus.replies["getActiveZones"] = ("a{sa{sas}}", [active])
        bus.replies["getIPSetSettings"] = ("(ssssa{ss}as)", [["", "", "", "hash:net", {}, NETWORKS]])
        asyncio.run(asyncio.wait_for(main(bus, elsewhere), PATIENCE))
    assert len(bus.called("getIPSetSettings")) == 2, "it is read once, and once more after the reload"
    assert turns.longest < TURN_MAX, turns.what
