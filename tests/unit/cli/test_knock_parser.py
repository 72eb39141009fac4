"""`knock` and `client-config` as commands: wrong usage, the chosen sequence, and the modules that are loaded."""

import io
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from port_knocking_doors.cli import knock_parser
from port_knocking_doors.cli.application import app
from port_knocking_doors.client import knock
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import Flags, Protocol, Sequence, Settings, Step

FILE = """\
ports_to_controls = ["1194/udp", 2222]
opening_sequence = [20001, 20005, 20002, 20004, 20003]
ignoring_period_after_knock_error = 7
[[sequence]]
name = "ssh"
steps = ["udp:21431", "tcp:21433:frap", "tcp:21432"]
open = [22]
close_steps = ["tcp:21435:f", "udp:21434"]
"""
SECOND = """
[[sequence]]
name = "web"
steps = ["udp:21441", "udp:21443", "udp:21442"]
open = [80]
"""
CLOSING = (Step(Protocol.TCP, 21435, Flags.FIN), Step(Protocol.UDP, 21434))
SECRETS = (
    "21434",
    "21435",
    "20001",
    "20005",
    "20002",
    "20004",
    "20003",
    "21431",
    "21433",
    "21432",
    "frap",
    "7117",
    "7228",
)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "conf.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("KNOCKER_SEQ", "KNOCKER_PORTS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


class Sent:
    """What the command asked to be sent."""

    def __init__(self) -> None:
        self.steps: tuple[Step, ...] = ()
        self.delay = -1.0

    def knock(self, _place: object, steps: tuple[Step, ...], delay: float, _detail: object) -> None:
        self.steps, self.delay = steps, delay


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()
    monkeypatch.setattr(knock, "knock", sent.knock)
    return sent


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.output


