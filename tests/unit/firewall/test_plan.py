"""What is changed next, and what the listener gets: a script of owners' wishes and firewalld's answers in, a log out.

The scripts' words, one step between semicolons:
`set OWNER[@WHEN] ITEM…`, `clear OWNER`, `touch OWNER@WHEN`: what owners desire. An item is a letter for its zone and a
number. `one`: the next change is sent and confirmed; `all`: every change is; `send`, `confirm`, `refuse`: the halves.
`found ITEM…`: what is read back; `lost`: something happened to firewalld; `reload`: both, with nothing found.
The log has `+ITEM` and `-ITEM` for changes that are sent, `active OWNER` and `removed OWNER` for the listener's calls.
"""

from collections.abc import Hashable

import pytest

from port_knocking_doors.firewall.plan import FIRST, Change, Plan, time_to_close
from port_knocking_doors.firewall.zone_rules import ZoneRule


class Script:
    """Plays a script and keeps the log."""

    def __init__(self) -> None:
        self.plan = Plan(self)
        self.log: list[str] = []
        self.sent: Change | None = None
        self.plan.read_back(set())

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        assert zones == tuple(sorted(set(zones)))
        self.log.append(f"active {owner}")

    def on_removed(self, owner: Hashable) -> None:
        self.log.append(f"removed {owner}")

    def play(self, script: str) -> None:
        for step in script.split(";"):
            word, *arguments = step.split()
            getattr(self, f"_{word}")(*arguments)

    def _set(self, owner: str, *texts: str) -> None:
        name, _, when = owner.partition("@")
        self.plan.set_desired(name, frozenset(map(item, texts)), float(when) if when else FIRST)

    def _clear(self, owner: str) -> None:
        self.plan.clear(owner)

    def _touch(self, owner: str) -> None:
        name, _, when = owner.partition("@")
        self.plan.touch(name, float(when))

    def _found(self, *texts: str) -> None:
        strangers = self.plan.read_back(set(map(item, texts)))
        self.log += [f"stranger {text(stranger)}" for stranger in strangers]

    def _lost(self) -> None:
        self.plan.distrust()

    def _reload(self) -> None:
        self.plan.distrust()
        self.plan.read_back(set())

    def _send(self) -> None:
        assert self._send_next(), "there is a change to send"

    def _send_next(self) -> bool:
        self.sent = self.plan.next_change()
        if self.sent is not None:
            self.log.append(f"{'+' if self.sent.adds else '-'}{text(self.sent.item)}")
        return self.sent is not None

    def _confirm(self) -> None:
        assert self.sent is not None
        (self.plan.added if self.sent.adds else self.plan.removed)(self.sent.item)

    def _refuse(self) -> None:
        assert self.sent is not None
        self.plan.refused(self.sent)

    def _one(self) -> None:
        self._send()
        self._confirm()

    def _all(self) -> None:
        while self._send_next():
            self._confirm()


def item(name: str) -> ZoneRule:
    return ZoneRule(name[0], name)


def text(thing: object) -> str:
    assert isinstance(thing, ZoneRule)
    return thing.rule


