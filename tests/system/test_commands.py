"""Start and stop commands, through the daemon."""

import signal
import sys
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.doorstep import kill_with_crash_guard
from tests.helpers.raw_knock import send_tcp
from tests.helpers.running import GUARDED, wait_open, wait_shut
from tests.helpers.sniffed import sniffing, whole_sequence, write_sniffing
from tests.helpers.waiting import wait_until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "ran"
    path.touch()
    return path


def with_commands(
    box: Sandbox, folder: Path, log: Path, *, delay: float = 300, stop: bool = True, **more: object
) -> Process:
    return sniffing(box, folder, the_table(log, delay=delay, stop=stop, **more))


def the_table(log: Path, *, delay: float = 300, stop: bool = True, **more: object) -> dict[str, object]:
    table: dict[str, object] = {"open": None, "duration": None, "start_command": f"echo start %IP% >>{log}"}
    if stop:
        table |= {"stop_command": f"echo stop %IP% >>{log}", "command_delay": delay}
    return {**table, **more}


def await_lines(log: Path, *lines: str, within: float = 5.0) -> None:
    wait_until(lambda: log.read_text().splitlines() == list(lines), within, lambda: f"{lines}; it is {log.read_text()}")


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_stop_command_runs_at_deadline(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path, family: str
) -> None:
    to, by = (client.server4, client.address4) if family == "IPv4" else (client.server6, client.address6)
    daemon = with_commands(box, tmp_path, log, delay=0.5)
    whole_sequence(client, to)
    await_lines(log, f"start {by}")
    await_lines(log, f"start {by}", f"stop {by}")
    daemon.wait_for("stop command ended with status 0")