WRONG: dict[str, tuple[list[str], str]] = {
    "a step for a host": (["7117", "7228"], "the first argument is not a host"),
    "a word that is no step": (["::1", "7117", "oops", "7228"], "step 2: not a step"),
    "port 0": (["::1", "7117", "0", "7228"], "step 2: port 0 is out of range"),
    "port 65536": (["::1", "7117", "7228", "65536:udp"], "step 3: port 65536 is out of range"),
    "both families": (["-4", "-6", "::1", "7117"], "-4 and -6"),
    "wait and connect": (["--wait", "22", "--connect", "22", "::1"], "--wait and --connect"),
    "wait for UDP": (["--wait", "53/udp", "::1", "7117"], "--wait: a client cannot see whether a UDP port is open"),
    "connect to UDP": (
        ["--connect", "53/udp", "::1", "7117"],
        "--connect: a client cannot see whether a UDP port is open",
    ),
    "wait for port 0": (["--wait", "0", "::1", "7117"], "--wait: port 0 is out of range"),
    "tries without wait": (["--tries", "2", "::1", "7117"], "--tries has no effect without"),
    "no tries": (["--wait", "22", "--tries", "0", "::1", "7117"], "--tries: expected a whole number from 1 to 1000"),
    "a negative delay": (["--delay=-1", "::1", "7117"], "--delay: expected whole milliseconds from 0 to 60000"),
    "a long delay": (["-d", "60001", "::1", "7117"], "--delay: expected whole milliseconds from 0 to 60000"),
    "a delay in seconds": (
        ["-d", "0.2", "::1", "7117"],
        "--delay: expected whole milliseconds from 0 to",
    ),
    "no delay": (["-d", "7117", "x7228", "-d"], "-d/--delay: expected one argument"),
    "a delay that is no number": (["-d", "x7117", "::1", "7228"], "--delay: expected whole milliseconds"),
    "an unknown option": (["--7117", "::1", "7228"], "this option is unknown; see `port-knocking-doors knock --help`"),
    "an option with a typing error": (["--conff=7117", "::1"], "option --conff is unknown, the nearest is --conf;"),
    "a family with a value": (["-4x7117", "::1"], "see `port-knocking-doors knock --help`"),
    "flags where they do not belong": (["-d", "tcp:7117:frap", "::1"], "--delay: expected whole milliseconds"),
    "nothing": ([], "the following arguments are required: HOST; see `port-knocking-doors knock --help`"),
    "steps and a name": (["-s", "ssh", "::1", "7117"], "steps and --sequence exclude each other"),
    "steps and close": (["--close", "::1", "7117"], "--close has no effect beside steps"),
    "close and wait": (["--close", "--wait", "22", "::1"], "--close excludes --wait and --connect"),
    "close and connect": (["--close", "--connect", "22", "::1"], "--close excludes --wait and --connect"),
    "close the opening sequence": (
        ["--close", "-s", "main", "::1"],
        "--close: the sequence of this name has no close_steps, expected one of: ssh",
    ),
    "a name that is not there": (["-s", "7117", "::1"], "no sequence of this name, expected one of: ssh"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_wrong_usage_is_one_line_without_steps(conf: Path, sent: Sent, arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call("--conf", str(conf), "knock", *arguments)
    assert caught.value.exit_status == 2
    assert said in str(caught.value)
    assert [secret for secret in SECRETS if secret in str(caught.value)] == []
    assert sent.steps == ()


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


ON_TERMINAL = {
    "the opening sequence": ([], "5 knocks sent to 127.0.0.1; use --wait 2222 to see whether the port opens\n"),
    "a sniffed one": (
        ["-s", "ssh"],
        "3 knocks sent to 127.0.0.1; use --wait 22 to see whether the port opens\n",
    ),
    "to close": (
        ["--close"],
        "2 knocks sent to 127.0.0.1; the server closes this machine's door; established connections continue\n",
    ),
    "steps": (["7117:udp"], "1 knock sent to 127.0.0.1; use --wait PORT to see whether the port opens\n"),
}


@pytest.mark.parametrize(("arguments", "said"), ON_TERMINAL.values(), ids=ON_TERMINAL)
def test_knock_counts_knocks_on_terminal(
    conf: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    named = [] if "7117:udp" in arguments else ["-c", str(conf)]
    knock_parser.run([*named, "127.0.0.1", *arguments])
    assert sent.steps
    assert screen.getvalue() == said


@pytest.mark.parametrize("output", [io.StringIO(), None], ids=["a pipe", "closed"])
def test_knock_prints_nothing_without_terminal(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, output: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdout", output)
    knock_parser.run(["127.0.0.1", "7117:udp"])
    assert sent.steps
    assert output is None or output.getvalue() == ""


def test_host_without_address_of_family_is_not_found() -> None:
    for arguments, said in ((["-4", "::1"], "no IPv4 address"), (["-6", "127.0.0.1"], "no IPv6 address")):
        with pytest.raises(DoorsError, match=said) as caught:
            call("knock", *arguments, "7117")
        assert caught.value.exit_status == 4


OPENING = tuple(Step(Protocol.UDP, port) for port in (20001, 20005, 20002, 20004, 20003))
CHOSEN: dict[str, tuple[list[str], tuple[Step, ...]]] = {
    "the opening sequence": ([], OPENING),
    "the opening sequence by its name": (["-s", "main"], OPENING),
    "a sniffed one": (
        ["--sequence", "ssh"],
        (
            Step(Protocol.UDP, 21431),
            Step(Protocol.TCP, 21433, Flags.FIN | Flags.RST | Flags.ACK | Flags.PSH),
            Step(Protocol.TCP, 21432, Flags.SYN),
        ),
    ),
    "the only steps that close": (["--close"], CLOSING),
    "the steps that close one by its name": (["--close", "-s", "ssh"], CLOSING),
    "steps": (["7117", "7228:udp"], (Step(Protocol.TCP, 7117, Flags.SYN), Step(Protocol.UDP, 7228))),
    "steps with -u": (["-u", "7117", "7228:tcp"], (Step(Protocol.UDP, 7117), Step(Protocol.TCP, 7228, Flags.SYN))),
}


@pytest.mark.parametrize(("arguments", "steps"), CHOSEN.values(), ids=CHOSEN)
def test_knock_sends_chosen_sequence_with_delay(
    conf: Path, sent: Sent, arguments: list[str], steps: tuple[Step, ...]
) -> None:
    named = [] if "7117" in arguments else ["--conf", str(conf)]
    assert call(*named, "knock", "127.0.0.1", *arguments) == ""
    assert sent.steps == steps
    assert sent.delay == 0.2
    call("knock", *named, "-d", "5", "127.0.0.1", *arguments)
    assert sent.delay == 0.005


OTHER = 'close_steps = ["udp:21444", "udp:21445"]\n'
SAME = 'close_steps = ["tcp:21435:f", "udp:21434"]\n'


@pytest.mark.parametrize(
    ("more", "arguments", "said"),
    [
        (SECOND, [], ""),
        (SECOND + SAME, [], ""),
        (SECOND + SAME, ["-s", "web"], ""),
        (SECOND, ["-s", "web"], "the sequence of this name has no close_steps, expected one of: ssh"),
        (SECOND + OTHER, [], "several sequences have close_steps, expected --sequence with one of: ssh, web"),
        (SECOND + OTHER, ["-s", "ssh"], ""),
    ],
    ids=["the only one", "the same of both", "the same by name", "none of this name", "which of two", "one of two"],
)
def test_close_finds_its_steps_or_names_the_sequences(
    conf: Path, sent: Sent, more: str, arguments: list[str], said: str
) -> None:
    conf.write_text(FILE + more)
    if not said:
        call("--conf", str(conf), "knock", "--close", *arguments, "127.0.0.1")
        assert sent.steps == CLOSING
        return
    with pytest.raises(ConfigError, match=f"^--close: {said}$"):
        call("--conf", str(conf), "knock", "--close", *arguments, "127.0.0.1")
    assert sent.steps == ()


def test_close_without_any_close_steps_says_where_they_belong(conf: Path, sent: Sent) -> None:
    conf.write_text("".join(line for line in FILE.splitlines(keepends=True) if "close" not in line))
    said = r"^--close: no sequence of the configuration has close_steps, expected them in a \[\[sequence\]\]$"
    with pytest.raises(ConfigError, match=said):
        call("--conf", str(conf), "knock", "--close", "127.0.0.1")


def test_client_config_shows_how_to_close_where_the_sequence_can(conf: Path) -> None:
    text = call("client-config", "--conf", str(conf), "-s", "ssh")
    assert "\nport-knocking-doors knock HOST tcp:21435:f udp:21434\n" in text
    assert "hping3 -q -c 1 -p 21435 -F HOST" in text
    assert "close" not in call("client-config", "--conf", str(conf))


def test_knock_without_configuration_warns_of_public_sequence(home: Path, sent: Sent) -> None:
    assert "PUBLIC SEQUENCE" in call("knock", "127.0.0.1")
    assert [step.port for step in sent.steps] == [16001, 16002, 16003, 16004, 16005]


@pytest.mark.parametrize(
    ("arguments", "steps", "port"),
    [
        ([], "udp:20001 udp:20005 udp:20002 udp:20004 udp:20003", 2222),
        (["-s", "ssh"], "udp:21431 tcp:21433:frpa tcp:21432", 22),
    ],
)
def test_client_config_shows_active_sequence_and_port(conf: Path, arguments: list[str], steps: str, port: int) -> None:
    text = call("client-config", "--conf", str(conf), *arguments)
    assert f"port-knocking-doors knock HOST {steps} --wait {port}\n" in text
    assert ("    Port 2222\n" in text) is (port == 2222)
    assert "Host my.host\n" in call("client-config", "--conf", str(conf), "my.host", *arguments)


@pytest.mark.parametrize(
    ("more", "arguments", "said"),
    [
        ("", [], 'the word "knock" and a newline, 6 bytes'),
        ('payload = "any"\n', [], "anything, or nothing"),
        ("", ["-s", "ssh"], "anything, or nothing"),
    ],
    ids=["the daemon's own", "any", "a sniffed sequence"],
)
def test_client_config_names_the_content_that_counts(conf: Path, more: str, arguments: list[str], said: str) -> None:
    conf.write_text(more + FILE)
    assert f"Content of each UDP packet: {said}" in call("client-config", "--conf", str(conf), *arguments)


def test_client_config_rejects_invalid_host(conf: Path) -> None:
    with pytest.raises(ConfigError, match="not a host"):
        call("client-config", "--conf", str(conf), "a b")


TOO_MUCH = ("typer", "click", "pydantic", "asyncio", "dbus_next", "tomli", "tomllib", "logging.handlers", "ssl")
"""What costs a client time before its first packet, and is not its business."""

LOADS = """
import socket, sys
sys.argv[1:] = {arguments}
socket.socket.sendto = lambda *_: None
from port_knocking_doors import cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
found = [name for name in sys.modules if name.split(".")[0] in {too_much} or name in {too_much}]
ours = [name for name in sys.modules if name.startswith("port_knocking_doors.")]
print("found:", *sorted(found))
print("ours:", *sorted(name.partition(".")[2] for name in ours))
"""


def loaded(*arguments: str) -> tuple[set[str], set[str]]:
    """What a client that did its work had loaded: of what is too much, and of the project."""
    program = LOADS.format(arguments=list(arguments), too_much=TOO_MUCH)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    found, ours = done.stdout.splitlines()
    return set(found.split()[1:]), set(ours.split()[1:])


def test_knock_loads_no_option_library_d_bus_or_daemon() -> None:
    found, ours = loaded("knock", "-d", "0", "127.0.0.1", "9:udp", "udp:9")
    assert found == set()
    assert ours & {"daemon", "firewalld", "config.native", "config.loader", "knockers", "sandbox", "demo"} == set()
    assert "client" in ours


def test_knock_with_configuration_loads_its_reader_only(conf: Path) -> None:
    found, ours = loaded("knock", "-d", "0", "-c", str(conf), "127.0.0.1")
    assert found == {name for name in found if name.startswith("tomli")}
    assert ours & {"daemon", "firewalld", "knockers", "sandbox", "demo"} == set()
    assert "config.native" in ours


def test_knock_without_standard_output_ends_in_one_line() -> None:
    command = shlex.join([sys.executable, "-m", "port_knocking_doors", "knock", "7117"])
    done = subprocess.run(["sh", "-c", f"{command} >&- <&-"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    silent = subprocess.run(["sh", "-c", f"{command} >&- 2>&-"], capture_output=True, text=True, check=False)
    assert silent.returncode == 2


def test_help_into_closed_pipe_prints_no_traceback() -> None:
    command = shlex.join([sys.executable, "-m", "port_knocking_doors", "knock", "--help"])
    done = subprocess.run(["sh", "-c", f"{command} | true"], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_used_up_one_time_sequence_is_an_error_with_its_file() -> None:
    settings = Settings(sequences=(Sequence("once", (), one_time="/etc/once"),))
    with pytest.raises(ConfigError, match=r"^--sequence: no one-time sequence is left in /etc/once, expected one$"):
        knock_parser.sequence_steps(settings, "once")


RELAYS = {
    "lost": (ConnectionResetError(104, "Connection reset by peer"), DoorsError),
    "output closed": (BrokenPipeError(32, "Broken pipe"), BrokenPipeError),
}


@pytest.mark.parametrize(("error", "raised"), RELAYS.values(), ids=RELAYS)
def test_relay_that_fails_closes_its_connection(
    monkeypatch: pytest.MonkeyPatch, error: OSError, raised: type[Exception]
) -> None:
    def fail(_: socket.socket) -> None:
        raise error

    connection = socket.socket()
    plan = SimpleNamespace(host="server", connect=lambda **_: (connection, 0))
    monkeypatch.setattr("port_knocking_doors.client.relay.relay", fail)
    with pytest.raises(raised) as caught:
        knock_parser._connect(plan, knock.no_report)  # type: ignore[arg-type]
    if raised is DoorsError:
        assert str(caught.value) == "server: connection lost (Connection reset by peer)"
    assert connection.fileno() == -1


def test_connection_gets_no_number_of_a_standard_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [4, 2, 0]
    closed: list[int] = []

    def connect(**_: object) -> None:
        raise ConfigError("here")

    monkeypatch.setattr(
        knock_parser,
        "os",
        SimpleNamespace(open=lambda *_: numbers.pop(), close=closed.append, devnull=os.devnull, O_RDWR=os.O_RDWR),
    )
    with pytest.raises(ConfigError, match="here"):
        knock_parser._connect(SimpleNamespace(connect=connect), knock.no_report)  # type: ignore[arg-type]
    assert (numbers, closed) == ([], [4])


def test_report_without_standard_error_goes_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    knock_parser._report("knocking")
    assert capsys.readouterr().out == ""
