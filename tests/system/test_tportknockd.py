"""Flag knocking through the daemon, with real packets: every combination, all in turn, and beside a session."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from port_knocking_doors.model import Address
from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.raw_knock import send_tcp
from tests.helpers.tportknocked import PROGRAM, event, letters, start, write
from tests.helpers.waiting import wait_until

PORT, OTHER = 21110, 21112
PAGE = f"tcp:{PORT}:x tcp:{PORT}:up tcp:{PORT}:up tcp:{PORT}:n tcp:{PORT}:i"
"""The page's example of flag knocking, on another port."""
KNOCKS = [(PORT, some) for some in ("fsrpau", "up", "up", "", "sa")]
HPING_OPTION = dict(zip("fsrpau", ("-F", "-S", "-R", "-P", "-A", "-U"), strict=True))
PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "ran"
    path.touch()
    return path


def ends(client: ClientHost, family: str) -> tuple[Address, Address]:
    """The server's address and the client's."""
    return (client.server4, client.address4) if family == "IPv4" else (client.server6, client.address6)


def each_combination(log: Path) -> list[str]:
    """A sequence of one frame for every combination of flags, all on the same port."""
    return [
        event(f"f{flags}", f"tcp:{PORT}:{letters(flags) or 'n'}", start=f"echo {flags} %IP% >>{log}")
        for flags in range(64)
    ]


def await_each_once(log: Path, by: Address) -> None:
    expected = sorted(f"{flags} {by}" for flags in range(64))
    wait_until(lambda: len(log.read_text().splitlines()) >= 64, 20, lambda: log.read_text())
    assert sorted(log.read_text().splitlines()) == expected


def never_opens(log: Path, box: Sandbox, client: ClientHost) -> None:
    """A stranger knocks right afterwards: once it is in, any door owed to the client would be open, too."""
    stranger = box.hosts["stranger"]
    send_tcp(stranger, stranger.server4, KNOCKS)
    wait_until(lambda: f"open {stranger.address4}\n" in log.read_text(), 10, lambda: log.read_text())
    assert f"open {client.address4}\n" not in log.read_text()


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_every_combination_of_flags_matches_its_own_step_alone(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path, family: str
) -> None:
    to, by = ends(client, family)
    mixed = list(range(64))
    random.Random(5).shuffle(mixed)
    whole = " ".join(f"tcp:{OTHER}:{letters(flags) or 'n'}" for flags in mixed)
    start(box, write(tmp_path, *each_combination(log), event("all", whole, start=f"echo all %IP% >>{log}")))
    send_tcp(client, to, [(PORT, letters(flags)) for flags in range(64)], pause=0.002)
    await_each_once(log, by)
    send_tcp(client, to, [(OTHER, letters(flags)) for flags in mixed], pause=0.002)
    wait_until(lambda: f"all {by}\n" in log.read_text(), 10, "the sequence of all combinations")
    assert len(log.read_text().splitlines()) == 65


