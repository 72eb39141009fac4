"""tportknockd's file: the examples of its page, its grammar, and every mistake and its message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.config import tportknockd
from port_knocking_doors.config.describe import in_words
from port_knocking_doors.model import ALL_FLAGS, Access, CommandOpening, Dialect, Flags, Protocol, Scope, Sequence, Step

F, S, R, P, A, U = Flags.FIN, Flags.SYN, Flags.RST, Flags.PSH, Flags.ACK, Flags.URG


def udp(port: int) -> Step:
    return Step(Protocol.UDP, port)


def tcp(port: int, flags: int = 0) -> Step:
    return Step(Protocol.TCP, port, flags)


def tcp_any(port: int) -> Step:
    return Step(Protocol.TCP, port, 0, mask=0)


def sequences(text: str) -> tuple[Sequence, ...]:
    """The sequences of a valid text."""
    found, errors = tportknockd.read(text, "F")
    assert [str(error) for error in errors] == []
    return found


def errors(text: str) -> list[str]:
    return [str(error) for error in tportknockd.read(text, "F")[1]]


def block(*lines: str, name: str = "A", **changed: str | None) -> str:
    """A valid block but for the changes: a key's value, or None for no such line."""
    usual = {"sequence": "tcp:7001:x udp:7003", "timeout": "10", "start_command": "true"}
    entries = [f"{key} = {value}" for key, value in {**usual, **changed}.items() if value is not None]
    return "\n".join([f"<{name}>", *entries, *lines, f"</{name}>"]) + "\n"


def only(text: str) -> Sequence:
    (sequence,) = sequences(text)
    return sequence


def command(line: str) -> str:
    """The command that a line `start_command = …` gives."""
    made = only(block(start_command=line)).access.command
    assert made is not None
    return made.start


# --- the page's examples

IPTABLES = "/usr/sbin/iptables -{} INPUT -s %IP% -p tcp --dport 22 -j ACCEPT"
PAGE = """\
<SSH>
 sequence      = udp:1234 tcp:543 tcp:543:i tcp:123:frap tcp:434:x tcp:2345:n
 timeout       = 10
 start_command = /usr/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
 stop_command  = /usr/sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
 command_delay = 30
</SSH>

<OpenVPN>
 sequence      = tcp:12430:a tcp:2711:i tcp:123:i tcp:8375:n tcp:1155:n
 timeout       = 10
 start_command = /bin/openvpn --remote %IP% --config /opt/openvpn/client.conf
</OpenVPN>

<SSH2>
 sequence      = tcp:110:x tcp:110:up tcp:110:up tcp:110:n tcp:110:i
 timeout       = 10
 start_command = /usr/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
 stop_command  = /usr/sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
 command_delay = 30
</SSH2>
"""
ON_THE_PAGE = {
    "SSH": (
        (udp(1234), tcp(543), tcp_any(543), tcp(123, F | R | A | P), tcp(434, ALL_FLAGS), tcp(2345)),
        CommandOpening(IPTABLES.format("A"), IPTABLES.format("D"), 30.0),
    ),
    "OpenVPN": (
        (tcp(12430, A), tcp_any(2711), tcp_any(123), tcp(8375), tcp(1155)),
        CommandOpening("/bin/openvpn --remote %IP% --config /opt/openvpn/client.conf"),
    ),
    "SSH2": (
        (tcp(110, ALL_FLAGS), tcp(110, U | P), tcp(110, U | P), tcp(110), tcp_any(110)),
        CommandOpening(IPTABLES.format("A"), IPTABLES.format("D"), 30.0),
    ),
}


def test_examples_of_the_page_are_read() -> None:
    assert sequences(PAGE) == tuple(
        Sequence(
            name, steps, timeout=10.0, access=Access.of(name, command=made), dialect=Dialect.TPORTKNOCKD, group="F"
        )
        for name, (steps, made) in ON_THE_PAGE.items()
    )


@pytest.mark.parametrize("name", ON_THE_PAGE)
def test_each_example_alone_is_read(name: str) -> None:
    begin = PAGE.index(f"<{name}>")
    found = only(PAGE[begin : PAGE.index(f"</{name}>") + len(name) + 3])
    assert (found.name, found.steps, found.access.command) == (name, *ON_THE_PAGE[name])
    assert (found.access.ports, found.traps, found.listened, found.scope) == ((), 0, False, Scope())


