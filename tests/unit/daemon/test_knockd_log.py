"""knockd's log as its watchers know it, and what may go wrong with a log."""

import re
import socket
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors import events
from port_knocking_doors.daemon import knockd_log
from port_knocking_doors.daemon.knockd_log import LINES_MAX, LINES_PERIOD, KnockdLog
from port_knocking_doors.model import CommandOpening, Door, Sequence, Settings
from port_knocking_doors.system import log
from tests.helpers.full_pipe import full_pipe

ALICE = ip_address("10.0.0.2")

LINES = [
    "starting up, listening on eth0",
    "10.0.0.2: ssh: Stage 1",
    "10.0.0.2: ssh: OPEN SESAME",
    "ssh: running command: iptables -A INPUT -s 10.0.0.2 -j ACCEPT",
    "ssh: command returned non-zero status code (3)",
    "10.0.0.2: ssh: command timeout",
    "10.0.0.2: ssh: sequence timeout (stage 2)",
    "shutting down",
]


SSH = Sequence("ssh", ())
DOOR = Door(ALICE, "", "ssh", CommandOpening("start", "stop"))
STARTED = events.CommandStarted(DOOR, "iptables -A INPUT -s 10.0.0.2 -j ACCEPT")


def step(stage: int) -> events.SequenceAdvanced:
    return events.SequenceAdvanced(ALICE.packed, SSH, stage)


def publish(observer: KnockdLog, *published: object) -> None:
    stream = events.EventStream()
    stream.add(observer.handlers())
    for event in published:
        stream.publish(event)


