"""The sandbox: its hosts and its firewalld are real, and it leaves nothing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dbus_next
import pytest

from port_knocking_doors.errors import SandboxError
from port_knocking_doors.sandbox import ClientHost, OutgoingDatagram, Sandbox, launch
from tests.helpers.waiting import wait_until

PACKAGE = Path(launch.__file__).parents[1]
SLEEPERS = ["sh", "-c", "setsid sleep 1000 & echo two >&2; exec sleep 1000"]
NOBODY = 65534


def both_families(host: ClientHost) -> list[str]:
    return [str(host.server4), str(host.server6)]


def door(source: object, port: int = 2222, protocol: str = "tcp") -> str:
    family = "ipv6" if ":" in str(source) else "ipv4"
    return (
        f'rule priority="31313" family="{family}" source address="{source}" '
        f'port port="{port}" protocol="{protocol}" accept'
    )


def open_doors(box: Sandbox, host: ClientHost, protocol: str = "tcp") -> None:
    for address in (host.address4, host.address6):
        box.firewalld.ask("zone", "addRichRule", "", door(address, protocol=protocol), 0)


# --- hosts and firewalld


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_address_that_rule_names_alone_gets_through(box: Sandbox, protocol: str) -> None:
    client, stranger = box.hosts["client"], box.hosts["stranger"]

    def tried(host: ClientHost) -> list[str]:
        return [host.connect(address, 2222, protocol=protocol) for address in both_families(host)]

    with box.server.listen(2222, protocol):
        assert tried(client) == ["prohibited", "prohibited"]
        open_doors(box, client, protocol)
        assert tried(client) == ["open", "open"]
        assert tried(stranger) == ["prohibited", "prohibited"]
    assert tried(client) == ["refused", "refused"]
    assert tried(stranger) == ["prohibited", "prohibited"]


def test_rules_and_nft_show_active_rules(box: Sandbox) -> None:
    client = box.hosts["client"]
    assert box.rules() == []
    assert str(client.address6) not in box.nft()
    open_doors(box, client)
    assert sorted(box.rules()) == sorted(door(address) for address in (client.address4, client.address6))
    assert box.rules("external") == []
    assert str(client.address4) in box.nft()
    assert str(client.address6) in box.nft()


def test_link_is_put_into_another_zone(box: Sandbox) -> None:
    stranger = box.hosts["stranger"]
    box.firewall_cmd("--zone=external", f"--change-interface={stranger.server_interface}")
    box.firewalld.ask("zone", "addRichRule", "external", door(stranger.address4), 0)
    assert stranger.connect(stranger.server4, 2222) == "refused"
    assert box.rules("external") == [door(stranger.address4)]


def test_silent_drop_is_a_timeout(box: Sandbox) -> None:
    client = box.hosts["client"]
    box.firewalld.ask("zone", "addRichRule", "", f"rule family=ipv4 source address={client.address4} drop", 0)
    assert client.connect(client.server4, 2222, timeout=0.2) == "timeout"


def test_added_client_reaches_server(box: Sandbox) -> None:
    late = box.add_client("late")
    with box.server.listen(2222):
        assert late.connect(late.server4, 2222) == "prohibited"
        open_doors(box, late)
        assert late.connect(late.server6, 2222) == "open"


def test_watch_reports_moment_of_change(box: Sandbox) -> None:
    client = box.hosts["client"]
    with box.server.listen(2222), client.watch_connect(client.server4, 2222, interval=0.002) as watch:
        box.firewalld.ask("zone", "addRichRule", "", door(client.address4), 0)
        opened = time.monotonic()
        assert client.connect(client.server4, 2222) == "open"
        wait_until(lambda: time.monotonic() - opened > 0.1, 1, "a few more tries")
    outcomes = [attempt.outcome for attempt in watch.attempts]
    assert set(outcomes) <= {"prohibited", "open"}
    assert "prohibited" not in outcomes[outcomes.index("open") :]
    assert [attempt.time for attempt in watch.attempts] == sorted(attempt.time for attempt in watch.attempts)
    assert opened - 1 < watch.attempts[0].time < watch.attempts[-1].time < time.monotonic()


RECEIVER = """
import socket, sys
sockets = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2)]
for port, receiver in enumerate(sockets, 7001):
    receiver.bind(("::", port))
