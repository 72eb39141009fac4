"""What the help of commands looks like, on a terminal of 80 columns."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from port_knocking_doors.cli import COMMANDS, app

NAMES = [str(one.name or getattr(one.callback, "__name__", "")) for one in app.registered_commands]


def shown(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    return result.output


def test_the_list_of_commands_says_of_each_in_one_whole_sentence_what_it_is_for() -> None:
    listed = re.findall(r"(?m)^  (\S+) +(\S.*)$", shown().partition("\nCommands:\n")[2])
    assert sorted(name for name, _ in listed) == sorted(NAMES)
    assert [said for _, said in listed if len(said) > 55 or not re.fullmatch(r"[A-Z][^.]*\.", said)] == []


USAGES = {
    "open": "[OPTIONS] ADDRESS",
    "forget": "[OPTIONS] ADDRESS",
    "close": "[OPTIONS] [ADDRESS]",
    "client-config": "[OPTIONS] [HOST]",
    "knock": "[OPTIONS] HOST [STEP]...",
}


@pytest.mark.parametrize("command", NAMES)
def test_the_usage_is_plain(command: str) -> None:
    usage = re.search(r"(?mi)^usage: (.*)$", shown(command))
    assert usage is not None
    assert usage[1].partition(f" {command} ")[2] == USAGES.get(command, "[OPTIONS]")


def test_each_command_is_in_the_module_that_the_table_names() -> None:
    modules = {
        str(one.name or getattr(one.callback, "__name__", "")): one.callback.__module__.rpartition(".")[2]
        for one in app.registered_commands
        if one.callback is not None
    }
    assert modules == COMMANDS


LOADED = {
    "the daemon": (["-V"], set()),
    "a command": (["check", "--help"], {"check"}),
    "a command behind an option": (["-v", "status", "--help"], {"status"}),
    "the help": (["--help", "check"], set(COMMANDS.values())),
    "what is no command": (["chekc"], set(COMMANDS.values())),
}


@pytest.mark.parametrize(("words", "modules"), LOADED.values(), ids=LOADED)
def test_only_the_command_that_is_used_is_loaded(words: list[str], modules: set[str]) -> None:
    code = (
        "import sys\nfrom port_knocking_doors import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    print([name for name in sys.modules if 'doors.cli.' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"doors\.cli\.(\w+)'", done.stdout.splitlines()[-1]))
    assert loaded & set(COMMANDS.values()) == modules
    assert "run" in loaded
