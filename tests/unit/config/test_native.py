"""The native file: what it may hold, in which words the rest is refused, and that its help and its writer agree."""

import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from ipaddress import ip_address
from typing import Any

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from port_knocking_doors.config import native, readers, render, schema, toml
from port_knocking_doors.config.describe import in_words
from port_knocking_doors.config.reader_types import Tables
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import (
    ALL_FLAGS,
    Access,
    CommandOpening,
    Dialect,
    Flags,
    Import,
    Port,
    Protocol,
    Scope,
    Sequence,
    Settings,
    Step,
)

SECRET = (17321, 28463, 19542, 30611, 21785)
SEQUENCE = f"opening_sequence = {list(SECRET)}\n"
REQUIRED = "ports_to_controls = [22]\n" + SEQUENCE

EVERYTHING = """\
# a comment with [ and "
"ports_to_controls" = [22, "1194/udp"]
opening_sequence = [
    17321, 28463, # ] the bracket of a comment
    19542, 30611, 21785,
]
firewall_rules_check_periode_seconds = 11
ignoring_period_after_knock_error = 5.5
max_knocker_live_time = 31
max_opened_door_duration = 12
doors_cleanup_periode = 13
zone = '''external'''
open_knock_ports = false
max_knockers = 100
max_open_doors = 10
rule_priority = 200

[[sequence]] # the first
name = "ssh"
steps = ["udp:23817", "tcp:26173", "tcp:21951:frap"]
timeout = 7.5
traps = 64
open = [22, "1194/udp"]
duration = 60
start_command = 'logger "%IP%"'
stop_command = "logger \\"%IP%\\""
command_delay = 0

[[ "sequence" ]]
name = "vpn"
steps = [
    "tcp:26173", # [[sequence]]
    "udp:23817",
]
start_command = "true"

[[import]]
format = "knockd"
path = "/etc/knockd.conf"
[[import]]
format = "tportknockd"
path = "~/knock.conf"
traps = 64
"""
STEPS = (
    Step(Protocol.UDP, 23817),
    Step(Protocol.TCP, 26173, Flags.SYN),
    Step(Protocol.TCP, 21951, Flags.FIN | Flags.RST | Flags.PSH | Flags.ACK),
)
ONE = 'name = "one"\nsteps = ["udp:23817", "tcp:26173", "tcp:21951"]\nopen = [22]\n'
SNIFFED = f"{REQUIRED}[[sequence]]\n{ONE}"


def complaint(text: str) -> str:
    """What is said of a text; nothing if it is taken."""
    try:
        native.parse(text, "F")
    except ConfigError as wrong:
        return str(wrong)
    return ""


def shows_the_secret(said: str) -> bool:
    return any(str(port) in said for port in (*SECRET, *(step.port for step in STEPS)))


