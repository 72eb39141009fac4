"""`port-knocking-doors tportknockd`: its options, what it shows and what it refuses; nothing here knocks."""

import subprocess
import sys
from pathlib import Path

import pytest

from port_knocking_doors.cli import tportknockd as command
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Scope
from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
GOOD = """\
<SSH>
 sequence      = udp:34123 tcp:34543:i tcp:34434:x
 timeout       = 10
 start_command = echo open %IP%   # who knocked
 stop_command  = echo shut %IP%
</SSH>
<VPN>
 sequence      = tcp:34110:up udp:34112 tcp:34110
 timeout       = 5
 start_command = echo vpn
</VPN>
"""
WORDS = """\
Sequence SSH (rules of tportknockd), within 10 s:
  1. UDP 34123
  2. TCP 34543 with any flags
  3. TCP 34434 with FIN SYN RST PSH ACK URG
  runs: echo open %IP%
  30 s later: echo shut %IP%
  no traps
"""
MORE_WORDS = """\
Sequence VPN (rules of tportknockd), within 5 s:
  1. TCP 34110 with PSH URG
  2. UDP 34112
  3. TCP 34110 with no flags
  runs: echo vpn
  no traps
"""
BAD = GOOD.replace("tcp:34110:up", "tcp:34110:nu").replace("timeout       = 5", "timeout = 5s\n loud = yes")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "knock.conf"
    path.write_text(GOOD)
    path.chmod(0o600)
    return path


def run(*options: object, ahead: tuple[str, ...] = (), blind: bool = False) -> "subprocess.CompletedProcess[str]":
    """Run the command; `blind`: without the library for the background."""
    argv = [*PROGRAM, *ahead, "tportknockd", *map(str, options)]
    if blind:
        script = "import sys; sys.modules['daemon'] = None; from port_knocking_doors.cli import main; main()"
        argv[1:3] = ["-c", script]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_good_file_is_shown_in_words(conf: Path) -> None:
    done = run("-C", conf)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == WORDS + MORE_WORDS


def test_bad_file_shows_every_error_and_what_is_good(conf: Path) -> None:
    conf.write_text(BAD)
    done = run("-C", conf)
    assert (done.returncode, done.stdout) == (2, WORDS)
    flags, timeout, key = done.stderr.splitlines()
    assert flags.startswith(
        f"port-knocking-doors: {conf}:8: sequence: position 1: x, n or i is combined with other flags"
    )
    assert timeout.startswith(f"port-knocking-doors: {conf}:9: timeout: ")
    assert key.startswith(f'port-knocking-doors: {conf}:10: "loud" is unknown')


KNOWN = "tcp:110:x tcp:110:up tcp:110:up tcp:110:n tcp:110:i"


@pytest.mark.parametrize(
    ("steps", "mode", "said"),
    [
        pytest.param("", 0o644, "{}: permissions 0644 are too open, the file holds a secret: ", id="readable"),
        pytest.param(
            "",
            0o666,
            "{}: permissions 0666 are too open, other users can write the file, and so run commands as the daemon: ",
            id="writable",
        ),
        pytest.param(KNOWN, 0o600, "{}: sequence VPN: PUBLIC SEQUENCE: ", id="publicly known"),
        pytest.param("tcp:34110:up tcp:34112", 0o600, "{}: sequence VPN: 2 steps are soon ", id="short"),
        pytest.param("udp:34110 udp:34112 udp:34114", 0o600, "{}: sequence VPN: its ports are in rising ", id="sorted"),
    ],
)
def test_unwise_settings_are_warned_of_as_by_check(conf: Path, steps: str, mode: int, said: str) -> None:
    conf.write_text(GOOD.replace("tcp:34110:up udp:34112 tcp:34110", steps) if steps else GOOD)
    conf.chmod(mode)
    (warning,) = command.load(conf, None).warnings
    assert warning.startswith(said.format(conf))
    checked = subprocess.run([*PROGRAM, "check", "--tportknockd", conf], capture_output=True, text=True, check=True)
    for shown in (run("-C", conf).stdout, checked.stdout):
        assert [line for line in shown.splitlines() if line.startswith("Warning: ")] == [f"Warning: {warning}"]


