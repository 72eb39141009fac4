"""Steps and ports as words of the client's command line, in knockd's spelling or in tportknockd's.

What was wrong is quoted only where it cannot hide a port, as everywhere in this package; which word it was is told by
its position.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address

from port_knocking_doors.config import readers
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Protocol, Step

EXPECTS = "PORT, PORT:udp, PORT:tcp, udp:PORT, tcp:PORT or tcp:PORT:FLAGS in small letters"
STEPS_MAX = 32
"""Steps of a sequence, as in the configuration."""


def read(words: Iterable[str], protocol: Protocol = Protocol.TCP) -> tuple[Step, ...]:
    """The steps that the words stand for; a bare port is of `protocol`. A TCP step without flags is a bare SYN.

    Raises `ConfigError`.
    """
    steps = []
    try:
        for word in words:
            steps.append(step(word, protocol))  # noqa: PERF401 (their number tells where it went wrong)
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
            raise ConfigError(f"this is not a step, expected {EXPECTS}")
        return readers.knock_step(word)
    if rest and rest not in list(Protocol):
        raise ConfigError(f"what follows the port is neither udp nor tcp, expected {EXPECTS}")
    if colon and not rest:
        raise ConfigError(f"nothing follows the colon behind the port, expected {EXPECTS}")
    return readers.knock_step(f"{rest or protocol}:{first}")


def host(word: str) -> str:
    """A host's name or address, without the square brackets that may stand around an IPv6 address.

    A step in the wrong place is a secret, and must not get as far as a name server. Raises `ConfigError`.
    """
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    if ":" in bare:
        try:
            IPv6Address(bare)
        except ValueError:
            pass
        else:
            return bare
    elif not bare.isdigit() and re.fullmatch(r"[^\W_][\w.-]{0,253}", bare):
        return bare
    raise ConfigError("the first word is not a host, expected its name or address, and behind it the steps")


def tried_port(text: str) -> int:
    """The guarded port to connect to: `22` or `22/tcp`. Raises `ConfigError`."""
    number, slash, protocol = text.partition("/")
    if slash and protocol.lower() == Protocol.UDP:
        raise ConfigError("whether a UDP port is open cannot be seen from outside, expected a TCP port")
    if slash and protocol.lower() != Protocol.TCP:
        raise ConfigError("the protocol is unknown, expected a TCP port such as 22 or 22/tcp")
    return readers.knock_port(int(number) if re.fullmatch(r"-?[0-9]{1,9}", number) else number)