def publish_all(observer: KnockdLog) -> None:
    publish(
        observer,
        events.Ready(Settings(), ("eth0",)),
        step(1),
        events.SequenceCompleted(ALICE.packed, SSH),
        STARTED,
        events.CommandEnded(DOOR, 0),
        events.CommandEnded(DOOR, 3),
        events.DoorClosed(DOOR),
        events.SequenceTimedOut(ALICE.packed, SSH, 2),
        events.Stopped(0, True),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "knockd.log"


def test_the_file_has_each_line_with_date_and_minute(file: Path) -> None:
    file.write_text("earlier\n")
    with KnockdLog(str(file)) as told:
        publish_all(told)
    earlier, *lines = file.read_text().splitlines()
    assert earlier == "earlier"
    assert all(re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d\] .*", line) for line in lines)
    assert [line[19:] for line in lines] == LINES


def test_standard_output_has_them_without_a_date(capfd: pytest.CaptureFixture[str]) -> None:
    with KnockdLog(verbose=True) as told:
        publish_all(told)
    assert capfd.readouterr().out.splitlines() == ["listening on eth0...", *LINES[1:-1]]


def test_without_anything_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with KnockdLog() as told:
        publish_all(told)
    assert capfd.readouterr() == ("", "")


def test_a_command_of_several_lines_is_one_line(file: Path) -> None:
    with KnockdLog(str(file)) as told:
        publish(told, events.CommandStarted(DOOR, "one\ntwo"))
    assert len(file.read_text().splitlines()) == 1


def test_reading_the_configuration_again_opens_the_file_again(file: Path) -> None:
    with KnockdLog(str(file)) as told:
        publish(told, step(1))
        assert log.flush()
        file.rename(file.with_suffix(".1"))
        publish(told, step(2))
        publish(told, events.Reloaded())
        publish(told, step(3))
    assert "Stage 2" in file.with_suffix(".1").read_text()
    assert [line[-1] for line in file.read_text().splitlines()] == ["3"]


def test_refused_reload_opens_the_same_file_again_and_another_file_waits(file: Path, tmp_path: Path) -> None:
    with KnockdLog(str(file)) as observer:
        publish(observer, step(1))
        assert log.flush()
        file.rename(file.with_suffix(".1"))
        publish(observer, events.ReloadFailed("no"), step(2))
        observer.use(str(tmp_path / "other.log"), syslog=False)
        publish(observer, step(3), events.Reloaded(), step(4))
    assert [line[-1] for line in file.read_text().splitlines()] == ["2", "3", "e"]
    assert [line[-1] for line in (tmp_path / "other.log").read_text().splitlines()] == ["4"]


def test_a_file_that_cannot_be_opened_is_told_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "log"
    with KnockdLog(str(folder / "knockd.log")) as told:
        assert log.flush()
        assert "cannot be opened" in caplog.text
        publish(told, step(1))
        folder.mkdir()
        publish(told, events.Reloaded())
        publish(told, step(2))
    assert "Stage 2" in (folder / "knockd.log").read_text()


def test_a_full_disk_stops_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with KnockdLog("/dev/full", verbose=True) as told:
        publish_all(told)
        publish(told, events.Reloaded())
    assert "OPEN SESAME" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("event", "line", "rest"),
    [
        (events.SequenceCompleted(ALICE.packed, SSH), "10.0.0.2: ssh: OPEN SESAME", "OPEN SESAME"),
        (events.SequenceTimedOut(ALICE.packed, SSH, 2), LINES[6], "sequence timeout"),
        (STARTED, LINES[3], "running command"),
        (events.CommandEnded(DOOR, 3), LINES[4], "command returned non-zero status code"),
        (events.DoorClosed(DOOR), LINES[5], "command timeout"),
    ],
    ids=["completed", "timed out", "command started", "command failed", "closed"],
)
def test_lines_of_one_kind_are_limited_and_then_summed_up(
    file: Path, monkeypatch: pytest.MonkeyPatch, event: object, line: str, rest: str
) -> None:
    moment = 1000.0
    monkeypatch.setattr(knockd_log, "now", lambda: moment)
    with KnockdLog(str(file)) as observer:
        publish(observer, *[event] * 1000)
        assert observer.next_deadline() == moment + LINES_PERIOD
        observer.sum_up(moment + LINES_PERIOD - 0.1)
        moment += LINES_PERIOD
        observer.sum_up(moment)
        assert observer.next_deadline() is None
        publish(observer, event, step(1))
    lines = [text[19:] for text in file.read_text().splitlines()]
    assert lines == [*[line] * LINES_MAX, f"{1000 - LINES_MAX} more lines: {rest}", line, "10.0.0.2: ssh: Stage 1"]


def test_file_that_takes_nothing_delays_no_event(tmp_path: Path) -> None:
    """A pipe that is full stands for a disk that hangs."""
    with full_pipe(tmp_path / "pipe") as pipe, KnockdLog(str(pipe.path)) as observer:
        for stage in range(1, 5000):
            publish(observer, step(stage))
        lines = pipe.read(until="Stage 500")
        publish(observer, step(9999))
        lines += pipe.read(until="Stage 9999")
    stages = [int(line.rpartition(" ")[2]) for line in lines if "Stage" in line]
    assert stages == [*range(1, len(stages)), 9999]
    assert lines[-2].endswith(f"{5000 - len(stages)} lines lost: the log did not take them in time")


def test_sum_that_is_due_is_written_ahead_of_the_next_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1000.0
    monkeypatch.setattr(knockd_log, "now", lambda: moment)
    with KnockdLog(str(file)) as observer:
        publish(observer, *[STARTED] * (LINES_MAX + 5))
        moment += LINES_PERIOD
        publish(observer, STARTED)
    lines = [text[19:] for text in file.read_text().splitlines()]
    assert lines[LINES_MAX:] == ["5 more lines: running command", LINES[3]]


def test_standard_output_that_fails_is_not_tried_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with KnockdLog(str(file), verbose=True) as observer:
            publish_all(observer)
        assert not observer._verbose
    assert "OPEN SESAME" in file.read_text()