def test_every_key_is_read() -> None:
    assert native.parse(EVERYTHING, "F") == Settings(
        guarded_ports=(Port(22), Port(1194, Protocol.UDP)),
        opening_sequence=SECRET,
        rule_check_period=11,
        ignoring_period=5.5,
        knocker_lifetime=31,
        door_duration=12,
        doors_cleanup_period=13,
        zone="external",
        open_knock_ports=False,
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


def test_a_sequence_has_these_defaults() -> None:
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


def test_the_two_required_keys_are_enough() -> None:
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
            "ports_to_controls = [22]\n\nopening_sequence = [1, 2, 3, 4]",
            "F:3: opening_sequence: it has 4 ports, expected 5 to 20",
            id="four ports",
        ),
        pytest.param(
            'ports_to_controls = [22]\nopening_sequence = [1, 2, "ssh", 4, 5]',
            'F:2: opening_sequence: position 3: "ssh" is not a port, expected a whole number from 1 to 65535',
            id="a word in the list",
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
            "- and _, or an empty text",
            id="a table for a value",
        ),
        pytest.param(
            REQUIRED + '"17321\\nzone" = 1',
            "F:3: a key is unknown, the nearest known key is zone",
            id="an unknown key that may hold a secret is not quoted",
        ),
        pytest.param(
            "ports_to_controls = [22]",
            "F: the key opening_sequence is missing, expected a list of 5 to 20 UDP ports",
            id="no sequence",
        ),
        pytest.param(
            SEQUENCE,
            'F: the key ports_to_controls is missing, expected a list of 1 to 64 ports, such as 22 or "1194/udp"',
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
def test_a_wrong_file_is_refused_in_these_words(text: str, message: str) -> None:
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
            "F:5: steps: position 3: i (any flags) is none of the flags here, expected letters of f s r p a u, "
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
            '"one"', '"main"', "F:4: name: main is the opening sequence's name, expected another one", id="main"
        ),
        pytest.param(
            "open = [22]",
            "",
            "F:3: sequence one neither opens nor runs anything, expected open or start_command",
            id="nothing to do",
        ),
        pytest.param("[22]", "[]", "F:6: open: it has 0 ports, expected 1 to 64", id="opens nothing"),
        pytest.param(
            "[22]\n",
            "[22]\ntraps = 4097",
            "F:7: traps: number 4097 is out of range, expected 0 to 4096",
            id="too many traps",
        ),
        pytest.param(
            "open = [22]\n",
            "start_command = 'true'\nduration = 30",
            "F:7: the key duration means nothing without open, expected that one, too",
            id="duration of no door",
        ),
        pytest.param(
            "[22]\n",
            "[22]\n\nstop_command = 'true'",
            "F:8: the key stop_command means nothing without start_command, expected that one, too",
            id="a stop without a start",
        ),
        pytest.param(
            "[22]\n",
            "[22]\nstart_command = 'true'\ncommand_delay = 30",
            "F:8: the key command_delay means nothing without stop_command, expected that one, too",
            id="a delay of nothing",
        ),
        pytest.param(
            "[[sequence]]",
            "[sequence]",
            "F:3: sequence: this is a single table, expected [[sequence]] in double brackets above each",
            id="single brackets",
        ),
        pytest.param(
            "[22]\n",
            "[22]\n[sequence.sub]\na = 1",
            "F:7: the key sub is unknown, the nearest known key is traps",
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
def test_a_wrong_sequence_is_refused_in_these_words(old: str, new: str, message: str) -> None:
    table = f"[[sequence]]\n{ONE}"
    assert old in table
    said = complaint(REQUIRED + table.replace(old, new, 1))
    assert said == message
    assert not shows_the_secret(said)


def test_the_doors_of_a_sequence_count_as_rules() -> None:
    text = SNIFFED.replace("[[sequence]]", "max_open_doors = 65536\n[[sequence]]")
    said = complaint(text + "[[sequence]]\nname = 'two'\nsteps = ['udp:5', 'udp:7']\nopen = [22, 23]\n")
    assert said == "F:3: 65536 open doors of 2 ports need 131072 firewall rules, expected at most 65536"


@pytest.mark.parametrize("sequences", ["17321", "[17321]", "[[]]", '"udp:17321"'])
def test_what_is_no_list_of_tables_is_refused(sequences: str) -> None:
    assert complaint(f"{REQUIRED}sequence = {sequences}") == (
        f"F:3: sequence: this is not a list of tables, expected {Tables('sequence').expects}"
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
def test_traps_need_room_between_neighbouring_steps(steps: str, traps: int, fits: bool) -> None:
    said = complaint(f"{REQUIRED}[[sequence]]\nname='a'\n\nsteps={steps.split()}\ntraps={traps}\nopen=[22]")
    no_room = (
        "F:6: between the neighbouring steps of sequence a no trap has room, so a scan could open its door, "
        "expected a gap between them, or traps = 0"
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
            "sequence second begins with the whole of sequence first",
            id="the earlier begins the later",
        ),
        pytest.param(
            "udp:23817 tcp:26173 tcp:21951",
            "udp:23817 tcp:26173",
            "sequence first begins with the whole of sequence second",
            id="the later begins the earlier",
        ),
        pytest.param(
            "udp:23817 tcp:26173", "udp:23817 tcp:26173", "the sequences first and second are the same", id="the same"
        ),
    ],
)
def test_no_sequence_begins_another(first: str, second: str, message: str) -> None:
    text = REQUIRED + "".join(
        f"[[sequence]]\nname = '{name}'\nsteps = {steps.split()}\nopen = [22]\n"
        for name, steps in {"first": first, "between": "udp:21951 udp:23817", "second": second}.items()
    )
    said = complaint(text)
    assert said == (f"F:13: {message}, expected none that begins another" if message else "")


