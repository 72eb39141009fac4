"""What the daemon is doing, for people."""

from dataclasses import replace

import pytest

from port_knocking_doors.control import text
from tests.unit.control.test_status import SNAPSHOT


def test_people_read_a_table() -> None:
    assert text.table(SNAPSHOT) == [
        'port-knocking-doors 2.0 "x"\\, process 123, up 2 d 7 h, /etc/port_knocker.toml',
        "Firewalld: hung, 7 rules of ours, 1 refused: see the log",
        "Listening: 5 UDP ports; the sniffer saw 1234 packets, the kernel dropped 5",
        "Sequences: main, ssh",
        "Since start: 8 sequences complete, 4 wrong knocks, 5 doors opened, 2 prolonged, 3 closed, 1 refused",
        "",
        "Doors: 5 of 1024",
        "  ADDRESS      SEQUENCE  OPENS           ZONE    STATE    LEFT",
        "  10.0.0.2     main      22/tcp, 80/tcp  public  open     8.2 s",
        "  2001:db8::7  ssh       command         -       waiting  -",
        "  and 3 more",
        "",
        "Knockers: 9 of 65536, 1 ignored",
        "  ADDRESS   HEARD      DONE                        IGNORED FOR",
        "  10.0.0.3  2.0 s ago  main: 3 steps, ssh: 1 step  -",
        "  10.0.0.4  2 min ago  -                           3.5 s",
        "  and 7 more",
    ]


def test_an_idle_daemon_has_a_short_table() -> None:
    idle = replace(
        SNAPSHOT,
        configuration="",
        sniffing=False,
        rules_refused=0,
        doors_open=0,
        doors=(),
        knockers_known=0,
        knockers=(),
    )
    lines = text.table(idle)
    assert lines[0].endswith("built-in defaults")
    assert lines[2] == "Listening: 5 UDP ports"
    assert lines[-2:] == ["", "Knockers: 0 of 65536, 1 ignored"]


def test_nothing_in_the_table_plays_with_the_terminal() -> None:
    evil = replace(SNAPSHOT, configuration="/tmp/\x1b[2J\nx", sequences=("a\x07",))
    assert all(line.isprintable() for line in text.table(evil))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2 min"), (7199, "2 h 0 min"), (200000, "2 d 7 h")],
)
def test_times_are_short(seconds: float, shown: str) -> None:
    assert text._time(seconds) == shown