CASES = {
    # What owners get.
    "an owner is active with its last item": ("set a p1 p2; one; one", ["+", "+", "active a"]),
    "an owner is removed with its last item": (
        "set a p1 p2; all; clear a; one; one",
        ["+", "+", "active a", "-", "-", "removed a"],
    ),
    "an owner without active items is removed at once": ("set a p1; clear a; all", ["removed a"]),
    "an unknown owner is removed at once": ("clear a", ["removed a"]),
    "an owner whose items are active already is active at once": (
        "set a p1; all; set b p1",
        ["+p1", "active a", "active b"],
    ),
    "an owner that is set again to the same items gets nothing": ("set a p1; all; set a p1; all", ["+p1", "active a"]),
    "an item of two owners stays for the second": (
        "set a p1; set b p1 p2; all; clear a; all; clear b; all",
        ["+p1", "active a", "+p2", "active b", "removed a", "-", "-", "removed b"],
    ),
    "an item of two owners that are cleared is removed for both": (
        "set a p1; all; set b p1 p2; all; clear b; clear a; all",
        ["+p1", "active a", "+p2", "active b", "-p2", "-p1", "removed", "removed"],
    ),
    "an owner without items gets nothing": ("set a; all", []),
    # Wanted again, or no more, at an awkward moment.
    "an item desired again before its removal stays": (
        "set a p1; all; clear a; set b p1; all",
        ["+p1", "active a", "active b", "removed a"],
    ),
    "an item desired again during its removal is added again": (
        "set a p1; all; clear a; send; set a p1; confirm; all",
        ["+p1", "active a", "-p1", "+p1", "active a"],
    ),
    "an item desired again during a refused removal is active": (
        "set a p1; all; clear a; send; set a p1; refuse; all",
        ["+p1", "active a", "-p1", "active a"],
    ),
    "an owner cleared during its addition is removed after that": (
        "set a p1; send; clear a; confirm; all",
        ["+p1", "-p1", "removed a"],
    ),
    "an owner cleared during a refused addition is removed": ("set a p1; send; clear a; refuse", ["+p1", "removed a"]),
    "an owner cleared twice during a removal is removed after that": (
        "set a p1; all; clear a; send; set a p1; clear a; confirm; all",
        ["+p1", "active a", "-p1", "removed a"],
    ),
    "an owner set again and cleared again is removed once": (
        "set a p1; all; clear a; set a p1; clear a; all",
        ["+p1", "active a", "active a", "-p1", "removed a"],
    ),
    # The order.
    "closing comes before adding": (
        "set a p1; all; set b p2; set c p3; clear a; all",
        ["+p1", "active a", "-p1", "removed a", "+p2", "active b", "+p3", "active c"],
    ),
    "closing is in the order in which owners were cleared": (
        "set a p1; all; set b p2; all; clear b; clear a; all",
        ["+p1", "active a", "+p2", "active b", "-p2", "removed b", "-p1", "removed a"],
    ),
    "the latest owner is added first": (
        "set a@1 p1; set b@3 p2; set c@2 p3; all",
        ["+p2", "active b", "+p3", "active c", "+p1", "active a"],
    ),
    "an owner without a time is added before all with one": (
        "set a@9 p1; set b p2; all",
        ["+p2", "active b", "+p1", "active a"],
    ),
    "owners of the same time are added in their order": (
        "set a@1 p1; set b@1 p2; set c@1 p3; all",
        ["+p1", "active a", "+p2", "active b", "+p3", "active c"],
    ),
    "an owner touched while it waits is added first": (
        "set a@1 p1; set b@2 p2; touch a@3; all",
        ["+p1", "active a", "+p2", "active b"],
    ),
    "an owner set again with a later time is added first": (
        "set a@1 p1; set b@2 p2; set a@3 p1; all",
        ["+p1", "active a", "+p2", "active b"],
    ),
    "an active owner that is touched changes nothing": ("set a@1 p1; all; touch a@3; all", ["+p1", "active a"]),
    "an unknown owner that is touched changes nothing": ("touch a@3; all", []),
    "a reload brings back the latest owner first": (
        "set a@1 p1; set b@3 p2; set c@2 p3; all; reload; all",
        ["+p2", "active b", "+p3", "active c", "+p1", "active a", "+p2", "+p3", "+p1"],
    ),
    "a reload brings back a touched owner first": (
        "set a@1 p1; set b@2 p2; all; touch a@3; reload; all",
        ["+p2", "active b", "+p1", "active a", "+p1", "+p2"],
    ),
    "an owner touched during a restoration is next": (
        "set a@1 p1; set b@2 p2; set c@3 p3; all; reload; one; touch a@4; all",
        ["+p3", "active c", "+p2", "active b", "+p1", "active a", "+p3", "+p1", "+p2"],
    ),
    "a new owner comes before those that a reload lost": (
        "set a@1 p1; set b@2 p2; all; reload; set c@3 p3; all",
        ["+p2", "active b", "+p1", "active a", "+p3", "active c", "+p2", "+p1"],
    ),
    "an item of two owners has the time of the later one": (
        "set a@1 p1; all; set b@2 p2; all; set c@3 p1; reload; all",
        ["+p1", "active a", "+p2", "active b", "active c", "+p1", "+p2"],
    ),
    "an owner cleared before its restoration is not restored": (
        "set a@1 p1; set b@2 p2; all; reload; clear a; all",
        ["+p2", "active b", "+p1", "active a", "removed a", "+p2"],
    ),
    # Replaced items.
    "a replaced item is removed after the new one is active": (
        "set a p1; all; set a e1; all",
        ["+p1", "active a", "+e1", "active a", "-p1"],
    ),
    "a replaced item is removed before other owners' additions": (
        "set a p1; all; set a@3 e1; set b@2 p2; all",
        ["+p1", "active a", "+e1", "active a", "-p1", "+p2", "active b"],
    ),
    "a replaced item stays until all new ones are active": (
        "set a p1; all; set a e1 e2; send; confirm; send",
        ["+p1", "active a", "+", "+"],
    ),
    "a replaced item stays over a reading back": (
        "set a p1; all; set a e1; lost; found p1; all",
        ["+p1", "active a", "+e1", "active a", "-p1"],
    ),
    "a replaced item whose successor is found is removed": (
        "set a p1; all; set a e1; lost; found p1 e1; all",
        ["+p1", "active a", "active a", "-p1"],
    ),
    "a replaced item is removed at last if the new one is refused": (
        "set a p1; all; set a@2 e1; set b@1 p2; send; refuse; all",
        ["+p1", "active a", "+e1", "+p2", "active b", "-p1"],
    ),
    "a replaced item of a cleared owner is closed with it": (
        "set a p1; all; set a e1; set b p2; clear a; all",
        ["+p1", "active a", "-p1", "removed a", "+p2", "active b"],
    ),
    "an item replaced by nothing is removed": ("set a p1; all; set a; all", ["+p1", "active a", "active a", "-p1"]),
    "a replaced item that is desired again stays": (
        "set a p1; all; set a e1; set a p1; all",
        ["+p1", "active a", "active a"],
    ),
    # Reading back.
    "a stranger is removed before anything is added": (
        "set a p1; lost; found p9; all",
        ["stranger p9", "-p9", "+p1", "active a"],
    ),
    "a known item that is found is no stranger": ("set a p1; all; lost; found p1; all", ["+p1", "active a"]),
    "an item that waits for its removal is no stranger": (
        "set a p1; all; clear a; lost; found p1; all",
        ["+p1", "active a", "-p1", "removed a"],
    ),
    "an item with an unanswered removal is no stranger": (
        "set a p1; all; clear a; send; lost; found p1; all",
        ["+p1", "active a", "-p1", "-p1", "removed a"],
    ),
    "an item with an unanswered addition is no stranger": (
        "set a p1; send; clear a; lost; found p1; all",
        ["+p1", "-p1", "removed a"],
    ),
    "an unanswered removal that happened is confirmed": (
        "set a p1; all; clear a; send; lost; found",
        ["+p1", "active a", "-p1", "removed a"],
    ),
    "an unanswered addition that happened is confirmed": ("set a p1; send; lost; found p1; all", ["+p1", "active a"]),
    "an owner set while nothing is known waits for a reading back": (
        "set a p1; all; lost; clear a; set a p1; found p1",
        ["+p1", "active a", "active a"],
    ),
    "an owner set while nothing is known is added if it is missing": (
        "set a p1; all; lost; clear a; set a p1; found; all",
        ["+p1", "active a", "+p1", "active a"],
    ),
    "an owner cleared by a reload is removed": (
        "set a p1; all; clear a; reload; all",
        ["+p1", "active a", "removed a"],
    ),
    # Refusals.
    "a refused addition is not tried again by itself": ("set a p1; send; refuse; all", ["+p1"]),
    "a refused addition is tried again after a reading back": (
        "set a p1; send; refuse; lost; found; all",
        ["+p1", "+p1", "active a"],
    ),
    "a refused removal is not tried again by itself": (
        "set a p1; all; clear a; send; refuse; all",
        ["+p1", "active a", "-p1"],
    ),
    "a refused removal is tried again after a reading back": (
        "set a p1; all; clear a; send; refuse; lost; found p1; all",
        ["+p1", "active a", "-p1", "-p1", "removed a"],
    ),
}


