"""The crash guard, with a closer that only makes a file; the system tests have the real closer."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system.crash_guard import CrashGuard
from tests.helpers.fake_bus import open_descriptors
from tests.helpers.waiting import wait_until

SOON = 5.0
REPOSITORY = Path(__file__).parents[3]


def guard(trace: Path) -> CrashGuard:
    """A crash guard whose closer makes the file `trace`."""
    return CrashGuard(("/bin/sh", "-c", f"echo closed > {shlex.quote(str(trace))}"))


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
        ignored = f"/proc/{kept.pid}/status"
        bit = 1 << (signal.Signals[name] - 1)

        def trapped() -> bool:
            lines = Path(ignored).read_text().splitlines()
            return bool(next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn")) & bit)

        wait_until(trapped, SOON, "its trap")
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


def test_missing_shell_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("port_knocking_doors.system.crash_guard.SHELL", "/no/such/shell")
    before = open_descriptors()
    with pytest.raises(DoorsError, match=r"is killed \(/no/such/shell: No such file or directory\)$"):
        guard(tmp_path / "trace").__enter__()
    assert open_descriptors() == before
