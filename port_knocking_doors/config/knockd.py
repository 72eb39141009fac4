"""knockd's own file: `[options]`, a section for each door, a directive a line (knockd(1), and what version 0.8 does).

Whatever knockd accepts has the same meaning here, and whatever it rejects is an error with its line. Where knockd is
careless, and reads 0 from a word, 65535 from -1 or 12 from 12abc, the value is an error here, and so is text that
knockd cuts off silently. tests/peers/test_knockd_files.py has the list.

Rules that are not in the manual:

- Only `[options]` in small letters holds the options; `[Options]` is a door. Blanks in a name belong to the name.
- `UseSyslog` is allowed in any section.
- If a directive is given twice, the last one counts, but the flags of several `TCPFlags` add up.
- Names and sequences may occur twice: each door is separate.
- Without a start command for an address family, the stop command does not run either.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from port_knocking_doors.config import knockd_advice, readers
from port_knocking_doors.config.reader_types import Whole, quoted
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Access, Address, CommandOpening, Dialect, Flags, Protocol, Scope, Sequence, Step

STEPS_MAX = 32
SEQ_TIMEOUT = 25.0
"""Default of Seq_Timeout: seconds from the first knock to the last."""
CMD_TIMEOUT = 10.0
"""Default of Cmd_Timeout: seconds from the start command to the stop command."""
LINE_MAX = 4095
"""Bytes of a line; knockd reads further bytes as another line."""
NAME_MAX = 254
"""Bytes of a door's name; knockd drops further bytes."""
SECONDS_MAX = 2**31 - 1
EVERY_INTERFACE = "any"
"""The capture library's name for all interfaces (pcap(3))."""

_OPTIONS = "options"
_BLANKS = " \t\n\v\f\r"
"""White space of C's isspace, which is less than Python's."""
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, bytes that are not UTF-8, and line ends, by their category in Unicode."""
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn text round on a screen (UAX 9): a command would not be the one that is read."""

_seconds = Whole(1, SECONDS_MAX, "number of seconds")
_delay = Whole(0, SECONDS_MAX, "number of seconds")


@dataclass(frozen=True)
class Options:
    """The values of `[options]`; empty strings where they are not set."""

    use_syslog: bool = False
    log_file: str = ""
    pid_file: str = ""
    interface: str = ""


@dataclass(frozen=True)
class KnockdFile:
    """A whole file. `lines` has the first line of each sequence's door."""

    options: Options
    sequences: tuple[Sequence, ...]
    lines: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    """Of what knockd accepts and what does not do what it seems to, each at `PATH:LINE`."""


def parse(text: str, path: str) -> KnockdFile:
    """Read the text of a whole file, in which bytes that are not UTF-8 are surrogates: comments only may have them.

    `path` names the file in errors, and is the sequences' group. Files of one-time sequences are not read: such a
    sequence has the path as written, and no steps. Raises `ConfigError` at `PATH:LINE`; no message shows a step.
    """
    reading = _KnockdReader()
    line = 0
    if text.startswith(knockd_advice.BYTE_ORDER_MARK):
        raise ConfigError(knockd_advice.MARKED, f"{path}:1")
    try:
        for line, statement in _statements(text):
            reading.take(line, statement)
    except ConfigError as wrong:
        raise wrong.at(f"{path}:{line}") from None
    except _LineError as wrong:
        raise wrong.error.at(f"{path}:{wrong.line}") from None
    for door in reading.doors:
        if not door.steps and not door.one_time:
            problem = "the door has no sequence, expected Sequence or One_Time_Sequences"
            raise ConfigError(problem, f"{path}:{door.line}")
    return KnockdFile(
        reading.options,
        tuple(door.sequence(path, reading.options) for door in reading.doors),
        tuple(door.line for door in reading.doors),
        tuple(f"{path}:{line}: {warning}" for line, warning in reading.warnings()),
    )


def interfaces(name: str) -> tuple[str, ...]:
    """The interfaces of a door for the setting `name`; empty for every interface."""
    return () if name in ("", EVERY_INTERFACE) else (name,)


def one_time_steps(line: str, flags: tuple[int, int]) -> tuple[Step, ...] | None:
    """The steps of one line of a file of one-time sequences; None for a comment, an empty line or a malformed one.

    `flags` are the mask and value of its door (`Sequence.flags`).
    """
    mask, value = flags
    try:
        (statement,) = (statement for _, statement in _statements(line))
        return _with_flags(_steps(statement), value, mask)
    except (ConfigError, _LineError, ValueError):
        return None


