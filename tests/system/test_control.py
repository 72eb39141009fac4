"""The commands against a running daemon, and what they do to its doors."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import (
    GUARDED,
    SEQUENCE,
    begin_daemon,
    door_rule,
    doors,
    knock,
    knock_port_rules,
    start_daemon,
    wait_open,
    wait_shut,
    write_configuration,
)
from tests.helpers.sniffed import sniffing
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
MARK = ["--priority", "31313"]
SOCKET = "/run/port-knocking-doors/control-31313.sock"


def command(box: Sandbox, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command; whatever it says, no port of the sequence is in it and no traceback."""
    done = box.server.run([*PROGRAM, *words], check=False, timeout=60)
    assert not any(str(port) in done.stdout + done.stderr for port in SEQUENCE)
    assert "Traceback" not in done.stderr
    return done


def output_of(box: Sandbox, *words: str) -> str:
    """The output of a command, which must succeed."""
    done = command(box, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_status_shows_doors_knockers_and_counters(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    stranger = box.hosts["stranger"]
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=600, ignoring_period_after_knock_error=600)
    conf = str(tmp_path / "port_knocker.toml")
    knock(client, client.server4)
    daemon.wait_for("opened")
    knock(client, client.server4, SEQUENCE[:3])
    knock(stranger, stranger.server4, [SEQUENCE[0], *[SEQUENCE[2]] * 5])
    daemon.wait_for("address ignored")

    data = json.loads(output_of(box, "status", "--json", "--conf", conf))
    (door,), (ahead, ignored) = data["doors"], data["knockers"]
    assert 0 < door.pop("seconds_left") <= 600
    assert door == {
        "address": str(client.address4),
        "sequence": "main",
        "opens": [f"{GUARDED}/tcp"],
        "interface": "to-client",
        "zones": ["public"],
        "standing": "open",
    }
    assert (ahead["address"], ahead["progress"]) == (str(client.address4), [["main", 3]])
    assert (ignored["address"], ignored["progress"]) == (str(stranger.address4), [])
    assert 0 < ignored["ignored_seconds"] <= 600
    assert (data["listeners"], data["firewalld"], data["rules"], data["configuration"]) == (5, "present", 6, conf)

    table = output_of(box, "--conf", conf, "status")
    assert re.search(rf"^  {client.address4} +main +{GUARDED}/tcp +public +open +\d+ (s|min)$", table, re.MULTILINE), (
        table
    )
    assert re.search(rf"^  {stranger.address4} .* ago +- +\d+ (s|min)$", table, re.MULTILINE), table

    text = output_of(box, "status", "--prometheus", *MARK) + "\n"
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert samples["port_knocking_doors_up"] == 1
    assert samples["port_knocking_doors_wrong_knocks_total"] == 5
    assert samples["port_knocking_doors_knockers_ignored"] == 1


def test_open_close_and_forget_work_by_hand(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=600, ignoring_period_after_knock_error=600)
    stranger = box.hosts["stranger"]
    with box.server.listen(GUARDED):
        said = output_of(box, "open", f"::ffff:{client.address4}", *MARK)
        assert re.fullmatch(rf"{client.address4}: open: {GUARDED}/tcp by main in zone public for \S+ s", said)
        assert client.connect(client.server4, GUARDED) == "open"
        assert stranger.connect(stranger.server4, GUARDED) == "prohibited"
        assert output_of(box, "open", "fd00:0:0:1::2", "--sequence", "main", *MARK).startswith("fd00:0:0:1::2: open: ")
        assert output_of(box, "close", str(client.address4), *MARK) == "1 door closed"
        assert client.connect(client.server4, GUARDED) == "prohibited"
        assert client.connect(client.server6, GUARDED) == "open"
        assert output_of(box, "close", "--all", *MARK) == "1 door closed"
        assert doors(box) == []

        knock(client, client.server4, SEQUENCE[1:2] * 5)
        daemon.wait_for("address ignored")
        assert output_of(box, "forget", str(client.address4), *MARK) == f"{client.address4}: forgotten"
        knock(client, client.server4)
        wait_open(client, client.server4)

    for words, status, text in (
        (["open", str(client.address4), "-s", "nosuch"], 2, "there is no sequence 'nosuch', expected one of: main"),
        (["close", "10.0.0.0/8"], 2, "ADDRESS: not an address"),
        (["status", "--priority", "12345"], 1, "no daemon runs with the mark rule_priority = 12345"),
    ):
        done = command(box, *words, *([] if "--priority" in words else MARK))
        assert (done.returncode, done.stdout) == (status, "")
        assert re.fullmatch(f"port-knocking-doors: .*{re.escape(text)}.*\n", done.stderr)


def test_command_door_closed_while_its_start_command_runs_counts_as_opened(box: Sandbox, tmp_path: Path) -> None:
    go, stopped = tmp_path / "go", tmp_path / "stopped"
    table = {
        "start_command": f"until [ -e {go} ]; do sleep 0.05; done",
        "stop_command": f"touch {stopped}",
        "command_delay": 600,
    }
    sniffing(box, tmp_path, {"open": None, "duration": None, **table})

    def counts() -> tuple[int, int]:
        counted = json.loads(output_of(box, "status", "--json", *MARK))["counts"]
        return counted["opened"], counted["closed"]

    output_of(box, "open", "10.9.9.9", "--sequence", "door", *MARK)
    output_of(box, "close", "10.9.9.9", *MARK)
    assert counts() == (0, 0), "it is not open yet, and was not closed"
    go.touch()
    wait_until(stopped.exists, 20, "the stop command")
    wait_until(lambda: counts() == (1, 1), 20, lambda: f"opened and closed: {counts()}")


def test_open_by_hand_prolongs_knocked_door_in_its_zone(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """By hand no interface is known, so a second door would be opened in the default zone."""
    box.firewall_cmd("--zone=internal", f"--change-interface={client.server_interface}")
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=600)
    knock(client, client.server4)
    daemon.wait_for(f"{client.address4}: opened {GUARDED}/tcp in zone internal")
    said = output_of(box, "open", str(client.address4), *MARK)
    assert f"open: {GUARDED}/tcp by main in zone internal" in said
    assert (doors(box, "internal"), doors(box)) == ([door_rule(client.address4)], [])
    daemon.wait_for(f"{client.address4}: prolonged {GUARDED}/tcp")


def test_hung_firewalld_is_reported_and_no_door_is_called_open(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=600)
    box.firewalld.freeze()
    assert "not open yet, firewalld has not confirmed it" in output_of(box, "open", str(client.address4), *MARK)
    daemon.wait_for("firewalld does not answer", 20)
    status = output_of(box, "status", "--json", *MARK)
    assert '"hung"' in status
    assert '"standing": "waiting"' in status
    box.firewalld.thaw()
    daemon.wait_for(f"opened {GUARDED}/tcp", 20)
    assert doors(box) == [door_rule(client.address4)]
    box.firewalld.freeze()
    said = output_of(box, "close", "--all", *MARK)
    assert said.startswith("1 door closed\nOf these, 1 are still open: firewalld has not answered yet")
    box.firewalld.thaw()
    wait_until(lambda: doors(box) == [], 20, "the door is gone")


def test_reload_command_acts_as_sighup(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=600)
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        wait_open(client, client.server4)
        other = [port + 1000 for port in SEQUENCE]
        conf = write_configuration(tmp_path, opening_sequence=other, max_opened_door_duration=600)
        assert output_of(box, "reload", *MARK) == "Configuration reloaded"
        # Whatever happens to a door's rule would show within the reload's own time: it is settled when it returns.
        assert client.connect(client.server4, GUARDED) == "open"

    def rules() -> set[str]:
        return {rule for rule in box.rules() if "source address" not in rule}

    wait_until(lambda: rules() == knock_port_rules(other), 10, "only the new knock ports are let through")
    conf.write_text(conf.read_text() + "bogus = 1\n")
    done = command(box, "reload", *MARK)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"port-knocking-doors: {conf}:\d+: the key bogus is unknown.*\n", done.stderr)
    daemon.wait_for("ERROR configuration reload failed, keeping the running one: .*bogus")
    daemon.send_signal(signal.SIGHUP)
    wait_until(
        lambda: len([line for line in daemon.stderr.lines if "reload failed" in line]) == 2,
        10,
        "SIGHUP says the same",
    )


