"""The state of the daemon to JSON and back."""

import json
from typing import Any

import pytest

from port_knocking_doors.control import status
from port_knocking_doors.control.status import Counts, DoorState, DoorStatus, KnockerStatus, Snapshot
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import FirewalldState

DOOR = DoorStatus("10.0.0.2", "main", ("22/tcp", "80/tcp"), "eth0", ("public",), DoorState.OPEN, 8.25)
COMMAND = DoorStatus("2001:db8::7", "ssh", (), "", (), DoorState.WAITING, None)
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
    rules_pending=2,
    rules_refused=1,
    doors_open=5,
    doors_waiting=1,
    doors_limit=1024,
    doors=(DOOR, COMMAND),
    knockers_known=9,
    knockers_ignored=1,
    knockers_limit=65536,
    knockers=(AHEAD, IGNORED),
    counts=Counts(opened=5, closed=3, closed_by_knock=2, prolonged=2, refused=1, wrong=4, complete=8),
)


def test_snapshot_survives_json() -> None:
    text = json.dumps(status.to_data(SNAPSHOT), allow_nan=False)
    assert status.from_data(json.loads(text)) == SNAPSHOT


def changed(**values: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(status.to_data(SNAPSHOT))), **values}


def test_unknown_keys_of_later_daemon_are_ignored() -> None:
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
def test_invalid_status_is_error(data: object) -> None:
    with pytest.raises(DoorsError, match="another version"):
        status.from_data(data)


def test_doors_survive_json() -> None:
    data = json.loads(json.dumps([status.door_data(DOOR), status.door_data(COMMAND)]))
    assert status.doors_from_data(data) == [DOOR, COMMAND]
    wrongs: tuple[object, ...] = (None, {}, [{}], "doors")
    for wrong in wrongs:
        with pytest.raises(DoorsError, match="another version"):
            status.doors_from_data(wrong)
