"""Mistakes in knockd's file: what each is called, in which line, and what is accepted all the same."""

import pytest

from port_knocking_doors.config import knockd
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Protocol, Step

STEPS = "Sequence = 26173,23817:udp,21951"
ACCEPT = "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT"

REFUSED = {
    # lines below [d], the line and the message
    "a comment behind a protocol": (
        ["Sequence = 26173:udp # secret"],
        "F:2: Sequence: a comment needs a line of its own, expected the value alone",
    ),
    "a comment between ports": (["Sequence = 26173 # a,21951"], "F:2: Sequence: a comment needs a line of its own"),
    "a comment with a comma": (["Sequence = 26173 # a, b"], "F:2: Sequence: a comment needs a line of its own"),
    "a comment behind flags": ([STEPS, "TCPFlags = syn # only"], "F:3: TCPFlags: a comment needs a line of its own"),
    "a comment behind a target": ([STEPS, "Target = 192.0.2.1 # me"], "F:3: Target: a comment needs a line of its own"),
    "a comment behind a time with a unit": (
        [STEPS, "Seq_Timeout = 5s # x"],
        "F:3: Seq_Timeout: a comment needs a line",
    ),
    "a comment behind a name": ([STEPS, "[e] # mine"], "F:3: a comment needs a line of its own, expected [NAME] alone"),
    "another program's comment behind a time": (
        [STEPS, "Seq_Timeout = 5 ; seconds"],
        "F:3: Seq_Timeout: a comment needs a line of its own, expected the value alone",
    ),
    "a blank of a web page": (["Sequence\u00a0= 26173"], "F:2: the line has a blank that is no space, expected plain"),
    "a mark ahead of another name": (["\ufeff[e]"], "F:2: the line has a blank that is no space, expected plain"),
    "a continued line": (
        [STEPS, "Command = nft add rule inet filter input \\", "ip saddr %IP% tcp dport 22 accept"],
        "F:4: this continues line 3, which ends in a backslash, and knockd has no continued lines, expected the whole",
    ),
    "a value that goes on in the next line": (
        ["Sequence = 26173,\\", "21951"],
        "F:2: Sequence: the value ends in a backslash, and knockd has no continued lines, expected the whole value in",
    ),
    "another program's comment": (
        ["; " + STEPS],
        "F:2: this begins no comment of knockd, expected # ahead of a comment",
    ),
    "a colon for =": (["Sequence: 26173"], "F:2: no = follows the directive, expected Sequence = VALUE"),
    "no =": (["Sequence 26173,21951"], "F:2: no = follows the directive, expected Sequence = VALUE"),
    "blanks between ports": (
        ["Sequence = 23817,26173 21951"],
        "F:2: Sequence: position 2: the value is not a port, expected commas between ports",
    ),
    "semicolons between ports": (
        ["Sequence = 26173; 21951"],
        "F:2: Sequence: position 1: the value is not a port, expected commas between ports",
    ),
    "an option of OpenWrt": (
        ["option sequence '26173,21951'"],
        "F:2: this is OpenWrt's UCI format, expected that of knockd itself: [NAME], and below it lines KEY = VALUE",
    ),
    "a key of a fork": (
        [STEPS, "seq_cooldown = 5"],
        "F:3: seq_cooldown is a directive of the fork Metalcape/knock, which this program does not have, expected",
    ),
    "a protocol ahead of its port": (
        ["Sequence = 26173,udp:23817"],
        "F:2: Sequence: position 2: the protocol is ahead of the port, expected PORT:udp",
    ),
    "a slash ahead of the protocol": (
        ["Sequence = 26173/UDP"],
        "F:2: Sequence: position 1: a slash is ahead of the protocol, expected a colon: PORT:udp",
    ),
}


@pytest.mark.parametrize(("lines", "message"), REFUSED.values(), ids=REFUSED)
def test_mistake_below_a_name_is_named_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        knockd.parse("\n".join(["[d]", *lines]), "F")
    assert str(wrong.value).startswith(message)
    assert not any(port in str(wrong.value) for port in ("26173", "23817", "21951"))


WHOLE_FILES = {
    "a byte order mark": (
        "\ufeff[options]",
        "F:1: the file begins with a byte order mark, which knockd does not accept",
    ),
    "OpenWrt's file": ("\nconfig options 'common'\n\toption interface eth0\n", "F:2: this is OpenWrt's UCI format"),
    "a comment behind [options]": ("[options] # global", "F:1: a comment needs a line of its own, expected [NAME]"),
    "a comment behind UseSyslog": (
        "[options]\nusesyslog # yes",
        "F:2: a comment needs a line of its own, expected UseSy",
    ),
    "a word behind UseSyslog": ("[options]\nUseSyslog yes", "F:2: expected UseSyslog alone"),
    "quotes round an interface": (
        '[options]\nInterface = "eth0"',
        "F:2: Interface: the quotes are a part of the value, expected the name without quotes",
    ),
    "typographic quotes round an interface": (
        "[options]\nInterface = \u201ceth0\u201d",
        "F:2: Interface: the quotes are a part of the value, expected the name without quotes",
    ),
    "a comment behind an interface": ("[options]\nInterface = eth0 # lan", "F:2: Interface: a comment needs a line"),
}


@pytest.mark.parametrize(("text", "message"), WHOLE_FILES.values(), ids=WHOLE_FILES)
def test_mistake_of_a_file_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        knockd.parse(text, "F")
    assert str(wrong.value).startswith(message)


