"""The log's lines, and their limits under a flood."""

import logging
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from port_knocking_doors.daemon import event_log
from port_knocking_doors.daemon.event_log import PERIOD, EventLog
from port_knocking_doors.events import (
    DoorClosed,
    DoorDenied,
    DoorNeverOpened,
    DoorOpened,
    DoorPending,
    DoorProlonged,
    DoorRefused,
    EventStream,
    Knocked,
    LineNotMarked,
    NothingToClose,
    OtherPayload,
    PortExposed,
    Reloaded,
    ReloadFailed,
    SequenceDisabled,
    StepsSuppressed,
    Stopped,
    WrongKnock,
)
from port_knocking_doors.model import CommandOpening, Door, Origin, Port, PortOpening, Sequence
from port_knocking_doors.system.log import LogEvent, logger

SOURCE = b"\x0a\x00\x00\x02"
DOOR = Door(IPv4Address("10.0.0.2"), "eth0", "ssh", PortOpening((Port(22),)))
BY_COMMAND = Door(IPv4Address("10.0.0.2"), "", "web", CommandOpening("start", "stop"))
START = 1000.0

MakeEvent = Callable[[float], object]
LIMITED: dict[str, tuple[MakeEvent, int, str, str, LogEvent]] = {
    "knocks": (
        lambda when: Knocked(SOURCE, "advanced", 2, ("ssh",), when),
        200,
        "10.0.0.2: knock advanced to step 2",
        "%d more knocks",
        LogEvent.KNOCK,
    ),
    "wrong knocks": (
        lambda when: WrongKnock(SOURCE, 60, when),
        20,
        "10.0.0.2: wrong knock, address ignored for 60 s",
        "%d more wrong knocks in the last 10 s",
        LogEvent.WRONG_KNOCK,
    ),
    "other payloads": (
        lambda when: OtherPayload(SOURCE, 1, "one zero byte", when),
        200,
        '10.0.0.2: datagram with another payload: 1 byte (one zero byte); expected "knock" and a newline',
        "%d more datagrams with another payload",
        LogEvent.OTHER_PAYLOAD,
    ),
    "other payloads of an unknown kind": (
        lambda when: OtherPayload(SOURCE, 1400, "", when),
        200,
        '10.0.0.2: datagram with another payload: 1400 bytes; expected "knock" and a newline',
        "%d more datagrams with another payload",
        LogEvent.OTHER_PAYLOAD,
    ),
    "prolonged doors": (
        lambda when: DoorProlonged(DOOR, 30, when),
        20,
        "10.0.0.2: prolonged 22/tcp",
        "%d more doors prolonged",
        LogEvent.PROLONGED,
    ),
    "prolonged commands": (
        lambda when: DoorProlonged(BY_COMMAND, None, when),
        20,
        "10.0.0.2: prolonged web's command",
        "%d more doors prolonged",
        LogEvent.PROLONGED,
    ),
    "nothing to close": (
        lambda when: NothingToClose(DOOR.address, "ssh", when),
        5,
        "10.0.0.2: nothing to close: no door of sequence ssh is open for this address",
        "%d more sequences that close, and no such door open",
        LogEvent.NOTHING_TO_CLOSE,
    ),
    "refused doors": (
        lambda when: DoorRefused(DOOR, 64, when),
        5,
        "10.0.0.2: not opened: max_open_doors (64) reached",
        "%d more doors not opened (max_open_doors)",
        LogEvent.REFUSED,
    ),
    "doors of banned addresses": (
        lambda when: DoorDenied(DOOR, "address is in zone drop, whose target is DROP", when),
        20,
        (
            "10.0.0.2: not opened: address is in zone drop, whose target is DROP; "
            "set doors_for_banned = true to open doors for banned addresses"
        ),
        "%d more doors not opened for banned addresses",
        LogEvent.DENIED,
    ),
    "opened doors": (
        lambda _: DoorOpened(DOOR, ("public", "dmz"), 29.98),
        200,
        "10.0.0.2: opened 22/tcp in zone public, dmz for 30 s",
        "%d more doors opened",
        LogEvent.OPENED,
    ),
    "closed doors": (
        lambda _: DoorClosed(DOOR),
        200,
        "10.0.0.2: closed 22/tcp",
        "%d more doors closed",
        LogEvent.CLOSED,
    ),
    "doors closed by hand": (
        lambda _: DoorClosed(DOOR, Origin.CONTROL),
        200,
        "10.0.0.2: closed 22/tcp",
        "%d more doors closed",
        LogEvent.CLOSED,
    ),
    "doors closed by a knock": (
        lambda _: DoorClosed(DOOR, Origin.KNOCK),
        200,
        "10.0.0.2: closed 22/tcp: the knocker closed it",
        "%d more doors closed",
        LogEvent.CLOSED,
    ),
    "doors closed before they were open": (
        lambda _: DoorNeverOpened(DOOR, Origin.KNOCK),
        50,
        "10.0.0.2: never opened: it was closed before firewalld answered",
        "%d more doors never opened",
        LogEvent.NEVER_OPENED,
    ),
    "pending doors": (
        lambda _: DoorPending(DOOR),
        50,
        "10.0.0.2: sequence complete; door pending until firewalld runs",
        "%d more doors pending",
        LogEvent.COMPLETE,
    ),
    "doors never opened": (
        lambda _: DoorNeverOpened(DOOR),
        50,
        "10.0.0.2: never opened: its time ran out before firewalld answered",
        "%d more doors never opened",
        LogEvent.NEVER_OPENED,
    ),
}


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger.name)


