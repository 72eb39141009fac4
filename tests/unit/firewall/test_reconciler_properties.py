"""Whatever owners desire and firewalld does, in any order: what was reported was true, and the end is as desired."""

import asyncio
import os
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar
from unittest import mock

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import error_codes, reconciler
from port_knocking_doors.firewall.firewalld import FirewalldEvent, FirewalldFacts
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.firewall.zones import Zones

T = TypeVar("T")
PRIORITY = 31313
CALL = 0.005
"""Seconds that a call takes."""
NO_ANSWER = 5.0
"""Seconds until a call counts as unanswered."""


class InstantLoop(asyncio.SelectorEventLoop):
    """A loop without waiting: when nothing is left to do, the time of the next timer has come."""

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
    """In place of `firewalld.Firewalld`, with faults to order. Works one call after the other."""

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
        """Rules that are being removed now."""
        self.lost: set[ZoneRule] = set()
        """Rules that another program or firewalld's end removed, since they were read last."""

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    def appear(self) -> None:
        if not self.present:
            self.present = True
            self._on_event(FirewalldEvent.APPEARED)

    def disappear(self) -> None:
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
            await asyncio.sleep(CALL)
            if not self.present:
                raise FirewallError("gone", error_codes.UNREACHABLE)
            while self.late:
                self.late.pop(0)()
            if fault in ("unanswered", "unanswered and done later"):
                if fault == "unanswered and done later":
                    self.late.append(act)  # type: ignore[arg-type]
                await asyncio.sleep(NO_ANSWER)
                raise FirewallError("no answer", error_codes.UNANSWERED)
            if fault == "done and unanswered":
                act()
                await asyncio.sleep(NO_ANSWER)
                raise FirewallError("no answer", error_codes.UNANSWERED)
            if fault:
                raise FirewallError(fault, fault)
            return act()

    async def zones(self) -> Zones:
        return await self._call(lambda: Zones("public", {}, known=frozenset({"public", "external", "drop"})))

    async def rules(self, zone: str) -> list[str]:
        found = await self._call(lambda: [item.rule for item in sorted(self.actual) if item.zone == zone])
        self.lost = {item for item in self.lost if item.zone != zone}
        return found

    async def add(self, zone: str, text: str) -> None:
        await self._call(lambda: self.actual.add(ZoneRule(zone, text)))

    async def remove(self, zone: str, text: str) -> None:
        self.leaving.add(ZoneRule(zone, text))
        try:
            await self._call(lambda: self.actual.discard(ZoneRule(zone, text)))
        except FirewallError as error:
            if error.code == error_codes.INVALID_ZONE:
                self.reload()  # only a reload removes a zone, and its rules with it
            raise
        finally:
            self.leaving.discard(ZoneRule(zone, text))

    async def wait_for_answer(self) -> None:
        await self._call(lambda: None)

    async def facts(self) -> FirewalldFacts:
        return FirewalldFacts()

    async def has_failed(self) -> bool:
        return False

    async def permanent_rules(self) -> dict[str, list[str]]:
        return {}


def rule(number: int) -> str:
    return f'rule priority="31313" port port="{number}" protocol="udp" accept'


RULES = {
    0: frozenset({ZoneRule("public", rule(0))}),
    1: frozenset({ZoneRule("public", rule(1)), ZoneRule("external", rule(1))}),
    2: frozenset({ZoneRule("public", rule(1)), ZoneRule("public", rule(2))}),  # shares a rule with owner 1
    3: frozenset({ZoneRule("drop", rule(3))}),
}
ANCHOR = 9
"""An owner from first to last, so that its zone is always one that is used and read."""
ANCHORED = frozenset({ZoneRule("public", rule(ANCHOR))})
EVERY_RULE = sorted({item for rules in RULES.values() for item in rules})


class Truth:
    """A listener that compares each call with the fake firewalld."""

    def __init__(self) -> None:
        self.up: set[Hashable] = set()
        self.desired: set[int] = set()
        self.rules = {**RULES, ANCHOR: ANCHORED}
        self.closed = 0
        """How many owners that were up were reported as removed."""

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        fake = FakeFirewalld.latest
        assert isinstance(owner, int)
        assert owner in self.desired, "the owner was cleared"
        assert zones == tuple(sorted({item.zone for item in self.rules[owner]}))
        assert fake.actual | fake.lost >= self.rules[owner], "a rule is not active"
        assert not fake.leaving & self.rules[owner], "a rule is being removed"
        self.up.add(owner)

    def on_removed(self, owner: Hashable) -> None:
        fake = FakeFirewalld.latest
        assert isinstance(owner, int)
        assert owner not in self.desired
        if owner in self.up:
            others = {item for other in self.desired for item in self.rules[other]}
            assert not fake.actual & (self.rules[owner] - others), "a rule is active yet"
            self.closed += 1
        self.up.discard(owner)


