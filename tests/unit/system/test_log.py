"""The log: one event a line, for people, for the journal and for programs."""

import ast
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import port_knocking_doors
from port_knocking_doors.system import log
from port_knocking_doors.system.log import LogEvent, event_fields

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """The lines since the last call; restores logging at the end."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, log.logger.level, logging.raiseExceptions
    root.handlers.clear()  # `basicConfig` would close pytest's own

    def read() -> list[str]:
        assert log.flush()
        return capfd.readouterr().err.splitlines()

    yield read
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    log.logger.setLevel(before[2])
    logging.raiseExceptions = before[3]


def test_json_log_has_one_object_for_each_event(lines: Lines) -> None:
    log.set_up(False, {}, as_json=True)
    log.logger.warning(
        "%s: wrong\nknock \x1b",
        "10.0.0.2",
        extra=event_fields(
            LogEvent.WRONG_KNOCK, address="10.0.0.2", sequence=None, seconds=5.0, ports=("22/tcp",), reason=OSError()
        ),
    )
    (line,) = lines()
    event = json.loads(line)
    assert list(event)[:3] == ["time", "event", "level"]
    assert datetime.strptime(event.pop("time"), "%Y-%m-%dT%H:%M:%S.%fZ")
    assert event == {
        "event": "wrong_knock",
        "level": "warning",
        "address": "10.0.0.2",
        "seconds": 5.0,
        "ports": ["22/tcp"],
        "reason": "",
        "message": "10.0.0.2: wrong knock \x1b",
    }


def test_control_characters_stay_out_of_the_log(lines: Lines) -> None:
    evil = "a\nb\rc\x1b[2Jd\x85e\u2028f\udcffg\0h"
    for environ in ({}, {"JOURNAL_STREAM": "8:1"}):
        log.set_up(False, environ)
        log.logger.error("%s", evil)
        (line,) = lines()
        assert line.endswith(r"a b c\x1b[2Jd\x85e\u2028f\udcffg\x00h")
        log.set_up(False, environ, as_json=True)
        log.logger.error("%s", evil, extra=event_fields(LogEvent.FAILED, reason=evil))
        (line,) = lines()
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line.partition("{")[1] + line.partition("{")[2])["reason"] == evil


def test_json_log_has_the_traceback(lines: Lines) -> None:
    log.set_up(False, {}, as_json=True)
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.logger.exception("it failed")
    (line,) = lines()
    assert json.loads(line)["traceback"].endswith("\nZeroDivisionError")
    assert json.loads(line)["message"] == "it failed"


@pytest.mark.parametrize("as_json", [False, True])
def test_line_that_cannot_be_formatted_raises_nothing(lines: Lines, as_json: bool) -> None:
    log.set_up(False, {}, as_json=as_json)
    log.logger.error("%s and %s", "one")
    log.logger.error("next")
    (line,) = lines()
    assert "next" in line


def test_event_without_fields_is_a_message(lines: Lines) -> None:
    log.set_up(False, {}, as_json=True)
    log.logger.error("something")
    (line,) = lines()
    assert (json.loads(line)["event"], json.loads(line)["message"]) == ("message", "something")


def test_priority_is_ahead_of_the_object_in_the_journal(lines: Lines) -> None:
    log.set_up(False, {"JOURNAL_STREAM": "8:1"}, as_json=True)
    log.logger.error("something")
    (line,) = lines()
    assert line.startswith('<3>{"time": ')


def test_fields_do_not_change_the_plain_line(lines: Lines) -> None:
    log.set_up(False, {"JOURNAL_STREAM": "8:1"})
    log.logger.info("%s: closed", "10.0.0.2", extra=event_fields(LogEvent.CLOSED, address="10.0.0.2"))
    assert lines() == ["<6>10.0.0.2: closed"]


@pytest.mark.parametrize("verbose", [False, True])
def test_mirror_gets_every_event_and_the_log_no_more_than_before(lines: Lines, verbose: bool) -> None:
    log.set_up(verbose, {"JOURNAL_STREAM": "8:1"})
    one: list[dict[str, Any]] = []
    other: list[dict[str, Any]] = []
    with log.mirrored(one.append):
        log.logger.debug("first")
        with log.mirrored(other.append):
            log.logger.debug("second")
        log.logger.debug("third")
    log.logger.debug("fourth")
    assert [event["message"] for event in one] == ["first", "second", "third"]
    assert [event["message"] for event in other] == ["second"]
    assert lines() == ([f"<7>{word}" for word in ("first", "second", "third", "fourth")] if verbose else [])
    assert log.logger.level == (logging.DEBUG if verbose else logging.INFO)


def test_mirrors_that_end_in_any_order_restore_the_level(lines: Lines) -> None:
    log.set_up(False, {})
    one, other = log.mirrored(lambda _: None), log.mirrored(lambda _: None)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert log.logger.level == logging.DEBUG
    other.__exit__(None, None, None)
    assert log.logger.level == logging.INFO


PACKAGE = Path(port_knocking_doors.__file__).parent


def test_every_event_name_is_used() -> None:
    used = {
        node.attr
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "LogEvent"
    }
    used |= {"FAILED"}  # as `log.LogEvent.FAILED`
    assert used == {event.name for event in LogEvent}