def more_of(record: logging.LogRecord) -> tuple[LogEvent, dict[str, object]]:
    about: tuple[LogEvent, dict[str, object]] = record.__dict__["about"]
    return about


def observed(changed: Callable[[], None] = lambda: None) -> tuple[EventLog, Callable[[object], None]]:
    """An event log, and what publishes to it."""
    log, events = EventLog(changed), EventStream()
    events.add(log.handlers())
    return log, events.publish


@pytest.mark.parametrize(("event_at", "lines", "line", "rest", "event"), LIMITED.values(), ids=LIMITED.keys())
def test_lines_of_one_kind_are_limited_in_a_period_and_then_summed_up(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    event_at: MakeEvent,
    lines: int,
    line: str,
    rest: str,
    event: LogEvent,
) -> None:
    moment = START
    monkeypatch.setattr(event_log, "now", lambda: moment)
    alarms: list[float | None] = []
    log, publish = observed(lambda: alarms.append(log.next_deadline()))
    for _ in range(lines):
        publish(event_at(START))
    assert caplog.messages == [line] * lines
    assert log.next_deadline() is None

    moment = START + 1
    for _ in range(3):
        publish(event_at(moment))
    assert alarms == [START + PERIOD], "once, at the first that is left out"
    log.sum_up(START + PERIOD - 0.001)
    assert len(caplog.messages) == lines
    log.sum_up(START + PERIOD)
    assert caplog.messages[lines:] == [rest % 3]
    assert more_of(caplog.records[-1]) == (LogEvent.MORE, {"of": event.value, "count": 3})
    assert caplog.records[-1].levelno == caplog.records[0].levelno

    moment = START + PERIOD
    publish(event_at(moment))
    assert caplog.messages[-1] == line, "a new period has lines of its own"


def test_wrong_knock_that_is_forgiven_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    _, publish = observed()
    publish(WrongKnock(SOURCE, 0.0, START))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.INFO, "10.0.0.2: wrong knock, address not ignored")
    assert more_of(record) == (LogEvent.WRONG_KNOCK, {"address": "10.0.0.2", "seconds": 0.0})


def test_each_kind_of_line_has_a_limit_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    _, publish = observed()
    for _ in range(1000):
        publish(WrongKnock(SOURCE, 60, START))
    publish(DoorProlonged(DOOR, 30, START))
    assert caplog.messages[-1] == "10.0.0.2: prolonged 22/tcp"


def test_nearest_sum_is_due_first() -> None:
    log, publish = observed()
    for _ in range(100):
        publish(DoorRefused(DOOR, 1, START))
    for _ in range(100):
        publish(WrongKnock(SOURCE, 60, START - 3))
    assert log.next_deadline() == START - 3 + PERIOD


LINES = (
    (StepsSuppressed(500), "500 more steps of sequences"),
    (SequenceDisabled(Sequence("ssh", ()), "empty"), "ssh: empty: door disabled"),
    (
        LineNotMarked(Sequence("ssh", ()), "F: cannot be written"),
        "ssh: F: cannot be written: door disabled until the configuration is reloaded",
    ),
    (PortExposed(Port(22), "public", "service", "22/tcp: open in public"), "22/tcp: open in public"),
    (Reloaded(), "configuration reloaded"),
    (ReloadFailed("F:2: no"), "configuration reload failed, keeping the running one: F:2: no"),
    (Stopped(0, True), "stopped: 0 doors closed"),
    (Stopped(1, True), "stopped: 1 door closed"),
)


@pytest.mark.parametrize(("event", "line"), LINES, ids=[type(event).__name__ for event, _ in LINES])
def test_event_without_a_limit_has_a_line_each_time(caplog: pytest.LogCaptureFixture, event: object, line: str) -> None:
    _, publish = observed()
    for _ in range(2000):
        publish(event)
    assert caplog.messages == [line] * 2000


@pytest.mark.parametrize(
    ("cause", "reason"), [(None, None), (Origin.KNOCK, "knock"), (Origin.CONTROL, "control")], ids=str
)
def test_closed_door_has_its_reason_as_a_field(
    caplog: pytest.LogCaptureFixture, cause: Origin | None, reason: str | None
) -> None:
    _, publish = observed()
    publish(DoorClosed(DOOR, cause))
    event, fields = more_of(caplog.records[-1])
    assert (event, fields["reason"]) == (LogEvent.CLOSED, reason)


@pytest.mark.parametrize(
    "event",
    [DoorOpened(BY_COMMAND, (), 3), DoorClosed(BY_COMMAND), Stopped(0, False), Stopped(0, True, are_all_closed=False)],
    ids=["opened", "closed", "an error ended the daemon", "a door was not closed"],
)
def test_event_that_other_lines_report_has_none_of_its_own(caplog: pytest.LogCaptureFixture, event: object) -> None:
    _, publish = observed()
    publish(event)
    assert caplog.messages == []
