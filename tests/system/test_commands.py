"""Start and stop commands, through the daemon."""

import signal
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.running import GUARDED, wait_open
from tests.helpers.sniffed import sniffing, whole_sequence
from tests.helpers.waiting import wait_until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "ran"
    path.touch()
    return path


def with_commands(
    box: Sandbox, folder: Path, log: Path, *, delay: float = 300, stop: bool = True, **more: object
) -> Process:
    table: dict[str, object] = {"open": None, "duration": None, "start_command": f"echo start %IP% >>{log}", **more}
    if stop:
        table |= {"stop_command": f"echo stop %IP% >>{log}", "command_delay": delay}
    return sniffing(box, folder, table)


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