class _LineError(Exception):
    """A line that is too long or is not text."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.error = ConfigError(problem)


@dataclass
class _Door:
    """A door's section, as far as it was read."""

    name: str
    line: int
    steps: tuple[Step, ...] = field(default=(), repr=False)
    """Without flags, which may follow later in the section."""
    one_time: str = ""
    flags: int = 0
    mask: int = 0
    timeout: float = SEQ_TIMEOUT
    delay: float = CMD_TIMEOUT
    target: Address | None = None
    commands: dict[str, str] = field(default_factory=dict)
    flags_line: int = 0
    """The last line with flags."""

    def take(self, key: str, value: str) -> None:
        """Take one directive, named in small letters."""
        if key == "sequence":
            if self.one_time:
                # knockd would open the door once by this sequence, and then remove an unused line of the file.
                raise ConfigError("the door has One_Time_Sequences already, expected only one of the two")
            self.steps = _steps(value)
        elif key == "one_time_sequences":
            if not value:
                raise ConfigError("no file is named, expected the path of a file")
            self.one_time = value
            self.steps = ()
        elif key == "tcpflags":
            for position, word in enumerate(value.split(","), start=1):
                self._take_flag(position, word)
        elif key == "target":
            self.target = _address(value)
        elif key in _TIMEOUTS:
            setattr(
                self,
                _TIMEOUTS[key],
                _whole(_without_comment(value), _seconds if _TIMEOUTS[key] == "timeout" else _delay),
            )
        else:
            self.commands[_COMMANDS[key]] = value

    def _take_flag(self, position: int, word: str) -> None:
        flag = _FLAGS.get(word.lower().removeprefix("!")) if word.isascii() else None
        if flag is None:
            expects = f"{', '.join(_FLAGS)}, each with a ! if it must be clear, separated by commas without blanks"
            raise ConfigError(f"position {position}: {quoted(word)} is not a flag, expected {expects}")
        self.mask |= flag
        self.flags = self.flags & ~flag if word.startswith("!") else self.flags | flag

    def sequence(self, path: str, options: Options) -> Sequence:
        return Sequence(
            name=self.name,
            steps=_with_flags(self.steps, self.flags, self.mask),
            access=Access.of(self.name, command=self._command()),
            timeout=self.timeout,
            dialect=Dialect.KNOCKD,
            group=path,
            flags=(self.mask, self.flags),
            scope=Scope(self.target, interfaces(options.interface)),
            one_time=self.one_time,
        )

    def _command(self) -> CommandOpening | None:
        start, stop = self.commands.get("start", ""), self.commands.get("stop", "")
        start6, stop6 = self.commands.get("start6"), self.commands.get("stop6")
        if not start and not start6:
            return None
        if not start:
            return CommandOpening("", "", self.delay, start6, stop if stop6 is None else stop6)
        return CommandOpening(start, stop, self.delay, start6, "" if start6 == "" else stop6)


_NAMES = {
    name.lower(): name
    for name in (
        *("Sequence", "One_Time_Sequences", "Seq_Timeout", "Timeout", "TCPFlags", "Target", "Cmd_Timeout"),
        *("Start_Command", "Command", "Start_Command_6", "Command_6", "Stop_Command", "Stop_Command_6"),
        *("UseSyslog", "LogFile", "PidFile", "Interface"),
    )
}
"""The directives in the manual's spelling."""
_OF_OPTIONS = frozenset({"logfile", "pidfile", "interface"})
_BARE = "usesyslog"
_TIMEOUTS = {"seq_timeout": "timeout", "timeout": "timeout", "cmd_timeout": "delay"}
_COMMANDS = {
    "start_command": "start",
    "command": "start",
    "start_command_6": "start6",
    "command_6": "start6",
    "stop_command": "stop",
    "stop_command_6": "stop6",
}
_FLAGS = {(flag.name or "").lower(): flag for flag in Flags}
_PROTOCOLS = {str(protocol): protocol for protocol in Protocol}


