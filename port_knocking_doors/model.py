"""The values that everything speaks of: no behaviour that touches the world, nothing imported from the project."""

import math
import socket
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

PORT_MAX = 65535
PAYLOAD = b"knock\n"
"""What a UDP knock carries, exactly."""

DEFAULT_SEQUENCE = (16001, 16002, 16003, 16004, 16005)
"""The documentation's example, and so known to everybody."""

RULE_PRIORITY = 31313
"""The mark of ownership in firewalld: unusual, behind a zone's denials and ahead of its default answer."""


class Protocol(str, Enum):
    """A transport protocol, by the name that firewalld and the configuration use."""

    TCP = "tcp"
    UDP = "udp"

    def __str__(self) -> str:
        return self.value


_PROTOCOL_NUMBER = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}


@dataclass(frozen=True, order=True)
class Port:
    """A guarded port: what a door opens."""

    number: int
    protocol: Protocol = Protocol.TCP

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


class Flags(IntFlag):
    """TCP's six flags, by their bits in byte 13 of the header (RFC 9293, 3.1); those of ECN never matter here."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32


ALL_FLAGS = 63

LISTENED = 1 << 30
"""Set in a step's code where a socket heard it. Each sequence has one ear, so that what both hear counts once in it."""


@dataclass(frozen=True, order=True)
class Step:
    """What one packet of a sequence must be. For TCP the flags are exact; UDP has none."""

    protocol: Protocol
    port: int
    flags: int = 0

    @property
    def code(self) -> int:
        """The step as one number: TCP's flags, the protocol's number (IPPROTO_ in netinet/in.h), the port's 16 bits."""
        return self.flags << 24 | _PROTOCOL_NUMBER[self.protocol] << 16 | self.port


@dataclass(frozen=True)
class Command:
    """What runs when a sequence is complete, in a shell, with %IP% replaced by the knocker's address."""

    start: str
    stop: str = ""
    delay: float = 0.0
    """Seconds from the end of `start` to `stop`."""


@dataclass(frozen=True)
class Sequence:
    """Named, ordered steps and what they open. `steps` stay out of every representation: they are the secret."""

    name: str
    steps: tuple[Step, ...] = field(repr=False)
    opens: tuple[Port, ...] = ()
    duration: float = 10.0
    """Seconds that a door stays open."""
    lifetime: float = math.inf
    """Seconds after its last knock at which a knocker starts anew."""
    timeout: float = math.inf
    """Seconds after its first knock at which a knocker starts anew."""
    traps: int = 0
    """How many ports of each of its protocols count as wrong knocks between two steps."""
    command: Command | None = None
    listened: bool = False
    """Whether sockets hear it, and not the sniffer."""


@dataclass(frozen=True)
class Settings:
    """The whole configuration, checked. Periods are in seconds."""

    guarded_ports: tuple[Port, ...] = (Port(22),)
    opening_sequence: tuple[int, ...] = field(default=DEFAULT_SEQUENCE, repr=False)
    rule_check_period: float = 10.0
    ignoring_period: float = 5.0
    knocker_lifetime: float = 30.0
    door_duration: float = 10.0
    doors_cleanup_period: float = 10.0
    zone: str = ""
    """firewalld zone of the doors; empty for the zone that the knocker's packets fall into."""
    open_knock_ports: bool = True
    max_knockers: int = 65536
    max_open_doors: int = 1024
    rule_priority: int = RULE_PRIORITY
    sequences: tuple[Sequence, ...] = ()
    """The sniffed ones, `[[sequence]]` in the file."""
    interfaces: tuple[str, ...] = ()
    """Where they are heard: names or patterns such as `ppp*`; empty for every interface."""


@dataclass(frozen=True)
class Door:
    """Ports open for one address. The same address by another interface is another door: it may be another zone's."""

    address: Address
    interface: str
    """Name of the interface that the knock came in by; empty where it is not known."""
    sequence: str
    """Name of the sequence that opened it."""
    ports: tuple[Port, ...] = ()
    command: Command | None = None
    """What was run instead of, or beside, opening ports."""
