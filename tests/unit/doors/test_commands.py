"""Commands of doors, with real shells."""

import asyncio
import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors.doors import commands, owed_stops, pending
from port_knocking_doors.doors.command_run import CommandRuns
from port_knocking_doors.doors.commands import CommandRunner, command_line
from port_knocking_doors.doors.owed_stops import run_left_behind
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.events import CommandEnded, CommandStarted, EventStream
from port_knocking_doors.model import Access, CommandOpening, Door
from port_knocking_doors.system import command_output
from port_knocking_doors.system.clock import now as clock
from port_knocking_doors.system.command_output import CommandOutput
from tests.helpers.waiting import wait_until

SOON = 10.0


class Recorder:
    """Listener and observer of a runner of commands."""

    def __init__(self, events: EventStream) -> None:
        self.opened: list[Door] = []
        self.closed: list[Door] = []
        self.failed: list[Door] = []
        self.ran: list[str] = []
        self.ended: list[int] = []
        events.add(
            {
                CommandStarted: lambda event: self.ran.append(event.line),
                CommandEnded: lambda event: self.ended.append(event.status),
            }
        )

    def on_open(self, door: Door, _: tuple[str, ...]) -> None:
        self.opened.append(door)

    def on_closed(self, door: Door) -> None:
        self.closed.append(door)

    def on_denied(self, door: Door, reason: str) -> None:
        raise AssertionError(f"{door} is denied: {reason}")

    def on_failed(self, door: Door) -> None:
        self.failed.append(door)


def door(start: str, stop: str = "", address: str = "10.0.0.2") -> Door:
    return Door(ip_address(address), "", "ssh", CommandOpening(start, stop))


def run(folder: Path, story: Callable[[CommandRunner, Recorder], Awaitable[None]]) -> None:
    async def main() -> None:
        events = EventStream()
        recorder = Recorder(events)
        runner = CommandRunner(0, events)
        runner.listener = recorder
        runner._directory = folder / "pending"
        await asyncio.wait_for(story(runner, recorder), SOON)

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def run_pending(directory: Path) -> int:
    """What the closer does; the number of stop commands that it did not get done."""

    async def main() -> int:
        runs = CommandRuns()
        try:
            return len(await run_left_behind(runs, directory))
        finally:
            runs.end()

    return asyncio.run(main())


def records(folder: Path) -> list[Path]:
    return list((folder / "pending").glob("*"))


@pytest.mark.parametrize(
    ("command", "address", "line"),
    [
        ("iptables -A INPUT -s %IP% -j ACCEPT", "10.0.0.2", "iptables -A INPUT -s 10.0.0.2 -j ACCEPT"),
        ("echo %IP% %IP%", "fd00:0::2", "echo fd00::2 fd00::2"),
        ("echo %ip% 100%", "10.0.0.2", "echo %ip% 100%"),
        ("", "10.0.0.2", ""),
    ],
)
def test_address_replaces_every_ip(command: str, address: str, line: str) -> None:
    assert command_line(command, ip_address(address)) == line


