"""The native file: every key, and every mistake and its message."""

import math
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from port_knocking_doors.config import loader, native, readers, schema
from port_knocking_doors.config.reader_types import Tables
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import (
    Access,
    CommandOpening,
    Dialect,
    Flags,
    Import,
    Payload,
    Port,
    Protocol,
    Sequence,
    Settings,
    Step,
)
from tests.unit.config.examples import (
    CLOSING,
    EVERYTHING,
    ONE,
    REQUIRED,
    SECRET,
    SEQUENCE,
    SNIFFED,
    STEPS,
    complaint,
    keys_of,
    shows_the_secret,
)


def test_every_key_is_read() -> None:
    assert native.parse(EVERYTHING, "F") == Settings(
        guarded_ports=(Port(22), Port(1194, Protocol.UDP)),
        opening_sequence=SECRET,
        payload=Payload.ANY,
        rule_check_period=11,
        ignoring_period=5.5,
        knocker_lifetime=31,
        door_duration=12,
        doors_cleanup_period=13,
        zone="external",
        open_knock_ports=False,
        doors_for_banned=True,
        max_knockers=100,
        max_open_doors=10,
        rule_priority=200,
        sequences=(
            Sequence(
                "ssh",
                STEPS,
                access=Access.of(
                    "ssh",
                    (Port(22), Port(1194, Protocol.UDP)),
                    60,
                    CommandOpening('logger "%IP%"', 'logger "%IP%"', 0),
                ),
                timeout=7.5,
                traps=64,
                close_steps=CLOSING,
            ),
            Sequence(
                "vpn",
                STEPS[1::-1],
                access=Access.of("vpn", duration=30, command=CommandOpening("true")),
                timeout=10,
                traps=512,
            ),
        ),
        imports=(Import(Dialect.KNOCKD, "/etc/knockd.conf"), Import(Dialect.TPORTKNOCKD, "~/knock.conf", 64)),
    )


def test_sequence_defaults() -> None:
    text = f'{SNIFFED}start_command = "a"\nstop_command = "b"'
    (sequence,) = native.parse(text, "F").sequences
    assert sequence == Sequence(
        "one",
        (*STEPS[:2], Step(Protocol.TCP, 21951, Flags.SYN)),
        access=Access.of("one", (Port(22),), 30, CommandOpening("a", "b", 30)),
        timeout=10,
        traps=512,
    )
    assert sequence.lifetime == math.inf
    assert not sequence.listened


def test_two_required_keys_are_enough() -> None:
    assert native.parse(REQUIRED, "F") == Settings(opening_sequence=SECRET)


