"""What the log says under a flood: so many lines, and then one that sums up."""

import logging
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from port_knocking_doors.daemon.event_log import PERIOD, EventLog
from port_knocking_doors.knocks.authenticator import Outcome, Verdict
from port_knocking_doors.model import CommandOpening, Door, Port, PortOpening
from port_knocking_doors.system.log import LogEvent, logger

SOURCE = b"\x0a\x00\x00\x02"
DOOR = Door(IPv4Address("10.0.0.2"), "eth0", "ssh", PortOpening((Port(22),)))
BY_COMMAND = Door(IPv4Address("10.0.0.2"), "", "web", CommandOpening("start", "stop"))
START = 1000.0

Say = Callable[[EventLog, float], object]
BOUNDED: dict[str, tuple[Say, int, str, str, LogEvent]] = {
    "knocks": (
        lambda teller, when: teller.on_knock(SOURCE, Outcome(Verdict.ADVANCED, stage=2), when),
        200,
        "10.0.0.2: knock advanced to step 2",
        "%d more knocks",
        LogEvent.KNOCK,
    ),
    "wrong knocks": (
        lambda teller, when: teller.on_wrong_knock(SOURCE, 60, when),
        20,
        "10.0.0.2: wrong knock, address ignored for 60 s",
        "%d more wrong knocks in the last 10 s",
        LogEvent.WRONG_KNOCK,
    ),
    "prolonged doors": (
        lambda teller, when: teller.on_prolonged(DOOR, 30, when),
        20,
        "10.0.0.2: prolonged 22/tcp",
        "%d more doors prolonged",
        LogEvent.PROLONGED,
    ),
    "prolonged commands": (
        lambda teller, when: teller.on_prolonged(BY_COMMAND, None, when),
        20,
        "10.0.0.2: prolonged web's command",
        "%d more doors prolonged",
        LogEvent.PROLONGED,
    ),
    "refused doors": (
        lambda teller, when: teller.on_refused(DOOR, 64, when),
        5,
        "10.0.0.2: not opened, 64 doors are open already (max_open_doors)",
        "%d more doors not opened (max_open_doors)",
        LogEvent.REFUSED,
    ),
}


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger.name)


def more_of(record: logging.LogRecord) -> tuple[LogEvent, dict[str, object]]:
    about: tuple[LogEvent, dict[str, object]] = record.__dict__["about"]
    return about


@pytest.mark.parametrize(("say", "lines", "line", "rest", "event"), BOUNDED.values(), ids=BOUNDED.keys())
def test_so_many_lines_in_a_period_and_then_their_number(
    caplog: pytest.LogCaptureFixture, say: Say, lines: int, line: str, rest: str, event: LogEvent
) -> None:
    alarms: list[float | None] = []
    teller = EventLog(lambda: alarms.append(teller.next_deadline()))
    for _ in range(lines):
        say(teller, START)
    assert caplog.messages == [line] * lines
    assert teller.next_deadline() is None

    for _ in range(3):
        say(teller, START + 1)
    assert alarms == [START + PERIOD], "once, at the first that is left out"
    teller.sum_up(START + PERIOD - 0.001)
    assert len(caplog.messages) == lines
    teller.sum_up(START + PERIOD)
    assert caplog.messages[lines:] == [rest % 3]
    assert more_of(caplog.records[-1]) == (LogEvent.MORE, {"of": event.value, "count": 3})
    assert caplog.records[-1].levelno == caplog.records[0].levelno

    say(teller, START + PERIOD)
    assert caplog.messages[-1] == line, "a new period has lines of its own"


def test_each_kind_has_its_own_bound(caplog: pytest.LogCaptureFixture) -> None:
    teller = EventLog(lambda: None)
    for _ in range(1000):
        teller.on_wrong_knock(SOURCE, 60, START)
    teller.on_prolonged(DOOR, 30, START)
    assert caplog.messages[-1] == "10.0.0.2: prolonged 22/tcp"


def test_the_steps_of_knockds_log_are_summed_up_here(caplog: pytest.LogCaptureFixture) -> None:
    teller = EventLog(lambda: None)
    assert sum(teller.admits_stage(START) for _ in range(1500)) == 1000
    teller.sum_up(START + PERIOD)
    assert caplog.messages == ["500 more steps of sequences"]


def test_the_nearest_summary_is_due_first() -> None:
    teller = EventLog(lambda: None)
    for _ in range(100):
        teller.on_refused(DOOR, 1, START)
    for _ in range(100):
        teller.on_wrong_knock(SOURCE, 60, START - 3)
    assert teller.next_deadline() == START - 3 + PERIOD


def test_what_a_door_comes_to_is_always_said(caplog: pytest.LogCaptureFixture) -> None:
    teller = EventLog(lambda: None)
    for _ in range(2000):
        teller.on_waiting(DOOR)
        teller.on_opened(DOOR, ("public", "dmz"), 29.98)
        teller.on_closed(DOOR)
        teller.on_never_opened(DOOR)
    assert caplog.messages[-4:] == [
        "10.0.0.2: sequence complete; its door opens when firewalld is back",
        "10.0.0.2: opened 22/tcp in zone public, dmz for 30 s",
        "10.0.0.2: closed 22/tcp",
        "10.0.0.2: never opened: its time ran out before firewalld had answered",
    ]
    assert len(caplog.messages) == 8000