def test_start_command_runs_at_once_and_stop_command_on_request(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def story(ran: CommandRunner, _: Recorder) -> None:
        it = door(f"echo start %IP% >>{log}", f"echo stop %IP% >>{log}")
        ran.open(it)
        await until(lambda: log.exists() and log.read_text())
        assert len(records(tmp_path)) == 1
        ran.close(it)
        await until(lambda: not records(tmp_path))
        assert log.read_text() == "start 10.0.0.2\nstop 10.0.0.2\n"
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_stop_command_is_remembered_before_start_for_its_owner_alone(tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    async def story(ran: CommandRunner, _: Recorder) -> None:
        ran.open(door(f"cat {tmp_path}/pending/*.json >{seen}.draft; mv {seen}.draft {seen}", "echo %IP%"))
        await until(seen.exists)
        assert '"stop": "echo 10.0.0.2"' in seen.read_text()
        (record,) = records(tmp_path)
        assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_stop_waits_for_end_of_start_and_next_start_for_end_of_stop(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def story(ran: CommandRunner, _: Recorder) -> None:
        it = door(f"sleep 0.2; echo start >>{log}", f"sleep 0.2; echo stop >>{log}")
        ran.open(it)
        ran.close(it)
        ran.open(it)
        await ran.close_all(SOON)
        assert log.read_text().split() == ["start", "stop", "start", "stop"]

    run(tmp_path, story)


def test_door_without_stop_command_is_not_remembered(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def story(ran: CommandRunner, _: Recorder) -> None:
        for _again in range(3):
            ran.open(door(f"echo start >>{log}"))
        await until(lambda: log.exists() and log.read_text().count("start") == 3)
        assert records(tmp_path) == []
        await ran.close_all(SOON)
        assert not ran._lives
        assert not ran._closing

    run(tmp_path, story)


def test_start_command_does_not_run_if_stop_cannot_be_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pending").write_text("in the way")

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door(f"touch {tmp_path}/started", "true")
        ran.open(it)
        await until(lambda: recorder.failed == [it])
        await until(lambda: not ran._lives)
        assert (ran._closing, ran._waiting, recorder.opened) == ({}, 0, [])
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert not (tmp_path / "started").exists()
    assert "start command not run" in caplog.text


def test_commands_above_the_limit_wait(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, _: Recorder) -> None:
        for number in range(3 * commands.PLACES):
            address = f"10.0.1.{number}"
            ran.open(door(f"touch {tmp_path}/%IP%; until [ -e {tmp_path}/go ]; do sleep 0.02; done", address=address))
        await until(lambda: len(list(tmp_path.glob("10.*"))) == commands.PLACES)
        await asyncio.sleep(0.2)  # for others that must not come
        assert len(list(tmp_path.glob("10.*"))) == commands.PLACES
        (tmp_path / "go").touch()
        await until(lambda: len(list(tmp_path.glob("10.*"))) == 3 * commands.PLACES)
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_waiting_start_commands_are_logged_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(commands, "PLACES", 1)
    waits = "start command waits, 1 run already and have not ended"

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        ran.open(door(f"until [ -e {tmp_path}/go ]; do sleep 0.02; done", address="10.0.1.0"))
        await until(lambda: recorder.ran)
        began = clock()
        for number, seconds in enumerate((0, 59, 61, 62), start=1):
            monkeypatch.setattr(commands, "now", lambda seconds=seconds: began + seconds)
            ran.open(door("true", address=f"10.0.1.{number}"))
            await asyncio.sleep(0.01)
        assert caplog.messages == [f"10.0.1.1: ssh: {waits}", f"10.0.1.3: ssh: {waits}"]
        (tmp_path / "go").touch()
        await until(lambda: len(recorder.ended) == 5)
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_runner_of_commands_is_available_and_uses_their_delay(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, _: Recorder) -> None:
        it = Door(ip_address("10.0.0.2"), "", "ssh", CommandOpening("true", "true", delay=7))
        access = Access("ssh", (it.opening,), duration=1.0)
        assert (ran.is_available, ran.uses_interface, ran.counts_from_open) == (True, False, True)
        assert (ran.stays_open(it), ran.stays_open(door("true"))) == (True, False)
        assert ran.seconds(it, access) == 7
        assert ran.denial(it) == ""
        await ran.settled()

    run(tmp_path, story)


def test_hung_start_commands_delay_no_stop_command(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door("true", f"touch {tmp_path}/stopped")
        ran.open(it)
        await until(lambda: recorder.opened == [it])
        for number in range(2 * commands.PLACES):
            ran.open(door(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done", address=f"10.0.1.{number}"))
        ran.close(it)
        await until((tmp_path / "stopped").exists)
        (tmp_path / "go").touch()
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_commands_above_the_queue_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(commands, "QUEUE", 2)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        doors = [door("true", address=f"10.0.1.{number}") for number in range(4)]
        for it in doors:
            ran.open(it)
        assert recorder.failed == doors[2:]
        for number in range(10):
            ran.open(door("true", address=f"10.0.2.{number}"))
        assert len(recorder.failed) == 12
        assert len(caplog.messages) == 5
        assert caplog.messages[0] == "10.0.1.2: ssh: not started, 2 commands wait already"
        began = clock()
        monkeypatch.setattr(commands, "now", lambda: began + 9.5)
        ran.open(doors[3])
        assert len(caplog.messages) == 5
        monkeypatch.setattr(commands, "now", lambda: began + 10.5)
        ran.open(doors[3])
        assert caplog.messages[5:] == [
            "8 more start commands not run",
            "10.0.1.3: ssh: not started, 2 commands wait already",
        ]
        await ran.close_all(SOON)
        assert len(recorder.ran) == 2
        assert ran._waiting == 0

    run(tmp_path, story)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), OSError(38, "Function not implemented")])
def test_end_of_process_is_noticed_without_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: int) -> int:
        raise error

    monkeypatch.setattr(os, "pidfd_open", fail)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door("exit 3", "true")
        ran.open(it)
        await until(lambda: recorder.opened == [it])
        ran.close(it)
        await until(lambda: recorder.ended == [3, 0])
        assert (recorder.failed, records(tmp_path)) == ([], [])

    run(tmp_path, story)


def test_stop_command_that_can_never_run_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door("true", "a\0b")
        ran.open(it)
        await until(lambda: recorder.opened == [it])
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert caplog.text.count("stop command not run: ") == 1


def test_exit_status_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story(ran: CommandRunner, _: Recorder) -> None:
        ran.open(door("exit 3", "true"))
        await until(lambda: "status 3" in caplog.text)
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "10.0.0.2: ssh: start command ended with status 3"),
        ("INFO", "10.0.0.2: ssh: stop command ended with status 0"),
    ]


def test_lines_about_ended_commands_are_limited_and_then_summed_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(commands, "ENDED_MAX", 3)
    monkeypatch.setattr(commands, "ENDED_PERIOD", 1000.0)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        for number in range(10):
            ran.open(door("true", "", f"10.0.0.{number}"))
        await until(lambda: len(recorder.ended) == 10)
        ran._ended.period = 0.0
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert [message.partition(" ")[2] for message in caplog.messages[:3]] == 3 * [
        "ssh: start command ended with status 0"
    ]
    assert caplog.messages[3:] == ["7 more commands ended"]


def test_close_stops_every_door_and_keeps_slow_ones_remembered(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, _: Recorder) -> None:
        ran.open(door("true", f"touch {tmp_path}/quick", "10.0.0.2"))
        ran.open(door("true", f"touch {tmp_path}/slow; sleep 2", "10.0.0.3"))
        await until(lambda: len(records(tmp_path)) == 2)
        with pytest.raises(DoorsError, match="1 stop commands have not ended"):
            await ran.close_all(1.0)
        assert (tmp_path / "quick").exists()
        assert len(records(tmp_path)) == 1

    run(tmp_path, story)
    assert run_pending(tmp_path / "pending") == 0
    assert records(tmp_path) == []


def test_closer_after_crash_waits_for_start_then_runs_stop_command(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f"""
import asyncio
from ipaddress import ip_address
from pathlib import Path
from unittest.mock import Mock
from port_knocking_doors.doors.commands import CommandRunner
from port_knocking_doors.model import Access, CommandOpening, Door
from port_knocking_doors.system import command_output
from port_knocking_doors.system.command_output import CommandOutput
async def main():
    command = CommandOpening("touch {tmp_path}/begun; sleep 1; echo start >>{log}", "echo stop >>{log}")
    runner = CommandRunner(0, Mock())
    runner.listener = Mock()
    runner._directory = Path("{tmp_path}/pending")
    runner.open(Door(ip_address("10.0.0.2"), "", "ssh", command))
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script]) as crashing:
        wait_until((tmp_path / "begun").exists, SOON, "the start command")
        crashing.send_signal(signal.SIGKILL)
        crashing.wait(SOON)
        assert run_pending(tmp_path / "pending") == 0
        assert log.read_text().split() == ["start", "stop"]
        assert records(tmp_path) == []


def test_foreign_file_is_kept_and_draft_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pending = tmp_path / "pending"
    pending.mkdir()
    for name, content in {"a.json": "nonsense", "b.json": "[]", "c.json": '{"stop": "true"}', "d.draft": "{"}.items():
        (pending / name).write_text(content)
    assert run_pending(pending) == 0
    assert sorted(path.name for path in records(tmp_path)) == ["a.json", "b.json", "c.json"]
    assert caplog.text.count("no record of a stop command") == 3


def test_missing_folder_means_nothing_is_pending(tmp_path: Path) -> None:
    assert run_pending(tmp_path / "pending") == 0


def test_secrets_of_daemon_do_not_reach_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKER_SEQ", "1,2,3,4,5")
    seen = tmp_path / "seen"

    async def story(ran: CommandRunner, _: Recorder) -> None:
        ran.open(door(f'echo "seq=$KNOCKER_SEQ" >{seen}'))
        await ran.close_all(SOON)

    run(tmp_path, story)
    wait_until(lambda: seen.exists() and seen.read_text() == "seq=\n", SOON, "the command's output")


def _no_descriptor(_: int, __: int = 0) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_command_whose_end_cannot_be_watched_counts_as_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(os, "pidfd_open", _no_descriptor)
    log = tmp_path / "log"

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door(f"echo start >>{log}; exit 3", f"echo stop >>{log}")
        ran.open(it)
        await until(lambda: recorder.opened == [it])
        assert len(records(tmp_path)) == 1
        ran.close(it)
        await until(lambda: recorder.ended == [3, 0])
        assert log.read_text() == "start\nstop\n"
        assert (recorder.failed, records(tmp_path)) == ([], [])

    run(tmp_path, story)
    assert "not run" not in caplog.text


def test_unwatched_command_runs_on_after_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", _no_descriptor)
    seen = tmp_path / "seen"

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        ran.open(door(f"sleep 0.2; echo done >{seen}", "true"))
        await until(lambda: recorder.ran)
        with pytest.raises(DoorsError, match="1 stop commands have not ended"):
            await ran.close_all(0)

    run(tmp_path, story)
    wait_until(lambda: seen.exists() and seen.read_text() == "done\n", SOON, "the end of the command")


def test_secrets_of_daemon_do_not_reach_pending_stop_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KNOCKER_SEQ", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "secret")
    pending = tmp_path / "pending"
    pending.mkdir()
    seen = tmp_path / "seen"
    stop = f'echo "of the caller: $KNOCKER_SEQ$NOTIFY_SOCKET, $PATH" >{seen}'
    (pending / "a.json").write_text(json.dumps({"address": "10.0.0.2", "sequence": "ssh", "stop": stop}))
    assert run_pending(pending) == 0
    assert seen.read_text() == f"of the caller: , {os.environ['PATH']}\n"


def test_ipv6_knocker_has_its_own_commands(tmp_path: Path) -> None:
    async def story(commands: CommandRunner, recorder: Recorder) -> None:
        own = CommandOpening("exit 4", "echo stop", start6="exit 6", stop6="")
        for address in ("10.0.0.2", "2001:db8::2"):
            opened = Door(ip_address(address), "", "ssh", own)
            begun = len(recorder.ended)
            commands.open(opened)
            await until(lambda begun=begun: len(recorder.ended) > begun)  # type: ignore[misc]
            commands.close(opened)
            await commands.close_all(SOON)
        assert recorder.ended == [4, 0, 6]
        assert recorder.ran == ["exit 4", "echo stop", "exit 6"]

    run(tmp_path, story)


def test_empty_start_command_runs_nothing_and_stop_command_runs(tmp_path: Path) -> None:
    async def story(commands: CommandRunner, recorder: Recorder) -> None:
        opened = door("", "echo stop")
        commands.open(opened)
        await until(lambda: recorder.opened == [opened])
        commands.close(opened)
        await commands.close_all(SOON)
        assert recorder.ran == ["echo stop"]

    run(tmp_path, story)


# --- what the runner reports


def test_door_is_reported_open_and_closed(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it, other = door("true", "true"), door("true", "true", "10.0.0.3")
        for one in (it, other):
            ran.open(one)
        await until(lambda: len(recorder.opened) == 2)
        assert recorder.closed == []
        ran.close(it)
        assert recorder.closed == [it]
        ran.close(it)
        await until(lambda: len(recorder.ended) == 3)
        assert recorder.closed == [it], "once"
        ran.open(it)
        await until(lambda: len(recorder.opened) == 3)
        ran.close(it)
        assert recorder.closed == [it, it], "and again, for it was open again"
        await ran.close_all(SOON)
        assert recorder.closed == [it, it], "the end of the daemon is no event of a single door"
        assert (ran._lives, ran._closing, ran._started, ran._waiting) == ({}, {}, set(), 0)

    run(tmp_path, story)


def test_door_that_closes_before_it_is_open_is_reported_open_and_closed(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door(f"until [ -e {tmp_path}/go ]; do sleep 0.02; done", "true")
        ran.open(it)
        await until(lambda: recorder.ran)
        ran.close(it)
        assert (recorder.opened, recorder.closed) == ([], [])
        (tmp_path / "go").touch()
        await until(lambda: recorder.closed)
        assert (recorder.opened, recorder.closed) == ([it], [it])
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_door_without_stop_command_is_never_reported(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        ran.open(door("exit 3"))
        await until(lambda: recorder.ended == [3])
        await until(lambda: not ran._lives)
        assert (recorder.opened, recorder.closed, recorder.failed) == ([], [], [])
        await ran.close_all(SOON)

    run(tmp_path, story)


# --- what a dead daemon left on record


@pytest.mark.parametrize("mark", [31313, 31314, 1 << 17])
def test_start_runs_what_dead_daemons_left_and_settles_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: int
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    left = tmp_path / f"pending-{mark}" / "a.json"
    left.parent.mkdir()
    stop = f"touch {tmp_path}/ran; until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    left.write_text(json.dumps({"address": "10.0.0.2", "sequence": "ssh", "stop": stop}))

    async def main() -> None:
        runner = CommandRunner(31313, EventStream())
        runner.listener = Recorder(EventStream())
        runner.start()
        await until((tmp_path / "ran").exists)
        settling = asyncio.create_task(runner.settled())
        await asyncio.sleep(0.05)
        assert not settling.done()
        (tmp_path / "go").touch()
        await asyncio.wait_for(settling, SOON)
        await runner.close_all(SOON)

    asyncio.run(main())
    assert list((tmp_path / "pending-31313").iterdir()) == []
    assert not left.exists()


# --- a stop command that fails


async def closed_with_an_error(ran: CommandRunner, recorder: Recorder, folder: Path) -> Door:
    """A door whose stop command has failed once, and works as soon as there is a file `go` in the folder."""
    it = door("true", f"[ -e {folder}/go ]")
    ran.open(it)
    await until(lambda: recorder.opened == [it])
    ran.close(it)
    await until(lambda: recorder.ended == [0, 1])
    return it


def test_failed_stop_command_keeps_its_record_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owed_stops, "PAUSES", (0.05,) * 1000)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        await closed_with_an_error(ran, recorder, tmp_path)
        assert len(records(tmp_path)) == 1
        (tmp_path / "go").touch()
        await until(lambda: not records(tmp_path))
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert "10.0.0.2: ssh: stop command ended with status 1, it is tried again" in caplog.messages


def test_end_of_daemon_says_that_stop_commands_failed(tmp_path: Path) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        ran.open(door("true", "exit 3"))
        ran.open(door("true", "true", "10.0.0.3"))
        await until(lambda: len(recorder.opened) == 2)
        with pytest.raises(DoorsError, match=r"^1 stop commands failed; .*`port-knocking-doors sweep --forget` drops"):
            await ran.close_all(SOON)

    run(tmp_path, story)
    assert len(records(tmp_path)) == 1


def test_knock_while_a_stop_command_is_owed_runs_it_after_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"

    monkeypatch.setattr(owed_stops, "PAUSES", (0.05,) * 1000)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door(f"echo start >>{log}", f"echo stop >>{log}; [ -e {tmp_path}/go ]")
        for number in (1, 2):
            ran.open(it)
            await until(lambda number=number: len(recorder.opened) == number)  # type: ignore[misc]
            if number == 2:
                (tmp_path / "go").touch()
                await asyncio.sleep(0.2)  # for a try that must not come while the door is open
                assert len(records(tmp_path)) == 2
            ran.close(it)
            await until(lambda number=number: len(recorder.ended) == 2 * number)  # type: ignore[misc]
        await until(lambda: not records(tmp_path))
        words = log.read_text().split()
        assert words[:2] == ["start", "stop"]
        assert words[-3:] == ["start", "stop", "stop"]
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_start_that_cannot_run_leaves_what_is_owed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed_stops, "PAUSES", (0.1,) * 1000)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = await closed_with_an_error(ran, recorder, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(pending, "remember", lambda *_: os.close(-1))
            ran.open(it)
            await until(lambda: recorder.failed == [it])
        (tmp_path / "go").touch()
        await until(lambda: not records(tmp_path))
        await ran.close_all(SOON)

    run(tmp_path, story)


def test_door_is_refused_while_too_many_stop_commands_are_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door("true", "exit 3")
        ran.open(it)
        await until(lambda: recorder.opened == [it])
        ran.close(it)
        await until(lambda: recorder.ended == [0, 3])
        monkeypatch.setattr(commands, "QUEUE", 1)
        ran.open(door("true", "true", "10.0.0.3"))
        await until(lambda: recorder.failed)
        with pytest.raises(DoorsError):
            await ran.close_all(SOON)

    run(tmp_path, story)
    assert "start command not run: 1 stop commands have failed; see `port-knocking-doors sweep --forget`" in caplog.text


def test_stop_command_that_cannot_be_started_is_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owed_stops, "RETRY", 0.05)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door("true", f"touch {tmp_path}/ran")
        ran.open(it)
        await until(lambda: recorder.opened == [it])
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", lambda *_, **__: os.close(-1))
            ran.close(it)
            await until(lambda: caplog.messages)
            again = "10.0.0.2: ssh: stop command not run, it is tried again every 0.05 s: [Errno 9] Bad file descriptor"
            assert caplog.messages[0] == again
            assert caplog.records[0].funcName == "_stop"
        await until((tmp_path / "ran").exists)
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert records(tmp_path) == []


def test_start_command_does_not_run_where_it_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door(f"touch {tmp_path}/started", "true")
        first: list[pending.StopRecord] = []
        save = pending.StopRecord.save

        def fail(record: pending.StopRecord) -> pending.StopRecord:
            if first:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            first.append(record)
            return save(record)

        monkeypatch.setattr(pending.StopRecord, "save", fail)
        ran.open(it)
        await until(lambda: recorder.failed == [it])
        await until(lambda: not ran._lives)
        assert recorder.opened == []
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert not (tmp_path / "started").exists()
    assert records(tmp_path) == []
    assert "start command not run: [Errno 28]" in caplog.text


# --- what commands print


def test_what_commands_print_is_logged_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(CommandOutput, "open", in_memory)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        it = door("echo hello; printf '\033[1m'", "seq 30")
        ran.open(it)
        await until(lambda: recorder.opened == [it])
        await ran.close_all(SOON)

    run(tmp_path, story)
    assert caplog.messages == [
        "10.0.0.2: ssh: start command printed: hello",
        "10.0.0.2: ssh: start command printed: \033[1m",
        "10.0.0.2: ssh: start command ended with status 0",
        *(f"10.0.0.2: ssh: stop command printed: {number}" for number in range(1, 21)),
        "10.0.0.2: ssh: stop command printed 10 more lines",
        "10.0.0.2: ssh: stop command ended with status 0",
    ]


def in_memory(self: CommandOutput) -> None:
    """As where standard error is a pipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_output, "_is_file", lambda _: False)
        patch.setattr(command_output, "_journal", lambda _: None)
        opened(self)


opened = CommandOutput.open


def test_what_background_processes_print_later_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(CommandOutput, "open", in_memory)

    async def story(ran: CommandRunner, recorder: Recorder) -> None:
        ran.open(door(f"(until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo late) &"))
        await until(lambda: recorder.ended == [0])
        (tmp_path / "go").touch()
        await until(lambda: "10.0.0.2: ssh: start command printed: late" in caplog.messages)
        await ran.close_all(SOON)
        assert not ran._runs._relays

    run(tmp_path, story)
