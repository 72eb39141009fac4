"""What the help of commands looks like, on a terminal of 80 columns."""

import re

import pytest
from typer.testing import CliRunner

from port_knocking_doors.cli import app

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