def test_every_setting_has_exactly_one_key() -> None:
    assert sorted([*(key.field for key in schema.KEYS), "interfaces"]) == sorted(
        field.name for field in fields(Settings)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "ports_to_controls = [22]\nopening_sequence = [0, 2, 3, 4, 5]",
            "F:2: opening_sequence: position 1: port 0 is out of range, expected 1 to 65535",
            id="a port of 0",
        ),
        pytest.param(
            "ports_to_controls = [22]\nopening_sequence = [1, 2, 3, 4, 65536]",
            "F:2: opening_sequence: position 5: port 65536 is out of range, expected 1 to 65535",
            id="a port of 65536",
        ),
        pytest.param(
            "ports_to_controls = [22]\n\nopening_sequence = [1, 2]",
            "F:3: opening_sequence: the list has 2 ports, expected 3 to 21",
            id="two ports",
        ),
        pytest.param(
            'ports_to_controls = [22]\nopening_sequence = [1, 2, "ssh", 4, 5]',
            'F:2: opening_sequence: position 3: "ssh" is not a port, expected a whole number from 1 to 65535',
            id="a word in the list",
        ),
        pytest.param(
            REQUIRED + "payload = 'knock\\n'",
            'F:3: payload: "knock\\n" is not a kind of payload, expected "knock" or "any"',
            id="a payload spelled out",
        ),
        pytest.param(
            REQUIRED + "payload = true",
            'F:3: payload: true is not a kind of payload, expected "knock" or "any"',
            id="a payload that is true",
        ),
        pytest.param(
            REQUIRED + "opening_sequense = [1]",
            "F:3: the key opening_sequense is unknown, the nearest known key is opening_sequence",
            id="an unknown key",
        ),
        pytest.param(
            REQUIRED + "[zones]\nzone = 1",
            "F:3: the key zones is unknown, the nearest known key is zone",
            id="an unknown table",
        ),
        pytest.param(
            REQUIRED + "zone.name = 'a'",
            "F:3: zone: a table is not a zone's name, expected a firewalld zone's name of at most 17 letters, digits, "
            "- and _, or an empty string",
            id="a table for a value",
        ),
        pytest.param(
            REQUIRED + '"17321\\nzone" = 1',
            "F:3: a key is unknown, see port-knocking-doors --show-configuration-file-help",
            id="an unknown key that may hold a secret is not quoted",
        ),
        pytest.param(
            "ports_to_controls = [22]",
            "F: the key opening_sequence is missing, expected a list of 3 to 21 UDP ports",
            id="no sequence",
        ),
        pytest.param(
            SEQUENCE,
            'F: the key ports_to_controls is missing, expected a list of 1 to 64 ports, such as [22, "1194/udp"]',
            id="no guarded ports",
        ),
        pytest.param(
            REQUIRED + "max_open_doors = 65536",
            "",
            id="as many doors as rules",
        ),
        pytest.param(
            REQUIRED.replace("[22]", "[22, 23]") + "max_open_doors = 65536",
            "F:3: 65536 open doors of 2 ports need 131072 firewall rules, expected at most 65536",
            id="more rules than firewalld can bear",
        ),
    ],
)
def test_wrong_file_is_refused_with_message(text: str, message: str) -> None:
    assert complaint(text) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "udp:23817",
            "udp:0",
            "F:5: steps: position 1: port 0 is out of range, expected 1 to 65535",
            id="a step to port 0",
        ),
        pytest.param(
            "tcp:21951",
            "tcp:21951:i",
            "F:5: steps: position 3: the flag i (any flags) is not allowed here, expected letters of f s r p a u, "
            "or x (all) or n (none) alone",
            id="any flags",
        ),
        pytest.param(
            "name =",
            "nam =",
            "F:4: the key nam is unknown, the nearest known key is name",
            id="an unknown key",
        ),
        pytest.param(
            'name = "one"',
            "",
            "F:3: the key name is missing, expected a word of at most 32 letters, digits, -, . and _, a letter first",
            id="no name",
        ),
        pytest.param(
            "steps",
            "timeout = 1 #",
            f"F:3: the key steps is missing, expected {readers.knock_steps.expects}",
            id="no steps",
        ),
        pytest.param(
            '"one"', '"main"', "F:4: name: main is the name of the opening sequence, expected another name", id="main"
        ),
        pytest.param(
            "open = [22]",
            "",
            "F:3: sequence one neither opens nor runs anything, expected open or start_command",
            id="nothing to do",
        ),
        pytest.param("[22]", "[]", "F:6: open: the list has 0 ports, expected 1 to 64", id="opens nothing"),
        pytest.param(
            "[22]\n",
            "[22]\ntraps = 4097",
            "F:7: traps: number 4097 is out of range, expected 0 to 4096",
            id="too many traps",
        ),
        pytest.param(
            "open = [22]\n",
            "start_command = 'true'\nduration = 30",
            "F:7: the key duration has no effect without open, expected open as well",
            id="duration of no door",
        ),
        pytest.param(
            "[22]\n",
            "[22]\n\nstop_command = 'true'",
            "F:8: the key stop_command has no effect without start_command, expected start_command as well",
            id="a stop without a start",
        ),
        pytest.param(
            "[22]\n",
            "[22]\nstart_command = 'true'\ncommand_delay = 30",
            "F:8: the key command_delay has no effect without stop_command, expected stop_command as well",
            id="a delay of nothing",
        ),
        pytest.param(
            "[[sequence]]",
            "[sequence]",
            "F:3: sequence: the value is a single table, expected [[sequence]] above each table",
            id="single brackets",
        ),
        pytest.param(
            "[22]\n",
            "[22]\nclose_steps = ['udp:23817', 'tcp:26173:q']",
            "F:7: close_steps: position 2: a flag is unknown, expected letters of f s r p a u, or x (all) or n (none) "
            "alone",
            id="a step that is none among close_steps",
        ),
        pytest.param(
            "[22]\n",
            "[22]\nclose_steps = ['udp:23817']",
            "F:7: close_steps: the list has 1 step, expected 2 to 32",
            id="a single step to close",
        ),
        pytest.param(
            "[22]\n",
            "[22]\n[sequence.sub]\na = 1",
            "F:7: the key sub is unknown, expected name, steps, timeout, traps, open, duration, start_command, "
            "stop_command, command_delay, close_steps",
            id="a table within",
        ),
        pytest.param(
            "[[sequence]]",
            "max_open_doors = 65536\n[[sequence]]",
            "",
            id="as many doors as rules",
        ),
        pytest.param(
            "[22]\n",
            "[22]\n[[sequence]]\nname = 'two'\nsteps = ['udp:5', 'udp:7']\nopen = [22, 23]\n",
            "",
            id="two sequences",
        ),
    ],
)
def test_wrong_sequence_is_refused_with_message(old: str, new: str, message: str) -> None:
    table = f"[[sequence]]\n{ONE}"
    assert old in table
    said = complaint(REQUIRED + table.replace(old, new, 1))
    assert said == message
    assert not shows_the_secret(said)


