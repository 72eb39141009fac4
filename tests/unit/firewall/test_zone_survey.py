"""What a survey of firewalld's zones keeps in step with signals, those that arrive while it reads included."""

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any, cast

import pytest
from dbus_next.signature import Variant

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.bans import Denials
from port_knocking_doors.firewall.bus import FirewalldBus
from port_knocking_doors.firewall.error_codes import UNANSWERED
from port_knocking_doors.firewall.source_set import Membership
from port_knocking_doors.firewall.zone_survey import ZoneSurvey

BAN = 'rule family="ipv4" source address="192.0.2.{}" drop'
BAN_SET = 'rule source ipset="{}" drop'
SETTINGS = ["", "", "", "", "hash:ip", {}, ["192.0.2.1"]]


class Bus:
    """firewalld's answers; `during` is called ahead of the answer to a call of its member, once."""

    def __init__(self) -> None:
        self.rules: list[str] = [BAN.format(1)]
        self.during: dict[str, Callable[[], object]] = {}
        self.answers: dict[str, Any] = {
            "getDefaultZone": "public",
            "getActiveZones": {"home": {"sources": ["ipset:known"]}},
            "getZones": ["home", "public"],
            "getIPSetSettings": SETTINGS,
            "getServiceSettings2": {},
            "getActivePolicies": {},
            "Get": Variant("s", "2.1.1"),
        }
        self.calls: list[str] = []

    async def call(self, _: str, member: str, signature: str = "", *arguments: str) -> Any:
        assert len(signature) == len(arguments)
        self.calls.append(member)
        answer = {"rules_str": Variant("as", list(self.rules))} if member == "getZoneSettings2" else None
        self.during.pop(member, lambda: None)()
        await asyncio.sleep(0)
        answer = self.answers[member] if answer is None else answer
        if isinstance(answer, FirewallError):
            raise answer
        return answer

    async def watch(self, rules: Any) -> None:
        list(rules)


Story = Callable[[Bus, ZoneSurvey], Coroutine[Any, Any, None]]


def play(story: Story) -> None:
    bus = Bus()
    asyncio.run(story(bus, ZoneSurvey(cast("FirewalldBus", bus))))


def test_signal_of_an_entry_is_followed_in_a_set_that_was_read() -> None:
    async def story(_: Bus, survey: ZoneSurvey) -> None:
        known = (await survey.read()).sets["known"]
        assert survey.on_entry("EntryAdded", ["known", "192.0.2.9"])
        assert survey.on_entry("EntryRemoved", ["known", "192.0.2.1"])
        for member, arguments in (
            ("EntryAdded", ["other", "192.0.2.8"]),
            ("EntryAdded", ["known"]),
            ("Created", ["known", "192.0.2.8"]),
        ):
            assert not survey.on_entry(member, arguments)
        found = [known.membership(ip_address(f"192.0.2.{number}")) for number in (1, 8, 9)]
        assert found == [Membership.OUTSIDE, Membership.OUTSIDE, Membership.INSIDE]

    play(story)


def test_signal_of_an_entry_during_the_reading_of_its_set_is_kept() -> None:
    async def story(bus: Bus, survey: ZoneSurvey) -> None:
        def during() -> None:
            assert not survey.on_entry("EntryAdded", ["known", "192.0.2.9"])
            assert not survey.on_entry("EntryRemoved", ["known", "192.0.2.1"])

        bus.during["getIPSetSettings"] = during
        known = (await survey.read()).sets["known"]
        assert known.membership(ip_address("192.0.2.9")) is Membership.INSIDE
        assert known.membership(ip_address("192.0.2.1")) is Membership.OUTSIDE

    play(story)


RULE_SIGNALS = {
    # signal, arguments, whether the zones have to be read again
    "added": ("RichRuleAdded", ["public", BAN.format(2), 0], False),
    "removed": ("RichRuleRemoved", ["public", BAN.format(1)], False),
    "removed, unknown": ("RichRuleRemoved", ["public", BAN.format(7)], True),
    "in a zone without packets": ("RichRuleAdded", ["work", BAN.format(2), 0], False),
    "for a set that was read": ("RichRuleAdded", ["public", BAN_SET.format("known"), 0], False),
    "for another set": ("RichRuleAdded", ["public", BAN_SET.format("other"), 0], True),
    "for a service that was not read": (
        "RichRuleAdded",
        ["public", 'rule source address="192.0.2.2" service name="ssh" drop', 0],
        True,
    ),
    "not a denial": ("RichRuleAdded", ["public", 'rule port port="22" protocol="tcp" accept', 0], False),
    "too short": ("RichRuleAdded", ["public"], False),
}