def test_comments_in_old_encoding_are_accepted(conf: Path) -> None:
    conf.write_bytes(b"\xef\xbb\xbf# T\xfcr auf\n" + GOOD.encode().replace(b"who", b"w\xe4r"))
    done = run("-C", conf)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", WORDS + MORE_WORDS)


def test_file_is_shown_as_settings(conf: Path) -> None:
    loaded = command.load(conf, "ppp0")
    settings = loaded.settings
    assert (settings.opening_sequence, settings.guarded_ports, settings.open_knock_ports) == ((), (), False)
    assert [sequence.name for sequence in settings.sequences] == ["SSH", "VPN"]
    assert {sequence.scope for sequence in settings.sequences} == {Scope(interfaces=("ppp0",))}
    assert {sequence.group for sequence in settings.sequences} == {str(conf)}
    assert (loaded.path, loaded.warnings) == (conf, ())
    assert {sequence.scope for sequence in command.load(conf, None).settings.sequences} == {Scope()}


def test_daemon_reports_first_error_and_number_of_errors(conf: Path) -> None:
    conf.write_text(BAD)
    with pytest.raises(ConfigError, match=rf"^{conf}:8: .* \(and 2 more; see tportknockd -C\)$"):
        command.load(conf, None)
    done = run("-c", conf, "-D")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{conf}:8: " in done.stderr


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no file": ((), "tportknockd: the file with the sequences is missing, expected -c FILE"),
    "-r without a number": (
        ("-r", "soon", "-l"),
        '-r: "soon" is not a number of seconds, expected a whole number from 1',
    ),
    "-r 0": (("-r", "0", "-l"), "-r: number of seconds 0 is out of range, expected 1 to 1000000"),
    "-i": (("-i", "a/b", "-l"), "-i: an interface's name has a character that the kernel forbids"),
    "-d and -D": (("-d", "-D", "-c", "F"), "expected one of -d -D"),
    "an unknown option": (("-x",), "option -x is unknown; see `port-knocking-doors tportknockd --help`"),
    "a missing file": (("-C", "/nowhere"), "/nowhere: cannot read the file (No such file or directory)"),
    "a device": (("-c", "/dev/null"), "/dev/null: not a regular file, expected a configuration file of tportknockd"),
    "a folder": (("-c", "/"), "/: cannot read the file (Is a directory)"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_wrong_usage_is_one_line(options: tuple[str, ...], said: str) -> None:
    done = run(*options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("port-knocking-doors: ")
    assert said in done.stderr


def test_options_of_the_daemon_itself_are_not_swallowed(conf: Path) -> None:
    done = run(ahead=("-c", str(conf)))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--conf: has no effect before `tportknockd`; put options of `tportknockd` after it" in done.stderr


def test_missing_background_library_is_one_line_with_remedy(conf: Path) -> None:
    done = run("-c", conf, "-D", blind=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "python3-daemon" in done.stderr


def test_help_says_that_period_has_no_effect() -> None:
    done = run("-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {option} " in done.stdout for option in ("-c", "-C", "-i", "-r", "-l", "-d", "-D", "-h,"))
    assert "Accepted without effect: changes of interfaces and addresses are noticed at once" in " ".join(
        done.stdout.split()
    )


def test_interfaces_are_listed_with_state_and_addresses(box: Sandbox, client: ClientHost) -> None:
    box.server.run(["ip", "link", "add", "idle", "type", "veth", "peer", "name", "e\x1b[2J\u202ex"])
    box.server.run(["ip", "address", "add", "10.9.8.7/24", "dev", client.server_interface])

    def rows() -> list[list[str]]:
        done = box.server.run([*PROGRAM, "tportknockd", "-l"])
        return [line.split() for line in done.stdout.splitlines()]

    found = rows()
    assert found[0] == ["INTERFACE", "STATE", "ADDRESSES"]
    assert ["idle", "down", "none"] in found
    assert [r"e\x1b[2J\u202ex", "down", "none"] in found, "a terminal obeys nothing of a name"
    at = found.index([client.server_interface, "up", str(client.server4)])
    assert found[at + 1] == ["10.9.8.7"]
    assert [str(client.server6)] in found[at + 2 : at + 4]
    box.server.run(["ip", "link", "set", client.server_interface, "down"])
    wait_until(lambda: [client.server_interface, "down"] in [row[:2] for row in rows()], 5, "the link to be down")
