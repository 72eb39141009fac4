"""firewalld reloads, restarts, hangs, crashes and is changed by others: doors follow, seen from the client's host."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from port_knocking_doors.model import RULE_PRIORITY
from port_knocking_doors.sandbox import Sandbox
from port_knocking_doors.sandbox.process import Process
from tests.helpers.bus_spam import spam
from tests.helpers.doorstep import (
    KNOCKER,
    MARK,
    NOTICE,
    a_door_rule,
    await_closed,
    await_open,
    closed_at,
    door_rules,
    gaps,
    kill_with_crash_guard,
    knock_port_rules,
    marked,
    nothing_marked,
    one_more_try,
    past,
    said,
    state,
)
from tests.helpers.running import GUARDED, SEQUENCE, begin_daemon, knock, start_daemon, write_configuration
from tests.helpers.waiting import wait_until

LATE = 1.0
"""Seconds after its deadline at which a door has to be shut, on a busy machine; it takes some milliseconds."""
RELOAD_GAP = 2.0
"""Seconds that a reload may keep a knocker out; most of them are firewalld's own."""
CALL_TIMEOUT = 5.0
"""What the daemon gives firewalld for an answer."""
STATUS = [sys.executable, "-m", "port_knocking_doors", "status", "--priority", str(RULE_PRIORITY)]


# --- reloads


@pytest.mark.parametrize("how", ["--reload", "--complete-reload"])
def test_firewalld_reload_restores_open_door_for_the_time_left(box: Sandbox, tmp_path: Path, how: str) -> None:
    client, duration = box.hosts["client"], 4.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    with box.server.listen(GUARDED), client.watch_connect(client.server4, GUARDED) as watch:
        knock(client, client.server4)
        deadline = time.monotonic() + duration
        await_open(client)
        box.firewall_cmd(how)
        await_open(client)
        await_closed(client, duration + NOTICE)
        one_more_try()
    assert sum(end - start for start, end in gaps(watch.attempts)) < RELOAD_GAP
    assert -0.1 < closed_at(watch.attempts) - deadline < LATE
    assert len(said(daemon, "was reloaded")) == 1


def test_ten_firewalld_reloads_leave_one_rule_for_each_door(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=60)
    knock(client, client.server4)
    with box.server.listen(GUARDED):
        await_open(client)
        before = marked(box.rules())
        for _ in range(10):
            box.firewalld.ask("", "reload", timeout=20)
        wait_until(lambda: marked(box.rules()) == before, NOTICE, lambda: str(box.rules()))
        assert box.nft().count(f"{client.address4} tcp dport {GUARDED}") == 1
        assert state(client) == "open"
        assert len(said(daemon, "opened")) == 1
        daemon.terminate()
        assert daemon.wait(NOTICE) == 0
        assert state(client) == "prohibited"


# --- restarts


def test_firewalld_restart_restores_open_door_for_the_time_left(box: Sandbox, tmp_path: Path) -> None:
    client, duration = box.hosts["client"], 5.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    with box.server.listen(GUARDED), client.watch_connect(client.server4, GUARDED) as watch:
        knock(client, client.server4)
        deadline = time.monotonic() + duration
        await_open(client)
        box.firewalld.restart()
        wait_until(lambda: door_rules(box) == [a_door_rule(client.address4)], NOTICE, "the door's rule")
        assert len(knock_port_rules(box)) == len(SEQUENCE)
        assert state(client) == "open"
        await_closed(client, duration + NOTICE)
        one_more_try()
    assert -0.1 < closed_at(watch.attempts) - deadline < LATE
    daemon.wait_for("closed")
    assert len(said(daemon, "opened")) == len(said(daemon, "closed")) == len(said(daemon, "firewalld has stopped")) == 1


def test_knock_while_firewalld_is_stopped_opens_once_it_is_back(box: Sandbox, tmp_path: Path) -> None:
    client, duration = box.hosts["client"], 6.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    box.firewalld.stop()
    daemon.wait_for("firewalld has stopped")
    knock(client, client.server4)
    deadline = time.monotonic() + duration
    daemon.wait_for("door pending until firewalld runs")
    assert not said(daemon, "opened")
    with box.server.listen(GUARDED):
        box.firewalld.start()
        daemon.wait_for("opened")
        assert state(client) == "open"
        assert state(box.hosts["stranger"]) == "prohibited"
        await_closed(client, duration + NOTICE)
        assert -0.1 < time.monotonic() - deadline < LATE