def test_comment_behind_a_number_is_accepted_as_by_knockd() -> None:
    lines = [
        "[d]",
        "Sequence = 7,8:udp,9 # secret",
        "Seq_Timeout = 5 # s",
        "Cmd_Timeout = 7#x",
        "Command = a",
        "Stop_Command = b",
    ]
    found = knockd.parse("\n".join(lines), "F")
    (one,) = found.sequences
    assert one.steps == (Step(Protocol.TCP, 7, 0, 0), Step(Protocol.UDP, 8), Step(Protocol.TCP, 9, 0, 0))
    assert one.timeout == 5
    assert one.access.command
    assert one.access.command.delay == 7
    assert found.warnings == ()
    assert knockd.one_time_steps("7,8 # next", (0, 0)) == (Step(Protocol.TCP, 7, 0, 0), Step(Protocol.TCP, 8, 0, 0))


def test_backslash_ahead_of_a_directive_continues_nothing() -> None:
    found = knockd.parse("\n".join(["[d]", STEPS, "Command = a \\", "", "# x", "TCPFlags = syn"]), "F")
    assert found.sequences[0].access.command


WARNED = {
    # lines below [d], the warnings
    "a usual door": ([STEPS, "TCPFlags = syn", f"Command = {ACCEPT}"], []),
    "no flags": ([STEPS, f"Command = {ACCEPT}"], []),
    "SYN without ACK": ([STEPS, "TCPFlags = syn,!ack"], []),
    "SYN and ACK": (
        ["TCPFlags = syn,ack", STEPS],
        ["F:2: TCPFlags: no ordinary client sends TCP packets with SYN ACK: `knock` will not open this door; "],
    ),
    "no SYN": (
        [STEPS, "TCPFlags = !syn"],
        ["F:3: TCPFlags: no ordinary client sends TCP packets without SYN: `knock`"],
    ),
    "FIN": ([STEPS, "TCPFlags = fin"], ["F:3: TCPFlags: no ordinary client sends TCP packets with FIN: `knock` will"]),
    "flags of a door without TCP": (["Sequence = 7:udp,8:udp", "TCPFlags = syn,ack"], []),
    "an en dash": (
        [STEPS, f"Command = {ACCEPT.replace('--dport', chr(0x2013) + 'dport')}"],
        ["F:3: Command: the command has a dash (\u2013) that is no hyphen, so it begins no option; write -"],
    ),
    "a minus sign": (
        [STEPS, "Stop_Command = iptables \u2212D INPUT 1"],
        ["F:3: Stop_Command: the command has a dash (\u2212) that is no hyphen"],
    ),
    "typographic quotes": (
        [STEPS, "Start_Command = logger \u201copened\u201d"],
        ["F:3: Start_Command: the command has a typographic quote (\u201c), which quotes nothing; write ' or \""],
    ),
    "quotes round a command": (
        [STEPS, f'Command = "{ACCEPT}"'],
        ["F:3: Command: the quotes make the whole line the name of a program, so nothing runs; write the command"],
    ),
    "quotes within a command": ([STEPS, "Command = logger 'a b' \"c d\""], []),
    "a no-break space": (
        [STEPS, "Start_Command = logger\u00a0opened"],
        ["F:3: Start_Command: the command has a blank that is no space, and that separates no words; write a space"],
    ),
    "a port without a protocol": (
        [STEPS, "Command = /sbin/iptables -A INPUT -s %IP% --dport 22 -j ACCEPT"],
        ["F:3: Command: iptables refuses --dport without -p tcp or -p udp ahead of it, so the command does nothing"],
    ),
    "a port without a protocol in a list": (
        [STEPS, "Stop_Command_6 = logger x; sudo ip6tables -D INPUT --destination-port=22 -j ACCEPT"],
        ["F:3: Stop_Command_6: iptables refuses --dport without -p tcp"],
    ),
    "a port ahead of its protocol": (
        [STEPS, "Command = iptables -A INPUT --dport 22 -p tcp -j ACCEPT"],
        ["F:3: Command: iptables refuses --dport without -p tcp or -p udp ahead of it, so the command does nothing"],
    ),
    "a port behind its match": ([STEPS, "Command = iptables -A INPUT -m tcp --dport 22 -p tcp -j ACCEPT"], []),
    "a port without a protocol in a shell's line": (
        [STEPS, "Command = sh -c 'iptables \u2013A INPUT --dport 22 -j ACCEPT'"],
        ["F:3: Command: iptables refuses --dport without -p tcp", "F:3: Command: the command has a dash"],
    ),
    "a long protocol": ([STEPS, "Command = iptables -A INPUT --protocol=tcp -s %IP% --dport 22 -j ACCEPT"], []),
    "another program's port": ([STEPS, "Command = myfirewall --dport 22"], []),
    "a comment within a path": (
        ["One_Time_Sequences = /etc/once # the list"],
        ["F:2: One_Time_Sequences: the comment is a part of the value; a comment needs a line of its own"],
    ),
}


@pytest.mark.parametrize(("lines", "warnings"), WARNED.values(), ids=WARNED)
def test_value_that_knockd_accepts_has_a_warning(lines: list[str], warnings: list[str]) -> None:
    found = knockd.parse("\n".join(["[d]", *lines]), "F").warnings
    assert len(found) == len(warnings)
    for warning, expected in zip(found, warnings, strict=True):
        assert warning.startswith(expected)


def test_comment_behind_the_path_of_the_log_has_a_warning() -> None:
    found = knockd.parse("[options]\nLogFile = /var/log/knockd.log # here\n[d]\nSequence = 7", "F")
    assert found.warnings == ("F:2: LogFile: the comment is a part of the value; a comment needs a line of its own",)
    assert found.options.log_file == "/var/log/knockd.log # here", "as knockd has it"
