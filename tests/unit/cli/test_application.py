"""The help of commands on a terminal of 80 columns, and which commands are loaded."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from port_knocking_doors.cli.application import COMMANDS, app


def shown(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    return result.output


def test_help_lists_every_command_with_one_sentence() -> None:
    listed = re.findall(r"(?m)^  (\S+) +(\S.*)$", shown().partition("\nCommands:\n")[2])
    assert [name for name, _ in listed] == list(COMMANDS)
    assert [said for _, said in listed if len(said) > 55 or not re.fullmatch(r"[A-Z][^.]*\.", said)] == []


USAGES = {
    "open": "[OPTIONS] ADDRESS",
    "forget": "[OPTIONS] ADDRESS",
    "close": "[OPTIONS] [ADDRESS]",
    "client-config": "[OPTIONS] [HOST]",
    "knock": "[OPTIONS] HOST [STEP]...",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_line_shows_arguments_as_declared(command: str) -> None:
    usage = re.search(r"(?mi)^usage: (.*)$", shown(command))
    assert usage is not None
    assert usage[1].partition(f" {command} ")[2] == USAGES.get(command, "[OPTIONS]")


OPEN = """\
Usage: port-knocking-doors open [OPTIONS] ADDRESS

  Open a door of the running daemon for an address, as if it had knocked.

  Its zone is the configured one, else the zone of the address, else the
  default zone: only a knock shows the interface of an address. A door that is
  open from a knock is prolonged in its zone.

Arguments:
  ADDRESS  An IPv4 or IPv6 address.

Options:
  -s, --sequence NAME  Sequence to open (default: the opening sequence).
  -c, --conf FILE      Configuration file (TOML). Without it:
                       ~/.port_knocker.toml, else /etc/port_knocker.toml, else
                       built-in defaults with a public sequence.
  --priority N         The daemon to ask, by its mark: its rule_priority.
                       Without it: that of the configuration.
  -h, --help           Show this help, and end.
"""


def test_help_is_the_same_with_every_option_library() -> None:
    """packaging/matrix runs this with the releases of every distribution: typer 0.7, 0.15 and the newest."""
    env = {**os.environ, "COLUMNS": "80", "TERMINAL_WIDTH": "80"}
    argv = [sys.executable, "-m", "port_knocking_doors", "open", "--help"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout == OPEN


LOADED = {
    "the daemon": (["-V"], set()),
    "a command": (["check", "--help"], {"check"}),
    "a command behind an option": (["-v", "status", "--help"], {"status"}),
    "the help": (["--help", "check"], set()),
    "what is no command": (["chekc"], set()),
}


@pytest.mark.parametrize(("words", "modules"), LOADED.values(), ids=LOADED)
def test_only_used_command_is_loaded(words: list[str], modules: set[str]) -> None:
    code = (
        "import sys\nfrom port_knocking_doors import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    print([name for name in sys.modules if 'doors.cli.' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"doors\.cli\.(\w+)'", done.stdout.splitlines()[-1]))
    assert loaded & {command.module for command in COMMANDS.values()} == modules
    assert "run" in loaded


def test_commands_are_listed_and_each_is_loaded_once() -> None:
    group: Any = typer.main.get_command(app)
    assert group.list_commands(None) == list(COMMANDS)
    assert group.get_command(None, "chekc") is None
    assert group.get_command(None, "check") is group.get_command(None, "check")
