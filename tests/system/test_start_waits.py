"""What a start waits for, under a service manager: it is never ended by a time-out, and its status says the reason."""

import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from port_knocking_doors.config import reserve
from port_knocking_doors.sandbox import Process, Sandbox
from tests.helpers.running import GUARDED, SEQUENCE, begin_daemon, knock, wait_open, write_configuration
from tests.helpers.waiting import wait_until

UP = 5.0
"""Seconds from the start to `READY=1`; systemd would wait for 90."""
SOON = 20.0


class Manager:
    """In place of systemd."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.name = listening.getsockname()
        self.lines: list[str] = []

    def read(self) -> list[str]:
        with suppress(BlockingIOError):
            while True:
                self.lines += self._listening.recv(4096).decode().splitlines()
        return self.lines

    @property
    def status(self) -> str:
        """As `systemctl status` shows it."""
        return next((line[7:] for line in reversed(self.read()) if line.startswith("STATUS=")), "")

    def await_status(self, pattern: str, within: float = SOON) -> None:
        wait_until(lambda: re.search(pattern, self.status), within, lambda: f"{pattern!r} and not {self.lines}")

    def await_line(self, line: str, within: float) -> None:
        wait_until(lambda: line in self.read(), within, lambda: f"{line} in {self.lines}")


@pytest.fixture
def managers() -> Iterator[Callable[[], Manager]]:
    with tempfile.TemporaryDirectory() as folder:
        made: list[socket.socket] = []

        def make() -> Manager:
            made.append(sock := socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            sock.bind(f"{folder}/{len(made)}")
            sock.setblocking(False)
            return Manager(sock)

        yield make
        for sock in made:
            sock.close()


class Case(NamedTuple):
    """What is missing at the start, how it comes, and how the status names it."""

    take: Callable[[Sandbox], object]
    bring: Callable[[Sandbox], object]
    status: str


def _without_bus(box: Sandbox) -> None:
    firewalld = box.firewalld.process
    box.bus.stop()
    firewalld.wait(SOON)


def _with_bus(box: Sandbox) -> None:
    box.bus.start()
    box.firewalld.start()


CASES = {
    "firewalld stopped": Case(
        lambda box: box.firewalld.stop(),
        lambda box: box.firewalld.start(),
        "^waiting for firewalld, which is not running; accepting knocks",
    ),
    "firewalld hung": Case(
        lambda box: box.firewalld.freeze(),
        lambda box: box.firewalld.thaw(),
        "^waiting for firewalld, which does not answer; accepting knocks",
    ),
    "no bus": Case(_without_bus, _with_bus, "^waiting for the D-Bus system bus"),
}


def test_unit_is_up_when_it_listens_whatever_firewalld_does(
    box: Sandbox, tmp_path: Path, managers: Callable[[], Manager]
) -> None:
    conf = write_configuration(tmp_path, max_opened_door_duration=60)
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        for name, case in CASES.items():
            manager = managers()
            case.take(box)
            daemon = begin_daemon(box, conf, env={"NOTIFY_SOCKET": manager.name})
            manager.await_line("READY=1", UP)
            manager.await_status(case.status)
            assert not any(re.search(r"\bready\b", line) for line in daemon.stderr.lines), name
            assert len(box.server.run(["ss", "-Hlun"]).stdout.splitlines()) == len(SEQUENCE), "knocks are received"
            case.bring(box)
            daemon.wait_for(r"\bready\b", SOON)
            manager.await_status("^ready: listening on 5 UDP ports")
            knock(client, client.server4)
            wait_open(client, client.server4)
            if case is CASES["firewalld hung"]:  # the status follows at once, not with the next check of the rules
                box.firewalld.stop()
                manager.await_status("^waiting for firewalld, which is not running", UP)
                box.firewalld.start()
                manager.await_status("^ready: ", UP)
            _end(daemon, manager)


def _end(daemon: Process, manager: Manager) -> None:
    daemon.terminate()
    assert daemon.wait(SOON) == 0
    lines = manager.read()
    assert lines.count("READY=1") == 1
    assert lines.index("STOPPING=1") < lines.index("STATUS=closing the doors")
    assert "EXTEND_TIMEOUT_USEC=15000000" in lines
    assert not any(str(port) in line for port in SEQUENCE for line in lines)


def test_start_is_not_ready_while_it_waits_and_asks_for_time(
    box: Sandbox, tmp_path: Path, managers: Callable[[], Manager]
) -> None:
    conf = write_configuration(tmp_path)
    manager = managers()
    taken = box.server.listen(SEQUENCE[2], "udp")
    daemon = begin_daemon(box, conf, env={"NOTIFY_SOCKET": manager.name})
    daemon.wait_for(r"opening_sequence: port number 3 of it is in use .*: waiting until it is free")
    # Each wait ends before the time that was asked for is over, and asks again.
    wait_until(lambda: manager.read().count("EXTEND_TIMEOUT_USEC=30000000") >= 3, SOON, "more time asked for")
    assert "READY=1" not in manager.read()
    assert re.search("^waiting for a knock port: opening_sequence: port number 3", manager.status)
    argv = [sys.executable, "-m", "port_knocking_doors", "doctor", "--conf", str(conf)]
    examined = box.server.run(argv, check=False, timeout=60).stdout
    assert re.search("^PROBLEM +daemon: it listens on none of its knock ports", examined, re.MULTILINE)
    assert re.search("^PROBLEM +knock ports: port number 3 of the opening sequence is in use", examined, re.MULTILINE)
    taken.close()
    manager.await_line("READY=1", SOON)
    daemon.wait_for("the knock port is free: listening on it")
    daemon.wait_for(r"\bready\b")

    # A closer that has the mark.
    daemon.terminate()
    assert daemon.wait(SOON) == 0
    lock = "/run/port-knocking-doors/31313.lock"
    script = 'exec 9<>"$0"; flock 9; echo closer $$ >"$0"; echo held; exec sleep 60'
    closer = box.server.popen(["sh", "-c", script, lock])
    closer.stdout.wait_for("held", SOON)
    manager = managers()
    daemon = begin_daemon(box, conf, env={"NOTIFY_SOCKET": manager.name})
    manager.await_status(r"^waiting for process \d+, which closes the doors of an earlier daemon")
    assert "EXTEND_TIMEOUT_USEC=30000000" in manager.read()
    closer.kill()
    manager.await_line("READY=1", SOON)
    daemon.terminate()
    assert daemon.wait(SOON) == 0


def test_reload_that_adds_port_in_use_is_refused_as_a_whole(box: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    daemon = begin_daemon(box, conf)
    daemon.wait_for(r"\bready\b")
    with box.server.listen(24001, "udp"):
        write_configuration(tmp_path, opening_sequence=[*SEQUENCE[:4], 24001])
        argv = [sys.executable, "-m", "port_knocking_doors", "reload", "--priority", "31313"]
        done = box.server.run(argv, check=False)
        assert done.returncode == 2
        assert re.search("opening_sequence: port number 5 of it is in use by another program", done.stderr)
    assert len(box.server.run(["ss", "-Hlun"]).stdout.splitlines()) == len(SEQUENCE)
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        wait_open(client, client.server4)


def test_full_runtime_directory_is_no_wait_and_is_retried(box: Sandbox, tmp_path: Path) -> None:
    box.server.run(["mkdir", "-p", "/run/port-knocking-doors"])
    box.server.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", "full", "/run/port-knocking-doors"])
    box.server.run(["dd", "if=/dev/zero", "of=/run/port-knocking-doors/filler", "bs=4k", "count=1"])
    daemon = begin_daemon(box, write_configuration(tmp_path))
    assert daemon.wait(UP) == 1
    (line,) = daemon.stderr.lines
    assert "No space left on device" in line


def test_sequence_among_outgoing_ports_is_warned_of_with_sysctl_line(box: Sandbox, tmp_path: Path) -> None:
    server = box.server
    server.run(["sh", "-c", "echo 20000 30000 >/proc/sys/net/ipv4/ip_local_port_range"])
    server.run(["sh", "-c", "echo 20001,25000-25003 >/proc/sys/net/ipv4/ip_local_reserved_ports"])
    conf = write_configuration(tmp_path, opening_sequence=[20001, 9003, 21011, 31001, 29005])

    def asked(*words: str) -> str:
        argv = [sys.executable, "-m", "port_knocking_doors", *words, "--conf", str(conf)]
        return server.run(argv, check=False, timeout=60).stdout

    said = asked("check")
    assert re.search(
        rf"^Warning: {conf}: 2 ports of the sequence are in the range .* \(20000 to 30000", said, re.MULTILINE
    )
    now, at_boot = (line.strip() for line in said.splitlines() if line.startswith("  "))
    examined = asked("doctor")
    assert "2 ports of the sequence are in the range" in examined
    assert f"`{now}`" in examined
    daemon = begin_daemon(box, conf)
    warned = daemon.wait_for("WARNING .*2 ports of the sequence are in the range")
    assert "21011" not in warned
    assert "29005" not in warned

    server.run(["sh", "-c", now])
    kept = server.run(["cat", "/proc/sys/net/ipv4/ip_local_reserved_ports"]).stdout
    assert kept == "20001,20992-21247,25000-25003,28928-29183\n", "what was reserved stays so"
    assert "ip_local_reserved_ports" not in asked("check")
    assert at_boot == f"echo 'net.ipv4.ip_local_reserved_ports = {kept.strip()}' >{reserve.FILE}"

    # A new sequence keeps out of the range by itself.
    server.run(["sh", "-c", "echo 11000 60000 >/proc/sys/net/ipv4/ip_local_port_range"])
    home = tmp_path / "home"
    home.mkdir()
    argv = [sys.executable, "-m", "port_knocking_doors", "--set-configuration-file-in-home"]
    assert "Warning" not in server.run(argv, env={"HOME": str(home)}).stdout
    (ports,) = re.findall(r"^opening_sequence = \[(.*)\]", (home / ".port_knocker.toml").read_text(), re.MULTILINE)
    reserved = {*range(20992, 21248), *range(25000, 25004), *range(28928, 29184), 20001}
    assert all(not 11000 <= int(port) <= 60000 or int(port) in reserved for port in ports.split(","))
