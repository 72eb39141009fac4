"""Doors to ports as rules in firewalld: what the opener has the reconciler do, and what it reports."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from dbus_next.signature import Variant

from port_knocking_doors.errors import ConfigError, FirewallError
from port_knocking_doors.firewall import rule_opener
from port_knocking_doors.firewall.rich_rule import knock_port_rule
from port_knocking_doors.firewall.rule_opener import RuleOpener
from port_knocking_doors.model import Access, Door, FirewalldState, Port, PortOpening, Protocol, Settings
from tests.helpers.fake_bus import NAME, FakeBus, shorten_calls

SOON = 3.0
SETTINGS = Settings(opening_sequence=(1, 2, 1), open_knock_ports=False)


def door(number: int, *ports: int) -> Door:
    return Door(ip_address(f"10.0.0.{number}"), "eth0", "main", PortOpening(tuple(map(Port, ports or (22,)))))


def rule(number: int, port: int = 22) -> str:
    return (
        f'rule priority="31313" family="ipv4" source address="10.0.0.{number}" port port="{port}" protocol="tcp" accept'
    )


class Recorder:
    """A listener that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def on_open(self, door: Door, zones: tuple[str, ...]) -> None:
        self.calls.append(("open", door, zones))

    def on_closed(self, door: Door) -> None:
        self.calls.append(("closed", door))

    def on_denied(self, door: Door, reason: str) -> None:
        self.calls.append(("denied", door, reason))

    def on_failed(self, door: Door) -> None:
        raise AssertionError(door)


Story = Callable[[RuleOpener, Recorder], Awaitable[None]]


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    fake = FakeBus(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.address)
    shorten_calls(monkeypatch)
    return fake


def play(bus: FakeBus, story: Story, settings: Settings = SETTINGS, *, uses_firewalld: bool = True) -> None:
    async def main() -> None:
        async with bus:
            opener = RuleOpener(settings, uses_firewalld=uses_firewalld)
            recorder = Recorder()
            opener.listener = recorder
            worker = asyncio.create_task(opener.run())
            try:
                await asyncio.wait_for(story(opener, recorder), SOON)
            finally:
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)

    asyncio.run(main())


def test_door_has_a_rule_for_each_port_until_it_is_closed(bus: FakeBus) -> None:
    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        opener.open(door(2, 22, 80))
        await opener.settled()
        assert sorted(bus.zones["public"]) == [rule(2), rule(2, 80)]
        opener.close(door(2, 22, 80))
        await opener.settled()
        assert bus.zones["public"] == []
        assert recorder.calls == [("open", door(2, 22, 80), ("public",)), ("closed", door(2, 22, 80))]

    play(bus, story)


def test_door_is_in_the_zone_of_the_settings_where_one_is_named(bus: FakeBus) -> None:
    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.open(door(2))
        await opener.settled()
        assert bus.zones == {"public": [], "external": [rule(2)]}
        opener.apply(SETTINGS)
        await opener.settled()
        assert bus.zones == {"public": [rule(2)], "external": []}

    play(bus, story, Settings(zone="external", open_knock_ports=False))


def test_knock_ports_have_a_rule_while_the_settings_open_them(bus: FakeBus) -> None:
    expected = [knock_port_rule(Port(port, Protocol.UDP), 31313) for port in (1, 2)]

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        await opener.prepare()
        assert sorted(bus.zones["public"]) == expected
        opener.apply(SETTINGS)
        await opener.settled()
        assert bus.zones["public"] == []
        assert recorder.calls == [], "knock ports are no door"

    play(bus, story, Settings(opening_sequence=(1, 2, 1)))