print("listening", flush=True)
for _ in range(3):
    for receiver in sockets:
        payload, source = receiver.recvfrom(100)
        print(receiver.getsockname()[1], source[0], source[1] == 4444, payload, flush=True)
"""


def test_datagrams_arrive_in_order_with_payload_and_source_port(box: Sandbox) -> None:
    client = box.hosts["client"]
    box.firewall_cmd("--add-port=7001-7002/udp")
    receiver = box.server.popen([sys.executable, "-c", RECEIVER])
    receiver.stdout.wait_for("listening", 10)
    row: list[OutgoingDatagram] = [(client.server4, 7001, b"knock\n", 4444), (client.server6, 7002, b"\0\xff")]
    client.send(row, repeat=3, pause=0.001)
    assert receiver.wait(10) == 0
    receiver.stdout.wait_for_end(5)
    assert receiver.stdout.lines[1:] == 3 * [
        f"7001 ::ffff:{client.address4} True {b'knock' + bytes([10])!r}",
        f"7002 {client.address6} False {bytes([0, 255])!r}",
    ]


# --- stopping and starting what is there


def test_firewalld_stops_and_starts(box: Sandbox) -> None:
    client = box.hosts["client"]
    open_doors(box, client)
    box.firewalld.stop()
    assert not box.firewalld.running
    assert not box.firewalld.answers()
    assert client.connect(client.server4, 2222) == "refused", "without firewalld nothing is in the way"
    box.firewalld.start()
    assert box.rules() == []
    assert client.connect(client.server4, 2222) == "prohibited"


def test_killed_firewalld_leaves_its_rules(box: Sandbox) -> None:
    client = box.hosts["client"]
    open_doors(box, client)
    box.firewalld.kill()
    assert client.connect(client.server4, 2222) == "refused"
    assert client.connect(client.server4, 2223) == "prohibited"
    box.firewalld.start()
    # firewalld 1.3 does not know the rule any more, yet keeps it beside its new ones until a reload.
    assert box.rules() == []
    box.firewall_cmd("--reload")
    assert client.connect(client.server4, 2222) == "prohibited"


def test_frozen_firewalld_does_not_answer(box: Sandbox) -> None:
    box.firewalld.freeze()
    assert box.firewalld.running
    assert not box.firewalld.answers(0.2)
    box.firewalld.thaw()
    assert box.firewalld.answers()
    box.firewalld.freeze()
    box.firewalld.restart()
    assert box.firewalld.answers()


def test_bus_restarts_and_firewalld_on_it(box: Sandbox) -> None:
    first = box.firewalld.process
    box.bus.restart()
    first.wait(10)
    box.firewalld.start()
    assert box.firewalld.answers()


# --- processes


def test_signals_reach_process_itself(box: Sandbox) -> None:
    script = "trap 'echo ending >&2; exit 7' TERM; echo ready >&2; while :; do sleep 0.05; done"
    process = box.server.popen(["sh", "-c", script])
    process.wait_for("ready")
    assert process.poll() is None
    assert Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sh\0-c\0")
    process.terminate()
    assert process.wait(10) == 7
    assert process.stderr.lines == ["ready", "ending"]
    process.kill()


def test_killed_process_reports_signal(box: Sandbox) -> None:
    process = box.server.popen(["sleep", "1000"])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.kill()
    assert process.wait(10) == process.returncode == -9


def test_run_returns_output_or_fails_with_one_line(box: Sandbox) -> None:
    client = box.hosts["client"]
    assert client.run(["tr", "a-z", "A-Z"], text="hello").stdout == "HELLO"
    assert client.run(["false"], check=False).returncode == 1
    with pytest.raises(SandboxError, match="on client gave 3: it broke"):
        client.run(["sh", "-c", "echo it broke >&2; exit 3"])
    with pytest.raises(SandboxError, match=r"longer than 0\.1 s"):
        client.run(["sleep", "1000"], timeout=0.1)
    with pytest.raises(SandboxError, match="no-such-program"):
        client.run(["no-such-program"])


def test_orphans_are_reaped(box: Sandbox) -> None:
    box.server.run(["sh", "-c", "(sleep 0.05 &) "])

    def zombies() -> str:
        return box.server.run(["sh", "-c", "cat /proc/[0-9]*/stat | grep ' Z ' || true"]).stdout

    wait_until(lambda: not zombies(), 5, zombies)


def test_processes_get_private_bus_and_no_python_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NOTIFY_SOCKET", "KNOCKER_SEQ"):
        monkeypatch.setenv(name, "/nonsense")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with Sandbox() as box:
        printed = box.server.run(["env"], env={"OWN": "yes"}).stdout
    environment = dict(line.split("=", 1) for line in printed.splitlines())
    assert "/nonsense" not in environment.values()
    assert environment["DBUS_SYSTEM_BUS_ADDRESS"] == "unix:path=/run/dbus/system_bus_socket"
    assert environment["XDG_RUNTIME_DIR"].startswith("/run/")
    assert environment["OWN"] == "yes"
    assert "/usr/sbin" in environment["PATH"].split(":")


# --- nothing stays behind


def statuses() -> dict[int, dict[str, str]]:
    """What /proc says about every process that has not ended; every user may read it."""
    found = {int(folder.name): status_of(folder) for folder in Path("/proc").glob("[0-9]*")}
    return {pid: status for pid, status in found.items() if status.get("State", "Z")[0] != "Z"}


def status_of(process: Path) -> dict[str, str]:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def descendants(pid: int) -> set[int]:
    parents = {child: int(status["PPid"]) for child, status in statuses().items()}
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


def alive(pids: set[int]) -> list[str]:
    return [f"{pid} {status['Name']}" for pid, status in statuses().items() if pid in pids]


def open_descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


def test_closed_sandbox_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    mounts, descriptors = Path("/proc/self/mounts").read_text(), open_descriptors()
    with Sandbox() as box:
        for host in (box.server, box.hosts["client"]):
            host.popen(SLEEPERS).wait_for("two")
        family = descendants(os.getpid())
        assert len(alive(family)) >= 9, "unshare, init, two agents, bus, firewalld, sleepers"
    assert alive(family) == []
    assert Path("/proc/self/mounts").read_text() == mounts
    assert open_descriptors() == descriptors
    assert list(tmp_path.iterdir()) == []


OWNER = f"""
import sys, time
from port_knocking_doors.sandbox import Sandbox
with Sandbox() as box:
    box.hosts["client"].popen({SLEEPERS!r}).wait_for("two")
    box.firewalld.freeze()
    print("ready", flush=True)
    time.sleep(1000)