@pytest.mark.parametrize(("script", "log"), CASES.values(), ids=CASES)
def test_plan_makes_changes_in_order_and_reports_confirmed_ones(script: str, log: list[str]) -> None:
    played = Script()
    played.play(script)
    # A bare sign stands for any item, a bare word for any owner: what belongs together has no order.
    assert len(played.log) == len(log), played.log
    assert [line[: len(expected)] for line, expected in zip(played.log, log, strict=True)] == log


COUNTS = {
    # script: active, desired, refused, pending
    "set a p1 p2": (0, 2, 0, 2),
    "set a p1 p2; one": (1, 2, 0, 1),
    "set a p1 p2; all": (2, 2, 0, 0),
    "set a p1; set b p1; all": (1, 1, 0, 0),
    "set a p1; all; clear a": (1, 0, 0, 1),
    "set a p1; all; clear a; all": (0, 0, 0, 0),
    "set a p1; send; refuse": (0, 1, 1, 0),
    "set a p1; send; refuse; lost": (0, 1, 0, 1),
    "set a p1; all; clear a; send; refuse": (1, 0, 1, 0),
    "set a p1 p2 p3; all; reload": (0, 3, 0, 3),
    "set a p1; all; set a e1": (1, 1, 0, 2),
}


@pytest.mark.parametrize(("script", "counts"), COUNTS.items(), ids=COUNTS)
def test_plan_counts_active_desired_refused_and_pending(script: str, counts: tuple[int, ...]) -> None:
    played = Script()
    played.play(script)
    plan = played.plan
    assert (plan.active_count, plan.desired_count, plan.refused_count, plan.pending_count) == counts


