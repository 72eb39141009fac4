"""Stop commands that failed, or that were left behind: when they are tried again, and what the log says of it."""

import asyncio
import errno
import logging
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.doors import command_run, owed_stops, pending
from port_knocking_doors.doors.command_run import CommandRuns
from port_knocking_doors.doors.owed_stops import OwedStops, failed, run_left_behind, try_stop
from port_knocking_doors.doors.pending import StopRecord
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.log import LogEvent
from port_knocking_doors.system.shell_command import ProcessIdentity

SOON = 10.0
BRIEF = (0.05, 0.1, 0.1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(owed_stops, "PATIENCE", 0.3)
    monkeypatch.setattr(owed_stops, "PAUSES", BRIEF)
    monkeypatch.setattr(owed_stops, "RETRY", 0.05)
    caplog.set_level(logging.INFO)


def record(folder: Path, stop: str, address: str = "10.0.0.2", **more: Any) -> StopRecord:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    return StopRecord(path, address, "ssh", stop, **more).save()


def play(story: Callable[[OwedStops], Awaitable[None]]) -> None:
    async def main() -> None:
        runs = CommandRuns()
        owed = OwedStops(runs)
        try:
            await asyncio.wait_for(story(owed), SOON)
        finally:
            await owed.end(0)
            runs.end()

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_stop_command_is_tried_again_until_it_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "records").mkdir()
    one = record(tmp_path / "records", f"echo x >>{tmp_path}/ran; [ -e {tmp_path}/go ]", tries=1, status=1)

    async def story(owed: OwedStops) -> None:
        owed.add([one], (0.01,) * 1000)
        await until(lambda: pending.load(one.path).tries >= 3)
        assert len(owed) == 1
        (tmp_path / "go").touch()
        await until(lambda: not len(owed))

    play(story)
    assert not one.exists()
    tries = len((tmp_path / "ran").read_text().split())
    assert caplog.messages == [f"10.0.0.2: ssh: stop command, tried again after {tries} failures, ended with status 0"]


def test_tries_of_a_command_that_always_fails_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = record(tmp_path, "exit 3")

    async def story(owed: OwedStops) -> None:
        began = now()
        owed.add([one])
        await until(lambda: caplog.messages)
        assert now() - began >= sum(BRIEF)
        assert len(owed) == 1, "a door that opens again owes it"

    play(story)
    assert pending.load(one.path) == one._replace(tries=3, status=3)
    assert caplog.text.count("\n") == 1
    assert caplog.messages[0] == (
        f"10.0.0.2: ssh: stop command failed 3 times, at last with status 3: kept in {one.path}, and run at each start "
        "until it works or `port-knocking-doors sweep --forget` drops it"
    )
    assert caplog.records[0].levelname == "ERROR"


@pytest.mark.parametrize("tries", [0, 8])
def test_start_reports_what_was_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture, tries: int) -> None:
    one = record(tmp_path, "exit 3", tries=tries)

    async def story(owed: OwedStops) -> None:
        owed.add_left_behind(tmp_path)
        await owed.tried_once()
        assert pending.load(one.path).tries == tries + 1
        assert len(caplog.messages) == 1
        await until(lambda: len(caplog.messages) == 2)

    play(story)
    first, last = caplog.messages
    assert first == (
        "10.0.0.2: ssh: stop command, left behind by an earlier run, ended with status 3, it is tried again"
    )
    assert f"failed {tries + 1 + len(BRIEF)} times" in last


def test_what_was_left_behind_is_tried_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    wait = f"touch {tmp_path}/$$; until [ -e {tmp_path}/go ]; do sleep 0.02; done; : %d"
    for number in range(40):
        record(tmp_path / "records", wait % number)

    async def story(owed: OwedStops) -> None:
        owed.add_left_behind(tmp_path / "records")
        await until(lambda: len(list(tmp_path.iterdir())) == 41)
        (tmp_path / "go").touch()
        await owed.tried_once()

    play(story)
    assert list((tmp_path / "records").iterdir()) == []


def test_start_with_nothing_left_behind_waits_for_nothing(tmp_path: Path) -> None:
    async def story(owed: OwedStops) -> None:
        await owed.tried_once()
        owed.add_left_behind(tmp_path / "missing")
        await owed.tried_once()

    play(story)