def test_doors_of_a_sequence_count_as_rules() -> None:
    text = SNIFFED.replace("[[sequence]]", "max_open_doors = 65536\n[[sequence]]")
    said = complaint(text + "[[sequence]]\nname = 'two'\nsteps = ['udp:5', 'udp:7']\nopen = [22, 23]\n")
    assert said == "F:3: 65536 open doors of 2 ports need 131072 firewall rules, expected at most 65536"


@pytest.mark.parametrize("sequences", ["17321", "[17321]", "[[]]", '"udp:17321"'])
def test_value_that_is_no_list_of_tables_is_refused(sequences: str) -> None:
    assert complaint(f"{REQUIRED}sequence = {sequences}") == (
        f"F:3: sequence: the value is not a list of tables, expected {Tables('sequence').expects}"
    )


@pytest.mark.parametrize(
    ("steps", "traps", "fits"),
    [
        pytest.param("tcp:26173 tcp:26174 tcp:26175:x", 1, False, id="rising"),
        pytest.param("udp:26175 udp:26174", 1, False, id="falling"),
        pytest.param("udp:26175 udp:26174", 0, True, id="without traps"),
        pytest.param("udp:26175 tcp:26174", 1, True, id="of two protocols"),
        pytest.param("tcp:26173 tcp:26174 tcp:26176", 1, True, id="with a gap"),
        pytest.param("tcp:26173 tcp:26174 tcp:26173", 1, True, id="up and down"),
        pytest.param("tcp:26173:x tcp:26173:n", 1, True, id="one port"),
    ],
)
def test_traps_must_fit_between_steps(steps: str, traps: int, fits: bool) -> None:
    said = complaint(f"{REQUIRED}[[sequence]]\nname='a'\n\nsteps={steps.split()}\ntraps={traps}\nopen=[22]")
    no_room = (
        "F:6: the steps of sequence a are neighbouring ports, so no trap fits between them and a port scan could open "
        "the door, expected a gap between the ports, or traps = 0"
    )
    assert said == ("" if fits else no_room)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        pytest.param("udp:23817 tcp:26173", "tcp:26173 udp:23817", "", id="another order"),
        pytest.param("udp:23817 tcp:26173 tcp:21951", "tcp:26173 tcp:21951", "", id="the end of another"),
        pytest.param("udp:23817 tcp:26173", "udp:23817 tcp:26173:n tcp:21951", "", id="other flags"),
        pytest.param("udp:23817 tcp:26173", "tcp:23817 tcp:26173 tcp:21951", "", id="another protocol"),
        pytest.param(
            "udp:23817 tcp:26173",
            "udp:23817 tcp:26173:s tcp:21951",
            "sequence second begins with all steps of sequence first",
            id="the earlier begins the later",
        ),
        pytest.param(
            "udp:23817 tcp:26173 tcp:21951",
            "udp:23817 tcp:26173",
            "sequence first begins with all steps of sequence second",
            id="the later begins the earlier",
        ),
        pytest.param(
            "udp:23817 tcp:26173", "udp:23817 tcp:26173", "the sequences first and second are the same", id="the same"
        ),
    ],
)
def test_sequence_that_starts_with_another_is_refused(first: str, second: str, message: str) -> None:
    text = REQUIRED + "".join(
        f"[[sequence]]\nname = '{name}'\nsteps = {steps.split()}\nopen = [22]\n"
        for name, steps in {"first": first, "between": "udp:21951 udp:23817", "second": second}.items()
    )
    said = complaint(text)
    assert said == (f"F:13: {message}, expected none to be the start of another" if message else "")


MAIN = tomli.loads(REQUIRED)["opening_sequence"]


