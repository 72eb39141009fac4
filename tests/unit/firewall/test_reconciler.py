"""Whatever firewalld does and does not do, in the end exactly the wanted rules stand; and what was told was true."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import error_codes, health, polkit, reconciler
from port_knocking_doors.firewall.firewalld import FirewalldEvent
from port_knocking_doors.firewall.reconciler import Placement, RuleReconciler
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.firewall.zones import Zones
from tests.helpers.fake_bus import DBUS, NAME, FakeBus, shorten_calls

T = TypeVar("T")
PRIORITY = 31313
SOON = 3.0


def rule(number: int) -> str:
    return f'rule priority="31313" port port="{number}" protocol="udp" accept'


def always(*rules: ZoneRule) -> Placement:
    """What an owner wants whose rules are the same in all zones' arrangements."""
    return lambda _: rules


class Story:
    """A witness that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Hashable]] = []

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        assert zones, "it stands somewhere"
        self.told.append(("standing", owner))

    def on_removed(self, owner: Hashable) -> None:
        self.told.append(("gone", owner))


# --- on a bus


async def until(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def end(worker: "asyncio.Task[None]") -> None:
    """As the daemon ends it, but not waiting for ever."""
    worker.cancel()
    await asyncio.wait({worker}, timeout=SOON)
    if not worker.done():
        worker.cancel()
        raise AssertionError("it goes on although it was cancelled")


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    fake = FakeBus(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.address)
    shorten_calls(monkeypatch)
    monkeypatch.setattr(health, "_LAST_RETRY", 0.1)
    return fake


def on_a_bus(bus: FakeBus, story: Callable[[RuleReconciler, Story], Any]) -> None:
    async def main() -> None:
        async with bus:
            told = Story()
            keeper = RuleReconciler(PRIORITY, told)
            worker = asyncio.create_task(keeper.run())
            try:
                await story(keeper, told)
                assert not worker.done(), "the worker never ends by itself"
            finally:
                await end(worker)

    asyncio.run(main())


def test_wants_and_forgets(bus: FakeBus) -> None:
    bus.zones["external"].append(rule(9))

    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("a", lambda zones: [ZoneRule(zones.default, rule(1)), ZoneRule("external", rule(2))])
        await asyncio.wait_for(keeper.settled(), SOON)
        assert bus.zones == {"public": [rule(1)], "external": [rule(2)]}
        keeper.clear("a")
        await asyncio.wait_for(keeper.settled(), SOON)
        assert bus.zones == {"public": [], "external": []}
        assert told.told == [("standing", "a"), ("gone", "a")]
        assert keeper.removed == 3
        assert {arguments[2] for arguments in bus.called("addRichRule")} == {0}

    on_a_bus(bus, story)


def test_who_wants_again_what_stood_when_firewalld_went_waits_for_its_word(bus: FakeBus) -> None:
    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        await asyncio.wait_for(keeper.settled(), SOON)
        bus.own(False)
        await until(lambda: not keeper.present)
        keeper.clear("a")
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        assert told.told == [("standing", "a")], "nobody can know whether it stands"
        bus.zones["public"].clear()
        bus.own(True)
        await until(lambda: keeper.present)
        await asyncio.wait_for(keeper.settled(), SOON)
        assert bus.zones["public"] == [rule(1)]
        assert told.told == 2 * [("standing", "a")]

    on_a_bus(bus, story)


REFUSALS = {
    "by firewalld": (f"{NAME}.NotAuthorizedException", "Not Authorized: org.fedoraproject.FirewallD1.config"),
    "by the bus": (f"{DBUS}.Error.AccessDenied", "Rejected send message"),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_without_the_right_to_change_rules_the_log_names_the_remedy_once(
    bus: FakeBus, caplog: pytest.LogCaptureFixture, error: tuple[str, str]
) -> None:
    bus.errors["addRichRule"] = error

    async def story(keeper: RuleReconciler, told: Story) -> None:
        for number in range(5):
            keeper.set_desired(number, always(ZoneRule("public", rule(number))))
        for _ in range(3):
            await asyncio.wait_for(keeper.settled(), SOON)
            keeper.check()
        await asyncio.wait_for(keeper.settled(), SOON)
        assert told.told == []
        bus.errors.clear()
        keeper.check()
        await asyncio.wait_for(keeper.settled(), SOON)
        assert len(told.told) == 5

    on_a_bus(bus, story)
    assert caplog.text.count("50-port-knocking-doors.rules") == 1


def test_without_the_right_to_read_rules_the_log_names_the_remedy_once(
    bus: FakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.errors["getRichRules"] = REFUSALS["by firewalld"]

    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        await until(lambda: len(bus.called("getRichRules")) >= 4)
        assert told.told == []
        bus.errors.clear()
        await asyncio.wait_for(keeper.settled(), SOON)
        assert told.told == [("standing", "a")]

    on_a_bus(bus, story)
    assert caplog.text.count("50-port-knocking-doors.rules") == 1


@pytest.mark.parametrize(
    ("user", "said", "expected"),
    [
        ("port-knocking-doors", "(polkit)", "install /etc/polkit-1/rules.d/50-port-knocking-doors.rules"),
        ("somebody", "(polkit)", "run as root, or as user port-knocking-doors, which .*-doors.rules allows"),
        ("port-knocking-doors", "(uid)", "polkit is not running, .* install and start polkit"),
    ],
    ids=["the service's user", "another user", "no polkit"],
)
def test_who_may_not_change_rules_is_told_what_is_missing(
    bus: FakeBus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, user: str, said: str, expected: str
) -> None:
    monkeypatch.setattr(polkit, "_user", lambda: user)
    action = f"{NAME}.config"
    bus.errors["addRichRule"] = (f"{NAME}.NotAuthorizedException", f"Not Authorized{said}: {action}")

    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        await asyncio.wait_for(keeper.settled(), SOON)
        assert told.told == []

    on_a_bus(bus, story)
    (record,) = caplog.records
    assert action in record.getMessage()
    assert f"user {user} " in record.getMessage()
    assert re.search(expected, record.getMessage())


def test_a_firewalld_that_is_still_starting_is_asked_again_soon(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    unknown = (f"{DBUS}.Error.UnknownMethod", 'Method "getDefaultZone" is not known')
    bus.errors.update(dict.fromkeys(("getDefaultZone", "getZones", "getActiveZones"), unknown))

    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        await until(lambda: len(bus.called("getDefaultZone")) >= 4)
        bus.errors.clear()
        await asyncio.wait_for(keeper.settled(), 0.5)
        assert told.told == [("standing", "a")]

    on_a_bus(bus, story)
    assert len(caplog.records) == 1


def test_a_firewalld_that_does_not_answer_is_told_of_once_and_looked_at_again(
    bus: FakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def story(keeper: RuleReconciler, told: Story) -> None:
        await asyncio.wait_for(keeper.settled(), SOON)
        bus.silent.update({"addRichRule", "getDefaultZone"})
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        await until(lambda: "does not answer" in caplog.text)
        for _ in range(20):
            keeper.check()
            await asyncio.sleep(0)
        bus.zones["public"].append(rule(1))  # it did what it was asked for, and the answer was lost
        bus.own(False)
        bus.silent.clear()
        bus.own(True)
        await asyncio.wait_for(keeper.settled(), SOON)
        assert told.told == [("standing", "a")]
        assert bus.zones["public"] == [rule(1)]

    on_a_bus(bus, story)
    assert caplog.text.count("does not answer") == 1
    assert caplog.text.count("firewalld answers") == 1


WRONG: dict[str, tuple[str, str, list[Any]]] = {
    "zones": ("getActiveZones", "s", ["public"]),
    "rules": ("getRichRules", "i", [5]),
    "an answer to an addition": ("addRichRule", "i", [5]),
    "the permanent zones": ("getZoneNames", "i", [5]),
    "a zone's path": ("getZoneByName", "s", ["not a path"]),
}


@pytest.mark.parametrize(("member", "signature", "body"), WRONG.values(), ids=WRONG)
def test_an_answer_of_the_wrong_kind_does_not_end_the_worker(
    bus: FakeBus, member: str, signature: str, body: list[Any]
) -> None:
    bus.replies[member] = (signature, body)

    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        await until(lambda: bus.called(member))
        await asyncio.sleep(0.1)
        bus.replies.clear()
        keeper.check()
        await asyncio.wait_for(keeper.settled(), SOON)
        assert told.told == [("standing", "a")]

    on_a_bus(bus, story)


def test_a_marked_rule_in_the_permanent_configuration_is_removed_and_reported(
    bus: FakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    others = 'rule priority="31314" port port="1" protocol="udp" accept'
    bus.permanent["external"] += [rule(1), others]

    async def story(keeper: RuleReconciler, told: Story) -> None:
        await asyncio.wait_for(keeper.settled(), SOON)
        bus.permanent["public"].append(rule(2))
        bus.signal(f"{NAME}.config.zone", "Updated", "s", "public")
        await until(lambda: caplog.text.count("permanent configuration") == 2)

    on_a_bus(bus, story)
    assert bus.permanent == {"public": [], "external": [others]}


def test_a_door_wanted_again_while_its_rule_is_being_removed_stands_only_once_it_was_added_again(bus: FakeBus) -> None:
    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        await asyncio.wait_for(keeper.settled(), SOON)
        keeper.clear("a")
        await until(lambda: bus.called("removeRichRule"))
        told.told.clear()
        keeper.set_desired("a", always(ZoneRule("public", rule(1))))
        assert told.told == [], "firewalld has confirmed nothing yet"
        await asyncio.wait_for(keeper.settled(), SOON)
        assert told.told == [("standing", "a")]
        assert bus.zones["public"] == [rule(1)]

    on_a_bus(bus, story)


def test_who_closes_waits_for_one_that_opens_and_not_for_all_of_them(bus: FakeBus) -> None:
    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("closing", always(ZoneRule("public", rule(1))))
        await asyncio.wait_for(keeper.settled(), SOON)
        for number in range(10, 30):
            keeper.set_desired(number, always(ZoneRule("public", rule(number))))
        keeper.clear("closing")
        await asyncio.wait_for(keeper.settled(), SOON)
        place = told.told.index(("gone", "closing"))
        assert 1 <= place <= 3, told.told

    on_a_bus(bus, story)


def test_a_rule_that_another_takes_the_place_of_goes_after_that_has_come(bus: FakeBus) -> None:
    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("moving", always(ZoneRule("public", rule(1)), ZoneRule("public", rule(2))))
        await asyncio.wait_for(keeper.settled(), SOON)
        keeper.set_desired("moving", always(ZoneRule("external", rule(1)), ZoneRule("external", rule(2))))
        keeper.set_desired("other", always(ZoneRule("public", rule(3))))
        await until(lambda: bus.called("removeRichRule"))
        assert sorted(bus.zones["external"]) == [rule(1), rule(2)]

    on_a_bus(bus, story)


def test_it_can_be_ended_at_any_moment(bus: FakeBus) -> None:
    async def ended_after(turns: int) -> bool:
        keeper = RuleReconciler(PRIORITY, Story())
        keeper.set_desired("a", always(ZoneRule("public", rule(1)), ZoneRule("external", rule(1))))
        worker = asyncio.create_task(keeper.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        settled = keeper._settled.is_set()
        await end(worker)
        return settled

    async def main() -> None:
        async with bus:
            turns = 0
            while not await ended_after(turns):
                turns += 1
            assert turns > 50

    asyncio.run(main())


def test_who_is_forgotten_ahead_of_firewalld_is_never_told_to_stand(bus: FakeBus) -> None:
    bus.owned = False

    async def story(keeper: RuleReconciler, told: Story) -> None:
        keeper.set_desired("known", always(ZoneRule("public", rule(1))))
        bus.own(True)
        await asyncio.wait_for(keeper.settled(), SOON)
        bus.own(False)
        await until(lambda: not keeper.present)
        keeper.set_desired("late", always(ZoneRule("public", rule(2))))
        keeper.clear("late")
        bus.own(True)
        await asyncio.wait_for(keeper.settled(), SOON)
        assert ("standing", "late") not in told.told
        assert bus.called("addRichRule") == [["public", rule(1), 0]]

    on_a_bus(bus, story)


# --- any order of things


class QuickLoop(asyncio.SelectorEventLoop):
    """A loop in which nobody waits: when nothing is left to do, the time of the next timer has come."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            if timeout:
                self._now += timeout
            return select(0)

        selector.select = jump

    def time(self) -> float:
        return self._now


