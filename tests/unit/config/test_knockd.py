"""knockd's file: every directive and its meaning, every mistake and its message. tests/peers compares with the real
program."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.config import knockd
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import ALL_FLAGS, Access, CommandOpening, Dialect, Flags, Protocol, Scope, Sequence, Step

SYN, ACK, FIN = Flags.SYN, Flags.ACK, Flags.FIN
NOT_SENT = "no ordinary client sends TCP packets"
STEPS = "Sequence = 26173,23817:udp,21951"


def tcp(port: int, flags: int = 0, mask: int = 0) -> Step:
    return Step(Protocol.TCP, port, flags, mask)


def udp(port: int) -> Step:
    return Step(Protocol.UDP, port)


def door(*lines: str) -> Sequence:
    (one,) = knockd.parse("\n".join(["[d]", *lines]), "F").sequences
    return one


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as wrong:
        knockd.parse(text, "F")
    assert not any(port in str(wrong.value) for port in ("26173", "23817", "21951"))
    return str(wrong.value)


def test_every_directive_is_read() -> None:
    text = """\
# knockd.conf = [x]
[options]
  UseSyslog
  LogFile = /var/log/knockd.log
  PidFile = /run/knockd.pid
  Interface = ppp0

[open SSH]
  Sequence        = 26173, 23817 : UDP ,21951:tcp
  Seq_Timeout     = 15
  TCPFlags        = syn,!ack
  Target          = 192.0.2.9
  Start_Command   = iptables -A INPUT -s %IP% -j ACCEPT # in = here
  Start_Command_6 = ip6tables -A INPUT -s %IP% -j ACCEPT
  Cmd_Timeout     = 5
  Stop_Command    = iptables -D INPUT -s %IP% -j ACCEPT
  Stop_Command_6  =
[once]
  One_Time_Sequences = /etc/knockd/once
  TCPFlags = fin
