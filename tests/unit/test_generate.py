"""Manual pages and completion: commands, options and keys are those that the program declares."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from port_knocking_doors.cli.application import COMMANDS
from port_knocking_doors.config import render, schema

PROJECT = Path(__file__).resolve().parents[2]
PAGES = tuple(sorted(path.stem for path in (PROJECT / "packaging/man").glob("*.md")))
PROGRAM_PAGE = "port-knocking-doors.1"
FILE_PAGE = "port_knocker.toml.5"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    # A process of its own: the generator puts its folder on the path.
    subprocess.run(
        [sys.executable, str(PROJECT / "packaging/generate"), str(folder)],
        check=True,
        env={"SOURCE_DATE_EPOCH": "86400", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return folder


def shown(page: Path) -> str:
    """The rendered page on one line."""
    printed = subprocess.run(["mandoc", "-T", "ascii", str(page)], check=True, capture_output=True, text=True).stdout
    return " ".join(re.sub(r".\x08", "", printed).split())  # bold is a letter twice


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "lint",
    [
        pytest.param(("groff", "-man", "-ww", "-z", "-K", "utf8", "-T", "utf8"), id="groff"),
        pytest.param(("mandoc", "-T", "lint", "-W", "warning"), id="mandoc"),
    ],
)
def test_page_passes_lint(made: Path, name: str, lint: tuple[str, ...]) -> None:
    run = subprocess.run([*lint, str(made / name)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_program_page_has_commands_and_options(made: Path) -> None:
    text = shown(made / PROGRAM_PAGE)
    for command in COMMANDS:
        assert f"port-knocking-doors {command} [OPTION]..." in text
    for option in (
        "-c, --conf FILE",
        "-m, --magic-seq SEQ",
        "-i, --interface NAME",
        "-v, --verbose",
        "--pause SECONDS",
    ):
        assert option in text
    assert "The sequences are secret." in text
    assert "1970-01-02" in text


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_program_page_has_every_option_of_the_help(made: Path, command: str) -> None:
    argv = [sys.executable, "-m", "port_knocking_doors", *filter(None, [command]), "--help"]
    usage = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=PROJECT).stdout
    options = set(re.findall(r"(?m)^ +(?:-\S, )?(--[a-z][a-z0-9-]+)", usage))
    assert "--help" in options
    page = (made / PROGRAM_PAGE).read_text().replace("\\-", "-")
    part = page.partition(f".SS {command}\n")[2].partition("\n.SS ")[0] if command else page.partition(".SS ")[0]
    assert {option for option in options if f"\\fB{option}\\fR" not in part} == set()


def test_file_page_has_every_key_with_its_help(made: Path) -> None:
    text = shown(made / FILE_PAGE)
    explained = list(render.explained())
    assert len(explained) > len(schema.KEYS)
    for key in explained:
        for part in (key.line, key.need, key.about):
            assert " ".join(part.split()) in text


def test_output_is_reproducible(made: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(PROJECT / "packaging/generate"), str(tmp_path)],
        check=True,
        env={"SOURCE_DATE_EPOCH": "86400", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "7", "COLUMNS": "31"},
    )
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {
        one.name: one.read_bytes() for one in made.iterdir()
    }


# bash takes the words apart at "=", too
_COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
compopt() { :; }  # it works only while bash itself completes
_port_knocking_doors 2>&1
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(made: Path, folder: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    script = made / "port-knocking-doors.bash"
    run = subprocess.run(
        ["bash", "--norc", "-uc", _COMPLETE, "bash", str(script), "port-knocking-doors", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert run.stderr == ""
    return {line for line in run.stdout.split("\n") if line}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a file.toml").touch()
    (tmp_path / "another.toml").touch()
    (tmp_path / "third").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        pytest.param(("che",), {"check"}, id="a command"),
        pytest.param(("--conf", "x", "de"), {"demo"}, id="a command after an option and its value"),
        pytest.param(("--conf", "=", "x", "de"), {"demo"}, id="a command after an option with ="),
        pytest.param(("--set",), {"--set-configuration-file-in-home"}, id="an option"),
        pytest.param(("demo", "--pa"), {"--pause"}, id="an option of a command"),
        pytest.param(("demo", "--set"), set(), id="the program's option does not belong to a command"),
        pytest.param(("--conf", "a"), {"a file.toml", "another.toml"}, id="a file, also with a blank"),
        pytest.param(("check", "-c", "th"), {"third"}, id="a file for a command's option"),
        pytest.param(("check", "--conf", "=", "th"), {"third"}, id="a file after ="),
        pytest.param(("check", "--conf", "="), {"a file.toml", "another.toml", "third"}, id="any file after ="),
        pytest.param(("--interface", "l"), {"lo"}, id="an interface"),
        pytest.param(("--magic-seq", "1"), set(), id="nothing for a secret"),
        pytest.param(("check", "x"), set(), id="nothing where nothing belongs"),
        pytest.param(("unknown", "-"), set(), id="nothing for an unknown command"),
    ],
)
def test_bash_offers(made: Path, folder: Path, words: tuple[str, ...], offered: set[str]) -> None:
    assert completed(made, folder, *words) == offered


def test_bash_offers_every_command(made: Path, folder: Path) -> None:
    assert completed(made, folder, "") == set(COMMANDS)
