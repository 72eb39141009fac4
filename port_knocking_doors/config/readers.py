"""The readers of single values, from TOML, the command line or the environment."""

import re
from dataclasses import dataclass

from port_knocking_doors import model
from port_knocking_doors.config.reader_types import (
    ListReader,
    MismatchError,
    Seconds,
    Whole,
    function_reader,
    kind_of,
    plain_number,
    quoted,
)
from port_knocking_doors.errors import ConfigError

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
"""The flags of a TCP step as tportknockd writes them. `x` and `n` are complete, and never combined with others."""
ANY_FLAGS = "i"
"""tportknockd's letter for any flags. It is never combined either, and valid only in tportknockd's own files."""
_ALONE = "xn"

RESERVED_NAME = "main"
"""The name of the opening sequence in the log."""


@dataclass(frozen=True)
class KnockStep:
    """A step as tportknockd writes it, in small letters: `udp:1234`, `tcp:543`, `tcp:123:frap`.

    `bare`: the flags of a TCP step that names none. `takes_any`: whether the whole grammar of tportknockd is accepted,
    in which `i` means any flags, and an empty part after the second colon means no flags.
    """

    bare: int = model.Flags.SYN
    takes_any: bool = False
    expects: str = "udp:PORT, tcp:PORT or tcp:PORT:FLAGS in small letters"

    def __call__(self, value: object) -> model.Step:
        parts = value.split(":") if isinstance(value, str) else []
        if not 2 <= len(parts) <= 3:
            raise ConfigError(f"{kind_of(value)} is not a step, expected {self.expects}")
        name, number, *flags = parts
        try:
            protocol = model.Protocol(name)
        except ValueError:
            raise ConfigError(f"the protocol is unknown, expected {self.expects}") from None
        # -1234 may be a slip for 1234, and is not quoted.
        port = knock_port(plain_number(number) if number.isdigit() else number)
        if protocol is model.Protocol.UDP:
            if flags:
                raise ConfigError("a UDP port has flags, expected flags after a TCP port only")
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


def _tcp_flags(text: str, takes_any: bool) -> int:
    """The flags that letters name. No message shows them: they are part of the secret."""
    lone, words = ("x, n or i", "x (all), n (none) or i (any)") if takes_any else ("x or n", "x (all) or n (none)")
    expects = f"letters of f s r p a u, or {words} alone"
    if ANY_FLAGS in text and not takes_any:
        raise ConfigError(f"the flag {ANY_FLAGS} (any flags) is not allowed here, expected {expects}")
    if not text:
        raise ConfigError(f"nothing follows the colon after the port, expected {expects}")
    if not all(letter in FLAG_LETTERS or letter == ANY_FLAGS for letter in text):
        raise ConfigError(f"a flag is unknown, expected {expects}")
    if len(set(text)) < len(text):
        raise ConfigError("a flag is given twice, expected each once")
    if len(text) > 1 and any(letter in text for letter in _ALONE + ANY_FLAGS):
        raise ConfigError(f"{lone} is combined with other flags, expected {expects}")
    return sum(FLAG_LETTERS[letter] for letter in text)


def _letters(flags: int) -> str:
    alone = [letter for letter in _ALONE if flags == FLAG_LETTERS[letter]]
    return "".join(alone or [letter for letter, flag in FLAG_LETTERS.items() if letter not in _ALONE and flags & flag])


def knock_steps_of(step: KnockStep, fewest: int, most: int) -> ListReader[model.Step]:
    """Steps in the order of their knocks, separated by white space in a text. A step may occur more than once."""
    return ListReader(step, fewest, most, f"steps, each {step.expects}", str.split, noun="step")


def _split(text: str) -> list[object]:
    """The items of a list in a text, numbers as `int`. An empty text has no items."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1].strip()
    return [plain_number(item.strip()) for item in inner.split(",")] if inner else []


def _guarded_port(item: object) -> model.Port:
    if not isinstance(item, str):
        return model.Port(knock_port(item))
    number, slash, name = item.partition("/")
    try:
        protocol = model.Protocol(name.lower() if slash else "tcp")
    except ValueError:
        raise ConfigError(f"{quoted(name)} is not a protocol, expected tcp or udp") from None
    return model.Port(knock_port(plain_number(number)), protocol)


SEQUENCE_SHORT = 5
"""An opening sequence of fewer ports is soon found by chance: accepted from a file, with a warning."""
ZONE_NAME_MAX = 17
SEQUENCE_NAME_MAX = 32
COMMAND_MAX = 4096
INTERFACE_NAME_MAX = 15
"""Bytes: IFNAMSIZ in linux/if.h, without the zero at its end."""
_FOREIGN_FORMATS = {dialect.value: dialect for dialect in model.Dialect if dialect is not model.Dialect.NATIVE}


knock_port = Whole(1, model.PORT_MAX, "port")
knock_step = KnockStep()
knock_steps = knock_steps_of(knock_step, 2, 32)
sequence = ListReader(knock_port, 3, 21, "UDP ports", _split)
"""UDP ports in the order of their knocks, in a file. A port may occur more than once."""
sequence_option = ListReader(knock_port, SEQUENCE_SHORT, 21, "UDP ports", _split)
"""The same as an option or a variable. The Rust program accepts shorter sequences in files only."""
guarded_ports = ListReader(
    _guarded_port, 1, 64, 'ports, such as [22, "1194/udp"]', _split, is_set=True, is_secret=False
)
"""Ports such as `22`, `"22/tcp"` and `"1194/udp"`."""
traps = Whole(0, 4096)
seconds = Seconds()
seconds_or_zero = Seconds(takes_zero=True)
rule_priority = Whole(1, 32767, "priority")
"""firewalld accepts -32768 to 32767; a rule above 0 comes after the zone's own denials."""