"""
    assert knockd.parse(text, "F") == knockd.KnockdFile(
        knockd.Options(True, "/var/log/knockd.log", "/run/knockd.pid", "ppp0"),
        (
            Sequence(
                "open SSH",
                (tcp(26173, SYN, SYN | ACK), udp(23817), tcp(21951, SYN, SYN | ACK)),
                timeout=15,
                access=Access.of(
                    "open SSH",
                    command=CommandOpening(
                        "iptables -A INPUT -s %IP% -j ACCEPT # in = here",
                        "iptables -D INPUT -s %IP% -j ACCEPT",
                        5,
                        "ip6tables -A INPUT -s %IP% -j ACCEPT",
                        "",
                    ),
                ),
                dialect=Dialect.KNOCKD,
                group="F",
                flags=(SYN | ACK, SYN),
                scope=Scope(ip_address("192.0.2.9"), ("ppp0",)),
            ),
            Sequence(
                "once",
                (),
                Access("once"),
                timeout=25,
                dialect=Dialect.KNOCKD,
                group="F",
                scope=Scope(None, ("ppp0",)),
                one_time="/etc/knockd/once",
                flags=(FIN, FIN),
            ),
        ),
        (8, 18),
        (f"F:20: TCPFlags: {NOT_SENT} with FIN: `knock` will not open this door; expected TCPFlags = syn",),
    )


def test_door_defaults() -> None:
    one = door(STEPS, "Command = a", "Stop_Command = b")
    assert one == Sequence(
        "d",
        (tcp(26173), udp(23817), tcp(21951)),
        timeout=25,
        access=Access.of("d", command=CommandOpening("a", "b", 10)),
        dialect=Dialect.KNOCKD,
        group="F",
    )
    assert knockd.parse("[d]\nSequence = 1", "F").options == knockd.Options()
    assert knockd.parse("", "F").sequences == ()


@pytest.mark.parametrize(
    ("lines", "flags", "mask"),
    [
        pytest.param([], 0, 0, id="none"),
        pytest.param(["TCPFlags = SYN"], SYN, SYN, id="one"),
        pytest.param(["tcpflags = fin,!Ack"], FIN, FIN | ACK, id="one set, one clear"),
        pytest.param(["TCPFlags = !syn"], 0, SYN, id="one clear"),
        pytest.param(["TCPFlags = fin,syn,rst,psh,ack,urg"], ALL_FLAGS, ALL_FLAGS, id="all"),
        pytest.param(["TCPFlags = syn,!syn"], 0, SYN, id="the last word counts"),
        pytest.param(["TCPFlags = !syn,syn"], SYN, SYN, id="the last word counts the other way"),
        pytest.param(["TCPFlags = syn", "TCPFlags = !ack"], SYN, SYN | ACK, id="two lines add up"),
    ],
)
@pytest.mark.parametrize("after", [False, True], ids=["before the sequence", "after it"])
def test_flags_of_tcp_steps(lines: list[str], flags: int, mask: int, after: bool) -> None:
    one = door(*([STEPS, *lines] if after else [*lines, STEPS]))
    assert one.steps == (tcp(26173, flags, mask), udp(23817), tcp(21951, flags, mask))
    assert one.flags == (mask, flags)


@pytest.mark.parametrize(
    ("lines", "v4", "v6"),
    [
        pytest.param([], ("", ""), ("", ""), id="none"),
        pytest.param(["Command ="], ("", ""), ("", ""), id="an empty one"),
        pytest.param(["Command = a"], ("a", ""), ("a", ""), id="one for both"),
        pytest.param(["Command = a", "Start_Command = b"], ("b", ""), ("b", ""), id="the last one counts"),
        pytest.param(["Stop_Command = z"], ("", ""), ("", ""), id="a stop alone"),
        pytest.param(["Command = a", "Command_6 ="], ("a", ""), ("", ""), id="nothing for IPv6"),
        pytest.param(["Command = a", "Command_6 =", "Stop_Command = z"], ("a", "z"), ("", ""), id="no stop either"),
        pytest.param(["Command_6 = s", "Stop_Command = z"], ("", ""), ("s", "z"), id="IPv6 alone"),
        pytest.param(["Command_6 = s", "Stop_Command_6 = y"], ("", ""), ("s", "y"), id="IPv6 alone, both"),
        pytest.param(
            ["Command = a", "Stop_Command = z", "Stop_Command_6 ="], ("a", "z"), ("a", ""), id="no stop for 6"
        ),
        pytest.param(["Command = a", "Stop_Command_6 = y"], ("a", ""), ("a", "y"), id="a stop for 6 alone"),
    ],
)
def test_commands_for_each_address_family(lines: list[str], v4: tuple[str, str], v6: tuple[str, str]) -> None:
    command = door(STEPS, *lines).access.command
    for address, expected in ((ip_address("192.0.2.1"), v4), (ip_address("2001:db8::1"), v6)):
        said = (command.start_for(address), command.stop_for(address)) if command else ("", "")
        assert said == expected


def test_odd_and_repeated_names_are_separate_doors() -> None:
    text = "[Options]\nSequence=1\n[ x ]\nSequence=2\n[a=b]\nsequence=3\n[x]\nSequence=1\nSequence=5\n[x]\nSequence=1"
    found = knockd.parse(text, "F").sequences
    assert [one.name for one in found] == ["Options", " x ", "a=b", "x", "x"]
    assert [one.steps[0].port for one in found] == [1, 2, 3, 5, 1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \t\n"])
def test_blanks_and_line_ends_are_ignored(end: str) -> None:
    lines = ["  [d]  ", "\tSEQUENCE\t =\t7 , 9 : udp\t", "  # x", "\x0bTimeout=3\x0c"]
    (one,) = knockd.parse(end.join(lines), "F").sequences
    assert (one.steps, one.timeout) == ((tcp(7), udp(9)), 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("Sequence = 1", "F:1: no section precedes this line, expected [options] or ", id="no section"),
        pytest.param("\n[]", "F:2: a section has no name, expected ", id="no name"),
        pytest.param("[d", "F:1: no section precedes this line", id="no closing bracket"),
        pytest.param(
            "[d]\n[e]\nSequence = 1", "F:1: the door has no sequence, expected Sequence or One_", id="no steps"
        ),
        pytest.param(
            f"[d]\n{STEPS}\nSeqTimeout = 5", 'F:3: "SeqTimeout" is unknown, the nearest directive is ', id="key"
        ),
        pytest.param(
            "[d]\n26173,23817",
            "F:2: a string is unknown, expected a directive of knockd(1)",
            id="a key that is a secret",
        ),
        pytest.param("[d]\nSequence", "F:2: Sequence has no value, expected Sequence = VALUE", id="no value"),
        pytest.param("[options]\nusesyslog = 1", "F:2: UseSyslog has a value, expected UseSyslog alone", id="a value"),
        pytest.param("[d]\nlogfile = x", "F:2: LogFile: wrong section, expected below [o", id="here"),
        pytest.param("[options]\ncommand=x", "F:2: Command: wrong section, expected below a", id="in"),
        pytest.param(
            "[d]\nSequence = 26173,0",
            "F:2: Sequence: position 2: port 0 is out of range, expected 1 to 65535",
            id="port 0",
        ),
        pytest.param(
            "[d]\nSequence = 26173,-23817",
            "F:2: Sequence: position 2: the value is not a port, expected a whole number from 1 to 65535",
            id="negative",
        ),
        pytest.param("[d]\nSequence = 26173 23817", "F:2: Sequence: position 1: the value is not a po", id="blank"),
        pytest.param("[d]\nSequence = ssh", 'F:2: Sequence: position 1: "ssh" is not a port, expected', id="a word"),
        pytest.param(
            "[d]\nSequence = 1,", "F:2: Sequence: position 2: an empty string is not a port, expected ", id="nothing"
        ),
        pytest.param(
            "[d]\nSequence = 26173:icmp",
            "F:2: Sequence: position 1: the protocol is unknown, expected tcp or udp after the colon",
            id="protocol",
        ),
        pytest.param("[d]\nSequence = 26173:", "F:2: Sequence: position 1: the protocol is unknown", id="no protocol"),
        pytest.param("[d]\nSequence = 26173:tcp:udp", "F:2: Sequence: position 1: extra text follows the", id="more"),
        pytest.param(
            f"[d]\nSequence = {','.join(['26173'] * 33)}",
            "F:2: Sequence: the list has 33 steps, expected 1 to 32",
            id="long",
        ),
        pytest.param(
            f"[d]\n{STEPS}\nTCPFlags = syn, ack",
            "F:3: TCPFlags: position 2: a string is not a flag, expected fin, syn, rst, psh, ack, urg, each with a !",
            id="a blank between flags",
        ),
        pytest.param(f"[d]\n{STEPS}\nTCPFlags = ece", 'F:3: TCPFlags: position 1: "ece" is not a flag', id="no flag"),
        pytest.param(
            f"[d]\n{STEPS}\nSeq_Timeout = 0",
            "F:3: Seq_Timeout: number of seconds 0 is out of range, expected 1 to 2147483647",
            id="no time",
        ),
        pytest.param(
            f"[d]\n{STEPS}\nCmd_Timeout = 5 s",
            "F:3: Cmd_Timeout: the value is not a number of seconds, expected a whole number from 0 to ",
            id="a unit",
        ),
        pytest.param(f"[d]\n{STEPS}\nTarget = fe80::1%eth0", "F:3: Target: a string is not an address", id="a zone"),
        pytest.param(f"[d]\n{STEPS}\nTarget =", "F:3: Target: an empty string is not an address", id="no target"),
        pytest.param("[options]\nInterface = /dev/eth0", "F:2: Interface: an interface's name has a char", id="device"),
        pytest.param("[d]\nOne_Time_Sequences =", "F:2: One_Time_Sequences: no file is named, expected ", id="no file"),
        pytest.param(
            f"[d]\nOne_Time_Sequences = x\n{STEPS}", "F:3: Sequence: the door has One_Time_Sequences already", id="both"
        ),
        pytest.param(
            f"[d]\n{STEPS}\nCommand = a\0b", "F:3: the line has a control character or is not UTF-8, e", id="zero byte"
        ),
        pytest.param("[d\u2028]\n", "F:1: the line has a control character", id="a line end in a name"),
        *(
            pytest.param(text, "F:1: the line has a control character that turns", id=f"{ord(mark):x} {where}")
            for mark in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
            for where, text in (("in a name", f"[d{mark}]"), ("in a value", f"Command = {mark}a"))
        ),
        pytest.param("[d]\n#" + "x" * 4095, "F:2: the line has 4096 bytes, expected at most 4095", id="a long line"),
        pytest.param(f"[{'ä' * 128}]", "F:1: a door's name has 256 bytes, expected at most 254", id="a long name"),
        pytest.param("\ufeff[d]", "F:1: the file begins with a byte order mark", id="a byte order mark"),
    ],
)
def test_wrong_file_is_refused_with_message(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


def test_longest_line_and_name_are_accepted() -> None:
    command = "x" * (4095 - len("Command="))
    assert door("#" * 4095, "Sequence=1", f"Command={command}").access.command == CommandOpening(command, "", 10)
    assert knockd.parse(f"[{'ä' * 127}]\nSequence=1", "F").sequences[0].name == "ä" * 127


def test_one_time_sequences_override_a_sequence_above() -> None:
    one = door(STEPS, "One_Time_Sequences = once")
    assert (one.steps, one.one_time) == ((), "once")


@given(st.text("[]=,:#! \t\r\n\v\0abcdefgilmnopqstuxy_SUT0123456789é-", max_size=200) | st.text(max_size=60))
def test_any_text_is_accepted_or_refused_in_one_line(text: str) -> None:
    for whole in (text, f"[d]\n{text}", f"[d]\nSequence={text}"):
        try:
            knockd.parse(whole, "F")
        except ConfigError as wrong:
            said = str(wrong)
        else:
            continue
        assert said.startswith("F:")
        assert said.isprintable() or "\xa0" in said
    knockd.one_time_steps(text, (0, 0))


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        (" 26173,23817:udp\n", (tcp(26173, SYN, SYN | ACK), udp(23817))),
        ("\t7 : TCP\r\n", (tcp(7, SYN, SYN | ACK),)),
        ("", None),
        ("  # 7,8", None),
        ("#7,8", None),
        ("7,eight", None),
        ("7,0", None),
        ("7:icmp", None),
        ("7,8\n9,10", None),
        ("7" + ",8" * 32, None),
    ],
)
def test_line_of_one_time_sequences(line: str, steps: tuple[Step, ...] | None) -> None:
    assert knockd.one_time_steps(line, (SYN | ACK, SYN)) == steps
