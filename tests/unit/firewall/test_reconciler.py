"""The reconciler on a bus with a firewalld that fails in every way; in the end exactly the desired rules are active."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.firewall import health, polkit
from port_knocking_doors.firewall.placements import Placement
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.firewall.zone_rules import ZoneRule
from tests.helpers.fake_bus import DBUS, NAME, FakeBus, shorten_calls

PRIORITY = 31313
SOON = 3.0
CALL_TIMEOUT = 0.5
"""As `shorten_calls` sets it."""


def rule(number: int) -> str:
    return f'rule priority="31313" port port="{number}" protocol="udp" accept'


def fixed(*rules: ZoneRule) -> Placement:
    """The placement of an owner whose rules do not depend on the zones."""
    return lambda _: rules


def public(*numbers: int) -> Placement:
    return fixed(*(ZoneRule("public", rule(number)) for number in numbers))


class Recorder:
    """A listener that keeps its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Hashable]] = []

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        assert zones, "an active owner has a zone"
        self.calls.append(("active", owner))

    def on_removed(self, owner: Hashable) -> None:
        self.calls.append(("removed", owner))


async def until(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def end(worker: "asyncio.Task[None]") -> None:
    """End the worker as the daemon does, with a time limit."""
    worker.cancel()
    await asyncio.wait({worker}, timeout=SOON)
    if not worker.done():
        worker.cancel()
        raise AssertionError("the worker goes on although it was cancelled")


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    fake = FakeBus(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.address)
    shorten_calls(monkeypatch)
    monkeypatch.setattr(health, "_LAST_RETRY", 0.1)
    return fake


def play(bus: FakeBus, story: Callable[[RuleReconciler, Recorder], Any]) -> None:
    """Run the story beside a reconciler that is connected to the bus."""

    async def main() -> None:
        async with bus:
            recorder = Recorder()
            reconciler = RuleReconciler(PRIORITY, recorder)
            worker = asyncio.create_task(reconciler.run())
            try:
                await story(reconciler, recorder)
                assert not worker.done(), "the worker never ends by itself"
            finally:
                await end(worker)

    asyncio.run(main())


def state_of(reconciler: RuleReconciler) -> tuple[str, str]:
    return reconciler.state.value, reconciler.unavailable_reason


async def settled(reconciler: RuleReconciler) -> None:
    await asyncio.wait_for(reconciler.settled(), SOON)


# What owners desire. -------------------------------------------------------------------------------------------------


def test_desired_rules_are_added_and_removed_with_strangers(bus: FakeBus) -> None:
    bus.zones["external"].append(rule(9))

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", lambda zones: [ZoneRule(zones.default, rule(1)), ZoneRule("external", rule(2))])
        await settled(reconciler)
        assert bus.zones == {"public": [rule(1)], "external": [rule(2)]}
        reconciler.clear("a")
        await settled(reconciler)
        assert bus.zones == {"public": [], "external": []}
        assert recorder.calls == [("active", "a"), ("removed", "a")]
        assert reconciler.removed == 3
        assert {arguments[2] for arguments in bus.called("addRichRule")} == {0}, "no rule has a time limit"

    play(bus, story)


def test_counts_are_those_of_active_pending_and_refused_rules(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        await settled(reconciler)
        bus.errors["addRichRule"] = (f"{NAME}.Exception", "INVALID_RULE: no")
        reconciler.set_desired("a", public(1, 2))
        assert (reconciler.active_rules, reconciler.pending, reconciler.refused_rules) == (0, 2, 0)
        await settled(reconciler)
        assert (reconciler.active_rules, reconciler.pending, reconciler.refused_rules) == (0, 0, 2)
        bus.errors.clear()
        reconciler.check()
        await settled(reconciler)
        assert (reconciler.active_rules, reconciler.pending, reconciler.refused_rules) == (2, 0, 0)

    play(bus, story)


def test_rule_of_another_priority_is_left_alone(bus: FakeBus) -> None:
    others = 'rule priority="31314" port port="1" protocol="udp" accept'
    bus.zones["public"] += [others, rule(1)]

    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        await settled(reconciler)
        assert bus.zones["public"] == [others]

    play(bus, story)


def test_owner_set_again_while_firewalld_is_away_is_active_once_confirmed(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        bus.own(False)
        await until(lambda: not reconciler.present)
        reconciler.clear("a")
        reconciler.set_desired("a", public(1))
        assert recorder.calls == [("active", "a")], "it is unknown whether the rule is active"
        bus.zones["public"].clear()
        bus.own(True)
        await until(lambda: reconciler.present)
        await settled(reconciler)
        assert bus.zones["public"] == [rule(1)]
        assert recorder.calls == 2 * [("active", "a")]

    play(bus, story)


def test_owner_set_and_cleared_while_firewalld_is_away_is_never_active(bus: FakeBus) -> None:
    bus.owned = False

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("known", public(1))
        bus.own(True)
        await settled(reconciler)
        bus.own(False)
        await until(lambda: not reconciler.present)
        reconciler.set_desired("late", public(2))
        reconciler.clear("late")
        bus.own(True)
        await settled(reconciler)
        assert ("active", "late") not in recorder.calls
        assert bus.called("addRichRule") == [["public", rule(1), 0]]

    play(bus, story)


def test_door_opened_again_during_its_removal_is_active_once_added(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        reconciler.clear("a")
        await until(lambda: bus.called("removeRichRule"))
        recorder.calls.clear()
        reconciler.set_desired("a", public(1))
        assert recorder.calls == [], "firewalld has confirmed nothing yet"
        await settled(reconciler)
        assert recorder.calls == [("active", "a")]
        assert bus.zones["public"] == [rule(1)]

    play(bus, story)


def test_closing_goes_ahead_of_all_that_waits_to_be_opened(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("closing", public(1))
        await settled(reconciler)
        for number in range(10, 30):
            reconciler.set_desired(number, public(number))
        reconciler.clear("closing")
        await settled(reconciler)
        assert recorder.calls[1] == ("removed", "closing")
        assert len(recorder.calls) == 22

    play(bus, story)


def test_door_that_is_due_while_others_open_closes_next(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("closing", public(1))
        await settled(reconciler)
        for number in range(10, 30):
            reconciler.set_desired(number, public(number))
        await until(lambda: len(bus.called("addRichRule")) >= 5)
        reconciler.clear("closing")
        opened = len(recorder.calls)
        await settled(reconciler)
        assert recorder.calls.index(("removed", "closing")) <= opened + 1, "at most the addition that is sent already"

    play(bus, story)


def test_due_door_closes_while_the_permanent_configuration_is_searched(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("closing", public(1))
        await settled(reconciler)
        bus.silent.add("getZoneByName")
        bus.calls.clear()
        bus.signal(f"{NAME}.config.zone", "Updated", "s", "public")
        await until(lambda: bus.called("getZoneByName"))
        reconciler.clear("closing")
        began = time.monotonic()
        await until(lambda: recorder.calls[-1] == ("removed", "closing"))
        assert time.monotonic() - began < CALL_TIMEOUT / 2, "it waits for no answer but its own"
        assert bus.zones["public"] == []

    play(bus, story)


def test_due_door_closes_ahead_of_what_a_check_reads(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("closing", public(1))
        reconciler.set_desired("open", public(2))
        await settled(reconciler)
        bus.calls.clear()
        reconciler.check()
        reconciler.clear("closing")
        await settled(reconciler)
        assert [call.member for call in bus.calls] == ["removeRichRule", "getRichRules"]
        assert recorder.calls[-1] == ("removed", "closing")

    play(bus, story)


def test_due_door_does_not_wait_for_the_end_of_a_pause(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_FIRST_RETRY", 30.0)
    monkeypatch.setattr(health, "_LAST_RETRY", 30.0)

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("closing", public(1))
        await settled(reconciler)
        bus.errors["getRichRules"] = REFUSALS["by firewalld"]
        bus.calls.clear()
        reconciler.check()
        await until(lambda: bus.called("getRichRules"))
        await asyncio.sleep(0.05)
        reconciler.clear("closing")
        await until(lambda: recorder.calls[-1] == ("removed", "closing"))
        assert bus.zones["public"] == []

    play(bus, story)


def test_reload_brings_back_doors_the_latest_knock_first(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        for number in range(1, 6):
            reconciler.set_desired(number, public(number), float(number))
        reconciler.set_desired("knock ports", public(9))
        await settled(reconciler)
        reconciler.touch(2, 7.0)
        reconciler.clear(4)
        await settled(reconciler)
        bus.zones["public"].clear()
        bus.calls.clear()
        bus.signal(NAME, "Reloaded")
        await until(lambda: len(bus.zones["public"]) == 5)
        assert bus.zones["public"] == [rule(number) for number in (9, 2, 5, 3, 1)]

    play(bus, story)


def test_door_that_is_due_before_its_restoration_is_not_restored(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        for number in range(1, 21):
            reconciler.set_desired(number, public(number), float(number))
        await settled(reconciler)
        bus.zones["public"].clear()
        bus.calls.clear()
        bus.signal(NAME, "Reloaded")
        await until(lambda: bus.called("addRichRule"))
        reconciler.clear(1)
        assert recorder.calls[-1] == ("removed", 1), "a rule that does not exist needs no removal"
        await settled(reconciler)
        assert ["public", rule(1), 0] not in bus.called("addRichRule")
        assert len(bus.zones["public"]) == 19

    play(bus, story)


def test_touch_makes_no_call(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        reconciler.set_desired("a", public(1), 1.0)
        await settled(reconciler)
        bus.calls.clear()
        reconciler.touch("a", 2.0)
        reconciler.touch("unknown", 2.0)
        await settled(reconciler)
        assert bus.calls == []

    play(bus, story)


def test_replaced_rule_is_removed_after_its_successor_is_active(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        reconciler.set_desired("moving", public(1, 2))
        await settled(reconciler)
        reconciler.set_desired("moving", fixed(ZoneRule("external", rule(1)), ZoneRule("external", rule(2))))
        reconciler.set_desired("other", public(3))
        await until(lambda: bus.called("removeRichRule"))
        assert sorted(bus.zones["external"]) == [rule(1), rule(2)]

    play(bus, story)


def test_cleared_reconciler_searches_the_permanent_configuration(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        bus.permanent["public"].append(rule(1))
        reconciler.clear_all()
        await settled(reconciler)
        assert (bus.zones["public"], bus.permanent["public"]) == ([], [])
        assert recorder.calls == [("active", "a"), ("removed", "a")]
        bus.permanent["public"].append(rule(1))
        reconciler.clear_all()
        await settled(reconciler)
        assert bus.permanent["public"] == [], "without any owner, too"

    play(bus, story)


def test_worker_can_be_ended_at_any_moment(bus: FakeBus) -> None:
    async def ended_after(turns: int) -> bool:
        reconciler = RuleReconciler(PRIORITY, Recorder())
        reconciler.set_desired("a", fixed(ZoneRule("public", rule(1)), ZoneRule("external", rule(1))))
        worker = asyncio.create_task(reconciler.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        is_settled = reconciler._settled.is_set()
        await end(worker)
        return is_settled

    async def main() -> None:
        async with bus:
            turns = 0
            while not await ended_after(turns):
                turns += 1
            assert turns > 50

    asyncio.run(main())


# Zones. --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interface", "member", "body"),
    [(NAME, "DefaultZoneChanged", ["external"]), (NAME, "Reloaded", [])],
    ids=["default zone changed", "reload"],
)
def test_rules_move_to_the_zone_that_a_signal_reports(
    bus: FakeBus, interface: str, member: str, body: list[str]
) -> None:
    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        reconciler.set_desired("a", lambda zones: [ZoneRule(zones.default, rule(1))])
        await settled(reconciler)
        assert bus.zones == {"public": [rule(1)], "external": []}
        bus.replies["getDefaultZone"] = ("s", ["external"])
        bus.signal(interface, member, "s" * len(body), *body)
        await until(lambda: bus.zones == {"public": [], "external": [rule(1)]})

    play(bus, story)


def zones_read(bus: FakeBus) -> list[str]:
    """The zones whose runtime rules were read."""
    return sorted(zone for call in bus.called("getRichRules") for zone in call)


def test_check_reads_only_the_zones_that_are_used(bus: FakeBus) -> None:
    bus.zones["drop"] = []

    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        assert zones_read(bus) == ["drop", "external", "public"], "at first every zone"
        bus.calls.clear()
        reconciler.check()
        await settled(reconciler)
        assert zones_read(bus) == ["public"]

    play(bus, story)


def test_check_skips_a_zone_that_firewalld_does_not_know(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        reconciler.set_desired("a", fixed(ZoneRule("public", rule(1)), ZoneRule("nowhere", rule(1))))
        await settled(reconciler)
        bus.calls.clear()
        reconciler.check()
        await settled(reconciler)
        assert zones_read(bus) == ["public"]

    play(bus, story)


def test_check_restores_what_another_program_removed(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        bus.zones["public"][:] = [rule(9)]
        reconciler.check()
        await settled(reconciler)
        assert bus.zones["public"] == [rule(1)]
        assert recorder.calls == [("active", "a")]

    play(bus, story)


# The permanent configuration. ----------------------------------------------------------------------------------------


def test_marked_permanent_rule_is_removed_and_reported(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    others = 'rule priority="31314" port port="1" protocol="udp" accept'
    bus.permanent["external"] += [rule(1), others]

    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        await settled(reconciler)
        bus.permanent["public"].append(rule(2))
        bus.signal(f"{NAME}.config.zone", "Updated", "s", "public")
        await until(lambda: caplog.text.count("permanent configuration") == 2)

    play(bus, story)
    assert bus.permanent == {"public": [], "external": [others]}


def test_unanswered_permanent_configuration_is_searched_again(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.permanent["public"].append(rule(1))
    bus.silent.add("getZoneNames")

    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        await until(lambda: bus.called("getZoneNames"))
        await until(lambda: "firewalld does not answer" in caplog.text)
        bus.silent.clear()
        await settled(reconciler)
        assert bus.permanent["public"] == []

    play(bus, story)
    assert "cannot check" not in caplog.text


def test_unreadable_permanent_configuration_is_reported_once(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.errors["getZoneNames"] = (f"{NAME}.Exception", "BUILTIN: no")

    async def story(reconciler: RuleReconciler, _: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        reconciler.check()
        await settled(reconciler)
        assert bus.zones["public"] == [rule(1)]

    play(bus, story)
    assert caplog.text.count("cannot check firewalld's permanent configuration") == 1


# Errors. -------------------------------------------------------------------------------------------------------------

REFUSALS = {
    "by firewalld": (f"{NAME}.NotAuthorizedException", "Not Authorized: org.fedoraproject.FirewallD1.config"),
    "by the bus": (f"{DBUS}.Error.AccessDenied", "Rejected send message"),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_denied_additions_are_logged_once_with_the_remedy(
    bus: FakeBus, caplog: pytest.LogCaptureFixture, error: tuple[str, str]
) -> None:
    bus.errors["addRichRule"] = error

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        for number in range(5):
            reconciler.set_desired(number, public(number))
        for _ in range(3):
            await settled(reconciler)
            reconciler.check()
        await settled(reconciler)
        assert recorder.calls == []
        bus.errors.clear()
        reconciler.check()
        await settled(reconciler)
        assert len(recorder.calls) == 5

    play(bus, story)
    assert caplog.text.count("50-port-knocking-doors.rules") == 1


def test_denied_removal_is_logged_and_tried_again_by_check(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        bus.errors["removeRichRule"] = REFUSALS["by firewalld"]
        reconciler.clear("a")
        await settled(reconciler)
        assert (reconciler.active_rules, reconciler.refused_rules) == (1, 1)
        assert "zone public: removing a rule failed: " in caplog.text
        assert recorder.calls == [("active", "a")]
        bus.errors.clear()
        reconciler.check()
        await settled(reconciler)
        assert recorder.calls == [("active", "a"), ("removed", "a")]

    play(bus, story)


def test_removal_from_a_zone_that_is_gone_counts_as_done(bus: FakeBus) -> None:
    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", fixed(ZoneRule("external", rule(1))))
        await settled(reconciler)
        bus.errors["removeRichRule"] = (f"{NAME}.Exception", "INVALID_ZONE: external")
        reconciler.clear("a")
        await settled(reconciler)
        assert recorder.calls == [("active", "a"), ("removed", "a")]

    play(bus, story)


def test_denied_reading_is_logged_once_with_the_remedy(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.errors["getRichRules"] = REFUSALS["by firewalld"]

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await until(lambda: len(bus.called("getRichRules")) >= 4)
        assert recorder.calls == []
        assert state_of(reconciler) == ("refusing", "refuses")
        bus.errors.clear()
        await settled(reconciler)
        assert recorder.calls == [("active", "a")]
        assert state_of(reconciler)[0] == "present"

    play(bus, story)
    assert caplog.text.count("50-port-knocking-doors.rules") == 1


def test_errors_are_followed_by_growing_pauses(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(health, "_LAST_RETRY", 5.0)
    bus.errors["getRichRules"] = REFUSALS["by firewalld"]

    async def story(*_: object) -> None:
        monkeypatch.setattr("port_knocking_doors.firewall.reconciler.asyncio.sleep", note)
        deadline = time.monotonic() + SOON
        while len(pauses) < 9 and time.monotonic() < deadline:
            await sleep(0.001)
        monkeypatch.undo()

    play(bus, story)
    assert pauses[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("user", "answer", "expected"),
    [
        ("port-knocking-doors", "(polkit)", "install /etc/polkit-1/rules.d/50-port-knocking-doors.rules"),
        ("another", "(polkit)", "run as root, or as user port-knocking-doors, which .*-doors.rules allows"),
        ("port-knocking-doors", "(uid)", "polkit is not running, .* install and start polkit"),
    ],
    ids=["the service's user", "another user", "no polkit"],
)
def test_denied_change_is_logged_with_what_is_missing(
    bus: FakeBus,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    answer: str,
    expected: str,
) -> None:
    monkeypatch.setattr(polkit, "_user", lambda: user)
    action = f"{NAME}.config"
    bus.errors["addRichRule"] = (f"{NAME}.NotAuthorizedException", f"Not Authorized{answer}: {action}")

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await settled(reconciler)
        assert recorder.calls == []

    play(bus, story)
    (record,) = caplog.records
    assert action in record.getMessage()
    assert f"user {user} " in record.getMessage()
    assert re.search(expected, record.getMessage())


def test_firewalld_that_is_still_starting_is_asked_again_soon(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    unknown = (f"{DBUS}.Error.UnknownMethod", 'Method "getDefaultZone" is not known')
    bus.errors.update(dict.fromkeys(("getDefaultZone", "getZones", "getActiveZones"), unknown))

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await until(lambda: len(bus.called("getDefaultZone")) >= 4)
        bus.errors.clear()
        await asyncio.wait_for(reconciler.settled(), 0.5)
        assert recorder.calls == [("active", "a")]

    play(bus, story)
    assert len(caplog.records) == 1


def test_firewalld_that_hangs_is_logged_once_and_read_back(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        await settled(reconciler)
        assert state_of(reconciler)[0] == "present"
        bus.silent.update({"addRichRule", "getDefaultZone"})
        reconciler.set_desired("a", public(1))
        await until(lambda: "does not answer" in caplog.text)
        assert state_of(reconciler) == ("hung", "does not answer")
        for _ in range(20):
            reconciler.check()
            await asyncio.sleep(0)
        bus.zones["public"].append(rule(1))  # it did what it was asked for, and the answer was lost
        bus.own(False)
        bus.silent.clear()
        bus.own(True)
        await settled(reconciler)
        assert recorder.calls == [("active", "a")]
        assert bus.zones["public"] == [rule(1)]
        assert state_of(reconciler)[0] == "present"

    play(bus, story)
    assert caplog.text.count("does not answer") == 1
    assert caplog.text.count("firewalld answers") == 1


def test_firewalld_that_stops_and_returns_is_logged_once_each(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        assert state_of(reconciler) == ("absent", "is not running")
        await settled(reconciler)
        assert recorder.calls == []
        for _ in range(2):
            bus.own(False)
            await until(lambda: not reconciler.present)
        bus.own(True)
        await until(lambda: "firewalld answers" in caplog.text)

    play(bus, story)
    assert caplog.text.count("firewalld has stopped") == 1
    assert caplog.text.count("firewalld answers") == 1


WRONG: dict[str, tuple[str, str, list[Any]]] = {
    "zones": ("getActiveZones", "s", ["public"]),
    "rules": ("getRichRules", "i", [5]),
    "an answer to an addition": ("addRichRule", "i", [5]),
    "the permanent zones": ("getZoneNames", "i", [5]),
    "a zone's path": ("getZoneByName", "s", ["not a path"]),
}


@pytest.mark.parametrize(("member", "signature", "body"), WRONG.values(), ids=WRONG)
def test_answer_of_the_wrong_type_does_not_end_the_worker(
    bus: FakeBus, member: str, signature: str, body: list[Any]
) -> None:
    bus.replies[member] = (signature, body)

    async def story(reconciler: RuleReconciler, recorder: Recorder) -> None:
        reconciler.set_desired("a", public(1))
        await until(lambda: bus.called(member))
        await asyncio.sleep(0.1)
        bus.replies.clear()
        reconciler.check()
        await settled(reconciler)
        assert recorder.calls == [("active", "a")]

    play(bus, story)