def test_knock_while_firewalld_is_stopped_for_too_long_opens_nothing(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=0.3)
    box.firewalld.stop()
    daemon.wait_for("firewalld has stopped")
    knock(client, client.server4)
    daemon.wait_for("never opened")
    with box.server.listen(GUARDED), client.watch_connect(client.server4, GUARDED) as watch:
        box.firewalld.start()
        wait_until(lambda: len(knock_port_rules(box)) == len(SEQUENCE), NOTICE, "the knock ports' rules")
        watch.stop()
        outcomes = [attempt.outcome for attempt in watch.attempts]
        assert "open" not in outcomes[outcomes.index("prohibited") :]
    assert door_rules(box) == []
    assert not said(daemon, r"(?<!never )opened")


def test_door_open_when_firewalld_stopped_is_pending_at_next_knock(box: Sandbox, tmp_path: Path) -> None:
    """firewalld has confirmed neither that it is closed nor that it is open again."""
    client, duration = box.hosts["client"], 2.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    knock(client, client.server4)
    deadline = time.monotonic() + duration
    daemon.wait_for(f"{client.address4}: opened")
    box.firewalld.stop()
    daemon.wait_for("firewalld has stopped")
    past(deadline + 0.2)
    knock(client, client.server4)
    daemon.wait_for("door pending until firewalld runs")
    (door,) = json.loads(box.server.run([*STATUS, "--json"]).stdout)["doors"]
    assert door["standing"] == "waiting"
    daemon.wait_for("never opened")
    assert len(said(daemon, r"(?<!never )opened")) == 1


def test_door_that_expires_while_firewalld_restarts_stays_closed(box: Sandbox, tmp_path: Path) -> None:
    client, duration = box.hosts["client"], 1.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    knock(client, client.server4)
    deadline = time.monotonic() + duration
    daemon.wait_for("opened")
    box.firewalld.stop()
    past(deadline)
    with box.server.listen(GUARDED):
        box.firewalld.start()
        daemon.wait_for("closed")
        assert state(client) == "prohibited"
    assert door_rules(box) == []


def test_firewalld_crash_restores_door_which_then_closes(box: Sandbox, tmp_path: Path) -> None:
    client, duration = box.hosts["client"], 4.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        box.firewalld.kill()
        box.firewalld.start()
        wait_until(lambda: door_rules(box) == [a_door_rule(client.address4)], NOTICE, "the door's rule")
        assert len(knock_port_rules(box)) == len(SEQUENCE)
        daemon.wait_for("closed")
        assert state(client) == "prohibited"
        assert door_rules(box) == []


# --- a firewalld that hangs


def test_hung_firewalld_is_logged_once_and_doors_open_later(box: Sandbox, tmp_path: Path) -> None:
    client, stranger, duration = box.hosts["client"], box.hosts["stranger"], 11.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration, firewall_rules_check_periode_seconds=0.2)
    with box.server.listen(GUARDED):
        box.firewalld.freeze()
        knock(client, client.server4)
        deadline = time.monotonic() + duration
        daemon.wait_for("does not answer", CALL_TIMEOUT + NOTICE)
        knock(stranger, stranger.server4)
        assert not said(daemon, "opened")
        box.firewalld.thaw()
        await_open(client)
        await_open(stranger)
        # The door is open a moment before firewalld has confirmed it.
        wait_until(lambda: len(said(daemon, "opened")) == 2, NOTICE, "both doors logged")
        assert len(said(daemon, "does not answer")) == len(said(daemon, "firewalld answers")) == 1
        await_closed(client, duration)
        assert -0.1 < time.monotonic() - deadline < LATE


