"""No door is called closed that the kernel still has open: firewalld stopped, killed or restarted with its rules left.

The sandbox's firewalld has CleanupOnExit=no here, so that it leaves its rules in the kernel when it ends. firewalld
before 1.2.7, 1.3.4 and 2.0.1 starts on top of them; later ones remove them.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.model import RULE_PRIORITY
from port_knocking_doors.sandbox import ClientHost, Polkit, Process, Sandbox
from tests.helpers.doorstep import (
    NOTICE,
    await_closed,
    await_open,
    door_rules,
    kill_with_crash_guard,
    past,
    said,
    state,
)
from tests.helpers.running import GUARDED, SEQUENCE, begin_daemon, knock, start_daemon, write_configuration
from tests.helpers.service import CONF, Installation
from tests.helpers.waiting import wait_until

CONFIGURATION = "/etc/firewalld/firewalld.conf"
PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
BROKEN = "/etc/firewalld/policies/broken.xml"
HARMS = {
    "read-only": "cd /run; mount --bind port-knocking-doors port-knocking-doors\n"
    "mount -o remount,bind,ro port-knocking-doors",
    "gone": "rm -r /run/port-knocking-doors",
}
OTHERS = 'rule family="ipv4" source address="10.9.9.9" port port="9999" protocol="tcp" accept'
"""A runtime rule of another program."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A server whose firewalld leaves its rules in the kernel, with a listener on the guarded port."""
    with Sandbox(clients=("client",)) as sandbox:
        keep_rules(sandbox)
        with sandbox.server.listen(GUARDED):
            yield sandbox


def keep_rules(box: Sandbox) -> None:
    box.firewalld.stop()
    box.server.run(["sed", "-i", "s/^CleanupOnExit=.*/CleanupOnExit=no/", CONFIGURATION])
    box.firewalld.start()


def open_door(box: Sandbox, folder: Path, duration: float) -> tuple[Process, float]:
    """A daemon with an open door, and the door's deadline."""
    client = box.hosts["client"]
    folder.mkdir(exist_ok=True)
    daemon = start_daemon(box, folder, max_opened_door_duration=duration, firewall_rules_check_periode_seconds=0.5)
    knock(client, client.server4)
    deadline = time.monotonic() + duration
    await_open(client)
    return daemon, deadline


def status(box: Sandbox) -> dict[str, object]:
    answer: dict[str, object] = json.loads(
        box.server.run([*PROGRAM, "status", "--priority", str(RULE_PRIORITY), "--json"]).stdout
    )
    return answer


def standings(box: Sandbox) -> list[str]:
    doors = status(box)["doors"]
    assert isinstance(doors, list)
    return [door["standing"] for door in doors]


def end(daemon: Process) -> int:
    daemon.terminate()
    return daemon.wait(2 * NOTICE)


