"""One-time sequences through the real daemon: none ever opens twice, whatever happens while it is marked as used."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.in_place_of_knockd import await_line, await_run, knock, log_lines, ran, running, write
from tests.helpers.waiting import wait_until

LINES = [(7100 + number, 7900 - number, 7300 + number) for number in range(12)]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """One for all of them: each ends what it starts."""
    with Sandbox(clients=("client", "stranger")) as sandbox:
        yield sandbox


def text(ports: tuple[int, ...]) -> str:
    return ",".join(f"{port}:udp" for port in ports)


def sequences(path: Path, count: int = len(LINES)) -> Path:
    return write(path, "".join(f" {text(ports)}\n" for ports in LINES[:count]))


def door(name: str, file: Path, command: str, more: str = "") -> str:
    return f"[{name}]\nOne_Time_Sequences = {file}\nStart_Command = {command}\n{more}"


def configuration(folder: Path, *doors: str) -> Path:
    return write(folder / "knockd.conf", f"[options]\nLogFile = {folder / 'log'}\n" + "".join(doors))


def used(path: Path) -> list[bool]:
    return [line.startswith("#") for line in path.read_text().splitlines()]


def test_line_is_marked_before_command_runs_and_next_line_is_active(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    file, log = tmp_path / "sequences", tmp_path / "ran"
    first, second, third = (text(ports).encode() for ports in LINES[:3])
    content = (
        b"# geb\xfchrt\n\n" + first + b"\r\nno sequence\n \t" + second + b"\n#" + third + b"\r" + third + b"\n\xff\n"
    )
    file.write_bytes(content)
    file.chmod(0o600)
    conf = configuration(tmp_path, door("d", file, f"cp {file} {tmp_path}/seen-$(wc -l <{log}); echo %IP% >>{log}"))
    log.touch()
    with running(box.server, conf, "-i", client.server_interface):
        knock(client, client.server4, LINES[0])
        await_run(log, str(client.address4))
        marked = content.replace(first, b"#" + first[1:])
        assert (tmp_path / "seen-0").read_bytes() == file.read_bytes() == marked
        knock(client, client.server4, LINES[0])
        knock(client, client.server4, LINES[1])
        await_run(log, str(client.address4), str(client.address4))
        assert (
            (tmp_path / "seen-1").read_bytes() == file.read_bytes() == marked.replace(b" \t" + second, b"#\t" + second)
        )
        await_line(
            tmp_path / "log", "no more sequences left in the one time sequences file for door d --> disabling the door"
        )
        knock(client, client.server4, LINES[2])
    stages = [line for line in log_lines(tmp_path / "log") if "Stage" in line]
    assert stages == [f"{client.address4}: d: Stage {stage}" for stage in (1, 2, 3)] * 2, "nothing else was accepted"


ABOUT_TO = {
    # What it is about to do, or has just done, when SIGKILL comes; whether the line is used then.
    "open": ("before", "open", False),
    "read it once more": ("before", "pread", False),
    "write": ("before", "pwrite", False),
    "written": ("behind", "pwrite", True),
    "flush": ("before", "fsync", True),
    "flushed": ("behind", "fsync", True),
    "close": ("before", "close", True),
    "run the command": ("before", "Popen", True),
}
KILLED = """
import os, signal, subprocess, sys
from port_knocking_doors.system import one_time_file, shell_command
when, what = sys.argv.pop(1), sys.argv.pop(1)
armed = []

def deadly(name, real):
    def call(*arguments, **options):
        if name == what and armed and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if name == what and armed and when == "behind":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

class Deadly:
    def __init__(self, module):
        self.module = module
    def __getattr__(self, name):
        real = getattr(self.module, name)
        return deadly(name, real) if name in ("open", "pread", "pwrite", "fsync", "close", "Popen") else real

one_time_file.os, shell_command.subprocess = Deadly(os), Deadly(subprocess)
real_consume = one_time_file.consume
def consume(line):
    armed.append(line)  # and not when it only reads which line is active
    real_consume(line)