def spelled(ports: list[int], protocol: str = "udp") -> list[str]:
    return [f"{protocol}:{port}" for port in ports]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        pytest.param(spelled(MAIN[:3]), "sequence main begins with all steps of sequence a", id="its beginning"),
        pytest.param(spelled(MAIN), "the sequences main and a are the same", id="the same"),
        pytest.param(
            [*spelled(MAIN), "tcp:21951"], "sequence a begins with all steps of sequence main", id="it and one more"
        ),
        pytest.param(spelled(MAIN[:3], "tcp"), "", id="another protocol"),
        pytest.param(spelled(MAIN[1:]), "", id="its end"),
        pytest.param(spelled(MAIN[::-1]), "", id="another order"),
        pytest.param([*spelled(MAIN[:-1]), "tcp:21951"], "", id="all but its last"),
    ],
)
def test_opening_sequence_shares_no_start_with_a_sniffed_one(steps: list[str], message: str) -> None:
    said = complaint(f"{REQUIRED}[[sequence]]\nname = 'a'\nsteps = {steps}\ntraps = 0\nopen = [22]\n")
    assert said == (f"F:5: {message}, expected none to be the start of another" if message else "")


FREE = "udp:24519 tcp:27433"
SAME, MORE = "udp:23817 tcp:26173", "udp:23817 tcp:26173 tcp:21951"


@pytest.mark.parametrize(
    ("first", "its_closing", "second", "its_other_closing", "message"),
    [
        pytest.param(SAME, "tcp:26173 udp:23817", FREE, "tcp:27433 udp:24519", "", id="each the other way round"),
        pytest.param(SAME, FREE, "tcp:1 udp:2", FREE, "", id="one closes the doors of both"),
        pytest.param(
            SAME,
            SAME,
            FREE,
            "",
            "F:7: the close_steps of sequence first are the same as the steps of sequence first",
            id="its own steps",
        ),
        pytest.param(
            SAME,
            MORE,
            FREE,
            "",
            "F:7: the close_steps of sequence first begin with the steps of sequence first",
            id="its own steps and more",
        ),
        pytest.param(
            MORE,
            SAME,
            FREE,
            "",
            "F:7: the steps of sequence first begin with the close_steps of sequence first",
            id="the beginning of its own steps",
        ),
        pytest.param(
            FREE,
            SAME,
            MORE,
            "",
            "F:11: the steps of sequence second begin with the close_steps of sequence first",
            id="the beginning of later steps",
        ),
        pytest.param(
            MORE,
            "",
            FREE,
            SAME,
            "F:13: the steps of sequence first begin with the close_steps of sequence second",
            id="the beginning of earlier steps",
        ),
        pytest.param(
            FREE,
            SAME,
            "tcp:1 udp:2",
            MORE,
            "F:13: the close_steps of sequence second begin with the close_steps of sequence first",
            id="the other close_steps and more",
        ),
        pytest.param(
            SAME,
            " ".join(spelled(MAIN[:2])),
            FREE,
            "",
            "F:7: the steps of sequence main begin with the close_steps of sequence first",
            id="the beginning of the opening sequence",
        ),
        pytest.param(
            SAME,
            f"tcp:21951 {SAME}",
            FREE,
            "",
            "F:7: the close_steps of sequence first end with the steps of sequence first",
            id="its own steps at the end",
        ),
        pytest.param(
            f"tcp:21951 {SAME}",
            SAME,
            FREE,
            "",
            "F:7: the steps of sequence first end with the close_steps of sequence first",
            id="the end of its own steps",
        ),
        pytest.param(
            FREE,
            f"tcp:21951 {SAME}",
            SAME,
            "",
            "F:11: the close_steps of sequence first end with the steps of sequence second",
            id="later steps at the end",
        ),
        pytest.param(f"tcp:21951 {SAME}", "", SAME, "", "", id="steps at the end of steps"),
    ],
)
def test_close_steps_share_no_start_with_any_other_steps(
    first: str, its_closing: str, second: str, its_other_closing: str, message: str
) -> None:
    def table(name: str, steps: str, closing: str) -> str:
        line = f"close_steps = {closing.split()}" if closing else "# none"
        return f"[[sequence]]\nname = '{name}'\nsteps = {steps.split()}\nopen = [22]\n{line}\n"

    text = REQUIRED + table("first", first, its_closing) + "\n" + table("second", second, its_other_closing)
    which = "end" if " end with " in message else "start"
    expected = message and f"{message}, expected none to be the {which} of another"
    assert complaint(text) == expected
    assert complaint(text.replace("# none", "")) == expected