def test_file_that_still_hangs_at_the_end_is_left_open(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with KnockdLog(str(file)) as observer:
        assert observer._writer.flush()
        with monkeypatch.context() as patch:
            patch.setattr(observer._writer, "flush", lambda: False)
            observer.__exit__()
        assert observer._file >= 0


def test_lookup_keeps_few_names_and_lines_waiting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def name_of(address: str) -> tuple[str, list[str], list[str]]:
        asked.append(address)
        return f"host-{address}", [], []

    monkeypatch.setattr(socket, "gethostbyaddr", name_of)
    monkeypatch.setattr(knockd_log, "NAMES_MAX", 1)
    others = (ALICE, ip_address("10.0.0.3"), ALICE)
    with KnockdLog(str(file), lookup=True) as observer:
        for address in others:
            publish(observer, events.SequenceAdvanced(address.packed, SSH, 1))
    assert asked == [str(address) for address in others]
    assert f"{ALICE} (host-{ALICE}): ssh: Stage 1" in file.read_text()
    with monkeypatch.context() as patch, KnockdLog(str(file), lookup=True) as observer:
        patch.setattr(knockd_log, "QUEUE_MAX", 0)
        publish(observer, step(2))
    assert f"{ALICE}: ssh: Stage 2" in file.read_text()
    assert len(asked) == len(others)


class TestSyslog:
    @pytest.fixture
    def syslogd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
        path = str(tmp_path / "log")
        monkeypatch.setattr(log, "SYSLOG", path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
            listening.bind(path)
            yield listening

    def test_it_gets_each_line_as_from_knockd(self, syslogd: socket.socket) -> None:
        with KnockdLog(syslog=True) as told:
            publish_all(told)
        lines = [syslogd.recv(1000).decode() for _ in LINES]
        assert [line.removeprefix("<13>") for line in lines] == [f"knockd: {line}" for line in LINES]

    def test_one_that_reads_nothing_stops_nobody(self, syslogd: socket.socket) -> None:
        with KnockdLog(syslog=True) as told:
            for _ in range(10_000):
                publish(told, step(1))
        assert syslogd.recv(1000)

    def test_one_that_was_started_anew_gets_the_next_line(self, syslogd: socket.socket) -> None:
        path = syslogd.getsockname()
        with KnockdLog(syslog=True) as told:
            publish(told, step(1))
            syslogd.close()
            Path(path).unlink()
            publish(told, step(2))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anew:
                anew.bind(path)
                publish(told, step(3))
                assert anew.recv(1000).decode().endswith("Stage 3")


class TestLookup:
    def test_the_name_follows_the_address(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "gethostbyaddr", lambda _: ("some-host.example", [], []))
        with KnockdLog(str(file), lookup=True) as told:
            publish_all(told)
        assert [line[19:] for line in file.read_text().splitlines()] == [
            line.replace("10.0.0.2:", "10.0.0.2 (some-host.example):") for line in LINES
        ]

    @pytest.mark.parametrize("name", ["a\nOPEN SESAME", "a) x", "\N{SNOWMAN}", ""])
    def test_a_name_that_is_none_is_left_out(self, file: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setattr(socket, "gethostbyaddr", lambda _: (name, [], []))
        with KnockdLog(str(file), lookup=True) as told:
            publish(told, step(1))
        assert file.read_text()[19:] == "10.0.0.2: ssh: Stage 1\n"

    def test_a_resolver_that_hangs_delays_the_log_alone(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = threading.Event()

        def hang(*_: object) -> tuple[str, str]:
            answers.wait()
            raise OSError

        monkeypatch.setattr(socket, "gethostbyaddr", hang)
        monkeypatch.setattr(knockd_log, "FAREWELL", 0.01)
        with KnockdLog(str(file), lookup=True) as told:
            publish(told, step(1))
            for stage in range(2, 5):
                publish(told, step(stage))
        assert [line[-1] for line in file.read_text().splitlines()] == ["2", "3", "4"]
        answers.set()