MAIN = tomli.loads(REQUIRED)["opening_sequence"]


def spelled(ports: list[int], protocol: str = "udp") -> list[str]:
    return [f"{protocol}:{port}" for port in ports]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        pytest.param(spelled(MAIN[:3]), "sequence main begins with the whole of sequence a", id="its beginning"),
        pytest.param(spelled(MAIN), "the sequences main and a are the same", id="the same"),
        pytest.param(
            [*spelled(MAIN), "tcp:21951"], "sequence a begins with the whole of sequence main", id="it and one more"
        ),
        pytest.param(spelled(MAIN[:3], "tcp"), "", id="another protocol"),
        pytest.param(spelled(MAIN[1:]), "", id="its end"),
        pytest.param(spelled(MAIN[::-1]), "", id="another order"),
        pytest.param([*spelled(MAIN[:-1]), "tcp:21951"], "", id="all but its last"),
    ],
)
def test_no_sequence_begins_the_opening_sequence_or_is_begun_by_it(steps: list[str], message: str) -> None:
    said = complaint(f"{REQUIRED}[[sequence]]\nname = 'a'\nsteps = {steps}\ntraps = 0\nopen = [22]\n")
    assert said == (f"F:5: {message}, expected none that begins another" if message else "")


def test_two_sequences_of_one_name_are_refused() -> None:
    twice = SNIFFED + "[[sequence]]\nsteps = ['udp:5', 'udp:7']\nopen = [22]\nname = 'one'\n"
    assert complaint(twice) == "F:10: an earlier sequence is called one, too, expected each name once"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("zone = 1\nzone = 2", "F:2: this is not TOML: a key is set twice", id="a key twice"),
        pytest.param("zone 1", "F:1: this is not TOML: a key is not followed by =", id="no equals sign"),
        pytest.param("\nzone = public", "F:2: this is not TOML: a value is none that TOML knows", id="no quotes"),
        pytest.param('\nzone = "public\n', "F:2: this is not TOML: a text is not on one line", id="no closing quote"),
        pytest.param('zone = "public', "F:1: this is not TOML: a text does not end", id="ends within a text"),
        pytest.param("zone = 1 17321", "F:1: this is not TOML: something follows a complete value", id="two values"),
        pytest.param("zone = [17321,\n28463", "F:2: this is not TOML: a list does not end", id="no closing bracket"),
        pytest.param("[17321, 28463]", "F:1: this is not TOML: ", id="a list for a table"),
        pytest.param("[zone]\n[zone]", "F:2: this is not TOML: a table is there twice", id="a table twice"),
        pytest.param("= 5", "F:1: this is not TOML: a line begins with what cannot be a key", id="no key"),
        pytest.param("zone = " + "[" * 5000, "F", id="nested too deeply"),
        pytest.param("zone = " + "9" * 5000, "F:1: this is not TOML: ", id="thousands of digits"),
    ],
)
def test_what_is_not_toml_is_refused_without_a_word_of_it(text: str, message: str) -> None:
    said = complaint(text)
    assert said.startswith(message)
    assert ", expected " in said
    assert not any(part in said for part in ("17321", "28463", "public"))