def placed(items: frozenset[ZoneRule], _: Zones) -> frozenset[ZoneRule]:
    return items


OWNERS = st.sampled_from(sorted(RULES))
FAULTS = ("unanswered", "unanswered and done later", "done and unanswered", "UNREACHABLE", "BUSY", "INVALID_ZONE")
PAUSES = (0.0, 0.001, 0.004, 0.006, 0.02, 0.1, 1.0, 20.0)
Actions = list[tuple[str, Any]]
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["set", "clear", "close"]), OWNERS),
    st.tuples(st.just("touch"), OWNERS),
    st.tuples(st.sampled_from(["reload", "disappear", "appear", "appear", "check"]), st.just(0)),
    st.tuples(st.just("lose"), st.sampled_from(EVERY_RULE)),
    st.tuples(st.just("stray"), st.integers(7, 8)),
    st.tuples(st.just("fault"), st.sampled_from(FAULTS)),
    st.tuples(st.just("pause"), st.sampled_from(PAUSES)),
    st.tuples(st.just("pause"), st.sampled_from(PAUSES)),
)

BEGINNINGS = st.sets(OWNERS, min_size=2).map(
    lambda owners: [*(("set", owner) for owner in sorted(owners)), ("appear", 0), ("pause", 1.0)]
)
"""Several owners are active before anything else happens, so that there is something to close."""


SCRIPTS = st.builds(
    lambda begin, few, rest: [*begin, *few, ("close", begin[0][1]), *rest],
    BEGINNINGS,
    st.lists(ACTIONS, max_size=3),
    st.lists(ACTIONS, min_size=20, max_size=60),
)
"""An owner is closed early: left to chance alone, few scripts of an older hypothesis would close any."""


async def act(rules: RuleReconciler, truth: Truth, actions: Actions) -> None:
    fake = FakeFirewalld.latest
    for number, (action, what) in enumerate(actions):
        match action:
            case "set":
                truth.desired.add(what)
                rules.set_desired(what, partial(placed, RULES[what]), float(number))
            case "clear":
                truth.desired.discard(what)
                rules.clear(what)
            case "close":
                truth.desired.discard(what)
                rules.clear(what)
                await asyncio.sleep(0.1)
            case "touch":
                rules.touch(what, float(number))
            case "reload" | "disappear" | "appear":
                getattr(fake, action)()
            case "check":
                rules.check()
            case "lose":
                fake.lose({what})
            case "stray":
                fake.actual.add(ZoneRule("public", rule(what)))
            case "fault":
                fake.faults.append(what)
            case "pause":
                await asyncio.sleep(what)


async def play(actions: Actions) -> int:
    """Play the actions, compare the end with what is desired; how many owners were closed."""
    truth = Truth()
    rules = RuleReconciler(PRIORITY, truth)
    fake, worker = FakeFirewalld.latest, asyncio.create_task(rules.run())
    truth.desired.add(ANCHOR)
    rules.set_desired(ANCHOR, partial(placed, ANCHORED))
    try:
        await act(rules, truth, actions)
        fake.faults.clear()
        fake.appear()
        await asyncio.sleep(20)
        rules.check()
        settled = asyncio.create_task(rules.settled())
        await asyncio.wait({worker, settled}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            worker.result()
        assert settled.done(), "it settles"
        assert fake.actual == {item for owner in truth.desired for item in truth.rules[owner]}
        assert truth.up == truth.desired
        assert rules.active_rules == len(fake.actual)
        assert rules.pending == 0
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return truth.closed


def played(actions: Actions) -> int:
    loop = InstantLoop()
    try:
        with mock.patch.object(reconciler, "Firewalld", FakeFirewalld):
            return loop.run_until_complete(play(actions))
    finally:
        loop.close()


def test_reports_are_true_and_the_end_is_as_desired_in_any_order() -> None:
    closed: list[int] = []

    @settings(
        max_examples=int(os.environ.get("RECONCILER_EXAMPLES", "300")),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @example(  # a rule that was lost and one that was added late, both of one owner
        [
            *(("set", 1), ("appear", 0), ("pause", 1.0), ("set", 2), ("lose", ZoneRule("public", rule(1)))),
            *(("fault", "unanswered and done later"), ("pause", 0.0)),
        ]
    )
    @example([("set", 0), ("appear", 0), ("pause", 1.0), ("fault", "INVALID_ZONE"), ("clear", 0), ("pause", 0.0)])
    @example(  # cleared for the second time while the rule is being removed
        [
            *(("set", 0), ("appear", 0), ("pause", 1.0), ("clear", 0), ("pause", 0.001)),
            *(("set", 0), ("clear", 0), ("pause", 1.0)),
        ]
    )
    @given(SCRIPTS)
    def any_order(actions: Actions) -> None:
        closed.append(played(actions))

    any_order()
    closing = sum(map(bool, closed))
    assert closing > len(closed) / 2, f"{closing} of {len(closed)} examples close an owner that was active"
