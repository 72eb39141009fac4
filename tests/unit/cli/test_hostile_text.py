"""Text of others that reaches a terminal through a command: nothing of it is obeyed."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from port_knocking_doors.cli.application import app
from port_knocking_doors.doctor.finding import problem
from port_knocking_doors.doctor.report import print_report
from port_knocking_doors.errors import ConfigError

EVIL = "x\x1b[2J\x07\u202e\u2066\n\x9b31my"
"""A terminal would clear its screen, ring, turn text round, begin a line, and turn red."""
OWN = "ports_to_controls = [22]\nopening_sequence = [20001, 20005, 20002, 20004, 20003]\n"
KNOCKD = "[ssh]\nSequence = 65431,65433:udp,65432\nCommand = true\n"
TPORT = "<ssh>\nsequence = tcp:65431:s udp:65433 tcp:65432\ntimeout = 10\nstart_command = true\n</ssh>\n"

COMMANDS = {
    # what the file has, the command with FILE for its name
    "a valid file": (OWN, "check --conf FILE"),
    "a file with an error": ("zone = 1\n", "check --conf FILE"),
    "an unknown zone": (f'{OWN}zone = "nowhere"\n', "check --conf FILE"),
    "a file that another one hides": (OWN, "check --conf FILE --zone \x1b"),
    "the daemon's start": ("zone = 1\n", "--conf FILE"),
    "the daemon's start with a log for programs": ("zone = 1\n", "--log-json --conf FILE"),
    "doctor": ("zone = 1\n", "doctor --conf FILE"),
    "status": ("zone = 1\n", "status --conf FILE"),
    "open": ("zone = 1\n", "open 192.0.2.1 --conf FILE"),
    "open of an address": (OWN, f"open {EVIL} --conf FILE"),
    "client-config": ("zone = 1\n", "client-config --conf FILE"),
    "client-config for a host": (OWN, f"client-config {EVIL} --conf FILE"),
    "client-config for a sequence": (OWN, f"client-config h -s {EVIL} --conf FILE"),
    "knock": ("zone = 1\n", "knock --conf FILE h"),
    "knock at a host": (OWN, f"knock --conf FILE {EVIL}"),
    "a file of knockd": (KNOCKD, "check --knockd FILE"),
    "a file of knockd as TOML": (KNOCKD, "check --knockd FILE --as-toml"),
    "a file of knockd with an error": ("[d]\nSequence = 0\n", "check --knockd FILE"),
    "a file of knockd with a control character": (f"[d]\n{EVIL}\n", "check --knockd FILE"),
    "a directive of knockd": ("[d]\nS\u200fequence = 7\n", "check --knockd FILE"),
    "a name of knockd": ("[\u200fd\u00a0]\nSequence = 7\nCommand = a\u200bb\n", "check --knockd FILE"),
    "a name of knockd as TOML": (
        "[\u200fd\u00a0]\nSequence = 7\nCommand = a\u200bb\n",
        "check --knockd FILE --as-toml",
    ),
    "the paths of knockd": (
        "[options]\nLogFile = /\u200f\nPidFile = \u200e\n[d]\nSequence = 7\n",
        "check --knockd FILE",
    ),
    "knockd's start": ("[d]\nSequence = 0\n", "knockd -c FILE"),
    "a file of tportknockd": (TPORT, "check --tportknockd FILE"),
    "a file of tportknockd with errors": (f"<{EVIL}>\nnonsense\n", "check --tportknockd FILE"),
    "tportknockd's own check": (f"{TPORT}<{EVIL}>\n", "tportknockd -C FILE"),
    "an unknown command": (OWN, f"{EVIL}"),
    "an unknown option": (OWN, f"check --{EVIL}"),
    "no file": (None, "check --conf FILE"),
    "no file of knockd": (None, "check --knockd FILE"),
}


@pytest.mark.parametrize(("content", "line"), COMMANDS.values(), ids=COMMANDS)
def test_command_shows_names_of_others_escaped(tmp_path: Path, content: str | None, line: str) -> None:
    path = tmp_path / EVIL
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    words = [str(path) if word == "FILE" else word for word in line.split(" ")]
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONUTF8": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "port_knocking_doors", *words],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env=environment,
        check=False,
        timeout=60,
    )
    assert ended.stdout + ended.stderr != ""
    assert all(part.isprintable() for part in (ended.stdout + ended.stderr).split("\n"))
    assert not any(part.startswith("y") for part in (ended.stdout + ended.stderr).split("\n")), "a line of its own"
    assert "Traceback" not in ended.stderr


def test_finding_of_doctor_with_an_error_of_firewalld_is_one_line() -> None:
    stream = io.StringIO()
    print_report([problem(f"firewalld: INVALID_ZONE: {EVIL}")], stream)
    first, *_ = stream.getvalue().split("\n")
    assert first == "PROBLEM  firewalld: INVALID_ZONE: x\\x1b[2J\\x07\\u202e\\u2066 \\x9b31my"


NO_HOSTS = (f"fe80::1%{EVIL}", "fe80::1%e\nProxyCommand x", "fe80::1%", "fe80::1%a b", "::1%a%b", "a\nb", "a b", "a;b")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "conf.toml"
    path.write_text(OWN)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("host", NO_HOSTS)
def test_client_config_refuses_what_is_no_host(conf: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"^the first argument is not a host"):
        CliRunner().invoke(app, ["client-config", "--conf", str(conf), host], catch_exceptions=False)


def test_client_config_takes_an_address_with_its_scope(conf: Path) -> None:
    done = CliRunner().invoke(app, ["client-config", "--conf", str(conf), "[fe80::1%enp0s3.7]"])
    assert done.exit_code == 0
    assert "Host fe80::1%enp0s3.7\n" in done.stdout
