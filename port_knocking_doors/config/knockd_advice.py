"""What people get wrong in knockd's file, in words.

Some of it knockd refuses; the rest it accepts, and it does not do what it seems to.
"""

import re
from collections.abc import Iterable, Iterator

from port_knocking_doors.config.describe import flags_in_words
from port_knocking_doors.config.reader_types import nearest, quoted
from port_knocking_doors.config.shell_line import inner_line, split
from port_knocking_doors.model import Flags, Protocol

OWN_LINE = "a comment needs a line of its own"
BYTE_ORDER_MARK = "\ufeff"
MARKED = "the file begins with a byte order mark, which knockd does not accept, expected UTF-8 without one"
UCI = "this is OpenWrt's UCI format, expected that of knockd itself: [NAME], and below it lines KEY = VALUE"

_UCI_LINE = re.compile(r"(?:config|option|list|package)[ \t]+['\"]?\w[^=]*")
_FORKS = {
    "seq_cooldown": "of the fork Metalcape/knock",
    "key": "of the fork knock-totp",
    "sequence_file": "of a fork that reads sequences from files",
}
"""Directives of other programs called knockd."""
_BARE = "UseSyslog"
"""The directive without a value."""
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_QUOTES = re.compile("[\u2018-\u201f]")
_BLANKS = re.compile("[\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]")
_IPTABLES = frozenset({"iptables", "ip6tables"})
_QUOTED = re.compile("""['"`\u00b4\u2018-\u201f]""")
_COMMENT = re.compile(r"#|[ \t](?:;|//|--)[ \t]")
"""What begins a comment in some format or other."""
_WHOLE_IN_QUOTES = re.compile(r""""[^"]*\s[^"]*"|'[^']*\s[^']*'""")
_DPORT = re.compile(r"--d(?:estination-)?ports?(?:=.*)?")
_WITH_PORTS = frozenset({"tcp", "udp", "multiport"})
"""Matches of iptables that have ports."""
_PROTOCOL = re.compile(r"-p.*|--proto(?:col)?(?:=.*)?")


def on_line(statement: str, names: dict[str, str], continued: int | None) -> str | None:
    """The problem of a line that is no directive of `names`, if it is a known mistake.

    `continued`: the number of the line before it, if that ends in a backslash.
    """
    if continued is not None:
        return (
            f"this continues line {continued}, which ends in a backslash, and knockd has no continued lines, expected "
            f"the whole value in line {continued}"
        )
    if _UCI_LINE.fullmatch(statement):
        return UCI
    if statement.startswith((";", "//")):
        return "this begins no comment of knockd, expected # ahead of a comment"
    text, comment, _ = statement.partition("#")
    if comment and text.startswith("[") and text.rstrip().endswith("]"):
        return f"{OWN_LINE}, expected [NAME] alone"
    if comment and text.strip().lower() in names:
        return f"{OWN_LINE}, expected {names[text.strip().lower()]} alone"
    word = re.match(r"\w+", statement)
    if word is not None and word[0].lower() in names and "=" not in statement:
        name = names[word[0].lower()]
        return f"no = follows the directive, expected {name} = VALUE" if name != _BARE else f"expected {name} alone"
    return None


def on_unknown_directive(word: str, names: dict[str, str]) -> str:
    """The problem of a line with `word` ahead of its `=`; `names` have the manual's spelling by small letters."""
    if _BLANKS.search(word):
        return "the line has a blank that is no space, expected plain spaces"
    key = word.strip().lower()
    if key in _FORKS:
        return f"{key} is a directive {_FORKS[key]}, which this program does not have, expected a file of knockd 0.8"
    near = nearest(key, names)
    advice = f"the nearest directive is {names[near]}" if near else "expected a directive of knockd(1)"
    return f"{quoted(word.strip())} is unknown, {advice}"


def on_wrong_value(key: str, value: str, problem: str) -> str:
    """The problem of a value, or rather what is behind it."""
    if key == "interface" and is_quoted(value):
        return "the quotes are a part of the value, expected the name without quotes"
    if value.endswith("\\"):
        return "the value ends in a backslash, and knockd has no continued lines, expected the whole value in this line"
    if _COMMENT.search(value) and not key.endswith(("command", "command_6")):
        return f"{OWN_LINE}, expected the value alone"
    return problem


def is_quoted(value: str) -> bool:
    """Whether the value begins with a quote, typographic ones included, and no name of an interface does."""
    return _QUOTED.match(value) is not None


def on_step(number: str, name: str) -> str | None:
    """What is wrong with a step in another program's spelling; None for anything else. No step is quoted."""
    if number.lower() in list(Protocol) and name.isdecimal():
        return f"the protocol is ahead of the port, expected PORT:{number.lower()}"
    if re.fullmatch(r"\d+(?:[ \t]*[; \t][ \t]*\d+)+", number):
        return "the value is not a port, expected commas between ports"
    if slash := re.fullmatch(r"\d+/(tcp|udp)", number, re.IGNORECASE):
        return f"a slash is ahead of the protocol, expected a colon: PORT:{slash[1].lower()}"
    return None


def on_accepted_value(key: str, value: str) -> Iterator[str]:
    """Warnings about a value that knockd accepts."""
    if key in ("logfile", "pidfile", "one_time_sequences") and re.search(r"\s#", value):
        yield f"the comment is a part of the value; {OWN_LINE}"
    if key.endswith(("command", "command_6")):
        yield from _on_command(value)


def on_flags(value: int, mask: int) -> Iterator[str]:
    """A warning if a plain SYN, as all clients send it, is no knock."""
    if mask and Flags.SYN & mask != value & mask:
        yield (
            f"no ordinary client sends TCP packets {flags_in_words(value, mask)}: `knock` will not open this door; "
            "expected TCPFlags = syn"
        )


def _on_command(line: str) -> Iterator[str]:
    if dash := _DASHES.search(line):
        yield f"the command has a dash ({dash[0]}) that is no hyphen, so it begins no option; write -"
    if quote := _QUOTES.search(line):
        yield f"the command has a typographic quote ({quote[0]}), which quotes nothing; write ' or \""
    if _BLANKS.search(line):
        yield "the command has a blank that is no space, and that separates no words; write a space"
    cut = split(line)
    if cut is not None and len(cut.commands) == 1 and _WHOLE_IN_QUOTES.fullmatch(line):
        yield "the quotes make the whole line the name of a program, so nothing runs; write the command without them"
    inner = inner_line(cut) if cut is not None else None
    cut = cut if inner is None else split(inner)
    for command in cut.commands if cut is not None else ():
        if _names_port_alone(command.words):
            yield "iptables refuses --dport without -p tcp or -p udp ahead of it, so the command does nothing"


def _names_port_alone(words: Iterable[str]) -> bool:
    """Whether a command of iptables has a port and no protocol."""
    names = [word.rpartition("/")[2] for word in words]
    at = next((position for position, name in enumerate(names) if name in _IPTABLES), None)
    if at is None:
        return False
    options = list(words)[at + 1 :]
    port = next((position for position, word in enumerate(options) if _DPORT.fullmatch(word)), None)
    if port is None or any(_PROTOCOL.fullmatch(word) for word in options[:port]):
        return False
    # A match that is named loads the option; without -p anywhere, the kernel refuses the rule.
    is_named = not _WITH_PORTS.isdisjoint(options[:port])
    return not (is_named and any(_PROTOCOL.fullmatch(word) for word in options))
