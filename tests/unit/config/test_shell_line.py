"""Lines for a shell, cut into commands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.config.shell_line import split

CUT = {
    # a line, its commands' joins and words, the comment
    "one command": ("a b", [("", "a b")], ""),
    "blanks": ("  a \t b  ", [("", "a b")], ""),
    "nothing": ("", [], ""),
    "a list": ("a; b && c || d & e", [("", "a"), (";", "b"), ("&&", "c"), ("||", "d"), ("&", "e")], ""),
    "a list without blanks": ("a;b&&c", [("", "a"), (";", "b"), ("&&", "c")], ""),
    "an end": ("a;", [("", "a")], ""),
    "in the background": ("a &", [("", "a")], ""),
    "a comment": ("a # b; c", [("", "a")], "b; c"),
    "no comment": ("a#b", [("", "a#b")], ""),
    "quotes": ("'a b' \"c;d\" e\\ f", [("", "a b|c;d|e f")], ""),
    "quotes within a word": ('a="b "c" d"', [("", "a=b c d")], ""),
    "output that nobody reads": ("a >/dev/null 2>&1; b &>/dev/null", [("", "a"), (";", "b")], ""),
}


@pytest.mark.parametrize(("line", "commands", "comment"), CUT.values(), ids=CUT)
def test_line_is_cut_into_commands(line: str, commands: list[tuple[str, str]], comment: str) -> None:
    found = split(line)
    assert found is not None
    between = "|" if any("|" in words for _, words in commands) else " "
    assert [(one.join, between.join(one.words)) for one in found.commands] == commands
    assert found.comment == comment
    assert all(one.is_plain for one in found.commands)


@pytest.mark.parametrize("line", ["a | b", "a > b", "a < b", "a $(b | c; d)", "a `b; c`", 'a "$b"', "a $b"])
def test_command_that_a_shell_computes_is_not_plain(line: str) -> None:
    found = split(line)
    assert found is not None
    assert [one.is_plain for one in found.commands] == [False]
    assert found.commands[0].text == line


LINES = [
    "if a; then b; fi",
    "for a in b; do c; done",
    "(a; b)",
    "{ a; }",
    "a 'b",
    'a "b',
    "a $(b",
    "a `b",
    "a && ",
    "; a",
]


@pytest.mark.parametrize("line", LINES)
def test_line_that_only_a_shell_can_read_is_not_cut(line: str) -> None:
    assert split(line) is None


@given(st.text("ab '\"\\$()`;&|<>#{}", max_size=40))
def test_any_line_is_cut_or_not(line: str) -> None:
    found = split(line)
    assert found is None or all(one.words for one in found.commands)