class _KnockdReader:
    """Reads a file line by line."""

    def __init__(self) -> None:
        self.options = Options()
        self.doors: list[_Door] = []
        self._door: _Door | None = None
        self._in_section = False
        self._continued: int | None = None
        """The line before, if it ends in a backslash."""
        self._warnings: list[tuple[int, str]] = []

    def take(self, line: int, statement: str) -> None:
        if statement.startswith("[") and statement.endswith("]"):
            self._begin(line, statement[1:-1])
            return
        word, equals, value = statement.partition("=")
        key = word.rstrip(_BLANKS).lower() if word.isascii() else word
        if key not in _NAMES:
            mistake = knockd_advice.on_line(statement, _NAMES, self._continued)
            if mistake or self._in_section:
                raise ConfigError(mistake or knockd_advice.on_unknown_directive(word, _NAMES))
        if not self._in_section:
            raise ConfigError("no section precedes this line, expected [options] or a door's name in brackets above")
        self._continued = line if statement.endswith("\\") else None
        if (key == _BARE) == bool(equals):
            form = f"{_NAMES[key]} alone" if key == _BARE else f"{_NAMES[key]} = VALUE"
            raise ConfigError(f"{_NAMES[key]} has {'a' if equals else 'no'} value, expected {form}")
        value = value.strip(_BLANKS)
        try:
            self._take_directive(key, value)
        except ConfigError as wrong:
            problem = knockd_advice.on_wrong_value(key, value, wrong.problem)
            raise ConfigError(f"{_NAMES[key]}: {problem}") from None
        if key == "tcpflags" and self._door is not None:
            self._door.flags_line = line
        warnings = knockd_advice.on_accepted_value(key, value)
        self._warnings += [(line, f"{_NAMES[key]}: {warning}") for warning in warnings]

    def warnings(self) -> list[tuple[int, str]]:
        """The warnings with their lines, in the order of the lines."""
        of_flags = [
            (door.flags_line, f"TCPFlags: {warning}")
            for door in self.doors
            if door.one_time or any(step.protocol is Protocol.TCP for step in door.steps)
            for warning in knockd_advice.on_flags(door.flags, door.mask)
        ]
        return sorted(self._warnings + of_flags)

    def _begin(self, line: int, name: str) -> None:
        self._in_section = True
        self._door = None
        if not name:
            raise ConfigError("a section has no name, expected [options] or a door's name in brackets")
        if len(name.encode()) > NAME_MAX:
            raise ConfigError(f"a door's name has {len(name.encode())} bytes, expected at most {NAME_MAX}")
        if name != _OPTIONS:
            self._door = _Door(name, line)
            self.doors.append(self._door)

    def _take_directive(self, key: str, value: str) -> None:
        if key == _BARE:
            self.options = replace(self.options, use_syslog=True)
        elif (key in _OF_OPTIONS) == (self._door is not None):
            where = "below [options]" if key in _OF_OPTIONS else "below a door's name"
            raise ConfigError(f"wrong section, expected {where}")
        elif self._door is not None:
            self._door.take(key, value)
        elif key == "interface":
            if knockd_advice.is_quoted(value):
                raise ConfigError("the value has quotes")
            self.options = replace(self.options, interface=readers.interface_name(value) if value else "")
        elif key == "logfile":
            self.options = replace(self.options, log_file=value)
        elif key == "pidfile":
            self.options = replace(self.options, pid_file=value)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments, with their numbers."""
    for line, raw in enumerate(text.split("\n"), start=1):
        if len(raw) > LINE_MAX // 4 and (length := len(raw.encode("utf-8", "surrogateescape"))) > LINE_MAX:
            raise _LineError(line, f"the line has {length} bytes, expected at most {LINE_MAX}")
        statement = raw.strip(_BLANKS)
        if not statement or statement.startswith("#"):
            continue
        if not statement.isprintable() and any(
            unicodedata.category(char) in _UNPRINTABLE and char != "\t" for char in statement
        ):
            raise _LineError(line, "the line has a control character or is not UTF-8, expected plain text")
        if not _DIRECTION_MARKS.isdisjoint(statement):
            raise _LineError(line, "the line has a control character that turns text round, expected plain text")
        yield line, statement


def _steps(text: str) -> tuple[Step, ...]:
    """The steps of a sequence, without flags."""
    items = _without_comment(text).split(",")
    if len(items) > STEPS_MAX:
        raise ConfigError(f"the list has {len(items)} steps, expected 1 to {STEPS_MAX}")
    return tuple(_step(position, item) for position, item in enumerate(items, start=1))


def _step(position: int, item: str) -> Step:
    number, colon, name = item.partition(":")
    if problem := knockd_advice.on_step(number.strip(_BLANKS), name.strip(_BLANKS)):
        raise ConfigError(f"position {position}: {problem}")
    if ":" in name:
        raise ConfigError(f"position {position}: extra text follows the protocol, expected a comma or the end")
    protocol = _PROTOCOLS.get(name.strip(_BLANKS).lower() if colon else "tcp")
    if protocol is None:
        raise ConfigError(f"position {position}: the protocol is unknown, expected tcp or udp after the colon")
    try:
        return Step(protocol, _whole(number.strip(_BLANKS), readers.knock_port))
    except ConfigError as wrong:
        raise ConfigError(f"position {position}: {wrong.problem}") from None


def _with_flags(steps: tuple[Step, ...], flags: int, mask: int) -> tuple[Step, ...]:
    """The steps with flags where they are TCP; the flags of UDP steps are never compared."""
    return tuple(replace(step, flags=flags, mask=mask) if step.protocol is Protocol.TCP else step for step in steps)


def _without_comment(text: str) -> str:
    """The text without a comment behind a number, which knockd does not see."""
    number = re.fullmatch(r"(.*[0-9])[ \t]*#[^,]*", text)
    return number[1] if number is not None and "#" not in number[1] else text


def _whole(text: str, read: Whole) -> int:
    """A number in plain digits. Anything else may be a slip for a port (-7000), and is not quoted."""
    if re.fullmatch(r"[0-9]+", text):
        return read(int(text))
    harmless = text if not any(char.isdigit() for char in text) else ""
    what = quoted(harmless) if harmless or not text else "the value"
    raise ConfigError(f"{what} is not a {read.noun}, expected {read.expects}")


def _address(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        raise ConfigError(f"{quoted(text)} is not an address, expected an IPv4 or IPv6 address, not a host name")
    return address
