"""The crash guard, with a closer that only makes a file; the system tests have the real closer."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system import crash_guard
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.crash_guard import Closer, CrashGuard, Program
from tests.helpers.fake_bus import open_descriptors
from tests.helpers.waiting import wait_until

SOON = 5.0
REPOSITORY = Path(__file__).parents[3]


def guard(trace: Path, *programs: Program) -> CrashGuard:
    """A crash guard whose closer makes the file `trace`."""
    return CrashGuard(Closer(lambda: None, trace.touch, programs))


@pytest.fixture(autouse=True)
def _not_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards of this process do not wait for its end; those of processes that tests start do."""
    monkeypatch.setattr(crash_guard, "_DYING", 0.0)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_dismissed_guard_ends_without_running_closer(tmp_path: Path) -> None:
    with guard(tmp_path / "trace") as kept:
        assert alive(kept.pid)
        kept.dismiss()
    assert not alive(kept.pid)
    assert not (tmp_path / "trace").exists()


@pytest.mark.filterwarnings("error")
def test_guard_that_is_not_dismissed_runs_closer(tmp_path: Path) -> None:
    with guard(tmp_path / "trace") as kept:
        pass
    wait_until((tmp_path / "trace").exists, SOON, "the closer's trace")
    wait_until(lambda: not alive(kept.pid), SOON, "its end")
    os.waitpid(kept.pid, 0)


def test_guard_runs_closer_after_an_error_and_keeps_the_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"), guard(tmp_path / "trace") as kept:
        raise KeyError("mine")
    wait_until((tmp_path / "trace").exists, SOON, "the closer's trace")
    os.waitpid(kept.pid, 0)


