"""The command line as processes see it: exit status, one line, and what is really opened."""

import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from port_knocking_doors import __version__
from port_knocking_doors.config.schema import KEYS
from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.running import (
    GUARDED,
    SEQUENCE,
    begin_daemon,
    door_rule,
    doors,
    knock,
    knock_port_rules,
    start_daemon,
    wait_open,
    wait_shut,
    write_configuration,
)
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
OTHER_SEQUENCE = (22005, 22001, 22009, 22003, 22007)
THIRD_SEQUENCE = (23005, 23001, 23009, 23003, 23007)


@pytest.fixture
def box(box: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, with services on what the tests guard."""
    with ExitStack() as listeners:
        for port in (GUARDED, GUARDED + 1, GUARDED + 2):
            listeners.enter_context(box.server.listen(port))
        yield box


@pytest.fixture(scope="module")
def bare() -> Iterator[Sandbox]:
    """One sandbox for all the tests whose daemons end without having opened anything: each finds it as it was."""
    with Sandbox(clients=()) as sandbox:
        yield sandbox


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def text_of(ports: Sequence[object]) -> str:
    return ",".join(map(str, ports))


def relatives(box: Sandbox) -> str:
    """Every process of the server that belongs to a daemon: itself, a crash guard, a sweep."""
    look = "for line in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$line; echo; done 2>/dev/null"
    lines = box.server.run(["sh", "-c", look]).stdout.splitlines()
    return "\n".join(
        line for line in lines if re.search(r"port[_-]knocking[_-]doors\b(?!/sandbox)", line) and "-I" not in line
    )


def assert_refused(box: Sandbox, daemon: Process, *said: str, status: int = 2) -> None:
    """It ended with one line that says all of this, and nothing is open."""
    assert daemon.wait(10) == status, daemon.stderr.text
    assert daemon.stdout.text == ""
    (line,) = daemon.stderr.lines
    assert line.startswith("port-knocking-doors: ")
    assert [words for words in said if words not in line] == [], line
    assert box.rules() == []
    assert box.server.run(["ss", "-Hlun"]).stdout == ""
    wait_until(lambda: not relatives(box), 5, lambda: relatives(box))


# --- wrong input


OPENING = f"opening_sequence = {list(SEQUENCE)}\n"
GUARDING = f"ports_to_controls = [{GUARDED}]\n"
WRONG_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "port 0": (f"{GUARDING}opening_sequence = [0, 2, 3, 4, 5]\n", (":2: ", "position 1", "1 to 65535")),
    "port 65536": (f"{GUARDING}opening_sequence = [1, 2, 3, 4, 65536]\n", (":2: ", "position 5", "1 to 65535")),
    "two ports": (f"{GUARDING}opening_sequence = [1, 2]\n", (":2: ", "2 ports", "3 to 21")),
    "22 ports": (f"{GUARDING}opening_sequence = {list(range(1, 23))}\n", (":2: ", "22 ports", "3 to 21")),
    "a word": (f'{GUARDING}\nopening_sequence = [1, 2, "three", 4, 5]\n', (":3: ", "position 3", '"three"')),
    "guarded port 0": (f"{OPENING}ports_to_controls = [0]\n", (":2: ", "1 to 65535")),
    "no protocol": (f'{OPENING}ports_to_controls = ["22/icmp"]\n', (":2: ", '"icmp"', "tcp or udp")),
    "an unknown key": (
        f"{GUARDING}{OPENING}max_open_door_duration = 3\n",
        (":3: ", "max_open_door_duration", "max_opened_door_duration"),
    ),
    "a missing key": (GUARDING, ("opening_sequence",)),
    "not TOML": (f"{GUARDING}{OPENING}# fine so far\nzone = \n", (":4: ", "invalid TOML")),
    "not a text file": ("\N{SNOWMAN}", ("invalid TOML",)),
    "a zone that cannot be": (f'{GUARDING}{OPENING}zone = "not a zone"\n', (":3: ", "zone's name")),
    "a negative period": (f"{GUARDING}{OPENING}max_opened_door_duration = -1\n", (":3: ", "seconds")),
}


@pytest.mark.parametrize(("content", "said"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_wrong_file_is_one_line_and_opens_nothing(
    bare: Sandbox, tmp_path: Path, content: str, said: tuple[str, ...]
) -> None:
    conf = write_configuration(tmp_path)
    conf.write_text(content)
    assert_refused(bare, begin_daemon(bare, conf), str(conf), *said)


SECRET = text_of(SEQUENCE)
WRONG_OPTIONS: dict[str, tuple[list[str], dict[str, str], tuple[str, ...]]] = {
    "port 0 by option": (["-m", "0,2,3,4,5"], {}, ("--magic-seq", "position 1", "1 to 65535")),
    "port 65536 by variable": ([], {"KNOCKER_SEQ": "1,2,3,4,65536"}, ("KNOCKER_SEQ", "position 5", "1 to 65535")),
    "four ports by option": (["--magic-seq", "1,2,3,4"], {}, ("--magic-seq", "4 ports", "5 to 21")),
    "22 ports by variable": ([], {"KNOCKER_SEQ": text_of(range(1, 23))}, ("KNOCKER_SEQ", "22 ports", "5 to 21")),
    "a word by option": (["-m", "1,2,3,4,five"], {}, ("--magic-seq", "position 5", '"five"')),
    "a guarded word by option": (["-p", "22,ssh"], {}, ("--ports", "position 2", '"ssh"')),
    "a guarded port 65536 by variable": ([], {"KNOCKER_PORTS": "65536"}, ("KNOCKER_PORTS", "1 to 65535")),
    "an empty variable": ([], {"KNOCKER_PORTS": ""}, ("KNOCKER_PORTS", "0 ports")),
    "a zone that cannot be": (["--zone", "not a zone"], {}, ("--zone", "zone's name")),
    "an unknown option": (["--verbos"], {}, ("--verbos", "--help")),
    "an option without its value": (["-m"], {}, ("-m", "--help")),
    "an unknown command": (["opne"], {}, ("opne", "--help")),
}


@pytest.mark.parametrize(("options", "env", "said"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS.keys())
def test_wrong_option_or_variable_is_one_line_and_opens_nothing(
    bare: Sandbox, tmp_path: Path, options: list[str], env: Mapping[str, str], said: tuple[str, ...]
) -> None:
    daemon = begin_daemon(bare, write_configuration(tmp_path), *options, env=env)
    assert_refused(bare, daemon, *said)


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "a link that leads nowhere"])
def test_configuration_that_is_no_file_is_refused(bare: Sandbox, tmp_path: Path, kind: str) -> None:
    conf = tmp_path / "port_knocker.toml"
    if kind == "a folder":
        conf.mkdir()
    elif kind == "a pipe":
        os.mkfifo(conf)
    elif kind == "a link that leads nowhere":
        conf.symlink_to("nowhere")
    assert_refused(bare, begin_daemon(bare, conf), str(conf), "expected")


def test_unreadable_file_is_refused(bare: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    conf.chmod(0)
    # The sandbox's root without a capability may no more than any user.
    ordinary = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    assert_refused(bare, bare.server.popen([*ordinary, *PROGRAM, "--conf", str(conf)]), str(conf), "read")


def test_wrong_file_at_home_is_refused_and_not_skipped(bare: Sandbox, home: Path) -> None:
    (home / ".port_knocker.toml").write_text("nonsense")
    daemon = bare.server.popen(PROGRAM, env={"HOME": str(home)})
    assert_refused(bare, daemon, str(home / ".port_knocker.toml"), "invalid TOML")


def test_file_readable_by_others_is_warned_of_and_works(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    conf.chmod(0o644)
    daemon = begin_daemon(box, conf)
    assert f"chmod 600 {conf}" in daemon.wait_for(f"WARNING .*{re.escape(str(conf))}")
    daemon.wait_for(r"\bready\b")
    knock(client, client.server4)
    wait_open(client, client.server4)


IN_USE: dict[str, tuple[list[str], dict[str, str], str]] = {
    "in the file": ([], {}, "port_knocker.toml"),
    "by option": (["-m", SECRET], {}, "--magic-seq"),
    "by variable": ([], {"KNOCKER_SEQ": SECRET}, "KNOCKER_SEQ"),
}


@pytest.mark.parametrize(("options", "env", "place"), IN_USE.values(), ids=IN_USE.keys())
def test_knock_port_in_use_is_one_line_without_the_port(
    bare: Sandbox, tmp_path: Path, options: list[str], env: Mapping[str, str], place: str
) -> None:
    keys = {} if place == "port_knocker.toml" else {"opening_sequence": list(OTHER_SEQUENCE)}
    user = bare.server.listen(SEQUENCE[3], "udp")
    daemon = begin_daemon(bare, write_configuration(tmp_path, **keys), *options, env=env)
    assert daemon.wait(10) == 1, "another start may find it free"
    user.close()
    assert_refused(bare, daemon, place, "port number 4", "in use", "expected", status=1)
    assert not any(str(port) in daemon.stderr.text for port in (*SEQUENCE, *OTHER_SEQUENCE))


def test_lack_of_descriptors_is_no_configuration_error(bare: Sandbox, tmp_path: Path) -> None:
    """For the sockets of the knock ports and, with a few more, for the crash guard; how many depends on the Python."""
    conf = write_configuration(tmp_path)
    said = ["opening_sequence: port number", "closes the doors"]
    for number in range(12, 20):
        argv = ["sh", "-c", f'ulimit -n {number}; exec "$@"', "sh", *PROGRAM, "--conf", str(conf)]
        daemon = bare.server.popen(argv)
        daemon.stderr.wait_for_end(10)
        if said[0] not in daemon.stderr.text:
            assert number > 12
            del said[0]
        assert_refused(bare, daemon, said[0], "Too many open files", status=1)
        if len(said) == 1:
            return
    raise AssertionError("the crash guard never lacked a descriptor")


def test_system_error_in_daemon_task_ends_with_status_1(bare: Sandbox, tmp_path: Path) -> None:
    script = """
from port_knocking_doors import cli
from port_knocking_doors.daemon import daemon
async def check(self):
    raise OSError(24, "Too many open files")
daemon.Daemon._check = check
cli.main()
"""
    argv = [sys.executable, "-c", script, "--conf", str(write_configuration(tmp_path))]
    assert_refused(bare, bare.server.popen(argv), "the system refused: Too many open files", status=1)


# --- two daemons


def test_second_daemon_with_same_mark_refuses_and_names_the_first(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    first = start_daemon(box, tmp_path)
    knock(client, client.server4)
    wait_open(client, client.server4)
    standing = sorted(box.rules())
    (tmp_path / "second").mkdir()
    second = begin_daemon(box, write_configuration(tmp_path / "second", opening_sequence=list(OTHER_SEQUENCE)))
    assert second.wait(10) == 1
    (line,) = second.stderr.lines
    assert f"process {first.inner_pid}," in line
    assert "rule_priority" in line
    assert sorted(box.rules()) == standing
    assert client.connect(client.server4, GUARDED) == "open"
    knock(client, client.server4)
    first.wait_for("prolonged")
    first.terminate()
    assert first.wait(10) == 0
    assert box.rules() == []


def test_daemons_with_different_marks_keep_each_others_doors(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second_keys = {
        "rule_priority": 77,
        "opening_sequence": list(OTHER_SEQUENCE),
        "ports_to_controls": [GUARDED + 1],
        "max_opened_door_duration": 60,
    }
    first_door, second_door = door_rule(client.address4), door_rule(client.address4, GUARDED + 1, priority=77)
    first = start_daemon(box, tmp_path, max_opened_door_duration=60, firewall_rules_check_periode_seconds=0.1)
    knock(client, client.server4)
    wait_open(client, client.server4)

    second = start_daemon(box, tmp_path / "second", **second_keys)
    knock(client, client.server4, OTHER_SEQUENCE)
    wait_open(client, client.server4, GUARDED + 1)
    assert client.connect(client.server4, GUARDED) == "open"
    assert doors(box) == [first_door]
    assert doors(box, priority=77) == [second_door]

    second.kill()
    wait_shut(client, client.server4, GUARDED + 1)
    assert client.connect(client.server4, GUARDED) == "open"
    second = start_daemon(box, tmp_path / "second", **second_keys)
    knock(client, client.server4, OTHER_SEQUENCE)
    wait_open(client, client.server4, GUARDED + 1)

    first.terminate()
    assert first.wait(10) == 0
    assert client.connect(client.server4, GUARDED) == "prohibited"
    assert client.connect(client.server4, GUARDED + 1) == "open"
    assert set(box.rules()) == {second_door, *knock_port_rules(OTHER_SEQUENCE, priority=77)}


# --- what is active

PRECEDENCE: dict[str, tuple[list[str], dict[str, str], Sequence[int], int]] = {
    "file": ([], {}, SEQUENCE, GUARDED),
    "variables beat the file": (
        [],
        {"KNOCKER_SEQ": text_of(OTHER_SEQUENCE), "KNOCKER_PORTS": str(GUARDED + 1)},
        OTHER_SEQUENCE,
        GUARDED + 1,
    ),
    "options beat variables": (
        ["-m", text_of(THIRD_SEQUENCE), "-p", str(GUARDED + 2)],
        {"KNOCKER_SEQ": text_of(OTHER_SEQUENCE), "KNOCKER_PORTS": str(GUARDED + 1)},
        THIRD_SEQUENCE,
        GUARDED + 2,
    ),
    "each for itself": (
        ["--ports", f"{GUARDED + 2}/tcp"],
        {"KNOCKER_SEQ": str(list(OTHER_SEQUENCE))},
        OTHER_SEQUENCE,
        GUARDED + 2,
    ),
}


@pytest.mark.parametrize(("options", "env", "sequence", "port"), PRECEDENCE.values(), ids=PRECEDENCE.keys())
def test_options_override_variables_which_override_the_file(
    box: Sandbox,
    client: ClientHost,
    tmp_path: Path,
    options: list[str],
    env: Mapping[str, str],
    sequence: Sequence[int],
    port: int,
) -> None:
    daemon = begin_daemon(box, write_configuration(tmp_path), *options, env=env)
    daemon.wait_for(r"\bready\b")
    assert set(box.rules()) == knock_port_rules(sequence)
    knock(client, client.server4, sequence)
    wait_open(client, client.server4, port)
    assert doors(box) == [door_rule(client.address4, port)]
    others = {GUARDED, GUARDED + 1, GUARDED + 2} - {port}
    wait_until(
        lambda: [client.connect(client.server4, other) for other in others] == ["prohibited"] * 2,
        10,
        "all else refused",
    )


def test_file_at_home_is_used_without_conf(box: Sandbox, client: ClientHost, home: Path) -> None:
    write_configuration(home).rename(home / ".port_knocker.toml")
    box.server.popen(PROGRAM, env={"HOME": str(home)}).wait_for(r"\bready\b")
    knock(client, client.server4)
    wait_open(client, client.server4)


# --- a new installation


def test_knock_line_of_new_installation_opens_door(box: Sandbox, client: ClientHost, home: Path) -> None:
    assert shutil.which("nc"), (
        "the line needs a netcat: the system package netcat-openbsd (Debian) or nmap-ncat (Fedora)"
    )
    box.firewall_cmd("--remove-service=ssh")
    environment = {"HOME": str(home)}
    said = box.server.run([*PROGRAM, "--set-configuration-file-in-home"], env=environment)
    path = home / ".port_knocker.toml"
    assert said.stderr == ""
    assert str(path) in said.stdout
    (line,) = (line.strip() for line in said.stdout.splitlines() if line.startswith("  "))
    daemon = box.server.popen(PROGRAM, env=environment)
    daemon.wait_for(r"\bready\b")
    assert "WARNING" not in daemon.stderr.text
    with box.server.listen(22):
        assert client.connect(client.server4, 22) == "prohibited"
        client.run(["sh", "-c", line.replace("HOST", str(client.server4))])
        wait_open(client, client.server4, 22)


@pytest.mark.parametrize("umask", ["000", "022", "077", "777"])
def test_file_of_new_installation_is_readable_by_owner_alone(bare: Sandbox, home: Path, umask: str) -> None:
    command = f'umask {umask}; exec "$@"'
    argv = ["sh", "-c", command, "sh", *PROGRAM, "--set-configuration-file-in-home"]
    bare.server.run(argv, env={"HOME": str(home)})
    assert [path.name for path in home.iterdir()] == [".port_knocker.toml"]
    assert stat.S_IMODE((home / ".port_knocker.toml").stat().st_mode) == 0o600


def test_two_new_installations_have_different_sequences(bare: Sandbox, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        bare.server.run([*PROGRAM, "--set-configuration-file-in-home"], env={"HOME": str(tmp_path / name)})
        contents.append((tmp_path / name / ".port_knocker.toml").read_text())
    one, two = (re.findall(r"^opening_sequence = .*", content, re.MULTILINE) for content in contents)
    assert len(one) == len(two) == 1
    assert one != two


@pytest.mark.parametrize("kind", ["a file", "an empty file", "a link that leads nowhere", "a folder"])
def test_existing_file_is_not_overwritten(bare: Sandbox, home: Path, kind: str) -> None:
    path = home / ".port_knocker.toml"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link that leads nowhere":
        path.symlink_to(home / "nowhere")
    else:
        path.write_text("# mine\n" if kind == "a file" else "")
    before = path.lstat()
    done = bare.server.run([*PROGRAM, "--set-configuration-file-in-home"], env={"HOME": str(home)}, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert str(path) in line
    assert path.lstat() == before
    assert list(home.iterdir()) == [path]


# --- what it says of itself

SELF_DESCRIPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "-h": ("-h", ("Usage: port-knocking-doors", "--magic-seq", "--zone", "--show-configuration-file-help")),
    "--help": ("--help", ("Usage: port-knocking-doors", "--conf", "--ports", "--set-configuration-file-in-home")),
    "-V": ("-V", (f"port-knocking-doors {__version__}\n",)),
    "--version": ("--version", (f"port-knocking-doors {__version__}\n",)),
    "the file's help": (
        "--show-configuration-file-help",
        tuple(f"\n[[{key.name}]]" if key.keys else f"\n{key.name} = " for key in KEYS),
    ),
}


@pytest.mark.parametrize(("option", "said"), SELF_DESCRIPTIONS.values(), ids=SELF_DESCRIPTIONS.keys())
def test_help_and_version_print_and_start_nothing(
    bare: Sandbox, home: Path, option: str, said: tuple[str, ...]
) -> None:
    (home / ".port_knocker.toml").write_text("nonsense")
    done = bare.server.run([*PROGRAM, option], env={"HOME": str(home)})
    assert done.stderr == ""
    assert [words for words in said if words not in done.stdout] == []
    assert bare.rules() == []


# --- systemd


def test_journal_gets_priorities_and_no_time(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    conf.chmod(0o640)
    daemon = begin_daemon(box, conf, "-v", env={"JOURNAL_STREAM": "8:12345"})
    daemon.wait_for(r"^<6>ready")
    knock(client, client.server4)
    wait_open(client, client.server4)
    daemon.wait_for(f"^<6>{client.address4}: opened")
    knock(client, client.server4, SEQUENCE[1:2] * 5)
    daemon.wait_for(f"^<6>{client.address4}: wrong knock, address not ignored")
    daemon.wait_for(f"^<4>{client.address4}: wrong knock, address ignored")
    daemon.terminate()
    assert daemon.wait(10) == 0
    for said in (rf"^<4>{conf}: permissions", rf"^<7>{client.address4}: knock", rf"^<6>{client.address4}: closed"):
        daemon.wait_for(said, 1)
    assert [line for line in daemon.stderr.lines if not re.match(r"<[3467]>", line)] == []
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d", daemon.stderr.text)


def test_line_has_time_without_journal(box: Sandbox, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path)
    assert [line for line in daemon.stderr.lines if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ ", line)] == []


@pytest.fixture
def supervisor() -> Iterator[socket.socket]:
    """A socket for notifications; in a folder of a short name, since a socket's may not be long."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{folder}/notify")
        sock.settimeout(10)
        yield sock


def test_supervisor_is_notified_of_ready_and_stopping(
    box: Sandbox, client: ClientHost, tmp_path: Path, supervisor: socket.socket
) -> None:
    daemon = begin_daemon(box, write_configuration(tmp_path), env={"NOTIFY_SOCKET": supervisor.getsockname()})
    assert supervisor.recv(1000) == b"READY=1"
    assert supervisor.recv(1000).startswith(b"STATUS=ready: listening on 5 UDP ports; ")
    assert set(box.rules()) == knock_port_rules(), "ready means that knocks arrive"
    knock(client, client.server4)
    wait_open(client, client.server4)
    daemon.wait_for(r"\bready\b")
    daemon.terminate()
    assert supervisor.recv(1000) == b"STOPPING=1"
    assert supervisor.recv(1000) == b"STATUS=closing the doors"
    assert supervisor.recv(1000) == b"EXTEND_TIMEOUT_USEC=15000000"
    assert supervisor.recv(1000) == b"EXTEND_TIMEOUT_USEC=10000000", "which the few rules need at most"
    assert daemon.wait(10) == 0
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(1000)


def test_missing_supervisor_is_no_failure(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = begin_daemon(box, write_configuration(tmp_path), env={"NOTIFY_SOCKET": str(tmp_path / "absent")})
    daemon.wait_for(r"\bready\b")
    knock(client, client.server4)
    wait_open(client, client.server4)