GRAMMAR = """\
 <EVENT_NAME>                    # Definition des knock event namens "EVENT_NAME"
   sequence = tcp:110:up         # port knocking Sequenz
   timeout  = 15                 # timeout der knock Sequenz
   start_command = true %IP%     # Kommando das nach der richtigen Sequenz ausgeführt wird
   stop_command  = false %IP%    # (optional) ein zweites Kommando mit einer kurzen Verzögerung
   command_delay = 7             # (optional) Verzögerung für das zweite Kommando
 </EVENT_NAME>                   # Ende des events "EVENT_NAME"
"""


@pytest.mark.parametrize("text", [GRAMMAR, GRAMMAR.replace("\n", "\r\n"), GRAMMAR.replace("  ", "\t")])
def test_grammar_of_the_page_is_read_with_its_comments(text: str) -> None:
    found = only(text)
    assert (found.name, found.steps, found.timeout) == ("EVENT_NAME", (tcp(110, U | P),), 15.0)
    assert found.access.command == CommandOpening("true %IP%", "false %IP%", 7.0)


# --- accepted

FRAMES = {
    "udp:1": udp(1),
    "udp:65535": udp(65535),
    "tcp:80": tcp(80),
    "tcp:80:": tcp(80),
    "tcp:80:n": tcp(80),
    "tcp:80:x": tcp(80, ALL_FLAGS),
    "tcp:80:fsrpau": tcp(80, ALL_FLAGS),
    "tcp:80:i": tcp_any(80),
    **{f"tcp:80:{letter}": tcp(80, flag) for letter, flag in zip("fsrpau", (F, S, R, P, A, U), strict=True)},
}


@pytest.mark.parametrize(("frame", "step"), FRAMES.items())
def test_frame_is_read_as_step(frame: str, step: Step) -> None:
    assert only(block(sequence=frame)).steps == (step,)


def test_every_combination_of_flags_is_read() -> None:
    letters = ["".join(letter for bit, letter in enumerate("fsrpau") if flags >> bit & 1) for flags in range(64)]
    found = only(block(sequence="  ".join(f"tcp:110:{some}" for some in letters)))
    assert found.steps == tuple(tcp(110, flags) for flags in range(64))


COMMANDS = {
    "echo one # two": "echo one",
    "echo one\t#two": "echo one",
    "echo one#two": "echo one#two",
    "grep '# one' f": "grep '# one' f",
    'grep "# \\" # one" f # two': 'grep "# \\" # one" f',
    "echo \\ # one": "echo \\ # one",
    "echo \\' # it's one": "echo \\'",
    "echo it's # one": "echo it's",
    "echo a=b == c": "echo a=b == c",
    "echo ${x#y} $#": "echo ${x#y} $#",
    "echo <one> </A>": "echo <one> </A>",
}


@pytest.mark.parametrize(("line", "left"), COMMANDS.items())
def test_command_ends_where_a_shell_begins_a_comment(line: str, left: str) -> None:
    assert command(line) == left


def test_comments_and_blanks_are_accepted_anywhere() -> None:
    found = only(
        "\n# all about it\n  #sequence = nonsense\n\n< A.b-1_c >\nsequence=udp:7#seven\ntimeout=0.5\n"
        "start_command=true\nstop_command=false\n</ A.b-1_c >#"
    )
    assert (found.name, found.steps, found.timeout) == ("A.b-1_c", (udp(7),), 0.5)
    assert found.access.command == CommandOpening("true", "false", 30.0)


def test_delay_of_zero_is_accepted() -> None:
    found = only(block("stop_command = false", "command_delay = 0"))
    assert found.access.command == CommandOpening("true", "false", 0.0)


# --- refused

NAME = "expected a word of at most 32 letters, digits, -, . and _, a letter first"
STEP = "expected udp:PORT, tcp:PORT or tcp:PORT:FLAGS in small letters"
FLAGS = "expected letters of f s r p a u, or x (all), n (none) or i (any) alone"
PORT = "expected a whole number from 1 to 65535"
KEYS = "expected one of sequence, timeout, start_command, stop_command, command_delay"
SECONDS = "expected a number of seconds from 0.1 to 2147483647"
LINE = "expected a line of 1 to 4096 characters for a shell"
FEW = "expected frames with spaces between them, such as tcp:PORT:FLAGS or udp:PORT"
NO_LINE = "the line is neither a key nor a tag, expected KEY = VALUE, <NAME> or </NAME>"
NO_TAG = "the tag is incomplete, expected <NAME> or </NAME>"