def test_restarted_firewalld_keeps_no_door_open_that_is_called_closed(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    daemon, deadline = open_door(box, tmp_path, 4)
    box.firewalld.restart()
    box.firewall_cmd("--add-port=7777/tcp")
    daemon.wait_for("closed", 4 + NOTICE)
    assert time.monotonic() >= deadline
    assert state(client) == "prohibited"
    assert status(box)["doors_closing"] == 0
    assert end(daemon) == 0
    assert "7777/tcp" in box.firewall_cmd("--list-ports")


def test_two_daemons_reload_restarted_firewalld_one_at_a_time(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """A second reload would drop what the first is about to put back."""
    steps = tuple(port + 1000 for port in SEQUENCE)
    daemons = [open_door(box, tmp_path / "first", 8)[0]]
    (tmp_path / "second").mkdir()
    other = {"opening_sequence": steps, "rule_priority": 31000, "max_opened_door_duration": 8}
    daemons.append(start_daemon(box, tmp_path / "second", ports_to_controls=[2223], **other))
    knock(client, client.server4, steps)
    daemons[1].wait_for(": opened")
    box.firewalld.restart()
    box.firewall_cmd("--add-port=7777/tcp")
    for daemon in daemons:
        daemon.wait_for(": closed", 8 + NOTICE)
    assert "7777/tcp" in box.firewall_cmd("--list-ports")
    assert state(client) == "prohibited"
    assert [end(daemon) for daemon in daemons] == [0, 0]


def test_reload_for_left_rules_keeps_the_runtime_settings_of_others(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    """firewalld is killed and started while no daemon runs; then others change it, and a daemon starts."""
    daemon, _ = open_door(box, tmp_path, 60)
    box.firewalld.kill()
    kill_with_crash_guard(box, daemon)
    box.firewalld.start()
    box.firewall_cmd(f"--add-rich-rule={OTHERS}")
    box.firewall_cmd("--zone=trusted", "--add-source=10.8.0.0/24")
    box.firewall_cmd("--add-port=7777/tcp")
    box.firewall_cmd("--add-service=http")
    box.firewall_cmd("--add-masquerade")
    before = box.firewall_cmd("--list-all-zones")
    second = start_daemon(box, tmp_path, open_knock_ports=False)
    assert state(client) == "prohibited"
    assert box.firewall_cmd("--list-all-zones") == before
    assert "10.9.9.9" in box.nft()
    assert end(second) == 0


def test_stopped_firewalld_keeps_doors_that_are_shown_as_not_closed(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    daemon, deadline = open_door(box, tmp_path, 2)
    box.firewalld.stop()
    daemon.wait_for("left 1 rule of doors active in the kernel", NOTICE)
    past(deadline + 0.5)
    assert state(client) == "open"
    assert standings(box) == ["closing"]
    assert not said(daemon, r": closed")
    box.firewalld.start()
    daemon.wait_for(": closed", NOTICE)
    assert state(client) == "prohibited"
    assert end(daemon) == 0


def test_failed_firewalld_keeps_doors_that_are_shown_as_not_closed(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    """Before 1.2.7, 1.3.4 and 2.0.1; later ones remove what an earlier one left before they fail."""
    daemon, deadline = open_door(box, tmp_path, 2)
    box.firewalld.stop()
    box.server.run(["tee", BROKEN], text="<policy><nonsense")
    box.firewalld.start()
    daemon.wait_for("state FAILED", NOTICE)
    past(deadline + 1)
    is_kept = f"{client.address4} tcp dport {GUARDED}" in box.nft()
    assert (standings(box), len(said(daemon, ": closed"))) == ((["closing"], 0) if is_kept else ([], 1))
    assert len(said(daemon, "has failed and left 1 rule of doors")) == is_kept
    box.server.run(["rm", BROKEN])
    box.firewalld.restart()
    daemon.wait_for(": closed", NOTICE)
    assert state(client) == "prohibited"
    assert end(daemon) == 0


@pytest.mark.parametrize("harm", ["read-only", "gone"])
def test_crash_guard_closes_whatever_became_of_the_runtime_directory(
    box: Sandbox, client: ClientHost, tmp_path: Path, harm: str
) -> None:
    conf = write_configuration(tmp_path, max_opened_door_duration=60)
    daemon = begin_daemon(box, conf, env={"XDG_RUNTIME_DIR": ""})
    daemon.wait_for(r"\bready\b", 20)
    knock(client, client.server4)
    await_open(client)
    box.server.run(["sh", "-ec", HARMS[harm]])
    daemon.kill()
    await_closed(client)
    assert door_rules(box) == []


def test_end_with_stopped_firewalld_fails_and_sweep_closes_later(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    daemon, _ = open_door(box, tmp_path, 60)
    box.firewalld.stop()
    daemon.wait_for("firewalld has stopped")
    assert end(daemon) == 1
    assert len(said(daemon, "^port-knocking-doors: doors are not closed: .*systemctl start firewalld")) == 1
    assert state(client) == "open"
    swept = box.server.run([*PROGRAM, "sweep", "--patience", "1"], check=False)
    assert (swept.returncode, "doors are not closed" in swept.stderr) == (1, True)
    box.firewalld.start()
    box.server.run([*PROGRAM, "sweep"])
    await_closed(client)
    assert door_rules(box) == []


def test_door_of_killed_daemon_and_firewalld_is_closed_at_next_start(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    first, _ = open_door(box, tmp_path, 60)
    box.firewalld.stop()
    kill_with_crash_guard(box, first)
    second = begin_daemon(box, write_configuration(tmp_path))
    second.wait_for("firewalld is not running")
    assert state(client) == "open"
    box.firewalld.start()
    second.wait_for(r"\bready\b", 20)
    assert state(client) == "prohibited"
    assert end(second) == 0


def test_crash_guard_closes_once_stopped_firewalld_is_back(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon, _ = open_door(box, tmp_path, 60)
    box.firewalld.stop()
    daemon.kill()
    wait_until(lambda: daemon.poll() is not None, NOTICE, "the daemon's end")
    box.firewalld.start()
    await_closed(client, 2 * NOTICE)


def test_service_that_cannot_see_the_kernel_reloads_restarted_firewalld(tmp_path: Path) -> None:
    """As the unit runs it, with polkit: CAP_NET_RAW is no right to see the kernel's tables."""
    with Sandbox(clients=("client",), users=True) as box:
        client = box.hosts["client"]
        Polkit(box.server).start()
        keep_rules(box)
        conf = write_configuration(tmp_path, max_opened_door_duration=4)
        installed = Installation(box, tmp_path, conf)
        installed.install_rule()
        daemon = installed.begin("ExecStart", "--conf", CONF)
        daemon.wait_for(r"\bready\b", 20)
        with box.server.listen(GUARDED):
            knock(client, client.server4)
            await_open(client)
            box.firewalld.restart()
            daemon.wait_for(": closed", 4 + NOTICE)
            assert state(client) == "prohibited"
            knock(client, client.server4)
            await_open(client)
            box.firewalld.stop()
            daemon.wait_for("left 1 rule of doors active in the kernel", NOTICE)
            assert end(daemon) == 1
            sweep = installed.begin("ExecStopPost", "sweep", "--patience", "1")
            assert sweep.wait(20) == 1
            box.firewalld.start()
            second = installed.begin("ExecStart", "--conf", CONF)
            second.wait_for(r"\bready\b", 20)
            assert state(client) == "prohibited"
            assert end(second) == 0