@function_reader("true or false")
def flag(value: object) -> bool:
    """True or false, and nothing that resembles them."""
    if not isinstance(value, bool):
        raise MismatchError(f"{quoted(value)} is neither true nor false")
    return value


@function_reader(" or ".join(f'"{kind.value}"' for kind in model.Payload))
def payload(value: object) -> model.Payload:
    """The datagrams that are knocks of the opening sequence."""
    if not isinstance(value, str) or value not in (kind.value for kind in model.Payload):
        raise MismatchError(f"{quoted(value)} is not a kind of payload")
    return model.Payload(value)


@function_reader(f"a firewalld zone's name of at most {ZONE_NAME_MAX} letters, digits, - and _, or an empty string")
def zone_name(value: object) -> str:
    """The name of a firewalld zone by firewalld's own rules, or empty. Whether the zone exists is not checked.

    firewalld limits the part before a slash, because that becomes part of a chain's name in the kernel.
    """
    if not isinstance(value, str):
        raise MismatchError(f"{quoted(value)} is not a zone's name")
    chain, slash, rest = value.partition("/")
    if slash and not (chain and rest and "/" not in rest):
        raise MismatchError("a zone's name has a misplaced slash")
    if not all(char.isalnum() or char in "-_/" for char in value):
        raise MismatchError("a zone's name has a character that firewalld forbids")
    if len(chain) > ZONE_NAME_MAX:
        raise MismatchError(f"a zone's name has {len(chain)} characters")
    return value


@function_reader(f"a word of at most {SEQUENCE_NAME_MAX} letters, digits, -, . and _, a letter first")
def sequence_name(value: object) -> str:
    """The name of a sequence in the log: one word, and not the opening sequence's."""
    if value == RESERVED_NAME:
        raise ConfigError(f"{RESERVED_NAME} is the name of the opening sequence, expected another name")
    if not isinstance(value, str) or not re.fullmatch(rf"[^\W\d_][\w.-]{{0,{SEQUENCE_NAME_MAX - 1}}}", value):
        raise MismatchError(f"{quoted(value)} is not a sequence's name")
    return value


@function_reader(f"a line of 1 to {COMMAND_MAX} characters for a shell")
def shell_command(value: object) -> str:
    """A line for a shell. Longer commands belong into a script."""
    if not isinstance(value, str) or not value.strip():
        raise MismatchError(f"{quoted(value)} is not a command")
    if not value.replace("\t", " ").isprintable():
        raise MismatchError("a command has an unprintable character")
    if len(value) > COMMAND_MAX:
        raise MismatchError(f"a command has {len(value)} characters")
    return value


@function_reader(" or ".join(f'"{name}"' for name in _FOREIGN_FORMATS))
def foreign_format(value: object) -> model.Dialect:
    """The daemon whose file is imported, by its name."""
    if not isinstance(value, str) or value not in _FOREIGN_FORMATS:
        raise MismatchError(f"{quoted(value)} is not a format that can be imported")
    return _FOREIGN_FORMATS[value]


@function_reader("the path of a file: absolute, below ~, or relative to the directory of this file")
def file_path(value: object) -> str:
    """The path of a file. Whether the file exists is not checked."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise MismatchError(f"{kind_of(value)} is not a path")
    return value


@function_reader(
    f"the name of an interface or a pattern such as ppp*, 1 to {INTERFACE_NAME_MAX} bytes without a space, / or :"
)
def interface_name(value: object) -> str:
    """The name of a network interface by the kernel's rules, or a pattern for names, such as `ppp*`.

    Whether the interface exists is not checked: it may appear later.
    """
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise MismatchError(f"{quoted(value)} is not an interface's name")
    if not value.isprintable() or any(char in " /:" for char in value):
        raise MismatchError("an interface's name has a character that the kernel forbids")
    length = len(value.encode())
    if length > INTERFACE_NAME_MAX:
        raise MismatchError(f"an interface's name has {length} bytes")
    return value
