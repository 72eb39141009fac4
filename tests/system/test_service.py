"""The daemon as its unit runs it: an ordinary user with one capability, whom polkit lets change the firewall."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.doors import commands
from port_knocking_doors.firewall.plan import time_to_close
from port_knocking_doors.model import Settings
from port_knocking_doors.sandbox import Polkit, Process, Sandbox
from tests.helpers import confine
from tests.helpers.doorstep import (
    NOTICE,
    await_closed,
    await_open,
    kill_with_crash_guard,
    marked,
    nothing_marked,
    said,
    state,
)
from tests.helpers.running import GUARDED, knock, write_configuration
from tests.helpers.service import COMMANDS_UNIT, CONF, OTHER, SYSTEMD, UNIT, USER, Installation
from tests.helpers.sniffed import whole_sequence, write_sniffing
from tests.helpers.waiting import wait_until

CAP_NET_RAW = 1 << 13  # <linux/capability.h>
PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
MARK = ["--priority", "31313"]
WITHOUT_SNIFFING = SYSTEMD / "without-sniffing.conf"
MINE = 'rule priority="5" family="ipv4" source address="10.9.9.9" port port="22" protocol="tcp" accept'
CALLS = {  # the interface's suffix, the member, and its arguments as dbus-send(1) writes them
    "a look": ("zone", "getRichRules", "string:public"),
    "a rule": ("zone", "addRichRule", "string:public", f"string:{MINE}", "int32:0"),
    "a look at what is permanent": ("config", "getZoneNames"),
    "more than it needs": ("direct", "getAllRules"),
    "the lockdown": ("policies", "enableLockdown"),
}


@pytest.fixture
def users() -> Iterator[Sandbox]:
    """A server that has other users than root, with polkit on its bus."""
    with Sandbox(clients=("client", "stranger"), users=True) as box:
        Polkit(box.server).start()
        yield box


def status(box: Sandbox, process: Process) -> dict[str, str]:
    """What the kernel says of a process (proc_pid_status(5))."""
    lines = box.server.run(["cat", f"/proc/{process.inner_pid}/status"]).stdout.splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def asked(box: Sandbox, *words: str) -> "subprocess.CompletedProcess[str]":
    """The output of a command that root runs."""
    return box.server.run([*PROGRAM, *words], check=False, timeout=60)


def log_of_no_trouble(daemon: Process) -> None:
    assert not said(daemon, "Traceback|ERROR|Operation not permitted")


def obeys(installed: Installation, user: str, interface: str, member: str, *arguments: str) -> bool:
    """Whether firewalld does for a user what it is asked for; else polkit must have been the reason."""
    path = "/org/fedoraproject/FirewallD1" + ("/config" if interface == "config" else "")
    call = ["dbus-send", "--system", "--print-reply", "--dest=org.fedoraproject.FirewallD1", path]
    attempt = installed.begin_as(user, *call, f"org.fedoraproject.FirewallD1.{interface}.{member}", *arguments)
    if attempt.wait(20) == 0:
        return True
    assert re.search(r"NotAuthorizedException: Not Authorized(\(polkit\))?: org.fedoraproject", attempt.stderr.text)
    return False


# --- what systemd itself says of the units


@pytest.mark.parametrize(("dropin", "threshold"), [(None, 20), (WITHOUT_SNIFFING, 15)], ids=["as it is", "no sniffing"])
def test_unit_is_rated_as_well_sandboxed_by_systemd(tmp_path: Path, dropin: Path | None, threshold: int) -> None:
    copy = tmp_path / UNIT.name
    # Not every systemd reads drop-ins offline: the last line counts, in whatever file it is.
    more = dropin.read_text().partition("[Service]")[2] if dropin is not None else ""
    copy.write_text(UNIT.read_text().replace("[Install]", f"{more}\n[Install]"))
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", str(copy)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Overall exposure level" in rated.stdout
    assert rated.returncode == 0, rated.stdout[-300:]


@pytest.mark.parametrize("unit", [UNIT, COMMANDS_UNIT], ids=lambda unit: unit.stem)
@pytest.mark.parametrize("dropin", [None, WITHOUT_SNIFFING], ids=["as it is", "without sniffing"])
def test_units_pass_systemd_analyze_verify(tmp_path: Path, unit: Path, dropin: Path | None) -> None:
    # Its program and its manual pages are not installed here.
    text = unit.read_text().replace("/usr/bin/port-knocking-doors", "/bin/true")
    copy = tmp_path / unit.name
    copy.write_text(re.sub("^Documentation=.*\n", "", text, flags=re.MULTILINE))
    if dropin is not None:
        (tmp_path / f"{unit.name}.d").mkdir()
        (tmp_path / f"{unit.name}.d" / dropin.name).write_text(dropin.read_text())
    found = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    # Other units of this machine do not matter.
    assert [line for line in found.stderr.splitlines() if copy.stem in line] == []
    assert found.returncode == 0 or copy.stem not in found.stderr


@pytest.mark.parametrize("unit", [UNIT, COMMANDS_UNIT], ids=lambda unit: unit.stem)
def test_unit_waits_until_every_door_can_be_closed(unit: Path) -> None:
    patience = float(confine.last(confine.read(str(unit)), "TimeoutStopSec"))
    assert patience > commands.FAREWELL + time_to_close(Settings().max_open_doors)


# --- what the unit promises, with a real polkitd


def test_service_user_with_one_capability_serves_reloads_and_ends(users: Sandbox, tmp_path: Path) -> None:
    client, stranger = users.hosts["client"], users.hosts["stranger"]
    conf = write_sniffing(tmp_path, {"duration": 300}, max_opened_door_duration=300)
    installed = Installation(users, tmp_path, conf)
    installed.install_rule()
    systemd = installed.listen()
    daemon = installed.begin("ExecStart", "--conf", CONF)
    daemon.wait_for(r"\bready\b", 20)
    systemd.stdout.wait_for("READY=1", NOTICE)

    held = status(users, daemon)
    assert USER in users.server.run(["id", "-un", held["Uid"].split()[0]]).stdout
    assert {int(held[f"Cap{which}"], 16) for which in ("Eff", "Prm", "Amb", "Bnd")} == {CAP_NET_RAW}
    assert (held["NoNewPrivs"], held["Seccomp"], held["Groups"]) == ("1", "2", "")

    with users.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        whole_sequence(stranger, stranger.server4)
        await_open(stranger)

        # The loop says that it is alive for as long as it is.
        said_so_far = len(systemd.stdout.lines)
        systemd.stdout.wait_for("WATCHDOG=1", NOTICE, start=said_so_far)

        said_so_far = len(systemd.stdout.lines)
        users.server.run(["setpriv", f"--reuid={USER}", "--clear-groups", "kill", "-HUP", str(daemon.inner_pid)])
        daemon.wait_for("configuration reloaded")
        systemd.stdout.wait_for(r"RELOADING=1 MONOTONIC_USEC=\d+", NOTICE, start=said_so_far)
        wait_until(lambda: "READY=1" in systemd.stdout.lines[said_so_far:], NOTICE, "notified of the reload's end")
        assert state(client) == "open"

        # Root and its own user may read its status and command it; other users may not.
        assert len(json.loads(asked(users, "status", "--json", *MARK).stdout)["doors"]) == 2
        own = installed.begin_as(USER, *PROGRAM, "close", str(stranger.address4), "--conf", CONF)
        assert own.wait(20) == 0
        assert state(stranger) == "prohibited"
        other = installed.begin_as(OTHER, *PROGRAM, "close", "--all", *MARK)
        assert other.wait(20) == 1
        assert re.fullmatch(r"port-knocking-doors: permission denied: .* \(run as root: .*\n", other.stderr.text)
        assert state(client) == "open"

        daemon.terminate()
        assert daemon.wait(NOTICE) == 0
        systemd.stdout.wait_for("STOPPING=1", NOTICE)
        assert nothing_marked(users)
        post = installed.begin("ExecStopPost", "sweep")
        assert post.wait(NOTICE) == 0
        assert post.stderr.text == "", "there was nothing to do"
        log_of_no_trouble(daemon)

        for sweeper in ("ExecStopPost", "root"):
            killed = installed.begin("ExecStart", "--conf", CONF)
            killed.wait_for(r"\bready\b", 20)
            knock(client, client.server4)
            await_open(client)
            kill_with_crash_guard(users, killed)
            assert marked(users.rules())
            if sweeper == "root":
                swept = asked(users, "sweep")
                assert (swept.returncode, "6 rules removed" in swept.stderr) == (0, True)
            else:
                post = installed.begin("ExecStopPost", "sweep")
                assert post.wait(2 * NOTICE) == 0
                assert said(post, "closed the doors of a daemon that ended without doing so: 6 rules removed")
            assert state(client) == "prohibited"
            assert nothing_marked(users)


def test_other_user_may_not_change_firewall_and_log_says_why(users: Sandbox, tmp_path: Path) -> None:
    client = users.hosts["client"]
    installed = Installation(users, tmp_path, write_configuration(tmp_path, max_opened_door_duration=300))
    systemd = installed.listen()
    daemon = installed.begin("ExecStart", "--conf", CONF)
    missing = daemon.wait_for("ERROR")
    assert re.search(r"FirewallD1\.config", missing)
    assert f"user {USER}" in missing
    assert "install /etc/polkit-1/rules.d/50-port-knocking-doors.rules" in missing
    waits = daemon.wait_for("accepting knocks")
    assert "firewalld refuses" in waits
    assert not said(daemon, r"\bready\b")
    systemd.stdout.wait_for("READY=1", NOTICE)
    systemd.stdout.wait_for("STATUS=waiting for firewalld, which refuses", NOTICE)
    status = json.loads(asked(users, "status", "--json", *MARK).stdout)
    assert (status["firewalld"], status["rules"]) == ("refusing", 0)
    found = asked(users, "doctor", "--conf", CONF)
    assert found.returncode == 1
    assert re.search(
        "^PROBLEM  daemon: firewalld denies it every change: .*the polkit rule", found.stdout, re.MULTILINE
    )
    assert re.search("^ok +firewalld: this user may change it", found.stdout, re.MULTILINE)
    own = installed.begin_as(USER, *PROGRAM, "doctor", "--conf", CONF)
    assert own.wait(60) == 1
    assert re.search(
        "^PROBLEM +firewalld: permission denied .*org.fedoraproject.FirewallD1.*: run as root",
        own.stdout.text,
        re.MULTILINE,
    )

    # As soon as the rule is there it works: nothing needs to be started again.
    installed.install_rule()
    daemon.wait_for(r"\bready\b", 20)
    own = installed.begin_as(USER, *PROGRAM, "doctor", "--conf", CONF)
    assert own.wait(60) in (0, 1)
    assert re.search("^ok +firewalld: this user may change it", own.stdout.text, re.MULTILINE)
    assert not re.search("^PROBLEM", own.stdout.text, re.MULTILINE)
    with users.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)

        refused = {(user, what) for user in (USER, OTHER) for what in CALLS if not obeys(installed, user, *CALLS[what])}
        assert refused == {(OTHER, what) for what in CALLS} | {(USER, "more than it needs"), (USER, "the lockdown")}
        assert MINE in users.firewall_cmd("--list-rich-rules"), "so no other process removed it"
        assert state(client) == "open"
        daemon.terminate()
        assert daemon.wait(NOTICE) == 0
        await_closed(client)


def test_service_without_sniffed_sequence_needs_no_capability(users: Sandbox, tmp_path: Path) -> None:
    client = users.hosts["client"]
    installed = Installation(users, tmp_path, write_configuration(tmp_path))
    installed.install_rule()
    daemon = installed.begin("ExecStart", "--conf", CONF, units=(UNIT, WITHOUT_SNIFFING))
    daemon.wait_for(r"\bready\b", 20)
    held = status(users, daemon)
    assert {int(held[f"Cap{which}"], 16) for which in ("Eff", "Prm", "Inh", "Amb", "Bnd")} == {0}
    with users.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        daemon.terminate()
        assert daemon.wait(NOTICE) == 0
        await_closed(client)
    log_of_no_trouble(daemon)


def test_unit_for_commands_is_confined_and_keeps_its_mark(users: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    installed = Installation(users, tmp_path, conf)
    service = installed.begin("ExecStart", "--conf", CONF, units=(COMMANDS_UNIT,))
    service.wait_for(r"\bready\b", 20)
    assert json.loads(asked(users, "status", "--json", *MARK).stdout)["pid"] == service.inner_pid
    conf.write_text(conf.read_text().replace("21", "22"))  # no port that the first one has
    second = users.server.popen([*PROGRAM, "--conf", str(conf)])
    assert second.wait(20) == 1
    assert f"is already running, as process {service.inner_pid}, with the mark" in second.stderr.text
    service.terminate()
    assert service.wait(NOTICE) == 0
