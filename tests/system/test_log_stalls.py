"""A log that is not read (Ctrl-S, a pager, a hung journal) delays no door, and no end of one."""

import signal
import sys
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import Process, Sandbox
from tests.helpers.doorstep import NOTICE, await_closed, await_open, children, gone, nothing_marked, state
from tests.helpers.full_pipe import full_pipe
from tests.helpers.running import GUARDED, SEQUENCE, knock, write_configuration
from tests.helpers.waiting import wait_until

DURATION = 3.0
TO_THE_PIPE = ["sh", "-c", 'exec "$@" 2>"$0"']
LATE = 2.0
"""Seconds after its deadline, or after SIGKILL, at which a door has to be shut on a busy machine."""


def start_without_reader(box: Sandbox, folder: Path, pipe: Path, duration: float) -> Process:
    conf = write_configuration(folder, max_opened_door_duration=duration)
    program = [sys.executable, "-m", "port_knocking_doors", "--conf", str(conf), "--verbose"]
    daemon = box.server.popen([*TO_THE_PIPE, str(pipe), *program])
    listening = str(SEQUENCE[-1])
    wait_until(lambda: listening in box.server.run(["ss", "-lnu"]).stdout, 20, "the daemon listening")
    return daemon


@pytest.mark.parametrize("end", ["deadline", "SIGTERM", "SIGKILL"])
def test_log_that_is_not_read_keeps_no_door_open(box: Sandbox, tmp_path: Path, end: str) -> None:
    client = box.hosts["client"]
    with full_pipe(tmp_path / "log") as pipe, box.server.listen(GUARDED):
        duration = DURATION if end == "deadline" else 300.0
        daemon = start_without_reader(box, tmp_path, pipe.path, duration)
        family = children(box, daemon)
        wait_until(lambda: opened_by_a_knock(box), 10, "the door open")
        if end == "deadline":
            await_closed(client, duration + LATE)
        elif end == "SIGTERM":
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(NOTICE) == 0
            assert state(client) == "prohibited"
        else:
            daemon.kill()
            await_closed(client, LATE + NOTICE)
            wait_until(gone(box, family), NOTICE, "no helper left")
    if end != "deadline":
        assert nothing_marked(box)


def opened_by_a_knock(box: Sandbox) -> bool:
    """Whether a knock opened the door; the first one may come before the rules of the knock ports."""
    client = box.hosts["client"]
    knock(client, client.server4)
    return state(client) == "open"


def test_sweep_whose_output_is_not_read_closes_doors(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with full_pipe(tmp_path / "log") as pipe, box.server.listen(GUARDED):
        daemon = start_without_reader(box, tmp_path, pipe.path, 300)
        wait_until(lambda: opened_by_a_knock(box), 10, "the door open")
        box.server.run(["kill", "-KILL", *map(str, children(box, daemon)), str(daemon.inner_pid)])
        daemon.wait(NOTICE)
        await_open(client)
        sweep = [sys.executable, "-m", "port_knocking_doors", "sweep"]
        box.server.run([*TO_THE_PIPE, str(pipe.path), *sweep], timeout=20)
        assert state(client) == "prohibited"
    assert nothing_marked(box)
