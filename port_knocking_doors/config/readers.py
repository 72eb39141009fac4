"""One reader for each kind of value, whether it comes from TOML, the command line or the environment.

A reader is called with what TOML made of the text and answers with the checked value; those of lists also have
`from_text` for options and variables. `expects` says in words what a reader takes, for its own messages and for the
help, so that the two always agree. Everything else is a `ConfigError` without a place, which the caller adds.

What was wrong is quoted only where it cannot hide a port: sequences are secrets, and a wrong separator makes one long
word of a whole sequence.
"""

import re
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from port_knocking_doors import model
from port_knocking_doors.errors import ConfigError

T = TypeVar("T")

FLAG_LETTERS: dict[str, int] = {
    "f": model.Flags.FIN,
    "s": model.Flags.SYN,
    "r": model.Flags.RST,
    "p": model.Flags.PSH,
    "a": model.Flags.ACK,
    "u": model.Flags.URG,
    "x": model.ALL_FLAGS,
    "n": 0,
}
"""The flags of a TCP step as tportknockd writes them. `x` and `n` say all there is to say, and stand alone."""
ANY_FLAGS = "i"
"""tportknockd's letter for whatever flags there are. It stands alone, too, and only in tportknockd's own files."""
_ALONE = "xn"

RESERVED_NAME = "main"
"""The name of the opening sequence in the log."""

_QUOTABLE_NUMBER = 10**5
_QUOTABLE_TEXT = re.compile(r"[^\W\d][^\d]{0,39}")
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number with a fraction"),
    (str, "a text"),
    (list, "a list"),
    (dict, "a table"),
)


class Reader(Protocol):
    """What the declaration of a key needs to know of a reader."""

    @property
    def expects(self) -> str: ...

    def __call__(self, value: object) -> Any: ...