WRONG = {
    # blocks
    "an empty file": ("", ["F:1: the file has no block, expected <NAME> … </NAME>"]),
    "only comments": ("# one\n\n", ["F:1: the file has no block, expected <NAME> … </NAME>"]),
    "unclosed": (block().replace("</A>", ""), ["F:1: block A of line 1 has no end, expected </A>"]),
    "unopened": ("</A>\n", ["F:1: a block ends and none is open, expected <NAME> before it"]),
    "closed twice": (block() + "</A>", ["F:6: a block ends and none is open, expected <NAME> before it"]),
    "nested": (
        block().replace("</A>", block(name="B") + "</A>"),
        ["F:5: a block begins inside block A of line 1, expected its end first"],
    ),
    "unclosed before another": (
        block().replace("</A>\n", "") + block(name="B"),
        ["F:5: a block begins inside block A of line 1, expected its end first"],
    ),
    "nested and unclosed": (
        block().replace("</A>", block(name="B").replace("</B>", "") + "</A>"),
        [
            "F:5: a block begins inside block A of line 1, expected its end first",
            "F:10: the name is not that of block B of line 5, expected </B>",
        ],
    ),
    "all of them unclosed": (
        (block() + block(name="B")).replace("</A>\n", "").replace("</B>", ""),
        [
            "F:5: a block begins inside block A of line 1, expected its end first",
            "F:5: block B of line 5 has no end, expected </B>",
        ],
    ),
    "mismatched": (
        block().replace("</A>", "</B>"),
        ["F:5: the name is not that of block A of line 1, expected </A>"],
    ),
    "mismatched case": (
        block().replace("</A>", "</a>"),
        ["F:5: the name is not that of block A of line 1, expected </A>"],
    ),
    "repeated": (block() + block(), ["F:6: block A is in line 1 already, expected each name once"]),
    "no name": (block(name=""), [f"F:1: an empty string is not a sequence's name, {NAME}"]),
    "a name of two words": (block(name="A B"), [f'F:1: "A B" is not a sequence\'s name, {NAME}']),
    "a name of digits": (block(name="7001"), [f"F:1: a string is not a sequence's name, {NAME}"]),
    "a long name": (block(name="A" * 33), [f'F:1: "{"A" * 33}" is not a sequence\'s name, {NAME}']),
    "the daemon's name": (
        block(name="main"),
        ["F:1: main is the name of the opening sequence, expected another name"],
    ),
    "half a tag": (block().replace("<A>", "<A"), [f"F:1: {NO_TAG}"]),
    "two tags": (block().replace("<A>", "<A> <B>"), [f"F:1: {NO_TAG}"]),
    # lines
    "no equals sign": (block("timeout 10"), [f"F:5: {NO_LINE}"]),
    "outside": ("timeout = 10\n" + block(), ["F:1: timeout is outside of any block, expected <NAME> before it"]),
    "an unknown key": (block("sequense = 1"), ['F:5: "sequense" is unknown, the nearest known key is sequence']),
    "a key of other case": (block("Timeout = 1"), ['F:5: "Timeout" is unknown, the nearest known key is timeout']),
    "a secret for a key": (block("tcp:7001 = 1"), [f"F:5: a key is unknown, {KEYS}"]),
    "a key twice": (block("timeout = 10"), ["F:5: timeout is in line 3 already, expected once in a block"]),
    # keys
    "no sequence": (block(sequence=None), [f"F:1: block A of line 1 has no sequence, {FEW}"]),
    "no timeout": (block(timeout=None), [f"F:1: block A of line 1 has no timeout, {SECONDS}"]),
    "no command": (block(start_command=None), [f"F:1: block A of line 1 has no start_command, {LINE}"]),
    "a lonely delay": (
        block("command_delay = 3"),
        ["F:5: command_delay has no effect without stop_command, expected stop_command as well"],
    ),
    "an empty command": (block(start_command=""), [f"F:4: start_command: an empty string is not a command, {LINE}"]),
    "all comment, without a blank before": (
        block("start_command=#no", start_command=None),
        [f"F:4: start_command: an empty string is not a command, {LINE}"],
    ),
    "all comment": (block(start_command=" # no"), [f"F:4: start_command: an empty string is not a command, {LINE}"]),
    "an unprintable command": (
        block(start_command="tr\x07ue"),
        [f"F:4: start_command: a command has an unprintable character, {LINE}"],
    ),
    "bytes that are no UTF-8": (
        block(start_command="echo \udcfc"),
        [f"F:4: start_command: a command has an unprintable character, {LINE}"],
    ),
    "a timeout of letters": (
        block(timeout="soon"),
        [f'F:3: timeout: "soon" is not a number, {SECONDS}, without quotes or unit'],
    ),
    "a timeout with its unit": (
        block(timeout="10s"),
        [f'F:3: timeout: "10s" is not a number, {SECONDS}, without quotes or unit'],
    ),
    "no number": (block(timeout="nan"), [f'F:3: timeout: "nan" is not a number, {SECONDS}, without quotes or unit']),
    "a timeout of 0": (block(timeout="0"), [f"F:3: timeout: 0 is out of range, {SECONDS}"]),
    "a negative timeout": (block(timeout="-5"), [f"F:3: timeout: -5 is out of range, {SECONDS}"]),
    "a long timeout": (block(timeout="2147483647.5"), [f"F:3: timeout: 2147483647.5 is out of range, {SECONDS}"]),
    "a negative delay": (
        block("stop_command = true", "command_delay = -1"),
        ["F:6: command_delay: -1 is out of range, expected a number of seconds from 0 to 2147483647"],
    ),
    # frames
    "an empty sequence": (block(sequence=""), ["F:2: sequence: the list has 0 steps, expected 1 to 64"]),
    "65 frames": (block(sequence="udp:7 " * 65), ["F:2: sequence: the list has 65 steps, expected 1 to 64"]),
    "flags on UDP": (
        block(sequence="tcp:7001 udp:7003:x"),
        ["F:2: sequence: position 2: a UDP port has flags, expected flags after a TCP port only"],
    ),
    "no flags on UDP, but a colon": (
        block(sequence="udp:7003:"),
        ["F:2: sequence: position 1: a UDP port has flags, expected flags after a TCP port only"],
    ),
    "port 0": (block(sequence="tcp:0"), ["F:2: sequence: position 1: port 0 is out of range, expected 1 to 65535"]),
    "port 65536": (
        block(sequence="udp:7 udp:65536"),
        ["F:2: sequence: position 2: port 65536 is out of range, expected 1 to 65535"],
    ),
    "no port": (
        block(sequence="tcp::x"),
        [f"F:2: sequence: position 1: an empty string is not a port, {PORT}"],
    ),
    "another protocol": (
        block(sequence="sctp:7001"),
        [f"F:2: sequence: position 1: the protocol is unknown, {STEP}"],
    ),
    "capitals": (block(sequence="TCP:7001"), [f"F:2: sequence: position 1: the protocol is unknown, {STEP}"]),
    "commas": (block(sequence="tcp:7001,tcp:7002"), [f"F:2: sequence: position 1: a string is not a port, {PORT}"]),
    "an unknown flag": (
        block(sequence="tcp:7001:fz"),
        [f"F:2: sequence: position 1: a flag is unknown, {FLAGS}"],
    ),
    "a flag twice": (
        block(sequence="tcp:7001:ff"),
        ["F:2: sequence: position 1: a flag is given twice, expected each once"],
    ),
    **{
        f"{some}: one that stands alone, with others": (
            block(sequence=f"tcp:7001:{some}"),
            [f"F:2: sequence: position 1: x, n or i is combined with other flags, {FLAGS}"],
        )
        for some in ("xf", "fx", "ns", "ai", "xn", "in", "xi")
    },
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_wrong_text_is_refused_with_line_and_message(text: str, said: list[str]) -> None:
    assert errors(text) == said


def test_all_errors_are_reported_and_all_valid_blocks_read() -> None:
    text = (
        "loud = yes\n"
        + block(name="one")
        + block(name="two", sequence="tcp:7001:xf", timeout="x", start_command=None)
        + block("stop_command =", name="three")
        + block(name="four")
        + block(name="one")
        + "<five>\n"
    )
    found, wrong = tportknockd.read(text, "/etc/knock.conf")
    assert [sequence.name for sequence in found] == ["one", "four"]
    assert [int(error.where.rpartition(":")[2]) for error in wrong] == [1, 7, 8, 9, 15, 22, 27, 27, 27, 27]
    assert all(error.where.startswith("/etc/knock.conf:") for error in wrong)


def test_every_wrong_frame_of_a_line_is_reported() -> None:
    found = errors(block(sequence="tcp:7001:xf udp:7002 ip:7003 udp:70000 tcp:7005:s udp:7006:s"))
    assert found == [
        f"F:2: sequence: position 1: x, n or i is combined with other flags, {FLAGS}",
        f"F:2: sequence: position 3: the protocol is unknown, {STEP}",
        "F:2: sequence: position 4: port 70000 is out of range, expected 1 to 65535",
        "F:2: sequence: position 6: a UDP port has flags, expected flags after a TCP port only",
    ]


def test_block_beside_a_wrong_one_keeps_its_own_values() -> None:
    nested = block().replace("</A>", block(name="B") + "</A>")
    assert [sequence.name for sequence in tportknockd.read(nested, "F")[0]] == ["B"]
    repeated = block(timeout="3") + block(timeout="5")
    assert [sequence.timeout for sequence in tportknockd.read(repeated, "F")[0]] == [3.0]


def test_file_of_another_kind_is_not_read_to_its_end() -> None:
    found, wrong = tportknockd.read(block(name="first") + "<A>\n" + "Nov 21 12:00:00 a log\n" * 10000, "F")
    assert [sequence.name for sequence in found] == ["first"]
    assert len(wrong) == tportknockd.MOST_PROBLEMS + 1
    assert str(wrong[-1]) == "F:1007: 1000 problems precede this line, expected a configuration file of tportknockd"


# --- in words


def test_sequence_in_words() -> None:
    assert in_words(sequences(PAGE)[0]).splitlines() == [
        "Sequence SSH (rules of tportknockd), within 10 s:",
        "  1. UDP 1234",
        "  2. TCP 543 with no flags",
        "  3. TCP 543 with any flags",
        "  4. TCP 123 with FIN RST PSH ACK",
        "  5. TCP 434 with FIN SYN RST PSH ACK URG",
        "  6. TCP 2345 with no flags",
        f"  runs: {IPTABLES.format('A')}",
        f"  30 s later: {IPTABLES.format('D')}",
        "  no traps",
    ]


def test_single_flag_without_stop_command_in_words() -> None:
    assert in_words(only(block(sequence="tcp:7001:s", timeout="0.5"))).splitlines() == [
        "Sequence A (rules of tportknockd), within 0.5 s:",
        "  1. TCP 7001 with SYN",
        "  runs: true",
        "  no traps",
    ]


# --- any text

PIECES = ["<A>", "</A>", "<B>", "</B>", "sequence = tcp:47111:x", "timeout = 1", "start_command = true", "#", "<", "="]


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=9), max_size=30).map("\n".join))
def test_any_text_gives_valid_sequences_and_errors_with_lines(text: str) -> None:
    found, wrong = tportknockd.read(text, "F")
    assert found or wrong
    last = text.count("\n") + 1
    lines = [int(error.where.removeprefix("F:")) for error in wrong]
    assert lines == sorted(lines)
    assert all(1 <= line <= last for line in lines)
    assert all(str(error).isprintable() and "47111" not in str(error) for error in wrong)
    assert all(sequence.steps and sequence.access.command for sequence in found)
    assert len({sequence.name for sequence in found}) == len(found)


SECRET = "udp:47321 tcp:47322:frap tcp:47323"


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, len(SECRET) - 1), st.integers(0, 2), st.text(max_size=3))
def test_error_after_a_slip_shows_no_step(at: int, lost: int, put: str) -> None:
    for error in errors(block(sequence=SECRET[:at] + put + SECRET[at + lost :])):
        for secret in ("47321", "47322", "47323", "frap"):
            if secret in put:
                continue
            assert secret not in error


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from("fsrpauxni") | st.text("fsrpau", min_size=1, max_size=6).filter(lambda t: len(set(t)) == len(t)))
def test_spelled_step_reads_as_the_step(flags: str) -> None:
    step = tportknockd.step(f"tcp:7001:{flags}")
    assert tportknockd.step(tportknockd.step.spell(step)) == step
