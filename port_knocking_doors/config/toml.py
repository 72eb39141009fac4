"""TOML text: its values, and the line of each key and table.

tomli gives no line of what it has read, and its messages quote the file.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import tomli

from port_knocking_doors.errors import ConfigError

# The start of each of tomli's messages, and the message here: tomli's may quote the file.
_SYNTAX = (
    ("Cannot overwrite a value", "a key is set twice, expected each once"),
    ("Cannot declare", "a table is declared twice, expected each once"),
    ("Expected '='", "a key is not followed by =, expected a line such as: key = value"),
    ("Expected newline", "extra text follows a value, expected the end of the line"),
    ("Illegal character", "a string has no end on its line, or a forbidden character, expected a closing quote"),
    ("Invalid date", "a date does not exist, expected a value such as 10"),
    ("Invalid statement", "a line does not begin with a key, expected a line such as: key = value"),
    ("Invalid value", "a value is invalid, expected one such as 10, true, [22] or a string in quotes"),
    ("Unclosed array", "a comma is missing in a list, expected a comma or a closing bracket"),
    ("Unclosed inline table", "a table has no end, expected a closing brace"),
    ("Unterminated string", "a string has no end, expected a closing quote"),
    ("", "a line is invalid, expected one such as: key = value"),
)
_NO_BRACKET = "a list has no end, expected a closing bracket"
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)$")


def read(text: str, path: str) -> dict[str, Any]:
    """The values of the text. `path` names the file in messages. Raises `ConfigError` at `PATH:LINE`."""
    try:
        return tomli.loads(text)
    except RecursionError:
        raise ConfigError("lists or tables are nested too deeply, expected one level", path) from None
    except ValueError as error:  # tomli's own kind, or from int() a number of thousands of digits
        said = str(error)
    at_line = _AT_LINE.search(said)
    line = int(at_line[1]) if at_line else text.rstrip().count("\n") + 1
    problem = next(ours for theirs, ours in _SYNTAX if said.startswith(theirs))
    if said.startswith(("Unclosed array", "Invalid value")) and (begin := _unclosed_list(text, line if at_line else 0)):
        line, problem = begin, _NO_BRACKET
    raise ConfigError(f"invalid TOML: {problem}", f"{path}:{line}")


def _unclosed_list(text: str, line: int) -> int:
    """The line on which a list without an end begins; 0 for no such list. The text is valid up to `line`, 0 for all
    of it. That line ends the list if it is the next key or table.
    """
    rows = text.split("\n")
    if line and not _NEXT_STATEMENT.match(rows[line - 1]):
        return 0
    valid = "\n".join(rows[: line - 1] if line else rows)
    *_, (begin, statement) = statements(f"{valid}\n")
    return begin if statement.strip() else 0


_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|'[^']*'|\#[^\n]*|[^]["'#{}\n]+|.''',
    re.DOTALL,
)
_KEY_NAME = r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY_PATH = re.compile(rf"\s*(\[?\[?)\s*({_KEY_NAME}(?:[ \t]*\.[ \t]*{_KEY_NAME})*)")
_NEXT_STATEMENT = re.compile(
    rf"\s*(?:{_KEY_NAME}[ \t]*[.=]|\[\[?[ \t]*{_KEY_NAME}(?:[ \t]*\.[ \t]*{_KEY_NAME})*[ \t]*\]\]?[ \t\r]*(?:#|$))"
)
"""A line that begins with a key or has the head of a table."""
Names = tuple[str | int, ...]
"""The path of a table or key, with the position of a table among those of its name."""


def lines(text: str) -> dict[Names, int]:
    """The line on which each table and key begins in `text`, which is valid TOML, by its path."""
    found_on: dict[Names, int] = {}
    tables: Counter[str] = Counter()
    table: Names = ()
    for line, statement in statements(text):
        found = _KEY_PATH.match(statement)
        if not found:
            continue
        first, *inner = _names(found[2])
        path: Names = (*table, first, *inner)
        if found[1]:
            if found[1] == "[[" and not inner:
                tables[first] += 1
            table = path = (first, tables[first] - 1, *inner) if first in tables else (first, *inner)
        for end in range(1, len(path) + 1):
            found_on.setdefault(path[:end], line)
    return found_on


def _names(dotted: str) -> Iterator[str]:
    """The names in a key such as `a."b c".d`."""
    inner: Any = tomli.loads(f"{dotted} = 0")
    while isinstance(inner, dict):
        ((name, inner),) = inner.items()
        yield name


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with its first line: a list or a string over several lines is one statement."""
    line = first_line = 1
    begin = depth = 0
    for token in _TOKEN.finditer(text):
        piece = token[0]
        if piece == "\n" and depth == 0:
            yield first_line, text[begin : token.start()]
            begin, first_line = token.end(), line + 1
        depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        line += piece.count("\n")
    yield first_line, text[begin:]
