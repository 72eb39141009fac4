"""Steps and ports as words of the client's command line, in knockd's or tportknockd's spelling.

A wrong word is quoted only where it cannot hide a port, as everywhere in this package; messages give its position.
"""

import contextlib
import re
from collections.abc import Iterable
from ipaddress import IPv6Address

from port_knocking_doors.config import readers
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Protocol, Step

EXPECTS = "PORT, PORT:udp, PORT:tcp, udp:PORT, tcp:PORT or tcp:PORT:FLAGS in small letters"
_SCOPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
"""The scope of a link-local address: an interface's name or number (RFC 4007, 11)."""
STEPS_MAX = 32
"""Steps of a sequence, as in the configuration."""


def read(words: Iterable[str], protocol: Protocol = Protocol.TCP) -> tuple[Step, ...]:
    """The steps of the words; a bare port is of `protocol`. A TCP step without flags is a bare SYN.

    Raises `ConfigError`.
    """
    steps = []
    try:
        for word in words:
            steps.append(step(word, protocol))  # noqa: PERF401 (their number is the position of the error)
    except ConfigError as wrong:
        raise ConfigError(f"step {len(steps) + 1}: {wrong.problem}") from None
    if len(steps) > STEPS_MAX:
        raise ConfigError(f"there are {len(steps)} steps, expected at most {STEPS_MAX}")
    return tuple(steps)


def step(word: str, protocol: Protocol = Protocol.TCP) -> Step:
    """One step. Raises `ConfigError`."""
    first, colon, rest = word.partition(":")
    if not (first.isascii() and first.isdigit()):
        if first not in list(Protocol):
            raise ConfigError(f"not a step, expected {EXPECTS}")
        return readers.knock_step(word)
    if rest and rest not in list(Protocol):
        raise ConfigError(f"the protocol after the port is unknown, expected {EXPECTS}")
    if colon and not rest:
        raise ConfigError(f"nothing follows the colon after the port, expected {EXPECTS}")
    return readers.knock_step(f"{rest or protocol}:{first}")


def host(word: str) -> str:
    """A host name or address, without the square brackets that may enclose an IPv6 address.

    A step in the wrong place is a secret, and must not reach a name server. Raises `ConfigError`.
    """
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    if ":" in bare:
        address, percent, scope = bare.partition("%")
        with contextlib.suppress(ValueError):
            IPv6Address(address)  # which takes anything for a scope
            if not percent or _SCOPE.fullmatch(scope):
                return bare
    elif not bare.isdigit() and re.fullmatch(r"[^\W_][\w.-]{0,253}", bare):
        return bare
    raise ConfigError("the first argument is not a host, expected a host name or address, then the steps")


def tried_port(text: str) -> int:
    """The guarded port to connect to: `22` or `22/tcp`. Raises `ConfigError`."""
    number, slash, protocol = text.partition("/")
    if slash and protocol.lower() == Protocol.UDP:
        raise ConfigError("a client cannot see whether a UDP port is open, expected a TCP port")
    if slash and protocol.lower() != Protocol.TCP:
        raise ConfigError("the protocol is unknown, expected a TCP port such as 22 or 22/tcp")
    return readers.knock_port(int(number) if re.fullmatch(r"-?[0-9]{1,9}", number) else number)
