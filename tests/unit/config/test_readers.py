"""Readers of single values: accepted values, and the message for each refused one."""

import math
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.config import readers
from port_knocking_doors.config.reader_types import ListReader, Reader, Tables
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import ALL_FLAGS, Flags, Port, Protocol, Step

LONGEST_ZONE = "a" * 17


def udp(port: int) -> Step:
    return Step(Protocol.UDP, port)


def tcp(port: int, flags: int = Flags.SYN) -> Step:
    return Step(Protocol.TCP, port, flags)


TAKEN = [
    pytest.param(readers.knock_port, 1, 1, id="lowest port"),
    pytest.param(readers.knock_port, 65535, 65535, id="highest port"),
    pytest.param(readers.sequence, [5, 3, 4], (5, 3, 4), id="shortest sequence"),
    pytest.param(readers.sequence, list(range(1, 22)), tuple(range(1, 22)), id="longest sequence"),
    pytest.param(readers.sequence, [7, 7, 8, 7, 7], (7, 7, 8, 7, 7), id="a port comes again"),
    pytest.param(
        readers.guarded_ports,
        [22, "80", "1194/udp", "22/UDP"],
        (Port(22), Port(80), Port(1194, Protocol.UDP), Port(22, Protocol.UDP)),
        id="guarded ports in every form",
    ),
    pytest.param(readers.guarded_ports, list(range(1, 65)), tuple(map(Port, range(1, 65))), id="64 guarded ports"),
    pytest.param(readers.seconds, 10, 10.0, id="whole seconds"),
    pytest.param(readers.seconds, 0.1, 0.1, id="shortest time"),
    pytest.param(readers.seconds, 2147483647, 2147483647.0, id="longest time"),
    pytest.param(readers.seconds, 604800, 604800.0, id="a week"),
    pytest.param(readers.seconds_or_zero, 0, 0.0, id="no time where that is allowed"),
    pytest.param(readers.seconds_or_zero, 0.1, 0.1, id="shortest time where none is allowed"),
    pytest.param(readers.guarded_ports, [22, "22/tcp", 80, 22], (Port(22), Port(80)), id="a guarded port twice"),
    pytest.param(readers.flag, False, False, id="false"),
    pytest.param(readers.zone_name, "", "", id="no zone"),
    pytest.param(readers.zone_name, "my_zone-2", "my_zone-2", id="zone with signs"),
    pytest.param(readers.zone_name, LONGEST_ZONE + "/part", LONGEST_ZONE + "/part", id="longest zone, with a part"),
    pytest.param(readers.rule_priority, 1, 1, id="lowest priority"),
    pytest.param(readers.rule_priority, 32767, 32767, id="highest priority"),
    pytest.param(readers.knock_step, "udp:1", udp(1), id="UDP step"),
    pytest.param(readers.knock_step, "tcp:65535", tcp(65535), id="TCP step without flags"),
    pytest.param(readers.knock_step, "tcp:1:s", tcp(1), id="a bare SYN"),
    pytest.param(readers.knock_step, "tcp:1:f", tcp(1, Flags.FIN), id="FIN"),
    pytest.param(readers.knock_step, "tcp:1:r", tcp(1, Flags.RST), id="RST"),
    pytest.param(readers.knock_step, "tcp:1:p", tcp(1, Flags.PSH), id="PSH"),
    pytest.param(readers.knock_step, "tcp:1:a", tcp(1, Flags.ACK), id="ACK"),
    pytest.param(readers.knock_step, "tcp:1:u", tcp(1, Flags.URG), id="URG"),
    pytest.param(
        readers.knock_step,
        "tcp:1:parf",
        tcp(1, Flags.FIN | Flags.RST | Flags.PSH | Flags.ACK),
        id="flags in any order",
    ),
    pytest.param(readers.knock_step, "tcp:1:fsrpau", tcp(1, ALL_FLAGS), id="all flags by name"),
    pytest.param(readers.knock_step, "tcp:1:x", tcp(1, ALL_FLAGS), id="all flags"),
    pytest.param(readers.knock_step, "tcp:1:n", tcp(1, 0), id="no flags"),
    pytest.param(readers.KnockStep(bare=0), "tcp:1", tcp(1, 0), id="a bare step of another dialect"),
    pytest.param(readers.knock_steps, ["udp:1", "tcp:1"], (udp(1), tcp(1)), id="fewest steps"),
    pytest.param(readers.knock_steps, ["udp:1"] * 32, (udp(1),) * 32, id="most steps, all the same"),
    pytest.param(readers.sequence_name, "s", "s", id="shortest name"),
    pytest.param(readers.sequence_name, "Büro-2_b.c", "Büro-2_b.c", id="name with signs"),
    pytest.param(readers.sequence_name, "a" * 32, "a" * 32, id="longest name"),
    pytest.param(readers.shell_command, 'a "%IP%"\t| b \\', 'a "%IP%"\t| b \\', id="command"),
    pytest.param(readers.shell_command, "a" * 4096, "a" * 4096, id="longest command"),
    pytest.param(readers.interface_name, "eth0", "eth0", id="interface"),
    pytest.param(readers.interface_name, "ppp*", "ppp*", id="pattern for interfaces"),
    pytest.param(readers.interface_name, "a" * 15, "a" * 15, id="longest interface"),
    pytest.param(Tables("t"), [], (), id="no tables"),
    pytest.param(Tables("t"), [{"a": 1}], ({"a": 1},), id="a table"),
]

