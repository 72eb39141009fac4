"""`status` as a program: on terminals of every size, and with a daemon that does not answer."""

import asyncio
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from port_knocking_doors.cli import status
from port_knocking_doors.cli.application import app
from port_knocking_doors.control import protocol, text
from port_knocking_doors.control.server import ControlServer
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.errors import ConfigError, DoorsError, NoDaemonError
from port_knocking_doors.system import instance
from tests.helpers.waiting import wait_until
from tests.unit.control.test_server import PRIORITY, RecordingHandler
from tests.unit.control.test_status import AHEAD, SNAPSHOT

REPOSITORY = Path(__file__).parents[3]
PROGRAM = (sys.executable, "-m", "port_knocking_doors")
STATUS = (*PROGRAM, "status", "--priority", str(PRIORITY))
MANY = replace(SNAPSHOT, knockers=tuple(replace(AHEAD, address=f"10.0.1.{number}") for number in range(90)))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory of the daemon and of the commands."""
    made = tmp_path_factory.mktemp("run")
    made.chmod(0o700)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(made))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return made


@pytest.fixture
def daemon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What answers, from a thread of its own."""
    monkeypatch.setattr(RecordingHandler, "snapshot", lambda _: MANY)
    loop = asyncio.new_event_loop()
    with ControlServer(PRIORITY, RecordingHandler()) as socket_:
        work = loop.create_task(socket_.run())
        thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.gather(work, return_exceptions=True)))
        thread.start()
        yield
        loop.call_soon_threadsafe(work.cancel)
        thread.join()
        loop.close()
    assert instance.runtime_directory() == folder


class Terminal:
    """Our end of a terminal, and what was written to it."""

    def __init__(self, ours: int) -> None:
        self.ours = ours
        self.seen = b""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> bytes:
        with suppress(OSError):  # the other end is closed
            while select.select([self.ours], [], [], 0)[0]:
                self.seen += os.read(self.ours, 65536)
        return self.seen

    def frame(self) -> list[str]:
        """The last one that is whole; its lines."""
        frames = self.read().split(b"\x1b[H")
        whole = [one for one in frames[1:] if one.endswith(b"\x1b[J")]
        return (
            whole[-1].decode().removesuffix("\x1b[J").replace("\x1b[K", "").replace("\r", "").split("\n")
            if whole
            else []
        )


@contextmanager
def watched(lines: int, columns: int, **environ: str) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    """`status --watch` on a terminal of this size, as its session's leader."""
    ours, theirs = pty.openpty()
    terminal = Terminal(ours)
    terminal.resize(lines, columns)
    argv = ["setsid", "--ctty", *STATUS, "--watch", "--every", "0.1"]
    env = {**os.environ, **environ}
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=env) as process:
        os.close(theirs)
        try:
            yield terminal, process
        finally:
            process.kill()
            with suppress(OSError):  # the test hung up
                os.close(terminal.ours)


def shows(terminal: Terminal, lines: int, columns: int) -> Callable[[], bool]:
    """Whether the frame is the first of the wrapped lines, and says how many more there are."""
    wrapped = text.wrapped(text.lines(MANY), columns)
    more = f"… and {len(wrapped) - lines + 1} more lines"[:columns]
    return lambda: terminal.frame() == [*wrapped[: lines - 1], more]


def test_watch_follows_size_of_terminal(daemon: None) -> None:
    with watched(30, 70, COLUMNS="200", LINES="5") as (terminal, process):
        # One line is left free: the cursor never has to go beyond the last one.
        wait_until(shows(terminal, 29, 70), 30, lambda: str(terminal.frame()))
        for lines, columns in ((10, 40), (2, 20), (1, 10), (50, 80)):
            terminal.resize(lines, columns)
            wait_until(shows(terminal, max(lines - 1, 1), columns), 10, lambda: str(terminal.frame()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
        assert terminal.read().endswith(b"\x1b[?25h\x1b[?1049l")
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("prefix", [(), ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")], ids=["default", "no SIGHUP"])
def test_watch_ends_with_its_terminal(daemon: None, prefix: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "STATUS", (*prefix, *STATUS))
    with watched(30, 70) as (terminal, process):
        wait_until(terminal.frame, 30, "it is drawn")
        os.close(terminal.ours)
        process.wait(10)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--watch", "--every", "nan"),
        ("doctor", "--listen", "nan"),
        ("sweep", "--patience", "nan"),
        ("demo", "--pause", "nan"),
    ],
    ids=" ".join,
)
def test_invalid_number_is_one_line(folder: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words[-2] in done.stderr


def test_prometheus_shows_hung_daemon_as_down(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / protocol.socket_name(PRIORITY)))
        listener.listen()
        command = (
            "from port_knocking_doors import cli\nfrom port_knocking_doors.control import client\n"
            "client.PATIENCE = 0.1\ncli.main()"
        )
        argv = [sys.executable, "-c", command, *STATUS[3:], "--prometheus"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "port-knocking-doors: the daemon does not answer\n"
    (family,) = text_string_to_metric_families(done.stdout)
    assert [(sample.name, sample.value) for sample in family.samples] == [("port_knocking_doors_up", 0)]


def test_priority_reaches_daemon_despite_wrong_configuration(daemon: None, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("bogus = 1\n")
    argv = [*PROGRAM, "status", "--conf", str(wrong)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"port-knocking-doors: {wrong}:1: the key bogus is unknown")
    assert done.stderr.endswith("; name a running daemon by its mark: --priority N\n")
    assert subprocess.run([*argv, "--priority", str(PRIORITY)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("other", ["--json", "--watch"])
def test_prometheus_excludes_other_forms(other: str) -> None:
    with pytest.raises(ConfigError, match=r"^--prometheus excludes --json and --watch, expected one of them$"):
        app(["status", "--prometheus", other], standalone_mode=False)


def test_watch_into_a_file_shows_each_answer_and_error(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([SNAPSHOT, SNAPSHOT, NoDaemonError("no daemon runs"), DoorsError("does not answer"), None])

    def ask() -> Snapshot:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise KeyboardInterrupt
        return answer

    status._watch(ask, 0, as_json=False)
    assert capsys.readouterr().out.splitlines() == [*text.lines(SNAPSHOT), "no daemon runs", "does not answer"]


def test_watch_as_json_ends_with_an_error_but_not_a_restart(capsys: pytest.CaptureFixture[str]) -> None:
    answers: Iterator[Snapshot | Exception] = iter([SNAPSHOT, NoDaemonError("restarts"), SNAPSHOT, DoorsError("hangs")])

    def ask() -> Snapshot:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(DoorsError, match=r"^hangs$"):
        status._watch(ask, 0, as_json=True)
    assert len(capsys.readouterr().out.splitlines()) == 1
