"""TOML text: what it says, and on which line it says it.

The reader of TOML tells no lines of what it has read, and quotes the file in what it says of errors.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import tomli

from port_knocking_doors.errors import ConfigError

# How tomli's messages begin, and what we say instead: theirs may quote the file.
_SYNTAX = (
    ("Cannot overwrite a value", "a key is set twice, expected each once"),
    ("Cannot declare", "a table is there twice, expected each once"),
    ("Expected '='", "a key is not followed by =, expected a line such as: key = value"),
    ("Expected newline", "something follows a complete value, expected the end of the line"),
    ("Illegal character", "a text is not on one line or holds a forbidden character, expected a closing quote"),
    ("Invalid date", "a date does not exist, expected a value such as 10"),
    ("Invalid statement", "a line begins with what cannot be a key, expected a line such as: key = value"),
    ("Invalid value", "a value is none that TOML knows, expected one such as 10, true, [22] or a text in quotes"),
    ("Unclosed array", "a list does not end, expected a closing bracket"),
    ("Unclosed inline table", "a table does not end, expected a closing brace"),
    ("Unterminated string", "a text does not end, expected a closing quote"),
    ("", "a line makes no sense, expected one such as: key = value"),
)
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)$")


def read(text: str, path: str) -> dict[str, Any]:
    """What the text says. `path` only names the file in messages. Raises `ConfigError` at `PATH:LINE`."""
    try:
        return tomli.loads(text)
    except RecursionError:
        raise ConfigError("lists or tables are nested too deeply, expected one level", path) from None
    except ValueError as error:  # tomli's own kind, or from int() a number of thousands of digits
        said = str(error)
    at_line = _AT_LINE.search(said)
    line = int(at_line[1]) if at_line else text.rstrip().count("\n") + 1
    problem = next(ours for theirs, ours in _SYNTAX if said.startswith(theirs))
    raise ConfigError(f"this is not TOML: {problem}", f"{path}:{line}")


_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|'[^']*'|\#[^\n]*|[^]["'#{}\n]+|.''',
    re.DOTALL,
)
_KEY_NAME = r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY_PATH = re.compile(rf"\s*(\[?\[?)\s*({_KEY_NAME}(?:[ \t]*\.[ \t]*{_KEY_NAME})*)")
Names = tuple[str | int, ...]
"""The names of tables and keys that lead somewhere, with the place of a table among those of its name."""


def lines(text: str) -> dict[Names, int]:
    """The line on which each table and each key begins in `text`, which is TOML, by the names that lead there."""
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
    """The names that a key such as `a."b c".d` consists of."""
    inner: Any = tomli.loads(f"{dotted} = 0")
    while isinstance(inner, dict):
        ((name, inner),) = inner.items()
        yield name


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with the line that it begins on: a list or a text over several lines is one statement."""
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