STEP = "expected udp:PORT, tcp:PORT or tcp:PORT:FLAGS in small letters"
FLAGS = "expected letters of f s r p a u, or x (all) or n (none) alone"
NAME = f"expected {readers.sequence_name.expects}"
COMMAND = f"expected {readers.shell_command.expects}"
INTERFACE = f"expected {readers.interface_name.expects}"

REFUSED = [
    pytest.param(readers.knock_port, 0, "port 0 is out of range, expected 1 to 65535", id="port 0"),
    pytest.param(readers.knock_port, 65536, "port 65536 is out of range, expected 1 to 65535", id="port 65536"),
    pytest.param(readers.knock_port, 70000, "port 70000 is out of range, expected 1 to 65535", id="port 70000"),
    pytest.param(
        readers.knock_port, True, "true is not a port, expected a whole number from 1 to 65535", id="true for a port"
    ),
    pytest.param(
        readers.knock_port,
        16001.5,
        "a number with a fraction is not a port, expected a whole number from 1 to 65535",
        id="port with a fraction",
    ),
    pytest.param(
        readers.knock_port,
        16**5000,
        "a number of more than five digits is out of range, expected 1 to 65535",
        id="port of thousands of digits",
    ),
    pytest.param(readers.sequence, [1, 2], "the list has 2 ports, expected 3 to 21", id="two ports"),
    pytest.param(readers.sequence, [1] * 22, "the list has 22 ports, expected 3 to 21", id="22 ports"),
    pytest.param(readers.sequence, [], "the list has 0 ports, expected 3 to 21", id="empty sequence"),
    pytest.param(readers.sequence, 5, "a number is not a list, expected a list of 3 to 21 UDP ports", id="no list"),
    pytest.param(
        readers.sequence,
        "1,2,3,4,5",
        "a string is not a list, expected a list of 3 to 21 UDP ports",
        id="a text for a list",
    ),
    pytest.param(
        readers.sequence,
        [1, 2, "ssh", 4, 5],
        'position 3: "ssh" is not a port, expected a whole number from 1 to 65535',
        id="a word in the sequence",
    ),
    pytest.param(
        readers.sequence,
        [1, 2, 3, 4, 70000],
        "position 5: port 70000 is out of range, expected 1 to 65535",
        id="a port out of range in the sequence",
    ),
    pytest.param(
        readers.sequence,
        [1, 2, 3, 4, [5]],
        "position 5: a list is not a port, expected a whole number from 1 to 65535",
        id="a list in the sequence",
    ),
    pytest.param(readers.guarded_ports, [], "the list has 0 ports, expected 1 to 64", id="nothing guarded"),
    pytest.param(
        readers.guarded_ports, list(range(1, 66)), "the list has 65 ports, expected 1 to 64", id="65 guarded ports"
    ),
    pytest.param(
        readers.guarded_ports,
        ["22/tpc"],
        'position 1: "tpc" is not a protocol, expected tcp or udp',
        id="unknown protocol",
    ),
    pytest.param(
        readers.guarded_ports,
        ["22/"],
        "position 1: an empty string is not a protocol, expected tcp or udp",
        id="slash without protocol",
    ),
    pytest.param(
        readers.guarded_ports,
        ["0/udp"],
        "position 1: port 0 is out of range, expected 1 to 65535",
        id="guarded port 0",
    ),
    pytest.param(
        readers.guarded_ports,
        22,
        "22 is not a list, expected [22]",
        id="guarded port without a list",
    ),
    pytest.param(
        readers.guarded_ports, "53/udp", '"53/udp" is not a list, expected ["53/udp"]', id="a port with protocol"
    ),
    pytest.param(
        readers.guarded_ports,
        "ssh",
        '"ssh" is not a list, expected a list of 1 to 64 ports, such as [22, "1194/udp"]',
        id="a word for guarded ports",
    ),
    pytest.param(
        readers.seconds,
        "10s",
        '"10s" is not a number, expected a number of seconds from 0.1 to 2147483647, without quotes or unit',
        id="a time with its unit",
    ),
    pytest.param(
        readers.seconds,
        "17321,28463",
        "a string is not a number, expected a number of seconds from 0.1 to 2147483647, without quotes or unit",
        id="a time that may be a sequence is not quoted",
    ),
    pytest.param(
        readers.seconds, 0, "0 is out of range, expected a number of seconds from 0.1 to 2147483647", id="no time"
    ),
    pytest.param(
        readers.seconds,
        -5,
        "-5 is out of range, expected a number of seconds from 0.1 to 2147483647",
        id="negative time",
    ),
    pytest.param(
        readers.seconds,
        math.inf,
        "inf is out of range, expected a number of seconds from 0.1 to 2147483647",
        id="for ever",
    ),
    pytest.param(
        readers.seconds, math.nan, "nan is out of range, expected a number of seconds from 0.1 to 2147483647", id="nan"
    ),
    pytest.param(
        readers.seconds,
        10**400,
        "a number of more than five digits is out of range, expected a number of seconds from 0.1 to 2147483647",
        id="more than a float holds",
    ),
    pytest.param(
        readers.seconds,
        True,
        "true is not a number, expected a number of seconds from 0.1 to 2147483647, without quotes or unit",
        id="true for a time",
    ),
    pytest.param(
        readers.seconds,
        date(2022, 3, 1),
        "a date or time is not a number, expected a number of seconds from 0.1 to 2147483647, without quotes or unit",
        id="a date for a time",
    ),
    pytest.param(readers.flag, 1, "1 is neither true nor false, expected true or false", id="1 for true"),
    pytest.param(readers.flag, "yes", '"yes" is neither true nor false, expected true or false', id="yes for true"),
    pytest.param(readers.zone_name, 5, f"5 is not a zone's name, expected {readers.zone_name.expects}", id="zone 5"),
    pytest.param(
        readers.zone_name,
        "a" * 18,
        f"a zone's name has 18 characters, expected {readers.zone_name.expects}",
        id="zone of 18 characters",
    ),
    pytest.param(
        readers.zone_name,
        "my zone",
        f"a zone's name has a character that firewalld forbids, expected {readers.zone_name.expects}",
        id="zone with a space",
    ),
    *(
        pytest.param(
            readers.zone_name,
            name,
            f"a zone's name has a misplaced slash, expected {readers.zone_name.expects}",
            id=f"zone {name}",
        )
        for name in ("/a", "a/", "a/b/c", "/")
    ),
    pytest.param(readers.rule_priority, 0, "priority 0 is out of range, expected 1 to 32767", id="priority 0"),
    pytest.param(readers.rule_priority, -1, "priority -1 is out of range, expected 1 to 32767", id="priority -1"),
    pytest.param(
        readers.rule_priority, 32768, "priority 32768 is out of range, expected 1 to 32767", id="priority 32768"
    ),
    *(
        pytest.param(readers.knock_step, value, f"{said}, {STEP}", id=f"step {value}")
        for value, said in [
            ("", "an empty string is not a step"),
            ("1234", "a string is not a step"),
            ("frap", "a string is not a step"),
            ("tcp:1:s:s", "a string is not a step"),
            (1234, "a number is not a step"),
            (True, "true or false is not a step"),
            (["tcp:1"], "a list is not a step"),
            (":1", "the protocol is unknown"),
            ("1:tcp", "the protocol is unknown"),
            ("TCP:1", "the protocol is unknown"),
            ("sctp:1", "the protocol is unknown"),
            (" tcp:1", "the protocol is unknown"),
        ]
    ),
    *(
        pytest.param(readers.knock_step, f"tcp:1:{flags}", f"{said}, {FLAGS}", id=f"flags {flags}")
        for flags, said in [
            ("", "nothing follows the colon after the port"),
            ("i", "the flag i (any flags) is not allowed here"),
            ("si", "the flag i (any flags) is not allowed here"),
            ("S", "a flag is unknown"),
            ("sz", "a flag is unknown"),
            ("s a", "a flag is unknown"),
            ("sx", "x or n is combined with other flags"),
            ("ns", "x or n is combined with other flags"),
            ("xn", "x or n is combined with other flags"),
        ]
    ),
    pytest.param(readers.knock_step, "tcp:1:sas", "a flag is given twice, expected each once", id="a flag twice"),
    pytest.param(
        readers.knock_step,
        "udp:1:s",
        "a UDP port has flags, expected flags after a TCP port only",
        id="flags of UDP",
    ),
    pytest.param(readers.knock_step, "udp:0", "port 0 is out of range, expected 1 to 65535", id="a step to port 0"),
    pytest.param(
        readers.knock_step, "tcp:65536:s", "port 65536 is out of range, expected 1 to 65535", id="a step to port 65536"
    ),
    pytest.param(
        readers.knock_step,
        "tcp: 1",
        "a string is not a port, expected a whole number from 1 to 65535",
        id="a space within a step",
    ),
    pytest.param(readers.knock_steps, ["udp:1"], "the list has 1 step, expected 2 to 32", id="a lone step"),
    pytest.param(readers.knock_steps, ["udp:1"] * 33, "the list has 33 steps, expected 2 to 32", id="33 steps"),
    pytest.param(
        readers.knock_steps,
        "udp:1 tcp:2",
        f"a string is not a list, expected a list of 2 to 32 steps, each {STEP[9:]}",
        id="a text for steps",
    ),
    pytest.param(
        readers.knock_steps, ["udp:1", 7000], f"position 2: a number is not a step, {STEP}", id="a number among steps"
    ),
    pytest.param(
        readers.sequence_name,
        "main",
        "main is the name of the opening sequence, expected another name",
        id="reserved name",
    ),
    *(
        pytest.param(readers.sequence_name, value, f"{said} is not a sequence's name, {NAME}", id=f"name {value!r:.9}")
        for value, said in [
            ("", "an empty string"),
            ("my door", '"my door"'),
            ("2nd", "a string"),
            ("udp:1234", "a string"),
            ("-a", "a string"),
            ("a" * 33, f'"{"a" * 33}"'),
            ("a\n", "a string"),
            (5, "5"),
        ]
    ),
    pytest.param(readers.shell_command, "", f"an empty string is not a command, {COMMAND}", id="empty command"),
    pytest.param(readers.shell_command, " ", f"a string is not a command, {COMMAND}", id="blank command"),
    pytest.param(readers.shell_command, True, f"true is not a command, {COMMAND}", id="true for a command"),
    pytest.param(
        readers.shell_command,
        "a\nb",
        f"a command has an unprintable character, {COMMAND}",
        id="command of two lines",
    ),
    pytest.param(readers.shell_command, "a" * 4097, f"a command has 4097 characters, {COMMAND}", id="long command"),
    *(
        pytest.param(readers.interface_name, value, f"{said}, {INTERFACE}", id=f"interface {value!r}")
        for value, said in [
            ("", "an empty string is not an interface's name"),
            ("..", "a string is not an interface's name"),
            ("a b", "an interface's name has a character that the kernel forbids"),
            ("a/b", "an interface's name has a character that the kernel forbids"),
            ("eth0:1", "an interface's name has a character that the kernel forbids"),
            ("a\udcff", "an interface's name has a character that the kernel forbids"),
            ("a" * 16, "an interface's name has 16 bytes"),
            ("ä" * 8, "an interface's name has 16 bytes"),
        ]
    ),
    pytest.param(Tables("t"), {}, "the value is a single table, expected [[t]] above each table", id="one table"),
    pytest.param(
        Tables("t"),
        [{}, 5],
        "the value is not a list of tables, expected up to 1024 tables, each under its own [[t]]",
        id="a number for a table",
    ),
    pytest.param(
        Tables("t", 1),
        [{}, {}],
        "there are 2 tables, expected up to 1 tables, each under its own [[t]]",
        id="too many tables",
    ),
]


