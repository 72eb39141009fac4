"""Running in the background: when the parent returns, what a daemon keeps and closes, and whose a pid file is."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from port_knocking_doors.errors import AlreadyRunningError, DoorsError
from port_knocking_doors.sandbox import ClientHost, Sandbox
from port_knocking_doors.system import daemonize
from port_knocking_doors.system.daemonize import PidFile
from tests.helpers import backgrounded
from tests.helpers.running import GUARDED, doors, knock, wait_open, wait_shut, write_configuration
from tests.helpers.waiting import wait_until

SCRIPT = str(Path(backgrounded.__file__))
LONG = 20.0
NOT_A_CHILD = 1
PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[Path]:
    """A path for one; the process in it is killed at the end."""
    path = tmp_path / "daemon.pid"
    yield path
    with suppress(OSError, ValueError):
        os.kill(int(path.read_text()), signal.SIGKILL)


def argv(payload: str, pid_file: Path) -> list[str]:
    return [sys.executable, SCRIPT, payload, str(pid_file), str(pid_file.parent)]


def start(payload: str, pid_file: Path, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run the payload in the background, and return with what its parent said."""
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        argv(payload, pid_file), capture_output=True, text=True, timeout=LONG, env={**os.environ, **PATHS}, **options
    )
    return done


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


# --- the parent


def test_parent_returns_once_daemon_is_ready_and_not_before(pid_file: Path) -> None:
    with subprocess.Popen(
        argv("hesitate", pid_file), stdout=subprocess.PIPE, text=True, env={**os.environ, **PATHS}
    ) as parent:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), LONG, "the pid file")
        pid = int(pid_file.read_text())
        assert runs(pid)
        assert parent.poll() is None
        (pid_file.parent / "go").touch()
        assert parent.wait(LONG) == 0
        assert parent.stdout is not None
        assert int(parent.stdout.read()) == pid
    assert runs(pid)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not runs(pid), LONG, "the daemon to end")
    assert not pid_file.exists()


FAILURES = {
    "refuse": (2, "F:3: this will not do, expected better"),
    "stay": (1, "cannot run in the background: "),
    "leave": (1, "the process in the background ended before it was ready"),
    "die": (1, "the process in the background ended before it was ready"),
    "lack": (1, "the system refused: Too many open files"),
    "blunder": (1, "internal error in the background process; see its log"),
}


@pytest.mark.parametrize(("payload", "expected"), FAILURES.items(), ids=FAILURES)
def test_failure_before_ready_is_reported_by_parent(pid_file: Path, payload: str, expected: tuple[int, str]) -> None:
    done = start(payload, pid_file)
    assert (done.returncode, done.stdout) == (expected[0], "")
    assert done.stderr.splitlines()[-1].startswith(expected[1])
    assert "Traceback" not in done.stderr
    assert not pid_file.exists() or payload == "die"


def test_later_error_removes_pid_file(pid_file: Path) -> None:
    done = start("fail_later", pid_file)
    pid = int(done.stdout)
    (pid_file.parent / "go").touch()
    wait_until(lambda: not runs(pid), LONG, "the daemon to end")
    assert not pid_file.exists()


def test_waiting_parent_says_what_it_waits_for(pid_file: Path) -> None:
    command = argv("dawdle", pid_file)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **PATHS}) as parent:
        assert parent.stderr is not None
        line = parent.stderr.readline()
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), LONG, "the pid file")
        assert f"process {int(pid_file.read_text())} in the background is not ready yet" in line
        (pid_file.parent / "go").touch()
        assert parent.wait(LONG) == 0
        assert parent.stderr.read() == "", "once is enough"


def test_interrupted_parent_ends_daemon(pid_file: Path) -> None:
    with subprocess.Popen(argv("hesitate", pid_file), stderr=subprocess.DEVNULL, env={**os.environ, **PATHS}) as parent:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), LONG, "the pid file")
        pid = int(pid_file.read_text())
        parent.send_signal(signal.SIGINT)
        parent.wait(LONG)
    wait_until(lambda: not runs(pid), LONG, "the daemon to end")
    assert not pid_file.exists()


def test_parent_interrupted_before_pid_arrives_ends_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def register(self, *_: int) -> None: ...

        def poll(self, _: float) -> list[tuple[int, int]]:
            raise KeyboardInterrupt

    reading, writing = os.pipe()
    with subprocess.Popen(["sleep", "1000"]) as daemon, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        try:
            os.write(writing, str(daemon.pid).encode())
            with monkeypatch.context() as patch:
                patch.setattr("select.poll", Interrupted)
                with pytest.raises(KeyboardInterrupt):
                    daemonize._await_ready(receiver, reading, NOT_A_CHILD)
            assert daemon.wait(LONG) == -signal.SIGTERM
        finally:
            daemon.kill()
            os.close(reading)
            os.close(writing)


def test_missing_library_is_one_line_that_says_what_to_install(pid_file: Path) -> None:
    blind = (
        "import runpy, sys; sys.modules['daemon'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", blind, *argv("serve", pid_file)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, env={**os.environ, **PATHS})
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "python3-daemon" in line
    assert not pid_file.exists()


# --- the daemon