def test_second_knock_extends_deadline_and_starts_nothing(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    daemon = with_commands(box, tmp_path, log, delay=1.5)
    whole_sequence(client, client.server4)
    await_lines(log, f"start {client.address4}")
    whole_sequence(client, client.server4)
    daemon.wait_for("prolonged door's command")
    await_lines(log, f"start {client.address4}", f"stop {client.address4}")


def test_start_command_without_stop_command_runs_at_each_knock(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    with_commands(box, tmp_path, log, stop=False)
    for count in (1, 2, 3):
        whole_sequence(client, client.server4)
        await_lines(log, *count * [f"start {client.address4}"])


def test_slow_start_command_delays_no_knock(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    with_commands(box, tmp_path, log, start_command=f"sleep 1; echo start %IP% >>{log}", open=[GUARDED], duration=5)
    stranger = box.hosts["stranger"]
    with box.server.listen(GUARDED):
        whole_sequence(client, client.server4)
        whole_sequence(stranger, stranger.server4)
        wait_open(stranger, stranger.server4, within=1.0)
        assert log.read_text() == ""


def test_shutdown_runs_stop_commands(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    daemon = with_commands(box, tmp_path, log)
    whole_sequence(client, client.server4)
    await_lines(log, f"start {client.address4}")
    daemon.terminate()
    assert daemon.wait(5) == 0
    await_lines(log, f"start {client.address4}", f"stop {client.address4}")


def test_killed_daemons_stop_commands_run_within_two_seconds(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    daemon = with_commands(box, tmp_path, log)
    whole_sequence(client, client.server4)
    await_lines(log, f"start {client.address4}")
    daemon.kill()
    await_lines(log, f"start {client.address4}", f"stop {client.address4}", within=2.0)


def test_next_start_after_kill_of_both_runs_stop_commands_before_ready(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    daemon = with_commands(box, tmp_path, log)
    whole_sequence(client, client.server4)
    await_lines(log, f"start {client.address4}")
    guard = box.server.run(["pgrep", "-P", str(daemon.inner_pid)]).stdout.split()
    box.server.run(["kill", "-STOP", str(daemon.inner_pid)])
    box.server.run(["kill", "-KILL", *guard])
    daemon.send_signal(signal.SIGKILL)
    daemon.wait(5)
    assert log.read_text().splitlines() == [f"start {client.address4}"]
    with_commands(box, tmp_path, log)
    await_lines(log, f"start {client.address4}", f"stop {client.address4}", within=0.5)


def test_failed_command_is_logged_with_its_status(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    daemon = with_commands(box, tmp_path, log, stop=False, start_command="exit 7")
    whole_sequence(client, client.server4)
    daemon.wait_for(f"WARNING {client.address4}: door: start command ended with status 7")


# --- what surrounds a command, by the end of the daemon too


def start_unread(box: Sandbox, folder: Path, table: dict[str, object], env: dict[str, str]) -> Process:
    """A daemon that is ready, whose standard error is a pipe that has lost its reader."""
    conf = write_sniffing(folder, table)
    line = 'exec 3>&1; { "$@" 2>&1 >&3 & echo $! >&3; } | { grep -m1 -o "\\bready\\b" >&3; }; wait'
    program = [sys.executable, "-m", "port_knocking_doors", "--conf", str(conf)]
    shell = box.server.popen(["bash", "-c", line, "bash", *program], env=env)
    shell.stdout.wait_for("ready", 20)
    return shell


@pytest.mark.parametrize("end", ["deadline", "SIGTERM", "SIGKILL"])
def test_stop_command_runs_whole_without_reader_or_variable_of_ours(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path, end: str
) -> None:
    stop = f"echo closing %IP%; yes | head -c 300000; echo stop $(env | grep -c ^PYTHON) >>{log}"
    delay = 1 if end == "deadline" else 300
    table = the_table(log, delay=delay, start_command=f"echo start $(env | grep -c ^PYTHON) >>{log}", stop_command=stop)
    shell = start_unread(box, tmp_path, table, {"PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "0"})
    pid = shell.stdout.lines[0]
    whole_sequence(client, client.server4)
    await_lines(log, "start 0")
    if end != "deadline":
        box.server.run(["kill", f"-{end.removeprefix('SIG')}", pid])
    await_lines(log, "start 0", "stop 0", within=4.0)
    recorded = ["sh", "-c", "ls /run/port-knocking-doors/pending-*"]
    wait_until(lambda: box.server.run(recorded).stdout == "", 2, "no record left")


def test_slow_commands_keep_no_rule_of_a_killed_daemon(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    table = the_table(log, start_command=f"sleep 60 & echo start >>{log}", stop_command="sleep 60")
    daemon = sniffing(box, tmp_path, {**table, "open": [GUARDED], "duration": 300})
    with box.server.listen(GUARDED):
        whole_sequence(client, client.server4)
        await_lines(log, "start")
        wait_open(client, client.server4)
        daemon.kill()
        wait_shut(client, client.server4, within=2.0)
    wait_until(
        lambda: box.server.run(["pgrep", "-cf", "sleep 60"]).stdout.strip() == "4", 2, "the stop command's shell"
    )


def test_start_command_alone_is_waited_for_after_a_kill(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    """What it left in the background is not: it inherits nothing."""
    daemon = with_commands(box, tmp_path, log, start_command=f"sleep 60 & sleep 0.5; echo start >>{log}")
    whole_sequence(client, client.server4)
    wait_until(lambda: box.server.run(["pgrep", "-c", "sleep"], check=False).stdout.strip() == "2", 5, "its sleeps")
    daemon.kill()
    await_lines(log, "start", f"stop {client.address4}", within=2.5)


# --- what a killed daemon with another mark left


@pytest.fixture
def knockd_conf(tmp_path: Path, log: Path) -> Path:
    path = tmp_path / "knockd.conf"
    path.write_text(
        f"[options]\n[door]\n sequence = 20511:tcp\n tcpflags = syn\n start_command = echo start >>{log}\n"
        f" stop_command = echo stop >>{log}\n cmd_timeout = 300\n"
    )
    return path


def begin_knockd(box: Sandbox, conf: Path, interface: str) -> Process:
    argv = [sys.executable, "-m", "port_knocking_doors", "knockd", "-c", str(conf), "-i", interface]
    daemon = box.server.popen(argv)
    daemon.wait_for(r"\bready\b", 20)
    return daemon


def test_start_with_another_interface_runs_a_dead_daemons_stop_command(
    box: Sandbox, client: ClientHost, log: Path, knockd_conf: Path
) -> None:
    interface = box.server.run(["sh", "-c", "ip -o link | grep -o 'to-[a-z]*' | head -1"]).stdout.strip()
    daemon = begin_knockd(box, knockd_conf, "to-*")
    send_tcp(client, client.server4, [(20511, "s")])
    await_lines(log, "start")
    kill_with_crash_guard(box, daemon)
    await_lines(log, "start")
    again = begin_knockd(box, knockd_conf, interface)
    await_lines(log, "start", "stop", within=0.5)
    again.wait_for("stop command, left behind by an earlier run, ended with status 0", 2)


def test_start_leaves_a_live_daemons_stop_command_alone(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path, knockd_conf: Path
) -> None:
    begin_knockd(box, knockd_conf, "to-*")
    send_tcp(client, client.server4, [(20511, "s")])
    await_lines(log, "start")
    other = with_commands(box, tmp_path, log)
    other.terminate()
    assert other.wait(5) == 0
    await_lines(log, "start")


def test_start_closes_what_a_dead_daemon_with_another_priority_opened(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    ports = {"open": [GUARDED], "duration": 300}
    daemon = sniffing(box, tmp_path, {**the_table(log), **ports})
    with box.server.listen(GUARDED):
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
        await_lines(log, f"start {client.address4}")
        kill_with_crash_guard(box, daemon)
        assert client.connect(client.server4, GUARDED) == "open"
        again = sniffing(box, tmp_path, {**the_table(log), **ports}, rule_priority=31000)
        assert client.connect(client.server4, GUARDED) == "prohibited"
        await_lines(log, f"start {client.address4}", f"stop {client.address4}", within=0.5)
        again.wait_for("closed the doors of a daemon that ended without doing so, with rule_priority = ", 2)