@pytest.mark.parametrize("given_up", [False, True], ids=["before the call is given up", "after it was given up"])
def test_late_answer_of_hung_firewalld_leaves_no_door(box: Sandbox, tmp_path: Path, given_up: bool) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=0.3)
    box.firewalld.freeze()
    knock(client, client.server4)
    daemon.wait_for("never opened")
    if given_up:
        daemon.wait_for("does not answer", CALL_TIMEOUT + NOTICE)
    with box.server.listen(GUARDED):
        box.firewalld.thaw()
        # firewalld answers after it has added the rule that it was asked for while it hung.
        assert box.firewalld.answers(NOTICE)
        await_closed(client)
        wait_until(lambda: door_rules(box) == [], NOTICE, "no rule")
        assert len(knock_port_rules(box)) == len(SEQUENCE)
    assert not said(daemon, r"(?<!never )opened")


def test_door_closes_once_hung_firewalld_resumes(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=1)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        daemon.wait_for("opened")  # the rule is active before firewalld says so
        assert state(client) == "open"
        box.firewalld.freeze()
        daemon.wait_for("does not answer", CALL_TIMEOUT + NOTICE)
        assert state(client) == "open", "firewalld alone can close it"
        assert not said(daemon, "closed")
        box.firewalld.thaw()
        await_closed(client)
        daemon.wait_for("closed")


def test_hundred_knocks_in_outage_take_few_lines(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=20, ignoring_period_after_knock_error=0.1)
    box.firewalld.stop()
    daemon.wait_for("firewalld has stopped")
    before = len(daemon.stderr.lines)
    for _ in range(100):
        knock(client, client.server4, pause=0.001)
    box.firewalld.start()
    daemon.wait_for("opened")
    assert len(daemon.stderr.lines) - before < 30
    with box.server.listen(GUARDED):
        assert state(client) == "open"
    assert door_rules(box) == [a_door_rule(client.address4)]


# --- starting without firewalld


def test_daemon_started_before_firewalld_waits_and_says_so(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    box.firewalld.stop()
    daemon = begin_daemon(box, write_configuration(tmp_path))
    daemon.wait_for("firewalld is not running")
    assert not said(daemon, r"\bready\b")
    box.firewalld.start()
    daemon.wait_for(r"\bready\b")
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)


def test_daemon_started_under_hung_firewalld_waits_and_says_so(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    box.firewalld.freeze()
    daemon = begin_daemon(box, write_configuration(tmp_path))
    daemon.wait_for("firewalld does not answer")
    assert not said(daemon, r"\bready\b")
    box.firewalld.thaw()
    daemon.wait_for(r"\bready\b")
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)


def test_unknown_zone_ends_wait_for_firewalld_with_status_2(box: Sandbox, tmp_path: Path) -> None:
    box.firewalld.stop()
    daemon = begin_daemon(box, write_configuration(tmp_path, zone="nowhere"))
    daemon.wait_for("firewalld is not running")
    box.firewalld.start()
    assert daemon.wait(NOTICE) == 2
    assert len(said(daemon, "nowhere")) == 1
    assert not said(daemon, r"\bready\b|Traceback")
    assert nothing_marked(box)


# --- the bus


def test_daemon_reconnects_to_restarted_bus(box: Sandbox, tmp_path: Path) -> None:
    client, first = box.hosts["client"], box.firewalld.process
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=30)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        box.bus.restart()
        first.wait(NOTICE)
        box.firewalld.start()
        wait_until(lambda: door_rules(box) == [a_door_rule(client.address4)], NOTICE, "the door's rule")
        stranger = box.hosts["stranger"]
        knock(stranger, stranger.server6)
        await_open(stranger, ipv6=True)
        # The rules of a firewalld that lost its bus belong to no process until firewalld clears the table.
        box.firewall_cmd("--reload")
        wait_until(lambda: len(door_rules(box)) == 2, NOTICE, "both rules")
        daemon.terminate()
        assert daemon.wait(NOTICE) == 0
        assert (state(client), state(stranger, ipv6=True)) == ("prohibited", "prohibited")