OWNER = """
import signal, sys, time
from pathlib import Path
from tests.unit.system.test_crash_guard import guard
with guard(Path(sys.argv[1])) as kept:
    print(kept.pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda number: number.name)
def test_guard_runs_closer_when_its_owner_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    trace = tmp_path / "trace"
    argv = [sys.executable, "-c", OWNER, str(trace)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": ""}) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        assert not trace.exists()
        owner.send_signal(number)
        owner.wait(SOON)
    wait_until(trace.exists, SOON, "the closer's trace")
    wait_until(lambda: not alive(pid), SOON, "its end")


def test_guard_waits_until_nothing_of_a_killed_owner_is_left(tmp_path: Path) -> None:
    """The pipe is closed first, as by the kernel where it has a lower number than the lock on the mark."""
    trace = tmp_path / "trace"
    script = OWNER.replace("    time.sleep", "    import os; os.close(kept._pipe); sys.stdin.read()\n    time.sleep")
    argv = [sys.executable, "-c", script, str(trace)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": ""}
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        wait_until(lambda: (Path(f"/proc/{pid}/wchan").read_text() or "0") != "anon_pipe_read", SOON, "the pipe's end")
        wait_until(lambda: not Path(f"/proc/{pid}/task/{pid}/children").read_text(), SOON, "no closer")
        assert alive(pid)
        assert not trace.exists()
        owner.kill()
        owner.wait(SOON)
    wait_until(trace.exists, SOON, "the closer's trace")


def test_guard_does_not_wait_for_a_child_of_its_owner(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    script = OWNER.replace("    time.sleep", "    import subprocess; subprocess.Popen(['sleep', '60'])\n    time.sleep")
    script = script.replace("print(kept.pid", "print(__import__('os').getpid()")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(trace)], stdout=subprocess.PIPE, cwd=REPOSITORY, start_new_session=True
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 2, SOON, "both children")
        family = [int(pid) for pid in children.read_text().split()]
        owner.kill()
        owner.wait(SOON)
        try:
            wait_until(trace.exists, SOON, "the closer's trace")
        finally:
            for pid in family:
                if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"])
def test_signal_does_not_end_guard(tmp_path: Path, name: str) -> None:
    with guard(tmp_path / "trace") as kept:
        wait_until(lambda: Path(f"/proc/{kept.pid}/comm").read_text() == "doors-guard\n", SOON, "that it is ready")
        os.kill(kept.pid, signal.Signals[name])
        assert alive(kept.pid)
        assert os.getpgid(kept.pid) == os.getsid(kept.pid) == kept.pid, "a Ctrl-C for the owner is not for the guard"
        kept.dismiss()
    assert not (tmp_path / "trace").exists()


def test_owner_ends_without_error_after_its_guard_was_killed(tmp_path: Path) -> None:
    with guard(tmp_path / "trace") as kept:
        os.kill(kept.pid, signal.SIGKILL)
        wait_until(lambda: not alive(kept.pid), SOON, "its end")
        kept.dismiss()
    assert not (tmp_path / "trace").exists()


def test_guard_leaves_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    for _ in range(3):
        with guard(tmp_path / "trace") as kept:
            kept.dismiss()
    assert open_descriptors() == before


def test_guard_that_cannot_be_forked_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", no_process)
    before = open_descriptors()
    with pytest.raises(DoorsError, match=r"if this process is killed \(Resource temporarily unavailable\)$"):
        guard(tmp_path / "trace").__enter__()
    assert open_descriptors() == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def no_process() -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_stopped_guard_is_dismissed_all_the_same(tmp_path: Path) -> None:
    with guard(tmp_path / "trace") as kept:
        os.kill(kept.pid, signal.SIGSTOP)
        kept.dismiss()
    assert not alive(kept.pid)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGPIPE"])
def test_what_the_guard_executes_ignores_no_signal(tmp_path: Path, name: str) -> None:
    seen = tmp_path / "seen"
    program = Program("/bin/sh", ("sh", "-c", f"grep SigIgn /proc/self/status >{seen}"))
    with CrashGuard(Closer(lambda: None, fail, [program])) as kept:
        pass
    os.waitpid(kept.pid, 0)
    assert not int(seen.read_text().split()[1], 16) & 1 << (signal.Signals[name] - 1)


# --- what the guard has of its owner


def test_guard_keeps_no_descriptor_of_its_owner(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w"), guard(tmp_path / "trace") as kept:
        wait_until(lambda: Path(f"/proc/{kept.pid}/comm").read_text() == "doors-guard\n", SOON, "its name")

        def descriptors() -> list[str]:
            listed = subprocess.run(["ls", "-l", f"/proc/{kept.pid}/fd"], capture_output=True, text=True, check=False)
            return [line for line in listed.stdout.splitlines() if "->" in line]

        wait_until(lambda: len(descriptors()) <= 4, SOON, "its standard streams and the pipe alone")
        assert "/lock" not in "".join(descriptors())
        kept.dismiss()


def test_guard_has_a_name_of_its_own(tmp_path: Path) -> None:
    with guard(tmp_path / "trace") as kept:
        wait_until(lambda: Path(f"/proc/{kept.pid}/comm").read_text() == "doors-guard\n", SOON, "its name")
        assert Path(f"/proc/{kept.pid}/cwd").readlink() == Path("/")
        kept.dismiss()


def test_guard_of_a_running_event_loop_can_run_one(tmp_path: Path) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        (tmp_path / "trace").touch()

    async def own() -> int:
        with CrashGuard(Closer(lambda: None, lambda: asyncio.run(work()))) as kept:
            await asyncio.sleep(0)
        return kept.pid

    pid = asyncio.run(own())
    os.waitpid(pid, 0)
    assert (tmp_path / "trace").exists()


def test_guard_receives_no_signal_of_its_owners_loop(tmp_path: Path) -> None:
    received: list[int] = []

    async def own() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, received.append, 1)
        with guard(tmp_path / "trace") as kept:
            wait_until(lambda: "doors-guard" in Path(f"/proc/{kept.pid}/comm").read_text(), SOON, "its name")
            os.kill(kept.pid, signal.SIGTERM)
            await asyncio.sleep(0.05)
            kept.dismiss()

    asyncio.run(own())
    assert received == []


def test_what_cannot_be_prepared_is_closed_all_the_same(tmp_path: Path) -> None:
    with CrashGuard(Closer(lambda: print(1 / 0), (tmp_path / "trace").touch)) as kept:
        pass
    os.waitpid(kept.pid, 0)
    assert (tmp_path / "trace").exists()


# --- another way


def fail() -> None:
    raise ImportError("SRE module mismatch")


WAYS: dict[str, tuple[Callable[[], object], list[Program]]] = {
    "the closer raises": (fail, [Program("/bin/sh", ("sh", "-c", "touch TRACE"))]),
    "the closer ends": (lambda: sys.exit(0), [Program("/bin/sh", ("sh", "-c", "touch TRACE"))]),
    "the closer is killed": (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        [Program("/bin/sh", ("sh", "-c", "touch TRACE"))],
    ),
    "a program is missing": (
        fail,
        [Program("/no/such/program", ("x",)), Program("/bin/sh", ("sh", "-c", "touch TRACE"))],
    ),
    "a program fails": (
        fail,
        [Program("/bin/false", ("false",)), Program("/bin/sh", ("sh", "-c", "touch TRACE"))],
    ),
    "the first program works": (
        fail,
        [Program("/bin/sh", ("sh", "-c", "touch TRACE")), Program("/bin/sh", ("sh", "-c", "rm TRACE"))],
    ),
    "the closer works": (lambda: None, [Program("/bin/sh", ("sh", "-c", "rm TRACE"))]),
}


@pytest.mark.parametrize(("close", "programs"), WAYS.values(), ids=WAYS)
def test_closer_that_fails_is_followed_by_other_programs(
    tmp_path: Path, close: Callable[[], None], programs: list[Program]
) -> None:
    trace = tmp_path / "trace"
    if close is WAYS["the closer works"][0]:
        trace.touch()
    mine = [
        Program(program.path, tuple(word.replace("TRACE", str(trace)) for word in program.arguments))
        for program in programs
    ]
    with CrashGuard(Closer(lambda: None, close, mine)) as kept:
        pass
    _, status = os.waitpid(kept.pid, 0)
    assert status == 0
    assert trace.exists()


def test_guard_of_which_every_way_fails_ends_with_an_error() -> None:
    with CrashGuard(Closer(lambda: None, fail, [Program("/bin/false", ("false",))])) as kept:
        pass
    _, status = os.waitpid(kept.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1


# --- a guard that is killed


def watched(story: Callable[[CrashGuard], Awaitable[None]], trace: Path) -> None:
    async def main() -> None:
        with guard(trace) as kept:
            watching = asyncio.create_task(kept.watch())
            try:
                await asyncio.wait_for(story(kept), SOON)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            kept.dismiss()

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def _refuse(_: int, __: int = 0) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("has_descriptors", [True, False])
def test_killed_guard_is_noticed_within_a_second_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has_descriptors: bool
) -> None:
    if not has_descriptors:
        monkeypatch.setattr(os, "pidfd_open", _refuse)
    before = open_descriptors()

    async def story(kept: CrashGuard) -> None:
        for number in (1, 2):
            first = kept.pid
            os.kill(first, signal.SIGKILL)
            killed = now()
            await until(lambda number=number: len(caplog.messages) == number)  # type: ignore[misc]
            assert now() - killed < 1
            assert kept.pid != first
            assert not Path(f"/proc/{first}").exists(), "it is no zombie"
            text = f"the crash guard, process {first}, was ended by signal 9; process {kept.pid} takes its place"
            assert caplog.messages[-1] == text
            assert alive(kept.pid)

    watched(story, tmp_path / "trace")
    assert not (tmp_path / "trace").exists()
    assert open_descriptors() == before


def test_guard_that_takes_a_killed_ones_place_runs_closer(tmp_path: Path) -> None:
    script = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.unit.system.test_crash_guard import guard
async def main():
    with guard(Path(sys.argv[1])) as kept:
        first = kept.pid
        watching = asyncio.create_task(kept.watch())
        os.kill(first, signal.SIGKILL)
        while kept.pid in (0, first):
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    argv = [sys.executable, "-c", script, str(tmp_path / "trace")]
    assert subprocess.run(argv, cwd=REPOSITORY, check=False).returncode == -signal.SIGKILL
    wait_until((tmp_path / "trace").exists, SOON, "the closer's trace")


def test_guard_that_cannot_be_started_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crash_guard, "_MOMENT", 0.02)

    async def story(kept: CrashGuard) -> None:
        first = kept.pid
        with monkeypatch.context() as patch:
            patch.setattr(os, "fork", no_process)
            os.kill(first, signal.SIGKILL)
            await until(lambda: caplog.messages)
            await asyncio.sleep(0.1)
        await until(lambda: kept.pid not in (0, first))
        await until(lambda: len(caplog.messages) == 2)

    watched(story, tmp_path / "trace")
    text = (
        "the crash guard was killed and cannot be started again, tried every 0.02 s: Resource temporarily unavailable"
    )
    assert caplog.messages[0] == text


def test_guard_that_is_killed_at_the_end_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_guard, "_MOMENT", 1000)

    async def story(kept: CrashGuard) -> None:
        os.kill(kept.pid, signal.SIGKILL)
        await until(lambda: not kept.pid)

    watched(story, tmp_path / "trace")
    assert not (tmp_path / "trace").exists()


def test_lines_about_killed_guards_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crash_guard, "_MOMENT", 0)

    async def story(kept: CrashGuard) -> None:
        for _ in range(8):
            before = kept.pid
            os.kill(before, signal.SIGKILL)
            await until(lambda before=before: kept.pid not in (0, before))  # type: ignore[misc]

    watched(story, tmp_path / "trace")
    assert len(caplog.messages) == 5