@pytest.mark.parametrize(
    ("before", "line"),
    [
        pytest.param("", 3, id="at once"),
        pytest.param("\r\n# zone = 5\r\n", 5, id="after a comment, with carriage returns"),
        pytest.param("max_knockers = 10\n\n", 5, id="after another key"),
    ],
)
@pytest.mark.parametrize("key", ["zone", "  zone", '"zone"', "'zone'", '"z\\u006fne"'])
def test_a_key_is_found_on_its_line(before: str, key: str, line: int) -> None:
    assert complaint(REQUIRED + before + f"{key} = 5\n").startswith(f"F:{line}: zone: 5 is not")


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_key_within_a_text_of_several_lines_is_not_taken_for_the_key(quotes: str) -> None:
    text = f"foo = {quotes}\nzone = 5 \" [ ' #\n{quotes}\nopening_sequence = [\n5,\n6]\nports_to_controls=[1]\n"
    assert complaint(text).startswith("F:1: the key foo")
    assert complaint(text.replace("foo", "zone")).startswith("F:1: zone: a zone's name has a character")
    assert complaint(text.replace("foo", "bar.opening_sequence")).startswith("F:1: the key bar")


def test_a_key_within_a_table_is_not_taken_for_the_key() -> None:
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


def test_a_mistake_in_an_inline_table_is_where_its_list_begins() -> None:
    text = f"{REQUIRED}sequence = [\n{{ name = 'a', steps = ['udp:5', 'udp:7'], opne = [22] }}]\n"
    assert complaint(text) == "F:3: the key opne is unknown, the nearest known key is open"
    assert complaint(text.replace("opne", "open")) == ""


NAMES = st.text("abcxyzäß019-_", min_size=1, max_size=17)
SECONDS = st.floats(0.1, 86400) | st.integers(1, 86400).map(float)
STEP = st.builds(Step, st.just(Protocol.UDP), st.integers(1, 65535)) | st.builds(
    Step, st.just(Protocol.TCP), st.integers(1, 65535), st.integers(0, ALL_FLAGS)
)
PORTS = st.lists(
    st.builds(Port, st.integers(1, 65535), st.sampled_from(Protocol)), min_size=1, max_size=64, unique=True
).map(tuple)
SHELL = st.text("ab1 %'\"\\\t$|[]{}#=;€", min_size=1).filter(str.strip)
COMMANDS = st.builds(CommandOpening, SHELL) | st.builds(CommandOpening, SHELL, SHELL, st.just(0.0) | SECONDS)


def granting(
    name: str, opens: tuple[Port, ...], duration: float, command: CommandOpening | None, **rest: Any
) -> Sequence:
    return Sequence(name, access=Access.of(name, opens, duration, command), **rest)


SEQUENCES = st.builds(
    granting,
    name=st.from_regex(r"[a-zä][a-z0-9_.-]{0,31}", fullmatch=True).filter(readers.RESERVED_NAME.__ne__),
    steps=st.lists(STEP, min_size=2, max_size=32).map(tuple),
    timeout=SECONDS,
    traps=st.integers(0, 4096),
    opens=PORTS,
    duration=SECONDS,
    command=st.none() | COMMANDS,
).filter(lambda one: not native._has_no_gap(one.steps)) | st.builds(
    granting,
    name=st.sampled_from(["x", "y"]),
    steps=st.lists(STEP, min_size=2, max_size=3).map(tuple),
    timeout=SECONDS,
    traps=st.just(0),
    opens=st.just(()),
    duration=st.just(30.0),
    command=COMMANDS,
)
SETTINGS = st.builds(
    Settings,
    guarded_ports=PORTS,
    opening_sequence=st.lists(st.integers(1, 65535), min_size=5, max_size=20).map(tuple),
    rule_check_period=SECONDS,
    ignoring_period=SECONDS,
    knocker_lifetime=SECONDS,
    door_duration=SECONDS,
    doors_cleanup_period=SECONDS,
    zone=st.just("") | NAMES | st.builds("{}/{}".format, NAMES, NAMES),
    open_knock_ports=st.booleans(),
    max_knockers=st.integers(1, 2**20),
    max_open_doors=st.integers(1, 1024),
    rule_priority=st.integers(1, 32767),
    sequences=st.lists(SEQUENCES, max_size=4, unique_by=(lambda one: one.name, lambda one: one.steps[0])).map(tuple),
    imports=st.lists(
        st.builds(
            Import,
            st.sampled_from([Dialect.KNOCKD, Dialect.TPORTKNOCKD]),
            st.text("ab /~.\\\"'#é", min_size=1),
            st.integers(0, 4096),
        ),
        max_size=2,
    ).map(tuple),
).filter(lambda all_of_it: all(one.steps[0].port != all_of_it.opening_sequence[0] for one in all_of_it.sequences))


