"""What a judged packet leads to: events, access requests, and time limits that run out."""

import logging
import socket
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import cast

import pytest

from port_knocking_doors import events
from port_knocking_doors.capture.dispatch import OnOther
from port_knocking_doors.daemon.knock_handler import STEPS_MAX, STEPS_PERIOD, KnockHandler
from port_knocking_doors.daemon.running_config import RunningConfig
from port_knocking_doors.doors.manager import DoorManager
from port_knocking_doors.knocks.authenticator import FORGIVEN, NOT_A_KNOCK, WRONG, Grant, Judge, Outcome, Verdict
from port_knocking_doors.model import Access, AccessRequest, Dialect, Protocol, Sequence, Settings, Step
from port_knocking_doors.system.deadline_timer import DeadlineTimer
from port_knocking_doors.system.log import logger

ALICE = b"\x0a\x00\x00\x02"
START = 1e6
STEPS = tuple(Step(Protocol.UDP, port) for port in (1, 3, 2))
NATIVE = Sequence("native", STEPS, Access("native"))
KNOCKD = Sequence("knockd", STEPS, Access("knockd"), timeout=10.0, dialect=Dialect.KNOCKD)
ONCE = Sequence("once", STEPS, Access("once"), dialect=Dialect.KNOCKD, one_time="/f")
KINDS = (
    *(events.Knocked, events.WrongKnock, events.SequenceAdvanced, events.SequenceCompleted),
    *(events.SequenceTimedOut, events.StepsSuppressed, events.OtherPayload),
)


class Timer:
    """Stands in for the timer: its sources, and how often they changed."""

    def __init__(self) -> None:
        self.sources: list[tuple[object, object]] = []
        self.updates = 0

    def add(self, next_deadline: object, on_due: object) -> None:
        self.sources.append((next_deadline, on_due))

    def update(self) -> None:
        self.updates += 1


class Handled:
    """A handler with all around it replaced by what the test sets and reads."""

    def __init__(self) -> None:
        self.happened: list[object] = []
        self.stages: dict[tuple[bytes, Sequence], int] = {}
        self.usable: set[Sequence] = {ONCE}
        self.consumed: list[set[tuple[str, int]]] = []
        self.wraps: list[object] = []
        self.shown: list[OnOther | None] = []
        self.timer = Timer()
        stream = events.EventStream()
        stream.add(dict.fromkeys(KINDS, self.happened.append))
        knockers = SimpleNamespace(stage=lambda source, sequence: self.stages.get((source, sequence), 0))
        config = SimpleNamespace(
            settings=Settings(ignoring_period=7.0),
            active=SimpleNamespace(knockers=knockers),
            receiver=SimpleNamespace(wrap=self.wraps.append, show_others=self.shown.append),
            consume=self._consume,
        )
        doors = SimpleNamespace(grant=self.happened.append)
        self.handler = KnockHandler(
            cast("RunningConfig", config), cast("DoorManager", doors), stream, cast("DeadlineTimer", self.timer)
        )

    def _consume(self, sequence: Sequence, consumed: set[tuple[str, int]]) -> bool:
        self.consumed.append(consumed)
        return sequence in self.usable

    def handle(self, outcome: Outcome, when: float = START, interface: int = 0) -> list[object]:
        """What happened at this outcome."""
        self.happened.clear()
        self.handler.handle(ALICE, interface, outcome, when)
        return list(self.happened)

    def due(self, when: float) -> list[object]:
        """What happened when the timer woke."""
        self.happened.clear()
        for _, on_due in self.timer.sources:
            on_due(when)  # type: ignore[operator]
        return list(self.happened)

    def deadlines(self) -> list[float | None]:
        return [next_deadline() for next_deadline, _ in self.timer.sources]  # type: ignore[operator]


@pytest.fixture
def handled() -> Handled:
    return Handled()


def advanced(*stages: tuple[Sequence, int]) -> Outcome:
    return Outcome.of(Verdict.ADVANCED, tuple(one for one, _ in stages), max(stage for _, stage in stages), stages)


def complete(*sequences: Sequence) -> Outcome:
    grants = tuple(Grant(one.access, one) for one in sequences)
    return Outcome.of(Verdict.COMPLETE, sequences, 3, tuple((one, 3) for one in sequences), grants)


def request(access: Access, interface: str = "", when: float = START) -> AccessRequest:
    return AccessRequest(ip_address("10.0.0.2"), interface, access, when)


