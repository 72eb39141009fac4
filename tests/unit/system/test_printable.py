"""Text of others as one line of printable characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.system.printable import escaped

CASES = {
    "plain text": ("Ümläut 漢字 العربية, 100 %", "Ümläut 漢字 العربية, 100 %"),
    "a backslash": ("a\\b", "a\\b"),
    "a line's end": ("a\nb\r\nc", "a b  c"),
    "a tab": ("a\tb", "a b"),
    "an escape sequence": ("\x1b[31mred", "\\x1b[31mred"),
    "the end of a title": ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    "an eight-bit control character": ("\x9b31m", "\\x9b31m"),
    "a backspace": ("a\x08b", "a\\x08b"),
    "a zero byte": ("a\0b", "a\\x00b"),
    **{f"U+{ord(mark):04X}": (f"a{mark}b", f"a\\u{ord(mark):04x}b") for mark in "\u202a\u202b\u202c\u202d\u202e"},
    **{f"U+{ord(mark):04X}": (f"a{mark}b", f"a\\u{ord(mark):04x}b") for mark in "\u2066\u2067\u2068\u2069"},
    **{f"U+{ord(mark):04X}": (f"a{mark}b", f"a\\u{ord(mark):04x}b") for mark in "\u200b\u200e\u200f\u2028\u2029"},
    "a tag beyond the basic plane": ("a\U000e0041b", "a\\U000e0041b"),
    "a byte that is not UTF-8": ("a\udcffb", "a\\udcffb"),
}


@pytest.mark.parametrize(("text", "shown"), CASES.values(), ids=CASES)
def test_character_that_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text())
def test_any_text_becomes_printable_and_stays_so(text: str) -> None:
    assert escaped(text).isprintable()
    assert escaped(escaped(text)) == escaped(text)