"""


def test_killed_owner_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    with subprocess.Popen([sys.executable, "-c", OWNER], env=environment, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == b"ready\n"
            family = descendants(owner.pid)
            assert len(alive(family)) >= 7, "unshare, init, two agents, bus, firewalld, sleepers"
        finally:
            owner.kill()
    wait_until(lambda: not alive(family), 5, lambda: f"still there: {alive(family)}")
    assert list(tmp_path.iterdir()) == []


# --- ways in


def user_namespaces_allowed(user: int | None = None) -> bool:
    argv = ["unshare", "--user", "--map-root-user", "--net", "--mount", "mount", "-t", "tmpfs", "none", "/run"]
    return runs(argv, user)


def runs(argv: list[str], user: int | None) -> bool:
    try:
        return subprocess.run(argv, user=user, capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False


@pytest.fixture
def doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of PATH, for programs that behave otherwise."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{launch.search_path()}")
    return tmp_path


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def forbid_user_namespaces(folder: Path) -> str:
    """A double of unshare that refuses them; returns the real one."""
    real = shlex.quote(shutil.which("unshare", path=launch.search_path()) or "unshare")
    refuse = "echo 'unshare: write failed /proc/self/uid_map: Operation not permitted' >&2; exit 1"
    put(folder, "unshare", f'case "$*" in *--user*) {refuse};; esac\nexec {real} "$@"')
    return real


@pytest.fixture
def readable_package() -> Iterator[Path]:
    """A copy of the package, and of what it needs, that every user can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for package in (PACKAGE, Path(dbus_next.__file__).parent):
            shutil.copytree(package, Path(folder, package.name), ignore=shutil.ignore_patterns("__pycache__"))
        for path in Path(folder).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield Path(folder)


