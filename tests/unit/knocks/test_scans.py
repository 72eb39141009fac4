"""A scan gains nothing by wrong knocks that are forgiven: it tries a few orders at once, and then one in each period.

All scans are gone through, by packets of three known ports in any order and with any pauses. Each of the six orders of
the ports is a sequence that the scan may be up against, and the scan does not learn how far it is.
"""

import random
from itertools import permutations
from typing import NamedTuple

import pytest

from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.knocks.wrong_knocks import COST
from port_knocking_doors.model import Flags, Protocol, Sequence, Step

SCANNER = b"\x0a\x00\x00\x02"
PERIOD = 5.0


class State(NamedTuple):
    """How far a scan is in one sequence; times are whole periods from now on."""

    stage: int = 0
    counts: int = 0
    """How long wrong knocks count."""
    ignored: int = 0
    is_open: bool = False

    def after(self, order: tuple[int, ...], port: int) -> "State":
        """After a new SYN to this port."""
        if self.is_open or self.ignored:
            return self
        if port == order[self.stage]:
            return self._replace(stage=self.stage + 1, is_open=self.stage + 1 == len(order))
        if self.stage and port == order[self.stage - 1]:
            return self  # a second SYN
        allowed = COST * (len(order) - 1)
        if self.counts + COST > allowed:
            return State(0, allowed + 1, 1)
        return State(int(port == order[0]), self.counts + COST)

    def after_a_period(self) -> "State":
        return self._replace(counts=max(0, self.counts - 1), ignored=max(0, self.ignored - 1))

    def after_if_each_wrong_knock_is_ignored(self, order: tuple[int, ...], port: int) -> "State":
        """The rule without anything that is forgiven."""
        if self.is_open or self.ignored:
            return self
        if port == order[self.stage]:
            return self._replace(stage=self.stage + 1, is_open=self.stage + 1 == len(order))
        return State(ignored=1)


ORDERS = tuple(permutations(range(3)))
RULES = {
    "forgiven": (State.after, [3, 4, 5, 6]),
    "each ignored": (State.after_if_each_wrong_knock_is_ignored, [1, 2, 3, 4]),
}


@pytest.mark.parametrize(("rule", "most"), RULES.values(), ids=RULES)
def test_all_scans_of_three_ports_open_one_more_order_in_each_period(rule, most: list[int]) -> None:  # type: ignore[no-untyped-def]
    found = []
    scans = {(State(),) * len(ORDERS)}
    for _ in most:
        new = list(scans)
        while new:
            states = new.pop()
            for port in range(3):
                after = tuple(rule(state, order, port) for state, order in zip(states, ORDERS, strict=True))
                if after not in scans:
                    scans.add(after)
                    new.append(after)
        found.append(max(sum(state.is_open for state in states) for states in scans))
        scans = {tuple(state.after_a_period() for state in states) for states in scans}
    assert found == most


def test_table_is_as_far_as_these_states_after_any_scan() -> None:
    choose = random.Random(1)
    for _ in range(2000):
        order = choose.choice(ORDERS)
        steps = [Step(Protocol.TCP, port + 1, Flags.SYN) for port in order]
        table, state, now = KnockerTable([Sequence("one", tuple(steps), timeout=1e6)], PERIOD, 10), State(), 1e6
        for number in range(40):
            if choose.random() < 0.2:
                now += PERIOD
                state = state.after_a_period()
            port = choose.randrange(3)
            state = state.after(order, port)
            code = code_of(Step(Protocol.TCP, port + 1, Flags.SYN))
            verdict = table.on_knock(SCANNER, code, number, now).verdict
            assert (verdict is Verdict.COMPLETE) == state.is_open
            if state.is_open:
                break


def test_random_guesses_open_no_more_often_than_the_periods_allow() -> None:
    """Guesses of the order of four known ports, as fast as they are judged: one in each period, and three at first."""
    choose, periods, opened, tries = random.Random(2), 30, 0, 3000
    ports = (1, 2, 3, 4)
    for _ in range(tries):
        steps = tuple(Step(Protocol.UDP, port) for port in choose.sample(ports, 4))
        table = KnockerTable([Sequence("one", steps, lifetime=1e6)], PERIOD, 10)
        knocks = (
            table.on_knock(SCANNER, code_of(Step(Protocol.UDP, port)), number, 1e6 + period * PERIOD).verdict
            for period in range(periods)
            for number in range(12)
            for port in choose.sample(ports, 4)
        )
        opened += Verdict.COMPLETE in knocks
    allowed = 1 - (1 - 1 / 24) ** (periods + 3)
    assert opened / tries < allowed + 0.03