def test_close_steps_are_compared_with_an_overriding_opening_sequence(tmp_path: Path) -> None:
    steps = " ".join(spelled([1, 2, 3, 4, 5]))
    path = tmp_path / "F"
    path.write_text(f"{SNIFFED}close_steps = {steps.split()}\n")
    load = partial(loader.load, path, ports=None, environ={}, home=None, served=tuple)
    assert load(magic_seq=None).settings.sequences[0].close_steps[0].port == 1
    with pytest.raises(
        ConfigError, match=r"^--magic-seq: the close_steps of sequence one are the same as the steps of"
    ):
        load(magic_seq="1,2,3,4,5")


@pytest.mark.parametrize(
    ("lines", "fits"),
    [
        ("open = [22]", True),
        ("start_command = 'a'\nstop_command = 'b'", True),
        ("open = [22]\nstart_command = 'a'", True),
        ("start_command = 'a'", False),
    ],
)
def test_close_steps_need_a_door_that_stays_open(lines: str, fits: bool) -> None:
    said = complaint(
        f"{REQUIRED}[[sequence]]\nname='a'\nsteps=['udp:7','udp:5']\nclose_steps=['udp:5','udp:7']\n{lines}"
    )
    problem = "sequence a leaves nothing open that close_steps could close, expected open or stop_command"
    assert said == ("" if fits else f"F:6: {problem}")


def test_second_sequence_of_a_name_is_refused() -> None:
    twice = SNIFFED + "[[sequence]]\nsteps = ['udp:5', 'udp:7']\nopen = [22]\nname = 'one'\n"
    assert complaint(twice) == "F:10: an earlier sequence has the name one, expected each name once"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(
            "format = 'knockd'", "F:3: the key path is missing, expected the path of a file: absolute", id="no path"
        ),
        pytest.param(
            "path = '/x'", 'F:3: the key format is missing, expected "knockd" or "tportknockd"', id="no format"
        ),
        pytest.param(
            "format = 'native'\npath = '/x'",
            'F:4: format: "native" is not a format that can be imported, expected "knockd" or "tportknockd"',
            id="our own",
        ),
        pytest.param(
            "format = ['knockd']\npath = '/x'", "F:4: format: a list is not a format that can be", id="a list"
        ),
        pytest.param("format = 'knockd'\npath = ''", "F:5: path: an empty string is not a path", id="an empty path"),
        pytest.param("format = 'knockd'\npath = \"/x\\u0000\"", "F:5: path: a string is not a path", id="a zero byte"),
        pytest.param(
            "format = 'knockd'\npath = '/x'\ntraps = 4097",
            "F:6: traps: number 4097 is out of range, expected 0 to 4096",
            id="too many traps",
        ),
        pytest.param("file = '/x'", "F:4: the key file is unknown, expected format, path, traps", id="an unknown key"),
    ],
)
def test_wrong_import_is_refused_with_message(table: str, message: str) -> None:
    assert complaint(f"{REQUIRED}[[import]]\n{table}").startswith(message)


KEY_NAMES = st.sampled_from([key.name for key in keys_of(schema.KEYS)])
SNIPPETS = st.sampled_from(
    [
        "=",
        "[",
        "]",
        '"',
        "'",
        '"""',
        "'''",
        "{",
        "}",
        "\n",
        "\r\n",
        "#",
        ",",
        ".",
        "\\",
        str(SECRET[0]),
        '"udp:23817"',
        "tcp:26173:x",
        "\n[[sequence]]\n",
        "1979-05-27",
        "-",
    ]
)
TOML_LIKE = st.lists(KEY_NAMES | SNIPPETS | st.text(max_size=3)).map("".join)


@given(st.text() | TOML_LIKE | TOML_LIKE.map(REQUIRED.__add__) | TOML_LIKE.map(SNIFFED.__add__))
@example("a=" + "[" * 2000)
@example('a="' + "x\\" * 50)
def test_any_text_is_accepted_or_refused_in_one_line(text: str) -> None:
    said = complaint(text)
    assert said.isprintable()
    assert said.startswith("F:") or not said
    assert not shows_the_secret(said)


@given(st.data())
def test_message_about_a_broken_file_shows_no_sequence(data: st.DataObject) -> None:
    """One character of a good file is lost, doubled or replaced: by far the most likely mistake."""
    at = data.draw(st.integers(0, len(EVERYTHING) - 1))
    text = (
        EVERYTHING[:at] + data.draw(st.sampled_from(["", EVERYTHING[at] * 2, *"\"'[]#=,;. x\n"])) + EVERYTHING[at + 1 :]
    )
    assert not shows_the_secret(complaint(text))