OUTCOMES: dict[str, tuple[Outcome, list[object]]] = {
    "wrong": (WRONG, [events.WrongKnock(ALICE, 7.0, START)]),
    "wrong, and forgiven": (FORGIVEN, [events.WrongKnock(ALICE, 0.0, START)]),
    "not a knock": (NOT_A_KNOCK, []),
    "a native step": (advanced((NATIVE, 2)), []),
    "a step of knockd's": (advanced((KNOCKD, 2)), [events.SequenceAdvanced(ALICE, KNOCKD, 2)]),
    "a native end": (complete(NATIVE), [events.SequenceCompleted(ALICE, NATIVE), request(NATIVE.access)]),
    "an end of knockd's": (
        complete(KNOCKD),
        [
            events.SequenceAdvanced(ALICE, KNOCKD, 3),
            events.SequenceCompleted(ALICE, KNOCKD),
            request(KNOCKD.access),
        ],
    ),
    "an end with a step of another": (
        Outcome.of(Verdict.COMPLETE, (NATIVE,), 3, ((NATIVE, 3), (KNOCKD, 2)), (Grant(NATIVE.access, NATIVE),)),
        [
            events.SequenceCompleted(ALICE, NATIVE),
            events.SequenceAdvanced(ALICE, KNOCKD, 2),
            request(NATIVE.access),
        ],
    ),
    "a grant without a sequence": (
        Outcome.of(Verdict.COMPLETE, grants=(Grant(Access("signed")),)),
        [request(Access("signed"))],
    ),
}


@pytest.mark.parametrize(("outcome", "happens"), OUTCOMES.values(), ids=OUTCOMES)
def test_outcome_leads_to_events_and_requests_in_order(
    handled: Handled, outcome: Outcome, happens: list[object]
) -> None:
    assert handled.handle(outcome) == happens


@pytest.mark.parametrize(("index", "name"), [(5, "eth0"), (6, ""), (0, "")])
def test_request_names_the_interface_where_it_is_known(
    handled: Handled, monkeypatch: pytest.MonkeyPatch, index: int, name: str
) -> None:
    def name_of(number: int) -> str:
        if number != 5:
            raise OSError
        return "eth0"

    monkeypatch.setattr(socket, "if_indextoname", name_of)
    assert handled.handle(complete(NATIVE), START + 1, index)[-1] == request(NATIVE.access, name, START + 1)


# One-time lines


def test_one_time_sequence_grants_only_if_its_line_counts(handled: Handled) -> None:
    assert request(ONCE.access) in handled.handle(complete(ONCE))
    handled.usable.clear()
    assert handled.handle(complete(ONCE, NATIVE))[-1:] == [request(NATIVE.access)]
    assert request(ONCE.access) not in handled.happened


def test_one_time_line_of_two_doors_is_consumed_with_one_memory(handled: Handled) -> None:
    other = Sequence("other", STEPS, Access("other"), one_time="/f")
    handled.usable.add(other)
    handled.handle(complete(ONCE, other))
    first, second = handled.consumed
    assert first is second
    handled.handle(complete(ONCE))
    assert handled.consumed[-1] is not first, "each knock has its own"


# Limits


def test_steps_above_the_limit_are_counted_and_summed_up(handled: Handled) -> None:
    assert (STEPS_MAX, STEPS_PERIOD) == (1000, 10.0)
    for _ in range(STEPS_MAX):
        assert handled.handle(advanced((KNOCKD, 2))) == [events.SequenceAdvanced(ALICE, KNOCKD, 2)]
    assert handled.timer.updates == 0
    for _ in range(3):
        assert handled.handle(advanced((KNOCKD, 2)), START + 1) == []
    assert handled.timer.updates == 1
    assert handled.handle(complete(KNOCKD))[0] == events.SequenceAdvanced(ALICE, KNOCKD, 3), "an end has no limit"
    assert START + STEPS_PERIOD in handled.deadlines()
    assert handled.due(START + STEPS_PERIOD - 0.001) == []
    assert handled.due(START + STEPS_PERIOD) == [events.StepsSuppressed(3)]
    assert handled.handle(advanced((KNOCKD, 2)), START + STEPS_PERIOD) == [events.SequenceAdvanced(ALICE, KNOCKD, 2)]