@pytest.mark.parametrize(("member", "arguments", "is_due"), RULE_SIGNALS.values(), ids=RULE_SIGNALS)
def test_signal_of_a_rule_is_followed_or_makes_a_reading_due(member: str, arguments: list[Any], is_due: bool) -> None:
    async def story(_: Bus, survey: ZoneSurvey) -> None:
        await survey.read()
        assert survey.on_rule(member, arguments) is is_due

    play(story)


MEANWHILE = {
    # signal and rule, the rules then, how many times the zones are read
    "added": ("RichRuleAdded", BAN.format(2), [BAN.format(1), BAN.format(2)], 1),
    "removed": ("RichRuleRemoved", BAN.format(1), [], 1),
    "removed, unknown": ("RichRuleRemoved", BAN.format(7), [BAN.format(1)], 1),
    "for another set": ("RichRuleAdded", BAN_SET.format("other"), [BAN.format(1), BAN_SET.format("other")], 2),
}


@pytest.mark.parametrize(("member", "rule", "rules", "readings"), MEANWHILE.values(), ids=MEANWHILE)
def test_signal_of_a_rule_during_the_reading_is_followed_after_it(
    member: str, rule: str, rules: list[str], readings: int
) -> None:
    async def story(bus: Bus, survey: ZoneSurvey) -> None:
        def during() -> None:
            assert not survey.on_rule(member, ["public", rule, 0])
            bus.rules = rules

        bus.during["getIPSetSettings"] = during
        zones = await survey.read()
        assert zones.denials["public"] == Denials(rules)
        assert bus.calls.count("getActiveZones") == readings

    play(story)


def test_reload_during_the_reading_keeps_nothing_of_it() -> None:
    async def story(bus: Bus, survey: ZoneSurvey) -> None:
        bus.during["getIPSetSettings"] = survey.forget
        await survey.read()
        assert not survey.on_entry("EntryAdded", ["known", "192.0.2.9"])

    play(story)


VERSIONS = {"1.3.4": False, "2.0.0": True, "10.1": True, "": True, "git": True}


@pytest.mark.parametrize(("version", "is_sorted"), VERSIONS.items())
def test_release_decides_whether_interfaces_are_sorted(version: str, is_sorted: bool) -> None:
    async def story(bus: Bus, survey: ZoneSurvey) -> None:
        bus.answers["Get"] = Variant("s", version)
        assert (await survey.read()).is_sorted is is_sorted
        await survey.read()
        assert bus.calls.count("Get") == (1 if version else 2)

    play(story)


def test_set_that_firewalld_does_not_show_is_unknown() -> None:
    async def story(bus: Bus, survey: ZoneSurvey) -> None:
        bus.answers["getIPSetSettings"] = FirewallError("INVALID_IPSET: known", "INVALID_IPSET")
        known = (await survey.read()).sets["known"]
        assert known.membership(ip_address("192.0.2.1")) is Membership.PERHAPS
        assert known.doubt == "firewalld does not show the set"

    play(story)


def test_firewalld_that_does_not_answer_ends_the_survey() -> None:
    async def story(bus: Bus, survey: ZoneSurvey) -> None:
        bus.answers["getIPSetSettings"] = FirewallError("timed out", UNANSWERED)
        with pytest.raises(FirewallError, match="timed out"):
            await survey.read()

    play(story)


def test_policy_for_packets_to_this_host_is_read_with_its_rules() -> None:
    async def story(bus: Bus, survey: ZoneSurvey) -> None:
        bus.answers["getActivePolicies"] = {
            "strict": {"ingress_zones": ["ANY"], "egress_zones": ["HOST"]},
            "forwarding": {"ingress_zones": ["ANY"], "egress_zones": ["home"]},
        }
        bus.answers["getPolicySettings"] = {"rich_rules": Variant("as", [BAN_SET.format("banned")])}
        zones = await survey.read()
        assert [(one.name, one.zones) for one in zones.policies] == [("strict", frozenset({"ANY"}))]
        assert set(zones.sets) == {"known", "banned"}

    play(story)