ORDINARY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from port_knocking_doors.sandbox import Sandbox
assert os.geteuid() != 0
with Sandbox() as box:
    client = box.hosts["client"]
    print(box.isolation, client.connect(client.server4, 2222), client.connect(client.server6, 2222), sep=", ")
"""


def python_for(user: int | None) -> str:
    """This Python where every user may run it, else the system's: the packages come from the copy."""
    return sys.executable if runs([sys.executable, "-c", ""], user) else "/usr/bin/python3"


def test_ordinary_user_gets_sandbox(readable_package: Path) -> None:
    user = NOBODY if os.geteuid() == 0 else None
    done = subprocess.run(
        [python_for(user), "-I", "-c", ORDINARY, str(readable_package)],
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if user_namespaces_allowed(user):
        assert done.stderr == ""
        assert done.stdout == "a user namespace, prohibited, prohibited\n"
    elif done.returncode == 0:
        assert done.stdout == "sudo, prohibited, prohibited\n"
        assert "using sudo instead" in done.stderr
    else:
        assert "SandboxError" in done.stderr.splitlines()[-1]
        assert "run it as root" in done.stderr.splitlines()[-1]


def test_sudo_is_used_and_said_without_user_namespaces(doubles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = user_namespaces_allowed()
    real = forbid_user_namespaces(doubles)
    if allowed:
        # A double of sudo: becomes root, and drops what sudo drops.
        shift = 'while [ "$1" != -- ]; do shift; done; shift'
        put(doubles, "sudo", f'{shift}; exec env -i {real} --user --map-root-user "$@"')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said: list[str] = []
    with Sandbox(say=said.append) as box:
        assert box.isolation == "sudo"
        client = box.hosts["client"]
        assert client.connect(client.server4, 2222) == "prohibited"
    assert len(said) == 1
    assert re.search("user namespace failed .*Operation not permitted.*using sudo instead", said[0])


def test_root_gets_sandbox_without_user_namespace(doubles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_user_namespaces(doubles)
    said: list[str] = []
    really_root = os.geteuid() == 0
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if really_root:
        with Sandbox(say=said.append) as box:
            assert box.isolation == "root"
            client = box.hosts["client"]
            assert client.connect(client.server6, 2222) == "prohibited"
    else:
        with pytest.raises(SandboxError, match=r"root failed .*Operation not permitted"):
            Sandbox(say=said.append).__enter__()
    assert "using root instead" in said[0]


def only_these_programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *but: str) -> None:
    path = launch.search_path()
    for name in {"unshare", "ip", "nft", "firewalld", "firewall-cmd", "dbus-daemon"} - set(but):
        (folder / name).symlink_to(shutil.which(name, path=path) or "")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(launch, "_SYSTEM_DIRECTORIES", ())


def test_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_these_programs(tmp_path, monkeypatch, "nft", "ip")
    with pytest.raises(SandboxError, match="needs ip, nft: install the system packages iproute2 nftables"):
        Sandbox().__enter__()


def test_impossible_sandbox_is_one_line_with_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_these_programs(tmp_path, monkeypatch, "unshare")
    put(tmp_path, "unshare", "echo 'unshare failed: No space left on device' >&2; exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match=r"No space left on device.*: run it as root") as refusal:
        Sandbox().__enter__()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("program", "complaint"),
    [("firewalld", "firewalld ended: no such luck"), ("dbus-daemon", "the bus did not start: no such luck")],
)
def test_service_that_does_not_start_is_quoted(doubles: Path, program: str, complaint: str) -> None:
    put(doubles, program, "echo no such luck >&2; exit 3")
    with pytest.raises(SandboxError, match=complaint):
        Sandbox().__enter__()
