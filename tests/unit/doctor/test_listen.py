"""The lines of `doctor --listen`, from events that a daemon would send."""

from collections.abc import Iterator
from typing import Any

import pytest

from port_knocking_doors.control import client
from port_knocking_doors.doctor import listen
from port_knocking_doors.errors import DoorsError

FIRST = "Listening for 30 s: knock now. Each knock is shown with its result, never with its port."
KNOCK = {"event": "knock", "time": "12:00:00", "message": "192.0.2.7: knock complete", "address": "192.0.2.7"}
EVENTS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "nothing": ([], [listen._NOTHING]),
    "no knock": (
        [{"event": "firewalld", "time": "12:00:00", "message": "firewalld answers"}],
        ["12:00:00 firewalld answers", listen._NOTHING],
    ),
    "knock": ([KNOCK], ["12:00:00 192.0.2.7: knock complete"]),
    "knock of a sequence": ([{**KNOCK, "sequence": "main"}], ["12:00:00 192.0.2.7: knock complete (main)"]),
    "another event of a sequence": (
        [{**KNOCK, "event": "opened", "sequence": "main"}],
        ["12:00:00 192.0.2.7: knock complete"],
    ),
    "events that were too many": (
        [{**KNOCK, "missed": 7}],
        ["12:00:00 192.0.2.7: knock complete (7 more are not shown)"],
    ),
    "control characters": (
        [{**KNOCK, "event": "knock", "message": "a\x1b[2Jb\n", "sequence": "\r"}],
        ["12:00:00 a\\x1b[2Jb  ( )"],
    ),
}


class Clock:
    """A clock that each event of the daemon sets forward."""

    def __init__(self) -> None:
        self.now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(listen, "now", lambda: clock.now)
    return clock


@pytest.mark.parametrize(("events", "lines"), EVENTS.values(), ids=EVENTS)
def test_event_is_a_line_of_printable_letters(
    events: list[dict[str, Any]], lines: list[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(mark: int, seconds: float) -> Iterator[dict[str, Any]]:
        assert (mark, seconds) == (31313, 30)
        yield from events
        clock.now += seconds

    monkeypatch.setattr(client, "watch", watch)
    assert list(listen.listened(31313, 30)) == [FIRST, *lines]


def test_daemon_that_ends_early_is_an_error(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(*_: object) -> Iterator[dict[str, Any]]:
        clock.now += 5
        yield KNOCK

    monkeypatch.setattr(client, "watch", watch)
    lines = listen.listened(31313, 30)
    assert [next(lines), next(lines)] == [FIRST, "12:00:00 192.0.2.7: knock complete"]
    with pytest.raises(DoorsError, match="the daemon stopped"):
        next(lines)