def test_socket_is_removed_at_end_and_replaced_after_kill(box: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    for number in (signal.SIGKILL, signal.SIGTERM):
        daemon = begin_daemon(box, conf)
        daemon.wait_for(r"\bready\b", 30)
        assert box.server.run(["stat", "-c", "%a %F", SOCKET]).stdout.strip() == "600 socket"
        output_of(box, "status", *MARK)
        daemon.send_signal(number)
        daemon.wait(20)
        is_left = box.server.run(["test", "-e", SOCKET], check=False).returncode == 0
        assert is_left is (number == signal.SIGKILL)
        done = command(box, "status", *MARK)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "no daemon runs with the mark rule_priority = 31313" in done.stderr
    done = command(box, "status", "--prometheus", *MARK)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "port_knocking_doors_up 0"


def test_two_daemons_are_addressed_by_their_marks(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path, max_opened_door_duration=600)
    other = tmp_path / "other"
    other.mkdir()
    ports = [port + 1000 for port in SEQUENCE]
    start_daemon(box, other, rule_priority=77, opening_sequence=ports, max_opened_door_duration=600)
    conf = str(other / "port_knocker.toml")
    output_of(box, "open", str(client.address4), *MARK)
    output_of(box, "open", str(client.address4), "--conf", conf)
    assert (doors(box), doors(box, priority=77)) == (
        [door_rule(client.address4)],
        [door_rule(client.address4, priority=77)],
    )
    assert output_of(box, "close", "--all", "--conf", conf) == "1 door closed"
    assert (doors(box), doors(box, priority=77)) == ([door_rule(client.address4)], [])
    done = command(box, "status", "--priority", "78")
    assert (done.returncode, done.stdout) == (1, "")
    assert "name one that runs: --priority 77 or 31313" in done.stderr


def test_daemon_in_place_of_knockd_is_addressed_by_its_mark(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = tmp_path / "knockd.conf"
    ports = ",".join(map(str, SEQUENCE))
    conf.write_text(f"[a]\nsequence = {ports}\nstart_command = true\ncmd_timeout = 600\nstop_command = true\n")
    daemon = box.server.popen([*PROGRAM, "knockd", "-c", str(conf), "-i", "to-client"])
    daemon.wait_for(r"\bready\b", 20)
    done = command(box, "status", *MARK)
    named = re.search(r"name one that runs: (--priority) (\d+)$", done.stderr.strip())
    assert named, done.stderr
    mark = named.groups()
    assert "Firewalld: unused\n" in output_of(box, "status", *mark)
    assert "a command by a" in output_of(box, "open", str(client.address4), "--sequence", "a", *mark)
    wait_until(
        lambda: "  command  -     open " in output_of(box, "status", *mark), 20, "its command has ended", every=0.2
    )
    conf.write_text(conf.read_text().replace("21003", "71003"))
    done = box.server.run([*PROGRAM, "reload", *mark], check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{conf}:2: Sequence: position 2: port 71003 is out of range" in done.stderr
    assert output_of(box, "close", str(client.address4), *mark) == "1 door closed"


def test_watched_status_redraws_and_restores_terminal(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=600)
    ours, theirs = pty.openpty()
    try:
        watching = box.server.popen([*PROGRAM, "status", "--watch", "--every", "0.1", *MARK], stdout=theirs)
        os.close(theirs)
        seen = bytearray()

        def shows(what: bytes) -> Callable[[], bool]:
            def look() -> bool:
                with suppress(OSError):  # the other end is closed
                    while select.select([ours], [], [], 0)[0]:
                        seen.extend(os.read(ours, 65536))
                return what in seen

            return look

        wait_until(shows(b"Doors: 0 of 1024"), 30, "the table is there")
        knock(client, client.server4)
        wait_until(shows(b"Doors: 1 of 1024"), 10, "the new door is there")
        daemon.send_signal(signal.SIGTERM)
        wait_until(shows(b"no daemon runs"), 20, "the daemon's end is there")
        start_daemon(box, tmp_path)
        before = len(seen)
        wait_until(lambda: shows(b"")() and b"Doors: 0 of 1024" in seen[before:], 20, "the next daemon is there")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
        wait_until(shows(b"\x1b[?25h\x1b[?1049l"), 10, "the terminal is as it was")
        frames = bytes(seen).split(b"\x1b[H")
        assert frames[0] == b"\x1b[?1049h\x1b[?25l"
        assert len(frames) > 3
        assert b"\x1b[2J" not in seen  # nothing is blanked ahead of being drawn
        assert watching.stderr.text == ""
    finally:
        os.close(ours)


def test_hostile_connections_delay_no_door(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """Idle, chattering, deaf and dying ones, more than the daemon accepts, while a client knocks."""
    start_daemon(box, tmp_path, max_opened_door_duration=1)
    hostile = f"""
import socket, sys, time
def one(data):
    s = socket.socket(socket.AF_UNIX); s.setblocking(False)
    try:
        s.connect({SOCKET!r}); s.send(data)
    except OSError: pass
    return s
print("up", file=sys.stderr, flush=True)
end = time.monotonic() + 60
words = b"", b"[" * 4000, b"\\xff\\n", b'{{"do":"status"}}\\n', b'{{"do":"watch","seconds":9}}\\n'
while time.monotonic() < end:
    held = [one(data) for data in words * 8]
    time.sleep(0.02)
"""
    with box.server.listen(GUARDED):
        running = box.server.popen([sys.executable, "-c", hostile])
        running.wait_for("up", 20)
        for _ in range(3):
            knock(client, client.server4)
            assert wait_open(client, client.server4) < 3
            wait_shut(client, client.server4)
        running.kill()

    def answers() -> bool:
        return command(box, "status", *MARK).returncode == 0

    wait_until(answers, 30, "status answers again", every=0.2)
    started = time.monotonic()
    output_of(box, "close", "--all", *MARK)
    assert time.monotonic() - started < 30