@given(SETTINGS)
@example(Settings())
def test_what_is_written_reads_as_it_was(settings: Settings) -> None:
    assert native.parse(render.render(settings), "F") == settings


def test_what_is_commented_out_in_a_written_file_is_the_default() -> None:
    text = render.render(Settings(opening_sequence=SECRET))
    uncommented = "\n".join(line[line.startswith("#") and line[1:2] != " " :] for line in text.splitlines())
    assert uncommented != text
    assert native.parse(uncommented, "F") == native.parse(text, "F")


@given(SETTINGS)
def test_the_summary_is_all_that_is_in_force(settings: Settings) -> None:
    settings = replace(settings, imports=())  # shown as the sequences that they bring
    said = render.summary(settings)
    words = "".join(f"\n{in_words(sequence)}" for sequence in settings.sequences)
    assert said.endswith(words)
    assert native.parse(said.removesuffix(words), "F") == replace(settings, sequences=())


def test_a_sequence_in_words() -> None:
    ssh, vpn = native.parse(EVERYTHING, "F").sequences
    assert (
        in_words(ssh)
        == """\
Sequence ssh, within 7.5 s:
  1. UDP 23817
  2. TCP 26173 with SYN
  3. TCP 21951 with FIN RST PSH ACK
  opens 22/tcp, 1194/udp for 60 s
  runs: logger "%IP%"
  0 s later: logger "%IP%"
  64 traps"""
    )
    assert (
        in_words(replace(vpn, steps=(Step(Protocol.TCP, 1),), traps=0))
        == """\
Sequence vpn, within 10 s:
  1. TCP 1 with no flags
  runs: true
  no traps"""
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(
            "format = 'knockd'", "F:3: the key path is missing, expected a file's path, absolute", id="no path"
        ),
        pytest.param(
            "path = '/x'", 'F:3: the key format is missing, expected "knockd" or "tportknockd"', id="no format"
        ),
        pytest.param(
            "format = 'native'\npath = '/x'",
            'F:4: format: "native" is no format of a file that can be imported, expected "knockd" or "tportknockd"',
            id="our own",
        ),
        pytest.param(
            "format = ['knockd']\npath = '/x'", "F:4: format: a list is no format of a file that can be", id="a list"
        ),
        pytest.param("format = 'knockd'\npath = ''", "F:5: path: an empty text is not a path", id="an empty path"),
        pytest.param("format = 'knockd'\npath = \"/x\\u0000\"", "F:5: path: a text is not a path", id="a zero byte"),
        pytest.param(
            "format = 'knockd'\npath = '/x'\ntraps = 4097",
            "F:6: traps: number 4097 is out of range, expected 0 to 4096",
            id="too many traps",
        ),
        pytest.param("file = '/x'", "F:4: the key file is unknown, the nearest known key is ", id="an unknown key"),
    ],
)
def test_a_wrong_import_is_refused_in_these_words(table: str, message: str) -> None:
    assert complaint(f"{REQUIRED}[[import]]\n{table}").startswith(message)


def test_sequences_of_other_files_are_not_written() -> None:
    opened = Access.of("knockd's", command=CommandOpening("true"))
    foreign = Sequence("knockd's", STEPS, opened, dialect=Dialect.KNOCKD)
    settings = Settings(opening_sequence=SECRET, imports=(Import(Dialect.KNOCKD, "x"),))
    assert native.parse(render.render(replace(settings, sequences=(foreign,))), "F") == settings