class FakeFirewalld:
    """As `firewalld.Firewalld` for its keeper, with faults to order. Works its calls off one by one."""

    latest: "FakeFirewalld"

    def __init__(self, on_event: Callable[[FirewalldEvent], None]) -> None:
        FakeFirewalld.latest = self
        self._on_event = on_event
        self._turn = asyncio.Lock()
        self.present = False
        self.actual: set[ZoneRule] = set()
        self.faults: list[str] = []
        self.late: list[Callable[[], None]] = []
        self.leaving: set[ZoneRule] = set()
        """Rules that are being removed right now."""
        self.lost: set[ZoneRule] = set()
        """Rules that went without the keeper's doing."""

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    def come(self) -> None:
        if not self.present:
            self.present = True
            self._on_event(FirewalldEvent.APPEARED)

    def go(self) -> None:
        if self.present:
            self.present = False
            self.lose(set(self.actual))
            self._on_event(FirewalldEvent.DISAPPEARED)

    def reload(self) -> None:
        if self.present:
            self.lose(set(self.actual))
            self._on_event(FirewalldEvent.RELOADED)

    def lose(self, rules: set[ZoneRule]) -> None:
        self.lost |= rules & self.actual
        self.actual -= rules

    async def _call(self, act: Callable[[], T]) -> T:
        async with self._turn:
            if not self.present:
                raise FirewallError("gone", error_codes.UNREACHABLE)
            fault = self.faults.pop(0) if self.faults else ""
            await asyncio.sleep(0.005)
            if not self.present:
                raise FirewallError("gone", error_codes.UNREACHABLE)
            while self.late:
                self.late.pop(0)()
            if fault in ("unanswered", "unanswered and done later"):
                if fault == "unanswered and done later":
                    self.late.append(act)  # type: ignore[arg-type]
                await asyncio.sleep(5)
                raise FirewallError("no answer", error_codes.UNANSWERED)
            if fault == "done and unanswered":
                act()
                await asyncio.sleep(5)
                raise FirewallError("no answer", error_codes.UNANSWERED)
            if fault:
                raise FirewallError(fault, fault)
            return act()

    async def zones(self) -> Zones:
        return await self._call(lambda: Zones("public", {}, known=frozenset({"public", "external", "drop"})))

    async def rules(self, zone: str) -> list[str]:
        found = await self._call(lambda: [placed.rule for placed in sorted(self.actual) if placed.zone == zone])
        self.lost = {placed for placed in self.lost if placed.zone != zone}
        return found

    async def add(self, zone: str, text: str) -> None:
        await self._call(lambda: self.actual.add(ZoneRule(zone, text)))

    async def remove(self, zone: str, text: str) -> None:
        self.leaving.add(ZoneRule(zone, text))
        try:
            await self._call(lambda: self.actual.discard(ZoneRule(zone, text)))
        except FirewallError as error:
            if error.code == error_codes.INVALID_ZONE:
                self.reload()  # no zone goes in another way, and its rules go with it
            raise
        finally:
            self.leaving.discard(ZoneRule(zone, text))

    async def wait_for_answer(self) -> None:
        await self._call(lambda: None)

    async def permanent_rules(self) -> dict[str, list[str]]:
        return {}


