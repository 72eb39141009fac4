"""What the daemon is doing: to JSON and back, for people, and for Prometheus."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from port_knocking_doors.control import status
from port_knocking_doors.control.status import Counts, DoorStatus, KnockerStatus, Snapshot, Standing
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import FirewalldState

DOOR = DoorStatus("10.0.0.2", "main", ("22/tcp", "80/tcp"), "eth0", ("public",), Standing.OPEN, 8.25)
COMMAND = DoorStatus("2001:db8::7", "ssh", (), "", (), Standing.WAITING, None)
AHEAD = KnockerStatus("10.0.0.3", (("main", 3), ("ssh", 1)), 0.0, 2.0)
IGNORED = KnockerStatus("10.0.0.4", (), 3.5, 130.0)
SNAPSHOT = Snapshot(
    version='2.0 "x"\\',
    pid=123,
    uptime=200000.5,
    configuration="/etc/port_knocker.toml",
    rule_priority=31313,
    sequences=("main", "ssh"),
    listeners=5,
    sniffing=True,
    sniffer_seen=1234,
    sniffer_dropped=5,
    firewalld=FirewalldState.HUNG,
    rules=7,
    rules_refused=1,
    doors_open=5,
    doors_waiting=1,
    doors_limit=1024,
    doors=(DOOR, COMMAND),
    knockers_known=9,
    knockers_ignored=1,
    knockers_limit=65536,
    knockers=(AHEAD, IGNORED),
    counts=Counts(opened=5, closed=3, prolonged=2, refused=1, wrong=4, complete=8),
)


def test_it_goes_through_json_and_comes_back() -> None:
    text = json.dumps(status.to_data(SNAPSHOT), allow_nan=False)
    assert status.from_data(json.loads(text)) == SNAPSHOT


def changed(**values: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(status.to_data(SNAPSHOT))), **values}


def test_what_a_later_daemon_adds_is_passed_over() -> None:
    assert status.from_data(changed(more=1)) == SNAPSHOT


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {key: value for key, value in changed().items() if key != "rules"},
        changed(firewalld="away"),
        changed(doors=[{}]),
        changed(doors=7),
        changed(knockers=[{"address": "10.0.0.2"}]),
        changed(counts={}),
        changed(pid="many"),
        changed(uptime=None),
    ],
)
def test_what_is_no_status_is_an_error(data: object) -> None:
    with pytest.raises(DoorsError, match="another version"):
        status.from_data(data)


def test_doors_go_through_json_and_come_back() -> None:
    data = json.loads(json.dumps([status.door_data(DOOR), status.door_data(COMMAND)]))
    assert status.doors_from_data(data) == [DOOR, COMMAND]
    wrongs: tuple[object, ...] = (None, {}, [{}], "doors")
    for wrong in wrongs:
        with pytest.raises(DoorsError, match="another version"):
            status.doors_from_data(wrong)


def test_people_read_a_table() -> None:
    assert status.table(SNAPSHOT) == [
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
    lines = status.table(idle)
    assert lines[0].endswith("built-in defaults")
    assert lines[2] == "Listening: 5 UDP ports"
    assert lines[-2:] == ["", "Knockers: 0 of 65536, 1 ignored"]


def test_nothing_in_the_table_plays_with_the_terminal() -> None:
    evil = replace(SNAPSHOT, configuration="/tmp/\x1b[2J\nx", sequences=("a\x07",))
    assert all(line.isprintable() for line in status.table(evil))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2 min"), (7199, "2 h 0 min"), (200000, "2 d 7 h")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert status._time(seconds) == text


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_prometheus_reads_every_figure() -> None:
    found = families(status.prometheus(SNAPSHOT))
    samples = {
        (sample.name.removeprefix("port_knocking_doors_"), *sample.labels.values()): sample.value
        for family in found.values()
        for sample in family.samples
    }
    assert samples == {
        ("up",): 1,
        ("info", '2.0 "x"\\'): 1,
        ("uptime_seconds",): 200000.5,
        ("listening_ports",): 5,
        ("sniffing",): 1,
        ("sniffer_packets_total",): 1234,
        ("sniffer_dropped_total",): 5,
        ("firewalld_state", "present"): 0,
        ("firewalld_state", "absent"): 0,
        ("firewalld_state", "hung"): 1,
        ("firewalld_state", "refusing"): 0,
        ("firewalld_state", "unused"): 0,
        ("rules",): 7,
        ("rules_refused",): 1,
        ("doors", "open"): 4,
        ("doors", "waiting"): 1,
        ("doors_limit",): 1024,
        ("knockers",): 9,
        ("knockers_ignored",): 1,
        ("knockers_limit",): 65536,
        ("sequences_complete_total",): 8,
        ("wrong_knocks_total",): 4,
        ("doors_opened_total",): 5,
        ("doors_prolonged_total",): 2,
        ("doors_closed_total",): 3,
        ("doors_refused_total",): 1,
    }


def test_prometheus_is_told_the_kind_of_each_figure_ahead_of_it() -> None:
    text = status.prometheus(SNAPSHOT)
    assert text.endswith("\n")
    for family in families(text).values():
        assert family.type in ("gauge", "counter")
        assert family.documentation.endswith(".")
        assert all(sample.name.endswith("_total") == (family.type == "counter") for sample in family.samples)
        assert all(math.isfinite(sample.value) for sample in family.samples)
    lines = text.splitlines()
    for name in {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}:
        of_it = [line for line in lines if name in line.replace("{", " ").split(" ")]
        assert [line.split(" ")[1] for line in of_it[:2]] == ["HELP", "TYPE"]


def test_prometheus_is_told_of_a_daemon_that_is_not_there() -> None:
    (family,) = families(status.prometheus(None)).values()
    assert [(sample.name, sample.value) for sample in family.samples] == [("port_knocking_doors_up", 0)]