one_time_file.consume = consume
from port_knocking_doors.cli import main
sys.argv[0] = "port-knocking-doors"
main()
"""


def test_kill_at_each_step_opens_no_line_twice_and_next_line_opens(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    file, log = sequences(tmp_path / "sequences"), tmp_path / "ran"
    conf = configuration(tmp_path, door("d", file, f"echo opened >>{log}"))
    log.touch()
    place = 0
    for name, (when, what, is_used) in ABOUT_TO.items():
        program = [sys.executable, "-c", KILLED, when, what, "knockd"]
        daemon = started(box, client, conf, program)
        knock(client, client.server4, LINES[place])
        assert daemon.wait(20) == -signal.SIGKILL, name
        assert used(file) == [number < place + is_used for number in range(len(LINES))], name
        assert ran(log) == [], f"{name}: nothing was opened yet"
        place += is_used
    with running(box.server, conf, "-i", client.server_interface):
        for ports in LINES[: place + 1]:
            knock(client, client.server4, ports)
        await_run(log, "opened")
        for ports in (*LINES[: place + 1], LINES[place + 1]):
            knock(client, client.server4, ports)
        await_run(log, "opened", "opened")
    assert place == sum(is_used for *_, is_used in ABOUT_TO.values())
    assert used(file) == [number < place + 2 for number in range(len(LINES))]


def started(box: Sandbox, client: ClientHost, conf: Path, program: list[str]) -> Process:
    """A daemon that will not live to its end."""
    daemon = box.server.popen([*program, "-c", str(conf), "-i", client.server_interface])
    daemon.wait_for(r"\bready\b", 20)
    return daemon


FULL = """
import errno, os, sys
from port_knocking_doors.system import one_time_file
what = sys.argv.pop(1)
def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
one_time_file.os = type("Full", (), {"__getattr__": lambda _, name: full if name == what else getattr(os, name)})()
from port_knocking_doors.cli import main
sys.argv[0] = "port-knocking-doors"
main()
"""
DISABLED = "error while disabling used one time sequence for door d --> disabling the door"


@pytest.mark.parametrize("what", ["pwrite", "fsync"])
def test_full_disk_disables_door(box: Sandbox, client: ClientHost, tmp_path: Path, what: str) -> None:
    """The error is made up: the file systems that this user may fill need no space to overwrite a byte."""
    file, log = sequences(tmp_path / "sequences", 3), tmp_path / "ran"
    conf = configuration(
        tmp_path, door("d", file, f"echo d >>{log}"), f"[e]\nSequence = 7001:udp\nCommand = echo e >>{log}\n"
    )
    program = [sys.executable, "-c", FULL, what, "knockd"]
    with running(box.server, conf, "-i", client.server_interface, program=program) as daemon:
        for ports in (LINES[0], LINES[0], LINES[1], (7001,)):
            knock(client, client.server4, ports)
        await_run(log, "e")
        line = daemon.wait_for("disabled")
        assert line.endswith(
            f"ERROR d: {file}: cannot be written (No space left on device): "
            "door disabled until the configuration is reloaded"
        )
        assert log_lines(tmp_path / "log").count(DISABLED) == 1
        assert daemon.stderr.text.count("disabled") == 1


def test_read_only_file_system_disables_door_until_reload(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """A full disk does not matter: a byte is changed in place."""
    for name in ("disk", "full"):
        (tmp_path / name).mkdir()
        box.server.run(["mount", "-t", "tmpfs", "-o", "size=64k", "sandbox", str(tmp_path / name)])
        box.server.run(["cp", str(sequences(tmp_path / "draft", 3)), f"{tmp_path / name}/sequences"])
    box.server.run(["dd", "if=/dev/zero", f"of={tmp_path}/full/rest", "bs=4k"], check=False)
    log = tmp_path / "ran"
    conf = configuration(
        tmp_path,
        door("d", tmp_path / "disk" / "sequences", f"echo d >>{log}"),
        door("e", tmp_path / "full" / "sequences", f"echo e >>{log}"),
    )
    with running(box.server, conf, "-i", client.server_interface) as daemon:
        box.server.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")])
        knock(client, client.server4, LINES[0])
        await_run(log, "e")
        daemon.wait_for(
            rf"ERROR d: {tmp_path}/disk/sequences: cannot be written \(Read-only file system\): door disabled"
        )
        knock(client, client.server4, LINES[0])
        knock(client, client.server4, LINES[1])
        await_run(log, "e", "e")
        box.server.run(["mount", "-o", "remount,rw", str(tmp_path / "disk")])
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reloaded")
        knock(client, client.server4, LINES[0])
        await_run(log, "e", "e", "d")
        for ports in (LINES[0], LINES[1]):
            knock(client, client.server4, ports)
        await_run(log, "e", "e", "d", "d")
        marked = box.server.run(["cat", f"{tmp_path}/disk/sequences", f"{tmp_path}/full/sequences"]).stdout
    assert [line[0] for line in marked.splitlines()] == ["#", "#", " "] * 2
    for name in ("disk", "full"):
        box.server.run(["umount", str(tmp_path / name)])


def test_line_shared_by_two_daemons_opens_at_one_alone(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    file, log = sequences(tmp_path / "sequences"), tmp_path / "ran"
    stranger = box.hosts["stranger"]
    conf = configuration(tmp_path, door("d", file, f"echo %IP% >>{log}"))
    here, there = str(client.address4), str(stranger.address4)
    with (
        running(box.server, conf, "-i", client.server_interface),
        running(box.server, conf, "-i", stranger.server_interface) as other,
    ):
        knock(client, client.server4, LINES[0])
        await_run(log, here)

        def knock_until(host: ClientHost, line: int, *expected: str) -> None:
            """With the line before it, which the other daemon used: only a knock makes this one notice that."""

            def is_in() -> bool:
                for number in (line - 1, line):
                    knock(host, host.server4, LINES[number])
                return len(ran(log)) == len(expected)

            wait_until(is_in, 20, lambda: f"{expected}; it is {ran(log)}", every=0.1)
            assert ran(log) == list(expected)

        knock_until(stranger, 1, here, there)
        other.wait_for("WARNING d: .*was changed while its line was active: not opened, its next sequence is active")
        knock_until(client, 2, here, there, here)
        knock_until(stranger, 3, here, there, here, there)
    assert used(file) == [True] * 4 + [False] * (len(LINES) - 4)


def test_knock_opens_every_door_that_has_the_line(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    file, log = sequences(tmp_path / "sequences"), tmp_path / "ran"
    both = (door(name, file, f"echo {name} >>{log}", more) for name, more in (("d", ""), ("e", "TCPFlags = syn\n")))
    with running(box.server, configuration(tmp_path, *both), "-i", client.server_interface):
        for count in (1, 2):
            knock(client, client.server4, LINES[count - 1])
            wait_until(lambda count=count: sorted(ran(log)) == ["d"] * count + ["e"] * count, 20, "both doors")  # type: ignore[misc]
    assert used(file) == [True] * 2 + [False] * (len(LINES) - 2)


def test_missing_file_disables_its_own_door_alone(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    file, other, log = sequences(tmp_path / "sequences"), sequences(tmp_path / "other"), tmp_path / "ran"
    conf = configuration(tmp_path, door("d", file, f"echo d >>{log}"), door("e", other, f"echo e >>{log}"))
    with running(box.server, conf, "-i", client.server_interface) as daemon:
        other.unlink()
        knock(client, client.server4, LINES[0])
        await_run(log, "d")
        daemon.wait_for("ERROR e: .*/other: cannot be .*No such file or directory.*disabled")
        knock(client, client.server4, LINES[1])
        await_run(log, "d", "d")
    assert "Traceback" not in daemon.stderr.text