RULES = {
    0: frozenset({ZoneRule("public", rule(0))}),
    1: frozenset({ZoneRule("public", rule(1)), ZoneRule("external", rule(1))}),
    2: frozenset({ZoneRule("public", rule(1)), ZoneRule("public", rule(2))}),  # one of them is another's, too
    3: frozenset({ZoneRule("drop", rule(3))}),
}
ANCHOR = 9
"""Wants its rule from first to last, so that its zone is always one that the keeper uses and looks into."""
ANCHORED = frozenset({ZoneRule("public", rule(ANCHOR))})
EVERY = sorted({placed for rules in RULES.values() for placed in rules})


class Truth:
    """A witness that looks at what it is told."""

    def __init__(self) -> None:
        self.up: set[Hashable] = set()
        self.wanted: set[int] = set()
        self.rules = {**RULES, ANCHOR: ANCHORED}

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        fake = FakeFirewalld.latest
        assert isinstance(owner, int)
        assert owner in self.wanted, "nobody wants it any more"
        assert zones == tuple(sorted({placed.zone for placed in self.rules[owner]}))
        assert fake.actual | fake.lost >= self.rules[owner], "a rule does not stand"
        assert not fake.leaving & self.rules[owner], "a rule is being removed"
        self.up.add(owner)

    def on_removed(self, owner: Hashable) -> None:
        fake = FakeFirewalld.latest
        assert isinstance(owner, int)
        assert owner not in self.wanted
        if owner in self.up:
            others = {placed for other in self.wanted for placed in self.rules[other]}
            assert not fake.actual & (self.rules[owner] - others), "a rule stands yet"
        self.up.discard(owner)