def test_step_of_a_thousand_doors_at_once_is_counted_as_a_whole(handled: Handled) -> None:
    doors = [replace(KNOCKD, name=f"d{number}") for number in range(600)]
    outcome = advanced(*((door, 2) for door in doors))
    assert len(handled.handle(outcome)) == 600
    assert len(handled.handle(outcome)) == STEPS_MAX - 600
    updates = handled.timer.updates
    assert handled.handle(outcome) == []
    assert handled.timer.updates == updates, "a sum was due already"
    assert handled.due(START + STEPS_PERIOD) == [events.StepsSuppressed(3 * 600 - STEPS_MAX)]


# Time limits


def test_attempt_that_stopped_is_reported_at_its_time_limit(handled: Handled) -> None:
    handled.handle(advanced((KNOCKD, 1)))
    assert handled.timer.updates == 1
    assert START + 10 in handled.deadlines()
    handled.stages[ALICE, KNOCKD] = 2
    assert handled.due(START + 9.999) == []
    assert handled.due(START + 10) == [events.SequenceTimedOut(ALICE, KNOCKD, 2)]
    assert handled.due(START + 99) == []


def test_attempt_that_ended_before_its_time_limit_is_not_reported(handled: Handled) -> None:
    handled.handle(advanced((KNOCKD, 1)))
    assert handled.due(START + 10) == []


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(advanced((NATIVE, 1)), id="native"),
        pytest.param(advanced((KNOCKD, 2)), id="a later step"),
        pytest.param(
            Outcome.of(Verdict.COMPLETE, (one := Sequence("one", STEPS[:1], dialect=Dialect.KNOCKD),), 1, ((one, 1),)),
            id="a sequence of one step",
        ),
    ],
)
def test_outcome_without_a_first_step_of_knockd_has_no_time_limit(handled: Handled, outcome: Outcome) -> None:
    handled.handle(outcome)
    assert handled.deadlines() == [None, None]


# Single knocks


def judged_by(outcome: Outcome) -> Judge:
    return lambda *_: outcome


def test_judge_is_called_directly_while_no_knock_is_reported(handled: Handled) -> None:
    judge = judged_by(WRONG)
    assert handled.handler.wrap(judge) is judge


def test_watching_wraps_the_judges_and_ends_again(handled: Handled) -> None:
    judge = judged_by(WRONG)
    handled.handler.watch(True)
    assert handled.handler.wrap(judge) is not judge
    handled.handler.watch(False)
    assert handled.handler.wrap(judge) is judge
    assert handled.wraps == [handled.handler.wrap] * 2


def test_datagram_with_another_payload_is_published_while_watched(handled: Handled) -> None:
    handled.handler.watch(True)
    (report,) = handled.shown
    assert report is not None
    report(ALICE, 1, b"\0", START)
    words = "one zero byte, as knockd's client and netcat's -z send it"
    assert handled.happened == [events.OtherPayload(ALICE, 1, words, START)]
    handled.handler.watch(False)
    assert handled.shown[1:] == [None]


KNOCKED = events.Knocked(ALICE, "complete", 3, ("native",), START)
REPORTED: dict[str, tuple[bool, Outcome, list[object]]] = {
    "watched, advanced": (
        True,
        advanced((NATIVE, 2)),
        [events.Knocked(ALICE, "advanced", 2, ("native",), START)],
    ),
    "watched, complete": (True, complete(NATIVE), [KNOCKED]),
    "watched, wrong": (True, WRONG, []),
    "watched, forgiven": (True, FORGIVEN, []),
    "watched, not a knock": (True, NOT_A_KNOCK, [events.Knocked(ALICE, "not_a_knock", 0, (), START)]),
    "verbose, advanced": (
        False,
        advanced((NATIVE, 2)),
        [events.Knocked(ALICE, "advanced", 2, ("native",), START)],
    ),
    "verbose, complete": (False, complete(NATIVE), []),
    "verbose, wrong": (False, WRONG, []),
}


@pytest.mark.parametrize(("watched", "outcome", "happens"), REPORTED.values(), ids=REPORTED)
def test_single_knock_is_reported_but_where_another_event_says_it(
    caplog: pytest.LogCaptureFixture, watched: bool, outcome: Outcome, happens: list[object]
) -> None:
    caplog.set_level(logging.INFO if watched else logging.DEBUG, logger.name)
    handled = Handled()
    handled.handler.watch(watched)
    assert handled.handler.wrap(judged_by(outcome))(ALICE, 1, 0, START) is outcome
    assert handled.happened == happens