def test_reload_brings_back_knock_ports_then_the_door_prolonged_last(
    bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(rule_opener, "now", lambda: float(next(clock)))

    async def story(opener: RuleOpener, _: Recorder) -> None:
        await opener.prepare()
        for number in (2, 3, 4):
            opener.open(door(number))
        opener.prolong(door(3))
        opener.prolong(door(9))
        await opener.settled()
        bus.zones["public"].clear()
        bus.signal(NAME, "Reloaded")
        while len(bus.zones["public"]) < 5:
            await asyncio.sleep(0.001)
        assert bus.zones["public"][2:] == [rule(3), rule(4), rule(2)]

    play(bus, story, Settings(opening_sequence=(1, 2)))


def test_unknown_zone_is_an_error_of_the_configuration(bus: FakeBus) -> None:
    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.verify(Settings(zone="nowhere"))  # firewalld has not answered yet
        await opener.prepare()
        with pytest.raises(
            ConfigError, match="zone 'nowhere' is unknown to firewalld, expected one of: external, public"
        ):
            opener.verify(Settings(zone="nowhere"))

    play(bus, story)


def test_end_removes_every_rule(bus: FakeBus) -> None:
    async def story(opener: RuleOpener, _: Recorder) -> None:
        for number in range(2, 9):
            opener.open(door(number))
        await opener.settled()
        await opener.close_all()
        assert bus.zones["public"] == []

    play(bus, story)


def test_end_reports_rules_that_firewalld_refused_to_remove(bus: FakeBus) -> None:
    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.open(door(2))
        await opener.settled()
        bus.errors["removeRichRule"] = (f"{NAME}.Exception", "NOT_AUTHORIZED: no")
        with pytest.raises(FirewallError, match="refused to remove 1 rule"):
            await opener.close_all()

    play(bus, story)


def test_end_reports_a_firewalld_that_does_not_answer(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_opener, "time_to_close", lambda _: 0.1)

    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.open(door(2))
        await opener.settled()
        bus.silent.add("removeRichRule")
        with pytest.raises(FirewallError, match="firewalld does not answer"):
            await opener.close_all()

    play(bus, story)


def test_end_without_firewalld_is_no_error(bus: FakeBus) -> None:
    bus.owned = False

    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.open(door(2))
        assert not opener.is_available
        await opener.close_all()

    play(bus, story)


def test_opener_without_firewalld_never_connects(bus: FakeBus) -> None:
    async def story(opener: RuleOpener, _: Recorder) -> None:
        opener.apply(SETTINGS)
        await opener.settled()
        await opener.close_all()
        assert opener.state is FirewalldState.UNUSED
        assert bus.connections == 0

    play(bus, story, uses_firewalld=False)


def test_door_stays_open_for_the_duration_of_its_access(bus: FakeBus) -> None:
    opener = RuleOpener(SETTINGS, uses_firewalld=True)
    assert opener.stays_open(door(2))
    assert opener.seconds(door(2), Access(duration=17.0)) == 17.0
    assert bus.connections == 0


DENIAL = 'rule family="ipv4" source address="10.0.0.2" reject'
ACTIVE = {"public": {"interfaces": ["eth0"]}, "external": {"sources": ["10.0.0.0/30", "52:54:00:12:34:56"]}}
SETTINGS_OF = {"external": {"target": Variant("s", "DROP")}, "public": {"rules_str": Variant("as", [DENIAL])}}


def in_zones(bus: FakeBus, **zones: dict[str, list[str]]) -> None:
    bus.replies["getActiveZones"] = ("a{sa{sas}}", [zones])


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_door_of_a_banned_address_is_denied(bus: FakeBus) -> None:
    in_zones(bus, **ACTIVE)
    bus.replies["getZoneSettings2"] = ("a{sv}", [SETTINGS_OF["external"]])

    async def story(opener: RuleOpener, _: Recorder) -> None:
        assert opener.denial(door(2)) == "", "nothing is known yet"
        await opener.prepare()
        assert opener.denial(door(2)) == "address is in zone external, whose target is DROP"
        assert opener.denial(door(5)) == "", "the zone of an interface is no ban"
        opener.apply(replace(SETTINGS, doors_for_banned=True))
        assert opener.denial(door(2)) == ""
        opener.open(door(2))
        await opener.settled()
        assert bus.zones["external"] == [rule(2)]

    play(bus, story)


def test_door_that_waited_for_firewalld_is_denied_to_a_banned_address(bus: FakeBus) -> None:
    bus.replies["getZoneSettings2"] = ("a{sv}", [SETTINGS_OF["public"]])

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        opener.open(door(2))
        await until(lambda: recorder.calls)
        assert recorder.calls == [("denied", door(2), f"rich rule `{DENIAL}` of zone public denies the address")]
        opener.close(door(2))
        await opener.settled()
        assert bus.called("addRichRule") == []

    play(bus, story)


def test_open_door_is_denied_once_its_address_is_in_a_zone_that_drops(bus: FakeBus) -> None:
    in_zones(bus, public={"interfaces": ["eth0"]})
    bus.replies["getZoneSettings2"] = ("a{sv}", [SETTINGS_OF["external"]])

    async def story(opener: RuleOpener, recorder: Recorder) -> None:
        await opener.prepare()
        opener.open(door(2))
        opener.open(door(9))
        await opener.settled()
        in_zones(bus, **ACTIVE)
        bus.signal(f"{NAME}.zone", "SourceAdded", "ss", "external", "10.0.0.0/30")
        await until(lambda: ("denied", door(2), "address is in zone external, whose target is DROP") in recorder.calls)
        opener.close(door(2))
        await opener.settled()
        assert bus.zones == {"public": [rule(9)], "external": []}
        assert recorder.calls[-1] == ("closed", door(2))

    play(bus, story)


def test_rich_rule_bans_from_the_moment_that_it_is_added(bus: FakeBus) -> None:
    async def story(opener: RuleOpener, _: Recorder) -> None:
        await opener.prepare()
        opener.open(door(2))
        await opener.settled()
        reads = len(bus.called("getZoneSettings2"))
        bus.signal(f"{NAME}.zone", "RichRuleAdded", "ssi", "public", DENIAL.replace('"', ""), 0)
        await until(lambda: opener.denial(door(2)))
        opener.reconciler.replace_all()
        await opener.settled()
        assert bus.zones["public"] == [rule(2)], "the ban itself keeps an open door shut"
        bus.signal(f"{NAME}.zone", "RichRuleRemoved", "ss", "public", DENIAL)
        await until(lambda: not opener.denial(door(2)))
        assert len(bus.called("getZoneSettings2")) == reads, "it is followed, and not read again"

    play(bus, story)


def test_rich_rule_for_a_set_has_the_set_read(bus: FakeBus) -> None:
    bus.replies["getIPSetSettings"] = ("(ssssa{ss}as)", [["", "", "", "hash:net", {}, ["10.0.0.0/24"]]])

    async def story(opener: RuleOpener, _: Recorder) -> None:
        await opener.prepare()
        text = 'rule source ipset="bad" drop'
        bus.replies["getZoneSettings2"] = ("a{sv}", [{"rules_str": Variant("as", [text])}])
        bus.signal(f"{NAME}.zone", "RichRuleAdded", "ssi", "public", text, 0)
        await until(lambda: opener.denial(door(2)))
        bus.signal(f"{NAME}.ipset", "EntryRemoved", "ss", "bad", "10.0.0.0/24")
        await until(lambda: not opener.denial(door(2)))

    play(bus, story)


def test_zone_that_a_knock_does_not_show_is_logged_once(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    in_zones(bus, **ACTIVE)

    async def story(opener: RuleOpener, _: Recorder) -> None:
        await opener.prepare()
        for number in (2, 8, 9):
            opener.open(door(number))
        await opener.settled()

    with caplog.at_level(logging.WARNING):
        play(bus, story)
    (message,) = caplog.messages
    assert message == (
        "10.0.0.8: may be in zone external, by its source 52:54:00:12:34:56 (a hardware address cannot be known from a "
        'knock): the door opens in zone public; if its door lets nothing in, set zone = "external"'
    )


def test_rule_of_a_policy_bans_once_the_policy_has_it(bus: FakeBus) -> None:
    policy = {"ingress_zones": ["ANY"], "egress_zones": ["HOST"]}
    bus.replies["getActivePolicies"] = ("a{sa{sas}}", [{"strict": policy, "out": {"egress_zones": ["ANY"]}}])
    bus.replies["getPolicySettings"] = ("a{sv}", [{}])

    async def story(opener: RuleOpener, _: Recorder) -> None:
        await opener.prepare()
        assert opener.denial(door(2)) == ""
        assert bus.called("getPolicySettings") == [["strict"]]
        bus.replies["getPolicySettings"] = ("a{sv}", [{"rich_rules": Variant("as", [DENIAL])}])
        bus.signal(f"{NAME}.policy", "PolicyUpdated", "sa{sv}", "strict", {})
        await until(lambda: opener.denial(door(2)))
        assert opener.denial(door(2)) == f"rich rule `{DENIAL}` of policy strict denies the address"

    play(bus, story)