OWNERS = st.sampled_from(sorted(RULES))
FAULTS = ("unanswered", "unanswered and done later", "done and unanswered", "UNREACHABLE", "BUSY", "INVALID_ZONE")
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["want", "want", "forget", "forget"]), OWNERS),
    st.tuples(st.sampled_from(["reload", "go", "come", "come", "check"]), st.just(0)),
    st.tuples(st.just("lose"), st.sampled_from(EVERY)),
    st.tuples(st.just("stray"), st.integers(7, 8)),
    st.tuples(st.just("fault"), st.sampled_from(FAULTS)),
    st.tuples(st.just("pause"), st.sampled_from([0.0, 0.001, 0.004, 0.006, 0.02, 1.0, 20.0])),
)


@settings(
    max_examples=int(os.environ.get("KEEPER_EXAMPLES", "400")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@example(  # a rule that was lost and one that was added late, both of one owner
    [
        ("want", 1),
        ("come", 0),
        ("pause", 1.0),
        ("want", 2),
        ("lose", ZoneRule("public", rule(1))),
        ("fault", "unanswered and done later"),
        ("pause", 0.0),
    ]
)
@example([("want", 0), ("come", 0), ("pause", 1.0), ("fault", "INVALID_ZONE"), ("forget", 0), ("pause", 0.0)])
@given(st.lists(ACTIONS, max_size=40))
def test_in_the_end_what_stands_is_what_is_wanted_and_all_that_was_told_was_true(
    actions: list[tuple[str, Any]],
) -> None:
    async def main() -> None:
        truth = Truth()
        keeper = RuleReconciler(PRIORITY, truth)
        fake, worker = FakeFirewalld.latest, asyncio.create_task(keeper.run())
        truth.wanted.add(ANCHOR)
        keeper.set_desired(ANCHOR, always(*ANCHORED))
        try:
            for action, what in actions:
                match action:
                    case "want":
                        truth.wanted.add(what)
                        keeper.set_desired(what, always(*RULES[what]))
                    case "forget":
                        truth.wanted.discard(what)
                        keeper.clear(what)
                    case "reload" | "go" | "come":
                        getattr(fake, action)()
                    case "check":
                        keeper.check()
                    case "lose":
                        fake.lose({what})
                    case "stray":
                        fake.actual.add(ZoneRule("public", rule(what)))
                    case "fault":
                        fake.faults.append(what)
                    case "pause":
                        await asyncio.sleep(what)
            fake.faults.clear()
            fake.come()
            await asyncio.sleep(20)
            keeper.check()
            settled = asyncio.create_task(keeper.settled())
            await asyncio.wait({worker, settled}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
            assert settled.done(), "it came to rest"
            assert fake.actual == {placed for owner in truth.wanted for placed in truth.rules[owner]}
            assert truth.up == truth.wanted
            assert keeper.active_rules == len(fake.actual)
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    loop = QuickLoop()
    try:
        with mock.patch.object(reconciler, "Firewalld", FakeFirewalld):
            loop.run_until_complete(main())
    finally:
        loop.close()
