"""TOML text: messages that do not quote it, and the line of each table and key."""

import pytest

from port_knocking_doors.config import toml
from tests.unit.config.examples import REQUIRED, complaint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("zone = 1\nzone = 2", "F:2: invalid TOML: a key is set twice", id="a key twice"),
        pytest.param("zone 1", "F:1: invalid TOML: a key is not followed by =", id="no equals sign"),
        pytest.param("\nzone = public", "F:2: invalid TOML: a value is invalid", id="no quotes"),
        pytest.param('\nzone = "public\n', "F:2: invalid TOML: a string has no end on its line", id="no closing quote"),
        pytest.param('zone = "public', "F:1: invalid TOML: a string has no end", id="ends within a text"),
        pytest.param("zone = 1 17321", "F:1: invalid TOML: extra text follows a value", id="two values"),
        pytest.param("zone = [17321,\n28463", "F:1: invalid TOML: a list has no end", id="no closing bracket"),
        pytest.param("[17321, 28463]", "F:1: invalid TOML: ", id="a list for a table"),
        pytest.param("[zone]\n[zone]", "F:2: invalid TOML: a table is declared twice", id="a table twice"),
        pytest.param("= 5", "F:1: invalid TOML: a line does not begin with a key", id="no key"),
        pytest.param("zone = " + "[" * 5000, "F", id="nested too deeply"),
        pytest.param("zone = " + "9" * 5000, "F:1: invalid TOML: ", id="thousands of digits"),
    ],
)
def test_invalid_toml_is_refused_without_quoting_it(text: str, message: str) -> None:
    said = complaint(text)
    assert said.startswith(message)
    assert ", expected " in said
    assert not any(part in said for part in ("17321", "28463", "public"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("\nzone = [1,\n2,\n\nopen = [22]\n", 2, id="before a key"),
        pytest.param("\nzone = [1,\n2\n'open' = [22]\n", 2, id="before a quoted key, without a comma"),
        pytest.param("\nzone = [1,\n2 # [\n[[sequence]]\nname = 1", 2, id="before a table"),
        pytest.param("\nzone = [1,\n2,\n[sequence.sub] # \nname = 1", 2, id="before a table, with a comma"),
        pytest.param("\nzone = [1,\r\n2\r\n# \r\n", 2, id="before the end"),
        pytest.param("a = [1]\nb = [{c = '['},\nd = 3", 2, id="after other lists"),
        pytest.param("zone = [1,\nopen = [22]]\n", 1, id="with its bracket in the next statement"),
    ],
)
def test_list_without_end_is_reported_on_its_first_line(text: str, line: int) -> None:
    assert complaint(text) == f"F:{line}: invalid TOML: a list has no end, expected a closing bracket"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zone = [\n1\n2]", "F:3: invalid TOML: a comma is missing in a list, expected a comma or a closing bracket"),
        ("zone = [\n1,\npublic,\n2]", "F:3: invalid TOML: a value is invalid, expected one such as 10, true,"),
        ("a = [1]\nzone = public = 1", "F:2: invalid TOML: a value is invalid, expected one such as 10, true,"),
    ],
)
def test_error_within_a_list_is_reported_on_its_own_line(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.mark.parametrize(
    ("before", "line"),
    [
        pytest.param("", 3, id="at once"),
        pytest.param("\r\n# zone = 5\r\n", 5, id="after a comment, with carriage returns"),
        pytest.param("max_knockers = 10\n\n", 5, id="after another key"),
    ],
)
@pytest.mark.parametrize("key", ["zone", "  zone", '"zone"', "'zone'", '"z\\u006fne"'])
def test_key_is_found_on_its_line(before: str, key: str, line: int) -> None:
    assert complaint(REQUIRED + before + f"{key} = 5\n").startswith(f"F:{line}: zone: 5 is not")


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_key_within_a_multiline_string_is_no_key(quotes: str) -> None:
    text = f"foo = {quotes}\nzone = 5 \" [ ' #\n{quotes}\nopening_sequence = [\n5,\n6]\nports_to_controls=[1]\n"
    assert complaint(text).startswith("F:1: the key foo")
    assert complaint(text.replace("foo", "zone")).startswith("F:1: zone: a zone's name has a character")
    assert complaint(text.replace("foo", "bar.opening_sequence")).startswith("F:1: the key bar")


def test_key_within_a_table_is_a_key_of_the_table() -> None:
    lines = list(toml.statements(REQUIRED + "[a]\nzone = 1\n[[zone]]\n"))
    assert [line for line, _ in lines] == [1, 2, 3, 4, 5, 6]
    assert toml.lines(REQUIRED + "[a]\nzone = 1\n[[zone]]\n") == {
        ("ports_to_controls",): 1,
        ("opening_sequence",): 2,
        ("a",): 3,
        ("a", "zone"): 4,
        ("zone",): 5,
        ("zone", 0): 5,
    }


def test_every_table_and_key_is_found_on_its_line() -> None:
    lines = toml.lines("a.'b c' = 1\n[[s]]\nk = [\n1]\n[s.t]\nk = 1\n\n[[ 's' ]]\n\"k\".l='[[s]]'\n[[s.u]]\n[o.s]\n")
    assert lines == {
        ("a",): 1,
        ("a", "b c"): 1,
        ("s",): 2,
        ("s", 0): 2,
        ("s", 0, "k"): 3,
        ("s", 0, "t"): 5,
        ("s", 0, "t", "k"): 6,
        ("s", 1): 8,
        ("s", 1, "k"): 9,
        ("s", 1, "k", "l"): 9,
        ("s", 1, "u"): 10,
        ("o",): 11,
        ("o", "s"): 11,
    }


def test_error_in_an_inline_table_has_the_first_line_of_its_list() -> None:
    text = f"{REQUIRED}sequence = [\n{{ name = 'a', steps = ['udp:5', 'udp:7'], opne = [22] }}]\n"
    assert complaint(text) == "F:3: the key opne is unknown, the nearest known key is open"
    assert complaint(text.replace("opne", "open")) == ""
