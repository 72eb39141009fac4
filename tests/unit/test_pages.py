"""What the pages say: links lead somewhere, and commands, options, keys, paths and messages that they name exist."""

import ast
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.config import schema
from port_knocking_doors.system.log import LogEvent
from tests.helpers.pages import PROJECT, Page, pages, walks

PAGES = pages()
FOR_ADMINISTRATORS = [page for page in PAGES if page.name.startswith(("README", ".github", "packaging"))]
README_MAX = 10_000
CODE_PAGE = PROJECT / "port_knocking_doors/README.md"
PROGRAM = "port-knocking-doors"
BEFORE = {PROGRAM, "sudo", "setpriv", "ProxyCommand"}
"""How a command line of the program may begin."""
COMMAND_SEPARATORS = {"|", "&&", ";", ">", ">>", "||"}

FOREIGN_OPTIONS = {"--permanent", "--int", "--direct", "--timeout", "--dport", "-p"}
"""Options of firewall-cmd, and one that knockd takes cut short."""
FOREIGN_NAMES = {"knock_add", "node_exporter", "port_knocking_doors"}
FOREIGN_KEYS = {"cmd_timeout", "start_command", "one_time_sequences", "stop_command"}
"""Keys of knockd's and tportknockd's files."""


def ids(page: Page) -> str:
    return page.name


@cache
def program() -> Any:
    """The command line as the generator of the manual pages sees it."""
    sys.path.insert(0, str(PROJECT / "packaging/generate"))
    try:
        from commands import program as declared

        return declared()
    finally:
        sys.path.remove(str(PROJECT / "packaging/generate"))


def options_of(command: Any) -> dict[str, bool]:
    """Each name of an option, and whether it takes a value."""
    return {name: bool(option.value) for option in command.options for name in option.names}


def wrong_words(words: list[str]) -> list[str]:
    """What in the words behind the program's name is neither an option nor a command of it."""
    command, wrong = program(), []
    commands = {one.name: one for one in command.commands}
    rest = iter(words)
    for word in rest:
        if word in COMMAND_SEPARATORS:
            break
        option, equals, _ = word.partition("=")
        if re.fullmatch(r"--?[A-Za-z4-6][\w-]*", option):
            takes = options_of(command).get(option)
            if takes is None:
                wrong.append(f"{command.name} {option}")
            elif takes and not equals:
                next(rest, None)
        elif command.name == PROGRAM and not re.match(r"[…\[A-Z(]", word):
            if word not in commands:
                wrong.append(word)
            command = commands.get(word, command)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Page) -> None:
    dead = []
    for target in page.links():
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        to = (page.path.parent / path).resolve() if path else page.path
        anchors = {one.path: one.anchors() for one in PAGES}.get(to, set()) if anchor else {""}
        if not to.exists() or anchor not in anchors:
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=ids)
def test_commands_and_options_exist(page: Page) -> None:
    wrong = []
    for line in page.commands():
        try:
            words = shlex.split(line, comments=False)
        except ValueError:  # no command: a piece of text with an apostrophe
            continue
        if words and words[0] in BEFORE and PROGRAM in words:
            last = len(words) - 1 - words[::-1].index(PROGRAM)  # setpriv has it as the name of the user, too
            wrong += wrong_words(words[last + 1 :])
    assert wrong == []


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        pytest.param("check --conf check", [], id="an option's value is no command"),
        pytest.param("--conf=x status --json | jq --tab", [], id="another program's options"),
        pytest.param("knock HOST 7000:udp tcp:9000:frap --wait 22", [], id="steps"),
        pytest.param("[OPTION]... [COMMAND]", [], id="words that stand for others"),
        pytest.param("chek", ["chek"], id="a command that does not exist"),
        pytest.param("status --jason", ["status --jason"], id="an option that does not exist"),
        pytest.param("check --wait 22", ["check --wait"], id="another command's option"),
        pytest.param("--wait", ["port-knocking-doors --wait"], id="an option without its command"),
    ],
)
def test_wrong_words_of_a_command_line_are_found(words: str, wrong: list[str]) -> None:
    assert wrong_words(words.split()) == wrong


@pytest.mark.parametrize("page", FOR_ADMINISTRATORS, ids=ids)
def test_options_in_the_text_exist(page: Page) -> None:
    known = {name for command in (program(), *program().commands) for name in options_of(command)} | FOREIGN_OPTIONS
    named = {word for code in page.code if code.startswith("-") for word in code.split() if word.startswith("-")}
    assert {name.partition("=")[0] for name in named if name != "-"} - known == set()