def test_bus_that_hangs_for_a_moment_loses_nothing(box: Sandbox, tmp_path: Path) -> None:
    client, stranger, duration = box.hosts["client"], box.hosts["stranger"], 2.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        deadline = time.monotonic() + duration
        daemon.wait_for("opened")  # the rule is active before firewalld says so
        assert state(client) == "open"
        box.bus.freeze()
        past(deadline)
        knock(stranger, stranger.server4)
        assert state(stranger) == "prohibited"
        assert len(said(daemon, "opened")) == 1
        box.bus.thaw()
        await_closed(client)
        await_open(stranger)
        await_closed(stranger, duration + LATE)


def forge(box: Sandbox, interface: str, path: str, member: str, *arguments: str) -> None:
    """Broadcast a signal on the system bus, as any user of a machine may."""
    script = (
        "dbus-send --system --print-reply --dest=org.freedesktop.DBus /org/freedesktop/DBus"
        " org.freedesktop.DBus.ListNames | grep -o '\":[^\"]*' | tr -d '\"' |"
        ' while read -r name; do dbus-send --system --type=signal --dest="$name" "$@"; done'
    )
    box.server.run(["sh", "-c", script, "forge", path, f"{interface}.{member}", *arguments])


def test_signal_of_other_sender_does_not_report_firewalld_gone(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=2, firewall_rules_check_periode_seconds=0.2)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        news = ("string:org.fedoraproject.FirewallD1", "string:", "string:")
        forge(box, "org.freedesktop.DBus", "/org/freedesktop/DBus", "NameOwnerChanged", *news)
        await_closed(client, 2 + NOTICE)
        assert not said(daemon, "firewalld has stopped")
        daemon.terminate()
        assert daemon.wait(NOTICE) == 0
    assert nothing_marked(box)


def test_signal_of_other_sender_does_not_report_reload(box: Sandbox, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path)
    forge(box, "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1", "Reloaded")
    box.firewalld.ask("", "reload", timeout=20)
    daemon.wait_for("was reloaded")
    assert len(said(daemon, "was reloaded")) == 1


def test_signal_without_content_is_ignored(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path)
    forge(box, "org.freedesktop.DBus", "/org/freedesktop/DBus", "NameOwnerChanged")
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
    assert not said(daemon, "Traceback")


def test_large_signals_of_any_user_cost_neither_time_nor_memory(box: Sandbox, tmp_path: Path) -> None:
    """20 MB of variants, decoded, would block the daemon for many seconds and need 650 MB."""
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path)
    before, used = memory_peak(daemon), cpu_seconds(daemon)
    with box.server.listen(GUARDED):
        spam(box.server, megabytes=20, signals=3)
        knock(client, client.server4)
        await_open(client)
    assert memory_peak(daemon) - before < 16 * 1024
    assert cpu_seconds(daemon) - used < 3


def memory_peak(daemon: Process) -> int:
    """The most memory that was ever resident, in KiB."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def cpu_seconds(daemon: Process) -> float:
    """CPU time of the process so far (proc(5), `stat`: utime and stime)."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- administrators