def test_door_that_opens_again_takes_over_what_it_owes(tmp_path: Path) -> None:
    one, other = record(tmp_path, "exit 3"), record(tmp_path, "exit 4")

    async def story(owed: OwedStops) -> None:
        owed.add([one, other], (1000.0,))
        assert await owed.take("exit 3") == [one]
        assert await owed.take("exit 3") == []
        assert len(owed) == 1

    play(story)
    assert one.exists()


def test_door_that_opens_again_waits_for_the_end_of_a_try(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    stop = f"touch {tmp_path}/ran; until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    one = record(tmp_path / "records", stop)

    async def story(owed: OwedStops) -> None:
        owed.add([one], (0.0,))
        await until((tmp_path / "ran").exists)
        taking = asyncio.create_task(owed.take(stop))
        await asyncio.sleep(0.05)
        assert not taking.done()
        (tmp_path / "go").touch()
        assert await taking == []

    play(story)


def test_record_that_was_dropped_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    one = record(tmp_path / "records", f"touch {tmp_path}/ran")

    async def story(owed: OwedStops) -> None:
        owed.add([one], (0.1, 0.1))
        one.remove()
        await until(lambda: not len(owed))

    play(story)
    assert not (tmp_path / "ran").exists()
    assert failed(one, 3) is None
    assert not one.exists(), "a failure brings no dropped record back"


def test_command_that_cannot_be_started_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "records").mkdir()
    one = record(tmp_path / "records", f"touch {tmp_path}/ran")
    start, calls = subprocess.Popen, []

    def refuse(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        if len(calls) < 10:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return start(*arguments, **more)

    monkeypatch.setattr(subprocess, "Popen", refuse)

    async def story(owed: OwedStops) -> None:
        owed.add([one], (0.0,))
        await until(lambda: not len(owed))

    play(story)
    assert (tmp_path / "ran").exists()
    text = "10.0.0.2: ssh: stop command not run, it is tried again every 0.05 s: "
    assert [line for line in caplog.messages if "not run" in line] == [f"{text}[Errno 11] {os.strerror(errno.EAGAIN)}"]


def test_record_that_comes_during_a_try_is_tried_next(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    stop = f"echo x >>{tmp_path}/ran; until [ -e {tmp_path}/go ]; do sleep 0.02; done"
    first, second = record(tmp_path / "records", stop), record(tmp_path / "records", stop)

    async def story(owed: OwedStops) -> None:
        owed.add([first], (0.0, 0.0))
        await until((tmp_path / "ran").exists)
        owed.add([second])
        (tmp_path / "go").touch()
        await until(lambda: not len(owed))

    play(story)
    assert list((tmp_path / "records").iterdir()) == []
    assert (tmp_path / "ran").read_text().split() == ["x", "x"]


def test_end_interrupts_pauses_and_counts_what_is_owed(tmp_path: Path) -> None:
    one, other = record(tmp_path, "exit 3"), record(tmp_path, "exit 4")

    async def story(owed: OwedStops) -> None:
        owed.add([one, other], (1000.0,))
        began = now()
        assert await owed.end(5) == 2
        assert now() - began < 2

    play(story)


# --- one try


def run_one(one: StopRecord, patience: float | None = None) -> StopRecord | None:
    async def main() -> StopRecord | None:
        runs = CommandRuns()
        try:
            return await asyncio.wait_for(try_stop(runs, one, patience), SOON)
        finally:
            runs.end()

    return asyncio.run(main())


def identity(process: "subprocess.Popen[bytes]") -> ProcessIdentity:
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return ProcessIdentity(process.pid, int(stat[19]))


def test_try_waits_for_the_start_command(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "0.1"]) as start:
        began = now()
        one = record(tmp_path, "true", start_process=identity(start))
        assert run_one(one) is None
        assert now() - began >= 0.1
        assert not one.exists()


def test_try_waits_for_a_hung_start_command_only_so_long(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as start:
        began = now()
        assert run_one(record(tmp_path, "true", start_process=identity(start))) is None
        assert now() - began >= owed_stops.PATIENCE
        start.kill()


def test_try_that_still_runs_is_not_begun_again(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as earlier:
        one = record(tmp_path, f"touch {tmp_path}/ran", stop_process=identity(earlier))
        assert run_one(one) == one
        earlier.kill()
    assert not (tmp_path / "ran").exists()
    assert one.exists()


def test_record_that_goes_with_an_earlier_try_needs_none(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    path = tmp_path / "records" / "0.json"
    with subprocess.Popen(["sh", "-c", f"sleep 0.1; rm {path}"]) as earlier:
        one = record(tmp_path / "records", f"touch {tmp_path}/ran", stop_process=identity(earlier))
        assert run_one(one) is None
    assert not (tmp_path / "ran").exists()


def test_slow_try_works_on_and_removes_its_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = record(tmp_path, f"until [ -e {tmp_path}/go ]; do sleep 0.02; done")
    left = run_one(one, patience=0.1)
    assert left is not None
    assert left.stop_process is not None
    assert left.stop_process.is_running()
    assert pending.load(one.path) == left, "the next closer waits for it"
    assert "has not ended yet" in caplog.text
    (tmp_path / "go").touch()
    asyncio.run(asyncio.wait_for(until(lambda: not one.exists()), SOON))


def test_line_that_can_never_run_has_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = record(tmp_path, "a\0b")
    assert run_one(one) == one._replace(tries=1, status=126)
    assert "stop command not run: embedded null byte" in caplog.text


def test_stop_command_runs_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "records").mkdir()
    one = record(tmp_path / "records", f"touch {tmp_path}/ran")

    def fail(_: StopRecord) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(StopRecord, "save", fail)
    assert run_one(one) is None
    assert (tmp_path / "ran").exists()
    assert not one.exists()


# --- the closer


def test_other_work_goes_on_between_the_starts_of_many_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed_stops, "PATIENCE", SOON)
    for _ in range(100):
        record(tmp_path, "true")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    started: list[int] = []
    begin = CommandRuns.begin

    def note(self: CommandRuns, *arguments: Any) -> Any:
        started.append(turns)
        return begin(self, *arguments)

    monkeypatch.setattr(CommandRuns, "begin", note)

    async def main() -> None:
        counting = asyncio.create_task(count())
        assert await run_left_behind(CommandRuns(), tmp_path) == []
        counting.cancel()

    asyncio.run(main())
    assert len(set(started)) == 100, "each in a turn of its own"
    assert list(tmp_path.iterdir()) == []


def test_commands_of_the_closer_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_run, "PLACES", 3)
    monkeypatch.setattr(owed_stops, "PATIENCE", SOON)
    (tmp_path / "records").mkdir()
    for _ in range(10):
        record(tmp_path / "records", f"touch {tmp_path}/$$.ran; until [ -e {tmp_path}/go ]; do sleep 0.02; done")

    def begun() -> int:
        return len(list(tmp_path.glob("*.ran")))

    async def main() -> None:
        work = asyncio.create_task(run_left_behind(CommandRuns(), tmp_path / "records"))
        await until(lambda: begun() == 3)
        await asyncio.sleep(0.2)  # for others that must not come
        assert begun() == 3
        (tmp_path / "go").touch()
        assert await asyncio.wait_for(work, SOON) == []

    asyncio.run(main())
    assert begun() == 10


def test_closer_returns_what_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = record(tmp_path, "true"), record(tmp_path, "exit 3")

    async def main() -> list[StopRecord]:
        return await run_left_behind(CommandRuns(), tmp_path)

    assert asyncio.run(main()) == [bad._replace(tries=1, status=3)]
    assert not good.exists()
    assert bad.exists()
    assert sorted(caplog.messages) == [
        "10.0.0.2: ssh: stop command, left behind by an earlier run, ended with status 0",
        "10.0.0.2: ssh: stop command, left behind by an earlier run, ended with status 3, it is tried again",
    ]


def test_lines_about_many_records_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(30):
        record(tmp_path, "exit 3")

    async def main() -> list[StopRecord]:
        return await run_left_behind(CommandRuns(), tmp_path)

    assert len(asyncio.run(main())) == 30
    assert len(caplog.messages) == 10


def test_lines_about_records_above_the_limit_are_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = StopRecord(tmp_path / "a.json", "10.0.0.2", "ssh", "true")

    async def main() -> None:
        runs = CommandRuns()
        for _ in range(15):
            runs.report(logging.INFO, "text", one, LogEvent.MESSAGE)
        assert caplog.messages == ["10.0.0.2: ssh: text"] * 10
        ahead = now() + 11
        monkeypatch.setattr(command_run, "now", lambda: ahead)
        runs.report(logging.INFO, "text", one, LogEvent.MESSAGE)

    asyncio.run(main())
    assert caplog.messages[10:] == ["5 more lines about stop commands on record", "10.0.0.2: ssh: text"]


def test_closer_without_a_process_left_keeps_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = record(tmp_path, "true")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)

    async def main() -> list[StopRecord]:
        return await run_left_behind(CommandRuns(), tmp_path)

    assert asyncio.run(main()) == [one]
    assert one.exists()