def test_forgotten_active_items_leave_nothing_to_remove() -> None:
    played = Script()
    played.play("set a p1; all; clear a")
    played.plan.forget_active()
    assert played.plan.active_count == 0
    assert played.plan.next_change() is None


def test_places_are_those_of_desired_and_of_active_items() -> None:
    played = Script()
    played.play("set a p1; all; clear a; set b e1")
    assert played.plan.places() == {(ZoneRule, "p"), (ZoneRule, "e")}


def test_listener_may_clear_other_owners_while_it_is_called() -> None:
    class Clearing(Script):
        def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
            super().on_active(owner, zones)
            self.plan.clear("b" if owner == "a" else "a")

    played = Clearing()
    played.play("lost; set a p1; set b p1; found p1")
    assert played.log == ["active a", "removed b"]


def test_prolonging_a_thousand_waiting_doors_keeps_their_order_right() -> None:
    played = Script()
    for number in range(1000):
        played.plan.set_desired(number, frozenset({item(f"p{number}")}), float(number))
    for number in range(500):
        played.plan.touch(number, 1000.0 + number)
    played.play("all")
    added = [int(line[2:]) for line in played.log if line[0] == "+"]
    assert added == [*range(499, -1, -1), *range(999, 499, -1)]


@pytest.mark.parametrize(
    ("rules", "seconds"), [(0, 10.0), (1, 10.0), (133, 10.0), (134, 10.05), (1000, 75.0), (1024, 76.8), (4096, 307.2)]
)
def test_time_to_close_grows_with_the_rules_from_ten_seconds(rules: int, seconds: float) -> None:
    assert time_to_close(rules) == pytest.approx(seconds)