def test_rule_removed_by_administrator_is_restored_by_check(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    start_daemon(box, tmp_path, firewall_rules_check_periode_seconds=0.3, max_opened_door_duration=3)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        for rule in marked(box.rules()):
            box.firewalld.ask("zone", "removeRichRule", "", rule)
        wait_until(lambda: len(knock_port_rules(box)) == len(SEQUENCE), NOTICE, "the knock ports' rules")
        await_open(client)
        await_closed(client, 3 + NOTICE)


@pytest.mark.parametrize("zone", ["public", "drop", "external"])
def test_leftover_marked_rule_is_removed_before_ready(box: Sandbox, tmp_path: Path, zone: str) -> None:
    client = box.hosts["client"]
    box.firewalld.ask("zone", "addRichRule", zone, a_door_rule(client.address4), 0)
    daemon = start_daemon(box, tmp_path)
    assert door_rules(box, zone) == []
    assert len(said(daemon, "carry our mark")) == 1
    with box.server.listen(GUARDED):
        assert state(client) == "prohibited"


def test_added_marked_rule_is_removed_by_check(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    start_daemon(box, tmp_path, firewall_rules_check_periode_seconds=0.3)
    with box.server.listen(GUARDED):
        box.firewalld.ask("zone", "addRichRule", "", a_door_rule(client.address4), 0)
        await_closed(client)
    assert door_rules(box) == []


OTHERS = {
    "no priority": f'rule family="ipv4" source address="10.0.1.2" port port="{GUARDED}" protocol="tcp" accept',
    "next to ours": 'rule priority="31314" family="ipv4" source address="10.9.9.9" accept',
    "the start of ours": 'rule priority="313" family="ipv4" source address="10.9.9.9" accept',
    "below zero": 'rule priority="-31313" family="ipv4" source address="10.9.9.9" accept',
    "our number elsewhere": 'rule family="ipv4" source address="10.9.9.9" port port="31313" protocol="tcp" accept',
    "another daemon's": 'rule priority="31000" port port="31313" protocol="udp" accept',
}


def test_rules_of_others_are_never_changed(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    for zone in ("public", "drop"):
        for rule in OTHERS.values():
            box.firewalld.ask("zone", "addRichRule", zone, rule, 0)
    box.firewall_cmd("--runtime-to-permanent")

    def others() -> list[list[str]]:
        now = [sorted(rule for rule in box.rules(zone) if MARK not in rule) for zone in ("public", "drop")]
        kept = box.firewall_cmd("--permanent", "--list-all-zones").splitlines()
        return [*now, sorted(line.strip() for line in kept if line.startswith("\trule") and MARK not in line)]

    before = others()
    assert [len(rules) for rules in before] == [len(OTHERS), len(OTHERS), 2 * len(OTHERS)]
    daemon = start_daemon(box, tmp_path, firewall_rules_check_periode_seconds=0.1, max_opened_door_duration=0.3)
    knock(client, client.server4)
    daemon.wait_for("closed")
    daemon.terminate()
    assert daemon.wait(NOTICE) == 0
    assert others() == before
    kill_with_crash_guard(box, start_daemon(box, tmp_path))
    last = start_daemon(box, tmp_path)
    last.terminate()
    assert last.wait(NOTICE) == 0
    assert others() == before


def test_two_daemons_with_different_marks_keep_each_others_rules(box: Sandbox, tmp_path: Path) -> None:
    client, theirs = box.hosts["client"], [port + 1000 for port in SEQUENCE]
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    start_daemon(box, folders[0], firewall_rules_check_periode_seconds=0.1, max_opened_door_duration=60)
    knock(client, client.server4)
    with box.server.listen(GUARDED):
        await_open(client)
        second = start_daemon(
            box,
            folders[1],
            opening_sequence=theirs,
            ports_to_controls=[GUARDED + 1],
            rule_priority=31000,
            firewall_rules_check_periode_seconds=0.1,
        )
        knock(client, client.server4, theirs)
        second.wait_for("opened")
        second.terminate()
        assert second.wait(NOTICE) == 0
        assert state(client) == "open"
    assert 'priority="31000"' not in box.firewall_cmd("--list-all-zones")
    assert len(marked(box.rules())) == len(SEQUENCE) + 1


def permanent(box: Sandbox) -> list[str]:
    return [line for line in box.firewall_cmd("--permanent", "--list-all-zones").splitlines() if MARK in line]


def test_runtime_to_permanent_makes_no_open_door_permanent(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=4)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        box.firewall_cmd("--runtime-to-permanent")
        wait_until(lambda: not permanent(box), NOTICE, lambda: str(permanent(box)))
        daemon.wait_for("removed a rule of ours from firewalld's permanent configuration")
        assert state(client) == "open", "for now it is"
        daemon.wait_for("closed")
        box.firewall_cmd("--reload")
        assert state(client) == "prohibited"


def test_permanent_rule_of_dead_daemon_is_removed_at_next_start(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        first = start_daemon(box, tmp_path, max_opened_door_duration=60)
        knock(client, client.server4)
        await_open(client)
        kill_with_crash_guard(box, first)
        box.firewall_cmd("--runtime-to-permanent")
        assert len(permanent(box)) == len(SEQUENCE) + 1
        second = start_daemon(box, tmp_path)
        assert permanent(box) == []
        assert len(said(second, "permanent configuration")) == len(SEQUENCE) + 1
        box.firewall_cmd("--reload")
        assert state(client) == "prohibited"


def test_panic_mode_blocks_open_door_and_its_end_unblocks_it(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=5, firewall_rules_check_periode_seconds=0.2)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        box.firewall_cmd("--panic-on")
        assert client.connect(client.server4, GUARDED, timeout=0.2) == "timeout"
        box.firewall_cmd("--panic-off")
        await_open(client)
        assert door_rules(box) == [a_door_rule(client.address4)]
        await_closed(client, 5 + NOTICE)
    assert daemon.poll() is None


def test_firewalld_never_gets_a_timeout(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    monitor = box.server.popen(
        ["dbus-monitor", "--system", "type='method_call',member='addRichRule'", "type='signal',member='RichRuleAdded'"]
    )
    monitor.stdout.wait_for("NameAcquired|NameLost", 10)
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=0.5)
    knock(client, client.server4)
    daemon.wait_for("opened")
    box.firewalld.ask("", "reload", timeout=20)
    daemon.wait_for("closed")
    least = 3 * len(SEQUENCE) + 2  # at the least: a call and a signal for each, and the calls after the reload

    def numbers() -> list[str]:
        return [line.split()[-1] for line in monitor.stdout.lines if " int32 " in f"{line} "]

    wait_until(lambda: len(numbers()) >= least, NOTICE, lambda: monitor.stdout.text)
    assert set(numbers()) == {"0"}


# --- many


def from_each(box: Sandbox, what: str, addresses: list[str]) -> list[str]:
    """Knock, or connect, from many addresses of the client's host."""
    client = box.hosts["client"]
    argv = [sys.executable, "-c", KNOCKER, what, str(client.server4)]
    return client.run(argv, text="\n".join(addresses)).stdout.split()


def many_addresses(box: Sandbox, count: int) -> list[str]:
    client = box.hosts["client"]
    addresses = [f"10.0.1.{number}" for number in range(10, 10 + count)]
    commands = "".join(f"address add {address}/24 dev {client.interface}\n" for address in addresses)
    client.run(["ip", "-batch", "-"], text=commands)
    return addresses


def test_two_hundred_doors_open_and_close_at_their_deadline(box: Sandbox, tmp_path: Path) -> None:
    addresses, duration = many_addresses(box, 200), 8.0
    daemon = start_daemon(
        box, tmp_path, max_opened_door_duration=duration, ignoring_period_after_knock_error=0.1, max_knocker_live_time=1
    )

    def all_open() -> bool:
        opened = {line.split()[3].rstrip(":") for line in said(daemon, "opened")}
        if waiting := [address for address in addresses if address not in opened]:
            from_each(box, "knock", waiting)
        return not waiting

    with box.server.listen(GUARDED):
        assert "open" not in from_each(box, "connect", addresses)
        wait_until(all_open, duration, lambda: f"{len(said(daemon, 'opened'))} open", every=0.3)
        deadline = time.monotonic() + duration
        assert from_each(box, "connect", addresses) == 200 * ["open"]
        wait_until(lambda: len(said(daemon, "closed")) == 200, duration + NOTICE, "200 closed")
        assert time.monotonic() - deadline < 2 * LATE
        assert "open" not in from_each(box, "connect", addresses)
    assert door_rules(box) == []


def test_hundred_sequences_without_pause_are_no_wrong_knock(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=20)
    for _ in range(100):
        knock(client, client.server4)
    with box.server.listen(GUARDED):
        await_open(client)
    assert not said(daemon, "wrong knock")


def test_many_simultaneous_knockers_all_get_in(box: Sandbox, tmp_path: Path) -> None:
    addresses = many_addresses(box, 50)
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=20)
    from_each(box, "knock", addresses)
    with box.server.listen(GUARDED):
        wait_until(
            lambda: from_each(box, "connect", addresses) == 50 * ["open"],
            NOTICE,
            lambda: f"{len(said(daemon, 'opened'))} of 50 open",
        )
    assert not said(daemon, "wrong knock")
