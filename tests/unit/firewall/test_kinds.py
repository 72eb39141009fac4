"""The table of kinds: a toy kind, added by one line, is read back, added, removed and cleaned up as any other."""

import asyncio
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

import pytest

from port_knocking_doors.firewall import kinds
from port_knocking_doors.firewall.firewalld import Firewalld
from port_knocking_doors.firewall.kinds import KINDS
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.firewall.zones import Zones
from tests.helpers.fake_bus import FakeBus

RULE = 'rule priority="31313" port port="1" protocol="udp" accept'
SETS: dict[str, set[str]] = {}
PERMANENT: set[str] = set()


class Entry(NamedTuple):
    """A toy: an entry of a set that the test keeps."""

    place: str
    text: str


class Entries:
    """The toy's kind: entries that begin with `ours-`."""

    def __init__(self, firewalld: Firewalld, priority: int) -> None:  # noqa: ARG002 the protocol has it
        assert priority == 31313

    def places(self, zones: Zones) -> list[str]:  # noqa: ARG002 the protocol has it
        return list(SETS)

    def is_ours(self, item: Entry) -> bool:
        return item.text.startswith("ours-")

    async def read(self, place: str) -> list[Entry]:
        return [Entry(place, text) for text in SETS[place]]

    async def add(self, item: Entry) -> None:
        SETS[item.place].add(item.text)

    async def remove(self, item: Entry) -> None:
        SETS[item.place].remove(item.text)

    async def read_permanent(self) -> list[Entry]:
        return [Entry("doors", text) for text in sorted(PERMANENT)]

    async def remove_permanent(self, item: Entry) -> None:
        PERMANENT.remove(item.text)


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        self.calls.append(("active", owner, zones))

    def on_removed(self, owner: Hashable) -> None:
        self.calls.append(("removed", owner))


def test_toy_kind_is_reconciled_through_the_table_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "KINDS", {**KINDS, Entry: Entries})
    SETS["doors"] = {"ours-stray", "others"}
    PERMANENT.update({"ours-permanent", "others"})

    async def main() -> None:
        async with FakeBus(tmp_path) as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
            recorder = Recorder()
            reconciler = RuleReconciler(31313, recorder)
            worker = asyncio.create_task(reconciler.run())
            reconciler.set_desired("door", lambda _: [Entry("doors", "ours-1"), ZoneRule("public", RULE)])
            await asyncio.wait_for(reconciler.settled(), 3)
            assert (SETS["doors"], bus.zones["public"]) == ({"ours-1", "others"}, [RULE])
            assert {"others"} == PERMANENT
            SETS["doors"].remove("ours-1")
            reconciler.check()
            await asyncio.wait_for(reconciler.settled(), 3)
            assert SETS["doors"] == {"ours-1", "others"}
            reconciler.clear("door")
            await asyncio.wait_for(reconciler.settled(), 3)
            assert (SETS["doors"], bus.zones["public"]) == ({"others"}, [])
            assert recorder.calls == [("active", "door", ("doors", "public")), ("removed", "door")]
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    asyncio.run(main())