def test_background_daemon_detaches_and_keeps_what_it_needs(pid_file: Path) -> None:
    reading, writing = os.pipe()
    try:
        done = start("report", pid_file, pass_fds=[reading, writing], cwd=pid_file.parent, umask=0o077)
    finally:
        os.close(writing)
    state = json.loads((pid_file.parent / "state").read_text())
    assert state["pid"] == int(done.stdout) == int(pid_file.read_text())
    assert state["streams"] == ["/dev/null"] * 3
    assert (state["folder"], state["umask"]) == ("/", 0o022)
    assert state["session"] not in (os.getsid(0), state["pid"]), "a session of its own, and no way to a terminal"
    assert state["opened"], "what the program itself opened"
    assert os.read(reading, 1) == b"", "no process holds the caller's pipe"
    os.close(reading)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams_change_nothing(pid_file: Path, closed: str) -> None:
    shell = f'exec "$@" {closed}'
    subprocess.run(
        ["sh", "-c", shell, "-", *argv("report", pid_file)],
        capture_output=True,
        timeout=LONG,
        env={**os.environ, **PATHS},
        check=True,
    )
    assert runs(int(pid_file.read_text()))
    assert json.loads((pid_file.parent / "state").read_text())["streams"] == ["/dev/null"] * 3


# --- the pid file


def a_dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


STALE: dict[str, Callable[[], object]] = {
    "an empty file": lambda: "",
    "an empty line": lambda: "\n",
    "a dead process": a_dead_process,
    "a number beyond all processes": lambda: 9999999999,
    "the number that we got ourselves": os.getpid,
    "no process at all": lambda: 0,
}


@pytest.mark.parametrize("content", STALE.values(), ids=STALE)
def test_stale_pid_file_is_replaced(tmp_path: Path, content: Callable[[], object]) -> None:
    path = tmp_path / "pid"
    path.write_text(str(content()))
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o644
    assert not path.exists()


def test_pid_file_with_reused_number_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        path.write_text(f"{sleeper.pid}\n")
        long_ago = time.time() - 3600
        os.utime(path, (long_ago, long_ago))
        with PidFile(path):
            assert path.read_text() == f"{os.getpid()}\n"
        sleeper.kill()


def test_pid_file_of_live_process_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        path.write_text(f"{sleeper.pid}\n")
        wait_until(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n", LONG, "sleep to have its name")
        with pytest.raises(AlreadyRunningError) as caught, PidFile(path):
            pass
        assert str(caught.value).startswith(f"{path}: process {sleeper.pid} (sleep) is already running")
        assert path.read_text() == f"{sleeper.pid}\n"
        sleeper.kill()


def test_second_background_daemon_refuses_and_names_the_first(pid_file: Path) -> None:
    first = int(start("serve", pid_file).stdout)
    done = start("serve", pid_file)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{pid_file}: process {first} (")
    assert int(pid_file.read_text()) == first


def test_daemon_after_killed_one_replaces_its_pid_file(pid_file: Path) -> None:
    first = int(start("serve", pid_file).stdout)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not runs(first), LONG, "the first to end")
    assert int(pid_file.read_text()) == first
    second = int(start("serve", pid_file).stdout)
    assert int(pid_file.read_text()) == second != first


def test_one_of_several_simultaneous_daemons_starts(pid_file: Path) -> None:
    pid_file.write_text(f"{a_dead_process()}\n")
    several = [
        subprocess.Popen(
            argv("serve", pid_file), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **PATHS}
        )
        for _ in range(6)
    ]
    said = [process.communicate(timeout=LONG)[0] for process in several]
    (winner,) = (int(one) for one in said if one)
    assert int(pid_file.read_text()) == winner
    assert sorted(process.returncode for process in several) == [0, 1, 1, 1, 1, 1]


def test_file_that_is_no_pid_file_is_not_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("root:x:0:0\n")
    with pytest.raises(DoorsError, match="not a pid file, not overwritten"), PidFile(precious):
        pass
    assert precious.read_text() == "root:x:0:0\n"
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path / "fifo", Path(os.devnull)):
        with pytest.raises(DoorsError, match="not an ordinary file"), PidFile(other):
            pass
        assert other.exists()


def test_unwritable_pid_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing" / "pid", tmp_path / "link", tmp_path):
        with pytest.raises(DoorsError, match="cannot be written"), PidFile(path):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_replaced_pid_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with PidFile(path):
        path.unlink()
        path.write_text("1\n")
    assert path.read_text() == "1\n"


def test_pid_file_is_locked_while_daemon_runs(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with PidFile(path), path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"


# --- the real daemon

REAL = """\
import asyncio, sys
from pathlib import Path
from port_knocking_doors.config import loader
from port_knocking_doors.daemon.daemon import Daemon
from port_knocking_doors.system import daemonize
def load():
    return loader.load(Path(sys.argv[1]), magic_seq=None, ports=None, environ={}, home=Path("/"))
loaded = load()
daemonize.run(lambda: asyncio.run(Daemon(loaded, load).run()), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_real_daemon_runs_in_background(box: Sandbox, client: ClientHost, tmp_path: Path, end: signal.Signals) -> None:
    conf, pid_file = write_configuration(tmp_path), tmp_path / "daemon.pid"
    box.server.run([sys.executable, "-c", REAL, str(conf), str(pid_file)], env=PATHS)
    pid = pid_file.read_text().strip()
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        wait_open(client, client.server4)
        box.server.run(["kill", f"-{end.value}", pid])
        wait_shut(client, client.server4)
    wait_until(lambda: not doors(box), 5, "no door")
    gone = ["sh", "-c", "kill -0 $0 2>/dev/null", pid]
    wait_until(lambda: box.server.run(gone, check=False).returncode != 0, 10, "the daemon to be gone")
    assert pid_file.exists() == (end is signal.SIGKILL)


def test_real_daemon_that_cannot_start_says_why(box: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path, zone="nowhere")
    done = box.server.run([sys.executable, "-c", REAL, str(conf), str(tmp_path / "daemon.pid")], env=PATHS, check=False)
    assert done.returncode != 0
    assert "zone 'nowhere' is unknown to firewalld" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "daemon.pid").exists()