def shown(value: object) -> str:
    """What a message may say of a wrong value: itself where that is harmless, else its kind."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < _QUOTABLE_NUMBER else "a number of more than five digits"
    if isinstance(value, str) and value.isprintable() and _QUOTABLE_TEXT.fullmatch(value):
        return f'"{value}"'
    return _kind(value)


def _kind(value: object) -> str:
    """What a message may say of a wrong value where even a harmless one is part of a secret."""
    if value == "":
        return "an empty text"
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or time")


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`; `true` is not one."""

    low: int
    high: int
    noun: str = "number"

    @property
    def expects(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def __call__(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{shown(value)} is not a {self.noun}, expected {self.expects}")
        if not self.low <= value <= self.high:
            what = f"{self.noun} {value}" if abs(value) < _QUOTABLE_NUMBER else shown(value)
            raise ConfigError(f"{what} is out of range, expected {self.low} to {self.high}")
        return value

    def from_text(self, text: str) -> int:
        """Read plain decimal digits."""
        return self(_number(text))


@dataclass(frozen=True)
class Seconds:
    """A length of time in seconds, from `low` to `high`, with or without a fraction."""

    low: float = 0.1
    high: float = 86400

    @property
    def expects(self) -> str:
        return f"seconds, from {self.low:g} to {self.high:g}"

    def __call__(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{shown(value)} is not a number of seconds, expected {self.expects}")
        if not self.low <= value <= self.high:  # false for nan, too
            what = str(value) if isinstance(value, float) else shown(value)
            raise ConfigError(f"{what} is out of range, expected {self.expects}")
        return float(value)

    def from_text(self, text: str) -> float:
        """Read plain decimal digits, with or without a fraction."""
        return self(float(text) if re.fullmatch(r"-?[0-9]{1,9}\.[0-9]{1,9}", text) else _number(text))


@dataclass(frozen=True)
class Flag:
    """True or false, and nothing that merely resembles them."""

    expects: str = "true or false"

    def __call__(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{shown(value)} is neither true nor false, expected {self.expects}")
        return value


@dataclass(frozen=True)
class ZoneName:
    """The name of a firewalld zone, by firewalld's own rules, or empty. Whether there is such a zone is not known here.

    firewalld counts only what stands before a slash, because that becomes part of a chain's name in the kernel.
    """

    longest: int = 17

    @property
    def expects(self) -> str:
        return f"a firewalld zone's name of at most {self.longest} letters, digits, - and _, or an empty text"

    def __call__(self, value: object) -> str:
        if not isinstance(value, str):
            raise ConfigError(f"{shown(value)} is not a zone's name, expected {self.expects}")
        chain, slash, rest = value.partition("/")
        if slash and not (chain and rest and "/" not in rest):
            raise ConfigError(f"a slash stands where none may in a zone's name, expected {self.expects}")
        if not all(char.isalnum() or char in "-_/" for char in value):
            raise ConfigError(f"a zone's name has a character that firewalld forbids, expected {self.expects}")
        if len(chain) > self.longest:
            raise ConfigError(f"a zone's name has {len(chain)} characters, expected {self.expects}")
        return value


@dataclass(frozen=True)
class KnockSequence:
    """From `fewest` to `most` UDP ports in the order of their knocks. A port may come more than once."""

    fewest: int = 5
    most: int = 20

    @property
    def expects(self) -> str:
        return f"a list of {self.fewest} to {self.most} UDP ports"

    def __call__(self, value: object) -> tuple[int, ...]:
        ports = tuple(_at(position, knock_port, item) for position, item in _items(value, "a sequence", self.expects))
        _count(ports, self.fewest, self.most)
        return ports

    def from_text(self, text: str) -> tuple[int, ...]:
        """Read `1,2,3`, with square brackets around it and spaces between where one likes."""
        return self(_split(text))


@dataclass(frozen=True)
class GuardedPorts:
    """From `fewest` to `most` ports such as `22`, `"22/tcp"` and `"1194/udp"`.

    The same port twice is refused: more often than not it is a slip for another one.
    """

    fewest: int = 1
    most: int = 64

    @property
    def expects(self) -> str:
        return f'a list of {self.fewest} to {self.most} ports, such as 22 or "1194/udp"'

    def __call__(self, value: object) -> tuple[model.Port, ...]:
        ports: dict[model.Port, None] = {}
        for position, item in _items(value, "a list", self.expects):
            port = _at(position, _guarded_port, item)
            if port in ports:
                raise ConfigError(f"position {position}: this port stands there already, expected each once")
            ports[port] = None
        _count(ports, self.fewest, self.most)
        return tuple(ports)

    def from_text(self, text: str) -> tuple[model.Port, ...]:
        """Read `22,1194/udp`, with square brackets around it and spaces between where one likes."""
        return self(_split(text))


@dataclass(frozen=True)
class KnockStep:
    """A step as tportknockd writes it: `udp:1234`, `tcp:543`, `tcp:123:frap`; all of it in small letters.

    `bare`: the flags of a TCP step that names none. `takes_any`: whether all of tportknockd's grammar holds, where `i`
    stands for any flags, and nothing behind the second colon is the same as no such colon.
    """

    bare: int = model.Flags.SYN
    takes_any: bool = False
    expects: str = "udp:PORT, tcp:PORT or tcp:PORT:FLAGS in small letters"

    def __call__(self, value: object) -> model.Step:
        parts = value.split(":") if isinstance(value, str) else []
        if not 2 <= len(parts) <= 3:
            what = "this" if value and isinstance(value, str) else _kind(value)
            raise ConfigError(f"{what} is not a step, expected {self.expects}")
        name, number, *flags = parts
        try:
            protocol = model.Protocol(name)
        except ValueError:
            raise ConfigError(f"the protocol is unknown, expected {self.expects}") from None
        port = knock_port(_number(number) if number.isdigit() else number)  # -1234 may be a slip for 1234: not shown
        if protocol is model.Protocol.UDP:
            if flags:
                raise ConfigError("flags follow a UDP port, expected them behind a TCP port only")
            return model.Step(protocol, port)
        if not flags or (self.takes_any and not flags[0]):
            return model.Step(protocol, port, self.bare)
        if self.takes_any and flags[0] == ANY_FLAGS:
            return model.Step(protocol, port, 0, mask=0)
        return model.Step(protocol, port, _tcp_flags(flags[0], self.takes_any))

    def spell(self, step: model.Step) -> str:
        """The text that reads as the step."""
        plain = f"{step.protocol}:{step.port}"
        if step.protocol is model.Protocol.UDP or (step.mask and step.flags == self.bare):
            return plain
        return f"{plain}:{_letters(step.flags) if step.mask else ANY_FLAGS}"


@dataclass(frozen=True)
class KnockSteps:
    """From `fewest` to `most` steps in the order of their knocks. A step may come more than once."""

    fewest: int = 2
    most: int = 32
    step: KnockStep = KnockStep()

    @property
    def expects(self) -> str:
        return f"a list of {self.fewest} to {self.most} steps, each {self.step.expects}"

    def __call__(self, value: object) -> tuple[model.Step, ...]:
        if not isinstance(value, list):
            raise ConfigError(f"{_kind(value)} is not a list, expected {self.expects}")
        steps = tuple(_at(position, self.step, item) for position, item in enumerate(value, start=1))
        _count(steps, self.fewest, self.most, "step")
        return steps

    def from_text(self, text: str) -> tuple[model.Step, ...]:
        """Read steps with white space between them."""
        return self(text.split())


@dataclass(frozen=True)
class SequenceName:
    """What the log calls a sequence: one word, and not the opening sequence's."""

    longest: int = 32

    @property
    def expects(self) -> str:
        return f"a word of at most {self.longest} letters, digits, -, . and _, a letter first"

    def __call__(self, value: object) -> str:
        if value == RESERVED_NAME:
            raise ConfigError(f"{RESERVED_NAME} is the opening sequence's name, expected another one")
        if not isinstance(value, str) or not re.fullmatch(rf"[^\W\d_][\w.-]{{0,{self.longest - 1}}}", value):
            raise ConfigError(f"{shown(value)} is not a sequence's name, expected {self.expects}")
        return value


@dataclass(frozen=True)
class ShellCommand:
    """A line for a shell. What is longer than a line belongs into a file of its own."""

    longest: int = 4096

    @property
    def expects(self) -> str:
        return f"a line of 1 to {self.longest} characters for a shell"

    def __call__(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{shown(value)} is not a command, expected {self.expects}")
        if not value.replace("\t", " ").isprintable():
            raise ConfigError(f"a command has a character that cannot be printed, expected {self.expects}")
        if len(value) > self.longest:
            raise ConfigError(f"a command has {len(value)} characters, expected {self.expects}")
        return value


@dataclass(frozen=True)
class ForeignFormat:
    """Whose file another one is, by that daemon's name."""

    @property
    def expects(self) -> str:
        return " or ".join(f'"{name}"' for name in self._dialects)

    @property
    def _dialects(self) -> dict[object, model.Dialect]:
        return {dialect.value: dialect for dialect in model.Dialect if dialect is not model.Dialect.NATIVE}

    def __call__(self, value: object) -> model.Dialect:
        dialect = self._dialects.get(value) if isinstance(value, str) else None
        if dialect is None:
            raise ConfigError(f"{shown(value)} is no format of a file that can be imported, expected {self.expects}")
        return dialect


@dataclass(frozen=True)
class FilePath:
    """The name of a file. Whether it is there is not known here."""

    expects: str = "a file's path, absolute, below ~, or relative to this file's folder"

    def __call__(self, value: object) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ConfigError(f"{_kind(value)} is not a path, expected {self.expects}")
        return value


@dataclass(frozen=True)
class InterfaceName:
    """The name of a network interface by the kernel's rules, or a pattern for names, such as `ppp*`.

    Whether there is such an interface is not known here: it may come later.
    """

    longest: int = 15  # IFNAMSIZ in linux/if.h, without the zero at its end

    @property
    def expects(self) -> str:
        return f"an interface's name or a pattern such as ppp*, 1 to {self.longest} bytes without a space, / or :"

    def __call__(self, value: object) -> str:
        if not isinstance(value, str) or value in ("", ".", ".."):
            raise ConfigError(f"{shown(value)} is not an interface's name, expected {self.expects}")
        if not value.isprintable() or any(char in " /:" for char in value):
            raise ConfigError(f"an interface's name has a character that the kernel forbids, expected {self.expects}")
        length = len(value.encode())
        if length > self.longest:
            raise ConfigError(f"an interface's name has {length} bytes, expected {self.expects}")
        return value


@dataclass(frozen=True)
class Tables:
    """Any number of tables up to `most`, each under the `name` in double brackets. What they hold is read elsewhere."""

    name: str
    most: int = 1024

    @property
    def expects(self) -> str:
        return f"up to {self.most} tables, each under its own [[{self.name}]]"

    def __call__(self, value: object) -> tuple[dict[str, Any], ...]:
        if isinstance(value, dict):
            raise ConfigError(f"this is a single table, expected [[{self.name}]] in double brackets above each")
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ConfigError(f"this is not a list of tables, expected {self.expects}")
        if len(value) > self.most:
            raise ConfigError(f"there are {len(value)} tables, expected {self.expects}")
        return tuple(value)


knock_port = Whole(1, model.PORT_MAX, "port")
knock_step = KnockStep()
knock_steps = KnockSteps()
sequence_name = SequenceName()
shell_command = ShellCommand()
interface_name = InterfaceName()
foreign_format = ForeignFormat()
file_path = FilePath()
traps = Whole(0, 4096)
sequence = KnockSequence()
guarded_ports = GuardedPorts()
seconds = Seconds()
flag = Flag()
zone_name = ZoneName()
rule_priority = Whole(1, 32767, "priority")
"""firewalld takes -32768 to 32767; only above 0 does a rule stand behind the zone's own denials."""


def _guarded_port(item: object) -> model.Port:
    if not isinstance(item, str):
        return model.Port(knock_port(item))
    number, slash, name = item.partition("/")
    try:
        protocol = model.Protocol(name.lower() if slash else "tcp")
    except ValueError:
        raise ConfigError(f"{shown(name)} is not a protocol, expected tcp or udp") from None
    return model.Port(knock_port(_number(number)), protocol)


def _tcp_flags(text: str, takes_any: bool) -> int:
    """The flags that letters name. No message shows which they are: they are part of the secret."""
    lone, words = ("x, n or i", "x (all), n (none) or i (any)") if takes_any else ("x or n", "x (all) or n (none)")
    expects = f"letters of f s r p a u, or {words} alone"
    if ANY_FLAGS in text and not takes_any:
        raise ConfigError(f"{ANY_FLAGS} (any flags) is none of the flags here, expected {expects}")
    if not text:
        raise ConfigError(f"nothing follows the colon behind the port, expected {expects}")
    if not all(letter in FLAG_LETTERS or letter == ANY_FLAGS for letter in text):
        raise ConfigError(f"a flag is unknown, expected {expects}")
    if len(set(text)) < len(text):
        raise ConfigError("a flag stands twice, expected each once")
    if len(text) > 1 and any(letter in text for letter in _ALONE + ANY_FLAGS):
        raise ConfigError(f"{lone} stands with other flags, expected {expects}")
    return sum(FLAG_LETTERS[letter] for letter in text)


def _letters(flags: int) -> str:
    alone = [letter for letter in _ALONE if flags == FLAG_LETTERS[letter]]
    return "".join(alone or [letter for letter, flag in FLAG_LETTERS.items() if letter not in _ALONE and flags & flag])


def _split(text: str) -> list[object]:
    """The items of a list in text, those that are numbers as numbers. An empty text has none."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1].strip()
    return [_number(item.strip()) for item in inner.split(",")] if inner else []


def _number(text: str) -> object:
    """`text` as a number if it is plain decimal digits (Python's `int` alone would take `1_000` and `٣`)."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text


def _items(value: object, noun: str, expects: str) -> Iterator[tuple[int, object]]:
    if not isinstance(value, list):
        raise ConfigError(f"{shown(value)} is not {noun}, expected {expects}")
    return enumerate(value, start=1)


def _at(position: int, read: Callable[[object], T], item: object) -> T:
    try:
        return read(item)
    except ConfigError as wrong:
        raise ConfigError(f"position {position}: {wrong.problem}") from None


def _count(things: Sized, fewest: int, most: int, noun: str = "port") -> None:
    if not fewest <= len(things) <= most:
        plural = "" if len(things) == 1 else "s"
        raise ConfigError(f"it has {len(things)} {noun}{plural}, expected {fewest} to {most}")