@pytest.mark.parametrize(("read", "value", "result"), TAKEN)
def test_valid_value_is_accepted(read: Reader, value: object, result: object) -> None:
    assert read(value) == result
    assert type(read(value)) is type(result)


@pytest.mark.parametrize(("read", "value", "message"), REFUSED)
def test_wrong_value_is_refused_with_message(read: Reader, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(value)
    assert str(refused.value) == message
    assert refused.value.where == ""


@pytest.mark.parametrize(
    "text",
    ["1,2,3,4,5", "[1,2,3,4,5]", "1, 2, 3, 4, 5", " [ 1 ,2,  3,4,5 ] ", "00001,2,3,4,5"],
)
def test_sequence_in_text_has_the_forms_of_the_original(text: str) -> None:
    assert readers.sequence.from_text(text) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("1,2,3,4", "the list has 4 ports, expected 5 to 21", id="four ports"),
        pytest.param("", "the list has 0 ports, expected 5 to 21", id="empty"),
        pytest.param("[]", "the list has 0 ports, expected 5 to 21", id="empty brackets"),
        pytest.param("1,2,ssh,4,5", 'position 3: "ssh" is not a port, ', id="a word"),
        pytest.param("1,2,3,4,5,", "position 6: an empty string is not a port, ", id="a comma at the end"),
        pytest.param("0,2,3,4,5", "position 1: port 0 is out of range, expected 1 to 65535", id="port 0"),
        pytest.param("1,2,3,4,65536", "position 5: port 65536 is out of range, ", id="port 65536"),
        pytest.param("1,2,3,4,-5", "position 5: port -5 is out of range, ", id="a negative port"),
        pytest.param("[1,2,3,4,5", "position 1: a string is not a port, ", id="a lone bracket"),
        pytest.param("7001;7002;7003", "position 1: a string is not a port, ", id="a wrong separator is not quoted"),
        pytest.param("7001 7002 7003", "position 1: a string is not a port, ", id="spaces alone are not quoted"),
        pytest.param(
            "70017002,1,2,3,4", "position 1: a number of more than five digits is out", id="a comma forgotten"
        ),
        pytest.param("1,2,3,4,1_0", "position 5: a string is not a port, ", id="Python's own digits"),
        pytest.param("1,2,3,4,٣", "position 5: a string is not a port, ", id="digits of another script"),
        pytest.param("1,2,3,4,5/udp", "position 5: a string is not a port, ", id="a protocol"),
    ],
)
def test_wrong_sequence_in_text_is_refused_with_message(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        readers.sequence_option.from_text(text)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("text", ["22,1194/udp", "[22, 1194/udp]", " 22/tcp , 1194/UDP"])
def test_guarded_ports_in_text_are_accepted(text: str) -> None:
    assert readers.guarded_ports.from_text(text) == (Port(22), Port(1194, Protocol.UDP))


def complaint(read: Callable[[Any], object], value: object) -> str:
    """The error of a value; empty if it is accepted."""
    try:
        read(value)
    except ConfigError as wrong:
        return str(wrong)
    return ""


@pytest.mark.parametrize("reader", [readers.sequence, readers.guarded_ports], ids=["sequence", "guarded ports"])
@given(text=st.text())
def test_any_list_in_text_is_accepted_or_refused_in_one_line(reader: ListReader[Any], text: str) -> None:
    assert complaint(reader.from_text, text).isprintable()


@given(
    st.lists(st.integers(10000, 65535), min_size=1, max_size=25),
    st.sampled_from([",", ";", " ", ":", "-", "", "/", "\n", ",,", ", x, "]),
    st.sampled_from(["", "[", "x", '"']),
)
def test_message_about_a_sequence_in_text_shows_no_port(ports: list[int], separator: str, before: str) -> None:
    said = complaint(readers.sequence.from_text, before + separator.join(map(str, ports))).replace("65535", "")
    assert not any(str(port) in said for port in ports)


STEPS = st.builds(udp, st.integers(1, 65535)) | st.builds(tcp, st.integers(1, 65535), st.integers(0, ALL_FLAGS))


@pytest.mark.parametrize("bare", [Flags.SYN, 0])
@given(step=STEPS)
def test_spelled_step_reads_as_the_step(bare: int, step: Step) -> None:
    read = readers.KnockStep(bare)
    assert read(read.spell(step)) == step


def test_step_is_spelled_in_the_shortest_form() -> None:
    spelt = {"udp:1": udp(1), "tcp:1": tcp(1), "tcp:1:n": tcp(1, 0), "tcp:1:x": tcp(1, 63), "tcp:1:sa": tcp(1, 18)}
    assert {text: readers.knock_step.spell(step) for text, step in spelt.items()} == {text: text for text in spelt}


SECRET = "tcp:28463:frap"
MISTAKES = st.sampled_from([*":,; sxni-/[]SUT", "udp", "tcp", "::"])


@given(st.lists(st.sampled_from(list(SECRET)) | MISTAKES | st.text(max_size=2)).map("".join) | st.text())
def test_any_step_is_accepted_or_refused_in_one_line(text: str) -> None:
    assert complaint(readers.knock_step, text).isprintable()


@given(st.integers(0, len(SECRET)), st.integers(0, 3), MISTAKES)
def test_message_about_a_wrong_step_shows_neither_port_nor_flags(at: int, lost: int, put: str) -> None:
    said = complaint(readers.knock_steps, ["udp:17321", SECRET[:at] + put + SECRET[at + lost :], 30611])
    assert said
    assert not any(part in said for part in ("17321", "28463", "frap", "30611"))