def test_a_sequence_of_another_daemon_in_words() -> None:
    tcp = Protocol.TCP
    door = Sequence(
        "open SSH",
        (
            Step(tcp, 7, Flags.SYN, Flags.SYN | Flags.ACK),
            Step(tcp, 8, 0, Flags.ACK),
            Step(tcp, 9, 0, 0),
            Step(Protocol.UDP, 5),
            Step(tcp, 9, Flags.FIN, Flags.FIN),
        ),
        timeout=25,
        access=Access.of("open SSH", command=CommandOpening("a", "b", 10, "", "")),
        dialect=Dialect.KNOCKD,
        scope=Scope(ip_address("192.0.2.1"), ("eth0", "ppp*"), True),
    )
    assert (
        in_words(door)
        == """\
Sequence open SSH, as knockd hears it, within 25 s:
  1. TCP 7 with SYN, without ACK
  2. TCP 8 without ACK
  3. TCP 9 with any flags
  4. UDP 5
  5. TCP 9 with FIN
  hears packets to 192.0.2.1 alone
  hears packets by eth0, ppp* alone
  hears IPv4 alone
  for IPv4 runs: a
  10 s later: b
  for IPv6 runs nothing
  no traps"""
    )
    once = Sequence("d", (), timeout=5, dialect=Dialect.KNOCKD, one_time="/x", flags=(Flags.SYN, 0))
    assert (
        in_words(once)
        == """\
Sequence d, as knockd hears it, within 5 s:
  one-time sequences, one after the other: /x
  each TCP step of theirs without SYN
  neither opens nor runs anything
  no traps"""
    )


def entries(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if re.match(r"\w+ = |\[\[", line))


def keys_of(keys: tuple[schema.Key, ...]) -> Iterator[schema.Key]:
    for key in keys:
        yield key
        yield from keys_of(key.keys)


def test_the_help_shows_every_key_with_its_default_and_what_it_expects() -> None:
    text = render.help_text()
    settings = native.parse("\n".join(entries(text)), "F")
    assert settings == Settings(sequences=settings.sequences, imports=(Import(Dialect.KNOCKD, "/etc/knockd.conf"),))
    assert [sequence.steps for sequence in settings.sequences] == [schema.EXAMPLE_STEPS]
    joined = " ".join(text.split())
    for key in keys_of(schema.KEYS):
        assert f"\n{key.name} = " in text or f"\n[[{key.name}]]" in text
        need = "Required" if key.required else f"Optional, with {key.needs}" if key.needs else "Optional"
        assert f"{need}: {key.read.expects}." in joined
        assert key.about in joined


def test_a_sequence_of_the_help_has_every_default() -> None:
    (sequence,) = native.parse("\n".join(entries(render.help_text())), "F").sequences
    lone = f"{REQUIRED}[[sequence]]\nname = 'ssh'\nsteps = ['udp:1234', 'tcp:543', 'tcp:123:frap']\nopen = [22]"
    (usual,) = native.parse(lone, "F").sequences
    assert replace(sequence, access=Access.of("ssh", sequence.access.ports, sequence.access.duration)) == usual
    assert sequence.access.command
    assert sequence.access.command.delay == 30


@pytest.mark.parametrize(
    "word",
    [
        "--conf",
        "~/.port_knocker.toml",
        "/etc/port_knocker.toml",
        "--magic-seq",
        "--ports",
        "--interface",
        "KNOCKER_SEQ",
        "KNOCKER_PORTS",
    ],
)
def test_the_help_names_files_options_and_variables(word: str) -> None:
    assert word in render.help_text()


def test_help_and_file_fit_a_terminal() -> None:
    lines = render.help_text().splitlines() + render.render(replace(Settings(), opening_sequence=SECRET)).splitlines()
    assert max(map(len, lines)) <= 79


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
def test_no_text_is_answered_with_anything_but_settings_or_one_line(text: str) -> None:
    said = complaint(text)
    assert said.isprintable()
    assert said.startswith("F:") or not said
    assert not shows_the_secret(said)


@given(st.data())
def test_no_message_shows_a_sequence_whatever_is_broken(data: st.DataObject) -> None:
    """One character of a good file is lost, doubled or replaced: by far the most likely mistake."""
    at = data.draw(st.integers(0, len(EVERYTHING) - 1))
    text = (
        EVERYTHING[:at] + data.draw(st.sampled_from(["", EVERYTHING[at] * 2, *"\"'[]#=,;. x\n"])) + EVERYTHING[at + 1 :]
    )
    assert not shows_the_secret(complaint(text))