def test_every_combination_of_flags_by_hping3_matches_its_own_step(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    """IPv4 only: hping3 knows no IPv6."""
    start(box, write(tmp_path, *each_combination(log)))
    one = f"hping3 -q -c 1 -p {PORT} {{}} {client.server4} >/dev/null 2>&1 &"
    lines = [one.format(" ".join(HPING_OPTION[letter] for letter in letters(flags))) for flags in range(64)]
    client.run(["sh", "-c", "\n".join([*lines, "wait"])], check=False)
    await_each_once(log, client.address4)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_example_of_manual_opens_and_closes(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path, family: str
) -> None:
    to, by = ends(client, family)
    stop = (f"stop_command = echo shut %IP% >>{log}", "command_delay = 0.5")
    daemon = start(box, write(tmp_path, event("SSH2", PAGE, *stop, start=f"echo open %IP% >>{log}")))
    send_tcp(client, to, KNOCKS)
    wait_until(lambda: log.read_text() == f"open {by}\nshut {by}\n", 10, lambda: log.read_text())
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert not [line for line in daemon.stderr.lines if str(PORT) in line], "no step is in the log"


def test_example_of_manual_opens_by_hping3(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    conf = write(tmp_path, event("SSH2", PAGE, timeout=60, start=f"echo open %IP% >>{log}"))
    daemon = start(box, conf, "-d")
    for position, (_, some) in enumerate(KNOCKS, start=1):
        options = [HPING_OPTION[letter] for letter in some]
        client.popen(["hping3", "-q", "-c", "1", "-p", str(PORT), *options, str(client.server4)])
        if position < len(KNOCKS):
            daemon.wait_for(f"to step {position}$", 10)
    wait_until(lambda: log.read_text() == f"open {client.address4}\n", 10, lambda: log.read_text())


TRIES = {
    "upwards": [*range(64)] * 5,
    "downwards": [*range(63, -1, -1)] * 5,
    "upwards and downwards": [*range(64), *range(63, -1, -1)] * 3,
    "each twice": [flags for flags in range(64) for _ in range(2)] * 3,
}


def test_trying_every_combination_in_turn_opens_nothing(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    """Unless the sequence is one that the combinations contain: that one shows that the packets were received."""
    passed = event("passed", f"tcp:{PORT}:n tcp:{PORT}:f tcp:{PORT}:s", start=f"echo passed %IP% >>{log}")
    start(box, write(tmp_path, passed, event("SSH2", PAGE, timeout=60, start=f"echo open %IP% >>{log}")))
    for tries in TRIES.values():
        send_tcp(client, client.server4, [(PORT, letters(flags)) for flags in tries], pause=0.001)
    never_opens(log, box, client)
    assert f"passed {client.address4}\n" in log.read_text()


TALK = """
import json, socket, sys
from tests.helpers.raw_knock import LETTERS
import struct
server, port, knocks = json.loads(sys.argv[1])
with socket.create_connection((server, port), 10) as session:
    for number, (to, letters) in enumerate(knocks):
        flags = sum(LETTERS[letter] for letter in letters)
        header = struct.pack("!HHIIBBHHH", 40000, to, 1000 + number, 0, 5 << 4, flags, 1024, 0, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
            sock.sendto(header, (server, 0))
        session.sendall(b"talk")
        assert session.recv(100)
"""
"""A session with the port that is knocked on, which says something between any two knocks."""


def test_session_with_step_port_resets_attempt_and_nothing_else(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    """Its packets are knocks on that port with other flags. After a moment of silence the client may knock."""
    box.firewalld.ask("zone", "addPort", "", str(PORT), "tcp", 0)
    start(box, write(tmp_path, event("SSH2", PAGE, timeout=60, start=f"echo open %IP% >>{log}")))
    with box.server.listen(PORT):
        what = json.dumps([str(client.server4), PORT, KNOCKS])
        client.run([sys.executable, "-c", TALK, what], env=PATHS)
        never_opens(log, box, client)
        left = ["ss", "-Htn", "state", "connected", f"sport = :{PORT}"]
        wait_until(lambda: not box.server.run(left).stdout.strip(), 10, "the session to be over")
        send_tcp(client, client.server4, KNOCKS)
        wait_until(lambda: f"open {client.address4}\n" in log.read_text(), 10, lambda: log.read_text())


def test_named_device_is_captured_and_its_addresses_are_followed(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    conf = write(tmp_path, event("SSH2", PAGE, start=f"echo open %IP% >>{log}"))
    start(box, conf, "-i", client.server_interface, "-r", "60")
    stranger = box.hosts["stranger"]
    send_tcp(stranger, stranger.server4, KNOCKS)
    box.server.run(["ip", "address", "add", "10.0.1.77/24", "dev", client.server_interface])
    send_tcp(client, client.server4.__class__("10.0.1.77"), KNOCKS)
    wait_until(lambda: log.read_text() == f"open {client.address4}\n", 10, lambda: log.read_text())


def test_daemon_runs_in_background_until_its_end(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    stop = (f"stop_command = echo shut %IP% >>{log}", "command_delay = 300")
    conf = write(tmp_path, event("SSH2", PAGE, *stop, start=f"echo open %IP% >>{log}"))
    options = ["-c", conf.name, "-i", client.server_interface, "-r", "60", "-D"]
    done = box.server.run([*PROGRAM, *options], env=PATHS, cwd=tmp_path)
    assert done.stdout == ""
    find = f"cat /run/*/tportknockd-{client.server_interface}.pid $XDG_RUNTIME_DIR/*/tportknockd-*.pid 2>/dev/null"
    pid = box.server.run(["sh", "-c", find], check=False).stdout.split()[0]
    send_tcp(client, client.server4, KNOCKS)
    wait_until(lambda: log.read_text() == f"open {client.address4}\n", 10, lambda: log.read_text())

    conf.write_text("<SSH2>\n")
    box.server.run(["kill", "-HUP", pid])
    write(tmp_path, event("SSH2", PAGE, start=f"echo again %IP% >>{log}"))
    box.server.run(["kill", "-HUP", pid])

    def is_read_again() -> bool:
        send_tcp(client, client.server4, KNOCKS)
        return f"again {client.address4}\n" in log.read_text()

    wait_until(is_read_again, 10, "the file to be read again", every=0.1)
    box.server.run(["kill", pid])
    wait_until(lambda: f"shut {client.address4}\n" in log.read_text(), 10, lambda: log.read_text())
    gone = ["sh", "-c", "kill -0 $0 2>/dev/null", pid]
    wait_until(lambda: box.server.run(gone, check=False).returncode != 0, 10, "the daemon to be gone")
    assert box.server.run(["sh", "-c", find], check=False).stdout == ""
