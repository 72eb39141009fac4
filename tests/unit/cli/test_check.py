"""`check`: its output for each kind of configuration, its verdict, and options before and after the command."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from port_knocking_doors.cli.application import app
from port_knocking_doors.config import knockd_service, native, render, zone_files
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Port, Settings

FILE = """\
ports_to_controls = [80]
opening_sequence = [20001, 20005, 20002, 20004, 20003]
[[sequence]]
name = "ssh"
steps = ["udp:65431", "tcp:65433:frap", "tcp:65432"]
open = [22]
[[sequence]]
name = "vpn"
steps = ["udp:65433", "tcp:65431"]
start_command = "true %IP%"
"""


@pytest.fixture(autouse=True)
def without_knockd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(knockd_service, "OPTION_FILES", (tmp_path / "no such file",))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "conf.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def check(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.output.splitlines()


def test_check_shows_every_sniffed_sequence_in_words(conf: Path) -> None:
    lines = check("check", "--conf", str(conf))
    settings = native.parse(FILE, "F")
    words = render.summary(settings).splitlines()
    assert lines == [
        f"Configuration: {conf}",
        *words,
        "Sniffed on: every interface",
        f"Warning: {conf}: sequence vpn: 2 steps are soon found by chance; use 3 or more",
        "Configuration is valid, 1 warning",
    ]
    assert words[-11:] == [
        "Sequence ssh, within 10 s:",
        "  1. UDP 65431",
        "  2. TCP 65433 with FIN RST PSH ACK",
        "  3. TCP 65432 with SYN",
        "  opens 22/tcp for 30 s",
        "  512 traps",
        "Sequence vpn, within 10 s:",
        "  1. UDP 65433",
        "  2. TCP 65431 with SYN",
        "  runs: true %IP%",
        "  512 traps",
    ]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ([], ["-i", "ppp*", "--interface", "eth0"], "ppp*, eth0"),
        (["-i", "ppp*", "-i", "eth0"], [], "ppp*, eth0"),
        (["-i", "ppp*"], ["-i", "eth0"], "eth0"),
    ],
)
def test_check_names_the_interfaces(conf: Path, before: list[str], after: list[str], shown: str) -> None:
    assert f"Sniffed on: {shown}" in check(*before, "check", "--conf", str(conf), *after)


def test_check_refuses_an_invalid_interface(conf: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--interface: an interface's name has a character"):
        check("check", "--conf", str(conf), "-i", "a/b")


def test_check_shows_a_file_without_sniffed_sequences(conf: Path) -> None:
    settings = Settings(opening_sequence=(20001, 20005, 20002, 20004, 20003))
    conf.write_text(render.render(settings))
    assert check("check", "--conf", str(conf)) == [
        f"Configuration: {conf}",
        *render.summary(settings).splitlines(),
        "Configuration is valid",
    ]


def test_check_counts_warnings_and_names_an_unknown_zone(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "public.xml").touch()
    monkeypatch.setattr(zone_files, "FOLDERS", (tmp_path,))
    conf.write_text('zone = "pubic"\n' + FILE)
    conf.chmod(0o644)
    *_, mode, steps, zone, verdict = check("check", "--conf", str(conf))
    assert mode.startswith(f"Warning: {conf}: permissions 0644 are too open")
    assert steps.startswith(f"Warning: {conf}: sequence vpn: ")
    assert zone == f"Warning: {conf}:1: zone pubic is unknown to firewalld, the nearest known zone is public"
    assert verdict == "Configuration is valid, 3 warnings"
    assert "Warning: --zone: zone pubik is unknown" in "".join(check("check", "-c", str(conf), "--zone", "pubik"))


# Other daemons' files

KNOCKD = """\
[options]
UseSyslog
LogFile = /var/log/knockd.log
[open SSH]
Sequence = 65431,65433:udp,65432
TCPFlags = syn,!ack
Command = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
Stop_Command = iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
"""


def written(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_check_shows_doors_of_knockd_file(tmp_path: Path) -> None:
    path = written(tmp_path / "knockd.conf", KNOCKD)
    assert check("check", "--knockd", path) == [
        f"Configuration: {path} (of knockd)",
        "Interface: named neither in the file nor in the options of knockd's service",
        "Log: /var/log/knockd.log and syslog",
        "Pid file: -",
        "Sequence open SSH (rules of knockd), within 25 s:",
        "  1. TCP 65431 with SYN, without ACK",
        "  2. UDP 65433",
        "  3. TCP 65432 with SYN, without ACK",
        "  runs: iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
        "  10 s later: iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
        "  no traps",
        "Configuration is valid",
    ]


def test_check_reports_an_error_of_knockd_file(tmp_path: Path) -> None:
    path = written(tmp_path / "knockd.conf", KNOCKD.replace("65432", "0"))
    with pytest.raises(ConfigError, match=rf"^{path}:5: Sequence: position 3: port 0 is out of range") as wrong:
        check("check", "--knockd", path)
    assert wrong.value.exit_status == 2


def test_native_reader_accepts_check_as_toml(tmp_path: Path) -> None:
    lines = check("check", "--knockd", written(tmp_path / "knockd.conf", KNOCKD), "--as-toml")
    own = "ports_to_controls = [80]\nopening_sequence = [20001, 20005, 20002, 20004, 20003]\n"
    (one,) = native.parse(own + "\n".join(lines), "F").sequences
    assert (one.name, one.access.ports, one.access.duration, one.access.command) == ("open_SSH", (Port(22),), 10, None)
    assert [step.port for step in one.steps] == [65431, 65433, 65432]
    assert "# No single interface is named: start the daemon with --interface, or it captures on every one." in lines
    assert not any("eth0" in line for line in lines)


@pytest.mark.parametrize(
    ("in_the_file", "in_the_options", "shown"),
    [
        ("", "KNOCKD_OPTS='-i ens3'", "ens3 (KNOCKD_OPTS in {options})"),
        ("", "OPTIONS='-i ens3 -c {file}'", "ens3 (OPTIONS in {options})"),
        ("eth7", "KNOCKD_OPTS='-i ens3'", "eth7"),
        ("eth7", "KNOCKD_OPTS='-i ens3 -c {file}'", "ens3 (KNOCKD_OPTS in {options})"),
        ("eth7", "", "eth7"),
    ],
    ids=["of a service", "of its service", "the file's own", "its service overrides it", "the file's alone"],
)
def test_check_takes_the_interface_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_file: str, in_the_options: str, shown: str
) -> None:
    options, path = tmp_path / "options", tmp_path / "knockd.conf"
    monkeypatch.setattr(knockd_service, "OPTION_FILES", (options,))
    options.write_text(in_the_options.format(file=path))
    written(path, KNOCKD.replace("UseSyslog", f"Interface = {in_the_file}" if in_the_file else "UseSyslog"))
    lines = check("check", "--knockd", str(path))
    name, _, source = shown.format(options=options).partition(" ")
    assert lines[1] == f"Interface: {name}{f' {source}' if source else ''}"
    assert f"  only packets that arrive on {name}" in lines
    by = f" {source}" if source else ""
    expected = f"# knockd captures on {name} only{by}: for the same, start the daemon with --interface {name}."
    assert expected in check("check", "--knockd", str(path), "--as-toml")


def test_check_shows_sequences_and_all_errors_of_tportknockd_file(tmp_path: Path) -> None:
    block = "<{name}>\nsequence = tcp:65431:s udp:65433 tcp:65432:i\ntimeout = 10\nstart_command = true\n</{name}>\n"
    path = written(tmp_path / "t.conf", block.format(name="ssh") + "nonsense\n" + block.format(name="1"))
    command = [sys.executable, "-m", "port_knocking_doors", "check", "--tportknockd", path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert [line.split(": ")[:2] for line in ended.stderr.splitlines()] == [
        ["port-knocking-doors", f"{path}:6"],
        ["port-knocking-doors", f"{path}:7"],
    ]
    assert "is valid" not in ended.stdout
    assert ended.stdout.splitlines()[:7] == [
        f"Configuration: {path} (of tportknockd)",
        "Sequence ssh (rules of tportknockd), within 10 s:",
        "  1. TCP 65431 with SYN",
        "  2. UDP 65433",
        "  3. TCP 65432 with any flags",
        "  runs: true",
        "  no traps",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--as-toml"], "--as-toml: is for a file of knockd, expected --knockd FILE as well"),
        (["check", "--as-toml", "--tportknockd", "x"], "--as-toml: is for a file of knockd"),
        (["check", "--knockd", "x", "--tportknockd", "y"], "--knockd: another configuration is given as well"),
        (["check", "--knockd", "x", "--conf", "y"], "--knockd: another configuration is given as well"),
        (["--zone", "z", "check", "--tportknockd", "x"], "--tportknockd: another configuration is given as well"),
        (["check", "--knockd", "/nowhere"], r"/nowhere: cannot read the file \(No such file or directory\)"),
        (["check", "-c", ""], "--conf: the name is empty or the current directory, expected a file"),
        (["check", "--conf="], "--conf: the name is empty"),
        (["check", "--knockd="], "the name is empty or the current directory, expected a configuration file of knockd"),
        (
            ["check", "--tportknockd", ""],
            "the name is empty or the current directory, expected a configuration file of tport",
        ),
        (["check", "--tportknockd", "/nowhere"], r"/nowhere: cannot read the file \(No such file or directory\)"),
    ],
)
def test_check_of_several_configurations_or_none_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        check(*arguments)
