"""firewalld answers, and its rules are not active: its tables were flushed, or it is in the state FAILED.

Then ports are open without a knock, and what firewalld confirms is worth nothing: no door is called open.
"""

import json
import sys
from pathlib import Path

import pytest

from port_knocking_doors.model import RULE_PRIORITY
from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.doorstep import NOTICE, await_open, door_rules, said, state
from tests.helpers.running import GUARDED, begin_daemon, knock, start_daemon, write_configuration
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
WITHOUT_NET_ADMIN = ["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"]
BROKEN = "/etc/firewalld/policies/broken.xml"
QUICK = {"firewall_rules_check_periode_seconds": 0.3, "max_opened_door_duration": 60}


@pytest.fixture(autouse=True)
def free_tables(box: Sandbox) -> None:
    """Let others change firewalld's tables, as they can before 2.2 (NftablesTableOwner in firewalld.conf(5))."""
    version = tuple(map(int, box.firewall_cmd("--version").split(".")[:2]))
    if version >= (2, 2):
        box.firewalld.stop()
        box.server.run(["sh", "-c", "echo NftablesTableOwner=no >>/etc/firewalld/firewalld.conf"])
        box.firewalld.start()


def status(box: Sandbox) -> tuple[str, list[str]]:
    """firewalld's state, and the states of the doors, as `status` has them."""
    answer = box.server.run([*PROGRAM, "status", "--priority", str(RULE_PRIORITY), "--json"])
    data = json.loads(answer.stdout)
    return data["firewalld"], [door["standing"] for door in data["doors"]]


def await_status(box: Sandbox, expected: tuple[str, list[str]]) -> None:
    wait_until(lambda: status(box) == expected, NOTICE, lambda: str(status(box)))


def knock_and_open(box: Sandbox, daemon: Process, times: int) -> None:
    """Knock, and wait until the daemon has opened so many doors in all."""
    client = box.hosts["client"]
    knock(client, client.server4)
    wait_until(lambda: len(said(daemon, ": opened")) == times, NOTICE, lambda: daemon.stderr.text)


def test_flushed_tables_are_reported_once_and_no_door_is_open(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, **QUICK)
    with box.server.listen(GUARDED):
        knock_and_open(box, daemon, 1)
        box.server.run(["nft", "flush", "ruleset"])
        daemon.wait_for("lost its rules in the kernel.*systemctl restart firewalld", NOTICE)
        assert state(box.hosts["stranger"]) == "open", "every port is open without a knock"
        await_status(box, ("flushed", ["waiting"]))
        knock(box.hosts["stranger"], box.hosts["stranger"].server4)
        daemon.wait_for("door pending", NOTICE)
        assert status(box) == ("flushed", ["waiting", "waiting"])
        box.firewalld.restart()
        await_status(box, ("present", ["open", "open"]))
        assert state(client) == "open"
    assert len(said(daemon, "lost its rules")) == 1
    assert len(said(daemon, ": opened")) == 2
    assert len(said(daemon, "rules are active again")) == 1
    daemon.terminate()
    assert daemon.wait(NOTICE) == 0


def test_daemon_that_ends_with_flushed_tables_fails_at_once(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, **QUICK)
    knock_and_open(box, daemon, 1)
    box.server.run(["nft", "delete", "table", "inet", "firewalld"])
    daemon.wait_for("lost its rules in the kernel", NOTICE)
    daemon.terminate()
    assert daemon.wait(NOTICE) == 1
    assert len(said(daemon, "^port-knocking-doors: doors are not closed: .* run `systemctl restart firewalld`")) == 1
    box.firewalld.restart()
    assert door_rules(box) == []
    assert state(client) == "prohibited"


def test_flushed_chain_of_a_zone_is_logged_with_its_remedy(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """firewalld cannot remove the door's rule, and the door is not called closed until it was restarted."""
    daemon = start_daemon(box, tmp_path, **{**QUICK, "max_opened_door_duration": 1})
    knock_and_open(box, daemon, 1)
    box.server.run(["nft", "flush", "chain", "inet", "firewalld", "filter_IN_public_post"])
    daemon.wait_for("removing a rule failed: .*another program .* run `systemctl restart firewalld`", NOTICE)
    assert status(box) == ("present", ["closing"])
    box.firewalld.restart()
    daemon.wait_for(": closed", NOTICE)
    assert state(client) == "prohibited"
    assert len(said(daemon, "another program")) == 1


def test_flushed_tables_show_at_next_knock_if_the_kernel_cannot_be_read(box: Sandbox, tmp_path: Path) -> None:
    daemon = box.server.popen([*WITHOUT_NET_ADMIN, *PROGRAM, "--conf", str(write_configuration(tmp_path, **QUICK))])
    daemon.wait_for(r"\bready\b", 20)
    client = box.hosts["client"]
    box.server.run(["nft", "flush", "ruleset"])
    knock(client, client.server4)
    daemon.wait_for("lost its rules in the kernel.*systemctl restart firewalld", NOTICE)
    assert status(box) == ("flushed", ["waiting"])
    box.firewalld.restart()
    daemon.wait_for(": opened", NOTICE)
    assert status(box) == ("present", ["open"])


def test_failed_firewalld_opens_no_door_until_it_is_mended(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, **QUICK)
    knock_and_open(box, daemon, 1)
    box.firewalld.stop()
    box.server.run(["tee", BROKEN], text="<policy><nonsense")
    box.firewalld.start()
    daemon.wait_for("state FAILED.*systemctl restart firewalld", NOTICE)
    await_status(box, ("failed", ["waiting"]))
    assert door_rules(box) == []
    box.server.run(["rm", BROKEN])
    box.firewalld.restart()
    with box.server.listen(GUARDED):
        await_open(client)
        await_status(box, ("present", ["open"]))
    assert len(said(daemon, "state FAILED")) == 1
    daemon.terminate()
    assert daemon.wait(NOTICE) == 0


def test_daemon_that_ends_while_firewalld_has_failed_closes_nothing(box: Sandbox, tmp_path: Path) -> None:
    box.firewalld.stop()
    box.server.run(["tee", BROKEN], text="<policy><nonsense")
    box.firewalld.start()
    daemon = begin_daemon(box, write_configuration(tmp_path, **QUICK))
    daemon.wait_for("state FAILED.*systemctl restart firewalld", NOTICE)
    daemon.terminate()
    assert daemon.wait(NOTICE) == 0
    assert len(said(daemon, "stopped: 0 doors closed")) == 1
