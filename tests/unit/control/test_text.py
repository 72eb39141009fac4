"""The state of the daemon as lines."""

from dataclasses import replace
from typing import Any

import pytest

from port_knocking_doors.control import text
from port_knocking_doors.control.status import Counts, DoorState
from port_knocking_doors.model import FirewalldState
from tests.unit.control.test_status import SNAPSHOT


def test_snapshot_is_shown_as_lines() -> None:
    assert text.lines(SNAPSHOT) == [
        'port-knocking-doors 2.0 "x"\\, process 123, up 2 d 7 h, /etc/port_knocker.toml',
        "Firewalld: hung, 7 rules of this daemon, 2 pending, 1 refused: see the log",
        "Listening: 5 UDP ports; 1234 packets sniffed, 5 dropped by the kernel",
        "Sequences: main, ssh",
        (
            "Since start: 8 sequences complete, 4 wrong knocks, 5 doors opened, 2 prolonged, "
            "3 closed (2 by a knock), 1 refused"
        ),
        "",
        "Doors: 5 of 1024, 1 pending",
        "  ADDRESS      SEQUENCE  OPENS           ZONE    STATE    LEFT",
        "  10.0.0.2     main      22/tcp, 80/tcp  public  open     8.2 s",
        "  2001:db8::7  ssh       command         -       pending  -",
        "  and 3 more",
        "",
        "Knockers: 9 of 65536, 1 ignored",
        "  ADDRESS   LAST KNOCK  DONE                        IGNORED FOR",
        "  10.0.0.3  2.0 s ago   main: 3 steps, ssh: 1 step  -",
        "  10.0.0.4  2 min ago   -                           3.5 s",
        "  and 7 more",
    ]


def test_idle_daemon_has_few_lines() -> None:
    idle = replace(
        SNAPSHOT,
        configuration="",
        sniffing=False,
        rules_pending=0,
        rules_refused=0,
        doors_open=0,
        doors_waiting=0,
        doors=(),
        knockers_known=0,
        knockers=(),
    )
    lines = text.lines(idle)
    assert lines[0].endswith("built-in defaults")
    assert lines[2] == "Listening: 5 UDP ports"
    assert "Doors: 0 of 1024" in lines
    assert lines[-2:] == ["", "Knockers: 0 of 65536, 1 ignored"]


def test_door_that_is_not_confirmed_closed_is_shown() -> None:
    door = replace(SNAPSHOT.doors[0], standing=DoorState.CLOSING, seconds_left=None)
    lines = text.lines(replace(SNAPSHOT, doors_open=0, doors_waiting=0, doors_closing=1, doors=(door,)))
    assert "Doors: 0 of 1024; 1 more not confirmed closed" in lines
    assert "  10.0.0.2  main      22/tcp, 80/tcp  public  not closed  -" in lines


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (FirewalldState.FAILED, "Firewalld: failed: its configuration is not active; see the log"),
        (
            FirewalldState.FLUSHED,
            "Firewalld: flushed: every port is open, its rules are gone from the kernel: systemctl restart firewalld",
        ),
    ],
)
def test_firewalld_whose_rules_are_not_active_is_shown(state: FirewalldState, line: str) -> None:
    assert text.lines(replace(SNAPSHOT, firewalld=state))[1] == line


def test_lines_hold_printable_characters_only() -> None:
    evil = replace(SNAPSHOT, configuration="/tmp/\x1b[2J\nx", sequences=("a\x07",))
    assert all(line.isprintable() for line in text.lines(evil))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2 min"), (7199, "2 h 0 min"), (200000, "2 d 7 h")],
)
def test_time_is_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert text._time(seconds) == shown


SHOWN: dict[str, tuple[dict[str, object], str]] = {
    "one of each": (
        {"counts": Counts(opened=1, wrong=1, complete=1)},
        "Since start: 1 sequence complete, 1 wrong knock, 1 door opened, 0 prolonged, 0 closed, 0 refused",
    ),
    "one port and one packet": (
        {"listeners": 1, "sniffer_seen": 1, "sniffer_dropped": 0},
        "Listening: 1 UDP port; 1 packet sniffed, 0 dropped by the kernel",
    ),
    "firewalld there": (
        {"firewalld": FirewalldState.PRESENT, "rules": 1, "rules_pending": 0, "rules_refused": 0},
        "Firewalld: present, 1 rule of this daemon",
    ),
    "firewalld absent": ({"firewalld": FirewalldState.ABSENT}, "Firewalld: absent; doors stay pending until it runs"),
    "firewalld unused": ({"firewalld": FirewalldState.UNUSED}, "Firewalld: unused"),
    "no door pending": ({"doors_waiting": 0}, "Doors: 5 of 1024"),
    "knockers of whom none is shown": ({"knockers": (), "knockers_known": 1}, "Knockers: 1 of 65536, 1 ignored"),
}


@pytest.mark.parametrize(("changes", "line"), SHOWN.values(), ids=SHOWN)
def test_line_follows_the_snapshot(changes: dict[str, Any], line: str) -> None:
    assert line in text.lines(replace(SNAPSHOT, **changes))


def test_missing_table_has_no_remainder() -> None:
    lines = text.lines(replace(SNAPSHOT, doors=(), knockers=()))
    assert [line for line in lines if line.startswith(" ")] == []


@pytest.mark.parametrize("width", [1, 2, 10, 20, 21, 40, 80])
def test_wrapped_lines_fit_width_and_lose_nothing(width: int) -> None:
    lines = text.lines(replace(SNAPSHOT, sequences=tuple(f"sequence-{number}" for number in range(40))))
    wrapped = text.wrapped(lines, width)
    assert max(map(len, wrapped)) <= width
    assert "".join("".join(wrapped).split()) == "".join("".join(lines).split())


def test_lines_that_fit_are_not_wrapped() -> None:
    lines = text.lines(SNAPSHOT)
    assert text.wrapped(lines, max(map(len, lines))) == lines
