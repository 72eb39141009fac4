"""What the examination says of a daemon: that none answers, and what the status of a running one shows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control import client
from port_knocking_doors.control.status import KnockerStatus
from port_knocking_doors.doctor.daemon import about_daemon, no_daemon
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.model import FirewalldState, Settings
from tests.unit.control.test_status import SNAPSHOT

OTHERS = {
    "none runs": ([], "no daemon is running; start it: systemctl start port-knocking-doors"),
    "another mark": ([7, 8], "no daemon is running with rule_priority = 31313; ask the one that is: --priority 7 or 8"),
}


@pytest.mark.parametrize(("others", "text"), OTHERS.values(), ids=OTHERS)
def test_missing_daemon_is_a_short_problem(others: list[int], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "running_marks", lambda: others)
    assert no_daemon(31313) == problem(text)


LOADED = Loaded(Settings(), Path("/etc/port_knocker.toml"), ())
HEALTHY = replace(
    SNAPSHOT,
    pid=77,
    configuration="/etc/port_knocker.toml",
    listeners=5,
    firewalld=FirewalldState.PRESENT,
    rules_refused=0,
    doors_open=0,
    doors_limit=1024,
    sniffer_dropped=0,
    knockers=(),
    knockers_ignored=0,
)
IGNORED = KnockerStatus("10.0.0.2", (), 3.5, 1.0)
OTHERWISE: dict[str, tuple[dict[str, Any], Finding]] = {
    "runs": ({}, ok("daemon: process 77 runs")),
    "another configuration": (
        {"configuration": "/root/.port_knocker.toml"},
        warning("daemon: process 77 runs with /root/.port_knocker.toml, not with the configuration read here"),
    ),
    "built-in defaults": (
        {"configuration": ""},
        warning("daemon: process 77 runs with its built-in defaults, not with the configuration read here"),
    ),
    "other ports": (
        {"listeners": 4},
        warning(
            "daemon: it listens on 4 UDP ports, but the configuration has 5: run `port-knocking-doors reload`",
        ),
    ),
    "no port at all": (
        {"listeners": 0},
        problem("daemon: it listens on none of its knock ports: it waits for one that another program uses"),
    ),
    "hung firewalld": (
        {"firewalld": FirewalldState.HUNG},
        problem("daemon: firewalld does not answer it: systemctl restart firewalld"),
    ),
    "refused rules": (
        {"rules_refused": 3},
        problem("daemon: firewalld refused 3 of its rules: see its log"),
    ),
    "doors that are not closed": (
        {"firewalld": FirewalldState.ABSENT, "doors_closing": 2},
        problem(
            "daemon: 2 of its doors not confirmed closed although their time is over: they may be open until "
            "firewalld answers again: systemctl start firewalld"
        ),
    ),
    "a door that is not closed, and lost rules": (
        {"firewalld": FirewalldState.FLUSHED, "doors_closing": 1},
        problem(
            "daemon: 1 of its doors not confirmed closed although their time is over: they may be open until "
            "firewalld answers again: systemctl restart firewalld"
        ),
    ),
    "as many doors as may be open": (
        {"doors_open": 8, "doors_limit": 8},
        problem(
            "daemon: max_open_doors reached (8): raise it, or close a door that is not needed: "
            "port-knocking-doors close ADDRESS (`port-knocking-doors status` shows them)"
        ),
    ),
    "dropped packets": (
        {"sniffer_dropped": 9},
        warning("daemon: the kernel dropped 9 packets that may have been knocks"),
    ),
    "ignored address": (
        {"knockers": (IGNORED,), "knockers_ignored": 1},
        warning(
            "daemon: 1 ignored after a wrong knock (10.0.0.2): wait, or run `port-knocking-doors forget ADDRESS`",
        ),
    ),
}


def test_door_that_is_being_closed_is_no_finding() -> None:
    assert list(about_daemon(replace(HEALTHY, doors_closing=1), LOADED)) == [ok("daemon: process 77 runs")]


@pytest.mark.parametrize(("state", "finding"), OTHERWISE.values(), ids=OTHERWISE)
def test_status_of_daemon_becomes_one_finding_each(state: dict[str, Any], finding: Finding) -> None:
    found = list(about_daemon(replace(HEALTHY, **state), LOADED))
    assert finding in found
    assert len(found) == (1 if "configuration" in state or not state else 2)


def test_firewalld_that_denies_changes_is_a_problem_with_the_action() -> None:
    denied = list(about_daemon(replace(HEALTHY, firewalld=FirewalldState.REFUSING), LOADED))[1]
    assert denied.text.endswith("the action org.fedoraproject.FirewallD1.config")
