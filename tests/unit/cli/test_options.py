"""Options without effect: each is rejected, none is ignored silently."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from port_knocking_doors.cli.application import app
from port_knocking_doors.errors import ConfigError, NoDaemonError
from port_knocking_doors.system import instance

FILE = """\
rule_priority = 7001
ports_to_controls = [80]
opening_sequence = [20001, 20005, 20002, 20004, 20003]
"""
SEQUENCE = "20001,20005,20002,20004,20003"


@pytest.fixture(autouse=True)
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file in the current folder, which is the home and the runtime directory, too."""
    tmp_path.chmod(0o700)
    path = tmp_path / "conf.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    for variable in ("HOME", "RUNTIME_DIRECTORY"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return path


def refused(arguments: str) -> str:
    result = CliRunner().invoke(app, arguments.split())
    assert isinstance(result.exception, ConfigError), result.output
    assert result.exception.exit_status == 2
    assert result.output == ""
    return str(result.exception)


ALONE = ("--set-configuration-file-in-home", "--show-configuration-file-help", "--verbose", "--log-json", "--version")


@pytest.mark.parametrize("option", ALONE)
@pytest.mark.parametrize("command", ["check", "knock 127.0.0.1"])
def test_program_option_before_command_is_rejected(option: str, command: str, tmp_path: Path) -> None:
    said = f"{option}: has no effect with a command, expected it without `{command.split()[0]}`"
    assert refused(f"{option} -c conf.toml {command}") == said
    assert [path.name for path in tmp_path.iterdir()] == ["conf.toml"]


MISPLACED = [
    ("--zone x", "knock 127.0.0.1"),
    ("-i lo", "knock 127.0.0.1"),
    ("-p 22", "knock 127.0.0.1 9:udp"),
    ("--zone x", "client-config"),
    ("-i lo", "client-config"),
    ("-p 22", "status"),
    ("--zone x", "status --priority 7001"),
    ("-i lo", "reload"),
    (f"-m {SEQUENCE}", "open ::1"),
    ("-p 22", "close --all"),
    ("-p 22", "forget ::1"),
    ("-c conf.toml", "sweep"),
    ("-c conf.toml", "demo"),
    ("-i lo", "knockd -c conf.toml"),
    ("-c conf.toml", "tportknockd -l"),
]


@pytest.mark.parametrize(("option", "command"), MISPLACED, ids=map(" ".join, MISPLACED))
def test_daemon_option_without_effect_on_command_is_rejected(option: str, command: str) -> None:
    said = refused(f"{option} {command}")
    assert said.startswith("--")
    name = command.split()[0]
    assert said.endswith(f": has no effect before `{name}`; put options of `{name}` after it")
    assert "20001" not in said


USED = [
    (f"-p 22 -m {SEQUENCE} -c conf.toml", "client-config"),
    ("-c conf.toml --zone x -p 22 -i lo", "check"),
]


@pytest.mark.parametrize(("options", "command"), USED, ids=map(" ".join, USED))
def test_daemon_option_with_effect_on_command_is_accepted(options: str, command: str) -> None:
    assert CliRunner().invoke(app, [*options.split(), *command.split()]).exception is None


def test_configuration_before_command_names_the_daemon() -> None:
    result = CliRunner().invoke(app, ["-c", "conf.toml", "status"])
    assert isinstance(result.exception, NoDaemonError), "the file was read, and no daemon has its mark"


def test_priority_accepts_mark_of_daemon_without_rules() -> None:
    mark = instance.command_mark("knockd", "/etc/knockd.conf", "eth2")
    assert mark > 2**31
    result = CliRunner().invoke(app, ["status", "--priority", str(mark)])
    assert isinstance(result.exception, NoDaemonError)


@pytest.mark.parametrize(
    "words",
    ["knock -c /nonexistent 127.0.0.1 9:udp", "-c conf.toml knock 127.0.0.1 9:udp"],
)
def test_configuration_beside_steps_is_rejected(words: str) -> None:
    assert refused(words).startswith("--conf: has no effect beside steps")


@pytest.mark.parametrize("option", ["-c conf.toml", f"-m {SEQUENCE}", "-p 22", "--zone x", "-i lo"])
def test_new_file_with_other_options_is_rejected(option: str, tmp_path: Path) -> None:
    said = refused(f"{option} --set-configuration-file-in-home")
    assert said == "--set-configuration-file-in-home: excludes other options, expected it alone"
    assert [path.name for path in tmp_path.iterdir()] == ["conf.toml"]