@pytest.mark.parametrize("page", FOR_ADMINISTRATORS, ids=ids)
def test_keys_and_event_names_exist(page: Page) -> None:
    known = {key.name for table in schema.KEYS for key in (table, *table.keys)}
    known |= {event.value for event in LogEvent} | FOREIGN_NAMES | FOREIGN_KEYS
    named = {code for code in page.code if re.fullmatch(r"[a-z]+(_[a-z]+)+", code) and not code.startswith("test_")}
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_paths_exist(page: Page) -> None:
    named = {
        word.removeprefix("./").partition("#")[0]
        for line in page.commands()
        for word in line.split()
        if re.match(r"(\./)?(packaging|tests|port_knocking_doors|\.github)/[\w./-]+$", word)
    }
    named |= {
        name.replace(".", "/") for line in page.commands() for name in re.findall(r"python -m (tests[\w.]+)", line)
    }
    assert {name for name in named if not (PROJECT / name).exists() and not (PROJECT / f"{name}.py").exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_tables_have_a_cell_for_each_title(page: Page) -> None:
    wrong = []
    for table in re.findall(r"(?m)(?:^\|.*\n)+", page.prose + "\n"):
        head, *rows = table.strip().split("\n")
        wrong += [row for row in rows if row.count("|") != head.count("|")]
    assert wrong == []


def test_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_bytes()) <= README_MAX


def test_configuration_in_the_manual_is_valid(tmp_path: Path) -> None:
    (page,) = (page for page in PAGES if page.path.name == "port_knocker.toml.5.md")
    (example,) = page.blocks
    path = tmp_path / "port_knocker.toml"
    path.write_text(example.partition("[[import]]")[0])
    path.chmod(0o600)
    argv = [sys.executable, "-m", "port_knocking_doors", "check", "--conf", str(path)]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert run.returncode == 0, run.stderr


def test_doors_of_knockd_become_the_table_in_the_manual(tmp_path: Path) -> None:
    (page,) = (page for page in PAGES if page.path.name == "port-knocking-doors-from-knockd.7.md")
    (before,) = (block for block in page.blocks if block.startswith("[ssh]"))
    (after,) = (block for block in page.blocks if block.startswith("[[sequence]]"))
    path = tmp_path / "knockd.conf"
    path.write_text(f"[options]\n    UseSyslog\n\n{before}")
    argv = [sys.executable, "-m", "port_knocking_doors", "check", "--knockd", str(path), "--as-toml"]
    run = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert after.strip() in "\n".join(line for line in run.stdout.split("\n") if not line.startswith("#"))


@cache
def texts_of_the_program() -> str:
    """All string constants of the package, with a space for each value that is put in."""
    found = []
    for path in (PROJECT / "port_knocking_doors").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(" ".join(str(getattr(one, "value", "")) for one in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return " ".join(" ".join(found).split())


def shown_messages() -> list[str]:
    """The messages in the table of symptoms, and in code blocks warnings and lines of the demo."""
    (page,) = (page for page in PAGES if page.path.name == f"{PROGRAM}-server.8.md")
    rows = re.findall(r"(?m)^\| ([^|]+) \|", page.prose.partition("## Diagnosis")[2])
    messages = [code for row in rows for code in re.findall(r"`([^`]+)`", row) if " " in code]
    blocks = [block for page in PAGES for block in page.blocks]
    shown = re.compile(r"(?m)^(?:WARNING (.*)$|   ok  (.*?) {2,})")
    return messages + [first or second for block in blocks for first, second in shown.findall(block)]


EXAMPLES = re.compile(r"…|[:;] |\d+(?:/tcp)?|\b(?:s|public|ssh|client|stranger)\b")
"""What in a message is a value, or separates two texts of the program."""


@pytest.mark.parametrize("message", shown_messages())
def test_message_that_a_page_shows_exists(message: str) -> None:
    texts = texts_of_the_program()
    fragments = [one for one in map(str.strip, EXAMPLES.split(message)) if one]
    assert fragments
    assert [one for one in fragments if one not in texts] == []


def test_manual_lists_every_event_of_the_log() -> None:
    (page,) = (page for page in PAGES if page.path.name == f"{PROGRAM}-server.8.md")
    listed = page.prose.partition("The events: ")[2].partition(". ")[0]
    events = re.findall(r"`([a-z_]+)`", listed)
    assert sorted(events) == sorted(event.value for event in LogEvent)


@pytest.mark.parametrize(
    ("name", "table"),
    [(name, module) for name, module in re.findall(r"`([A-Z]+)` in\s+\[`([\w/]+)`\]", CODE_PAGE.read_text())],
)
def test_table_of_extension_exists(name: str, table: str) -> None:
    tree = ast.parse((PROJECT / f"port_knocking_doors/{table}.py").read_text())
    assigned = {ast.unparse(node.target) for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert name in assigned


def test_walks_have_at_most_nine_modules_which_exist() -> None:
    found = walks()
    assert len(found) == 2
    for modules in found.values():
        assert 2 < len(modules) <= 9
        assert [one for one in modules if not (PROJECT / f"port_knocking_doors/{one}.py").is_file()] == []
