"""The values that all other modules use: no I/O, no clock, no log, and no import from the project."""

import math
from dataclasses import dataclass, field, replace
from enum import Enum, IntFlag
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

Address = IPv4Address | IPv6Address

PORT_MAX = 65535
PAYLOAD = b"knock\n"
"""The exact payload of a UDP knock that sockets receive, unless any is accepted."""

DEFAULT_SEQUENCE = (16001, 16002, 16003, 16004, 16005)
"""The documentation's example, and so publicly known."""

RULE_PRIORITY = 31313
"""The mark of ownership in firewalld: unusual, behind a zone's denials and ahead of its default answer."""


class Protocol(str, Enum):
    """A transport protocol, by the name that firewalld and the configuration use."""

    TCP = "tcp"
    UDP = "udp"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, order=True)
class Port:
    """A guarded port: what a door opens."""

    number: int
    protocol: Protocol = Protocol.TCP

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True)
class EphemeralPorts:
    """The ports that the kernel may give to an outgoing socket, which then has one for a while (ip(7))."""

    range: range
    """net.ipv4.ip_local_port_range, for IPv6 as well."""
    reserved: frozenset[int] = frozenset()
    """net.ipv4.ip_local_reserved_ports: what it does not give, though it is in the range."""

    def __contains__(self, port: object) -> bool:
        return port in self.range and port not in self.reserved


class Flags(IntFlag):
    """TCP's six flags, by their bits in byte 13 of the header (RFC 9293, 3.1); those of ECN never matter here."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32


ALL_FLAGS = 63


class Dialect(Enum):
    """How a sequence treats wrong, late and repeated knocks (the design's table of dialects)."""

    NATIVE = "native"
    KNOCKD = "knockd"
    TPORTKNOCKD = "tportknockd"


class Payload(str, Enum):
    """The datagrams that are knocks of the opening sequence."""

    KNOCK = "knock"  # those with exactly `PAYLOAD`
    ANY = "any"


class FirewalldState(str, Enum):
    """How firewalld responds."""

    PRESENT = "present"
    ABSENT = "absent"
    HUNG = "hung"  # on the bus, and does not answer
    REFUSING = "refusing"  # it answers with errors: mostly polkit does not let this user change it
    FAILED = "failed"  # it could not load its own configuration, which is not active
    FLUSHED = "flushed"  # another program removed its rules from the kernel
    UNUSED = "unused"  # the daemon only runs commands, and never asks whether firewalld runs


@dataclass(frozen=True, order=True)
class Step:
    """The packet that a sequence expects. TCP's flags in `mask` must be as in `flags`; UDP has none."""

    protocol: Protocol
    port: int
    flags: int = 0
    mask: int = ALL_FLAGS
    """TCP flags that are compared: all six in the native dialect."""


@dataclass(frozen=True)
class Scope:
    """The packets that can be knocks of a sequence."""

    target: Address | None = None
    """Their destination; None for any address of this host."""
    interfaces: tuple[str, ...] = ()
    """The interfaces that they arrive on: names or patterns such as `ppp*`; empty for every interface."""
    ipv4_only: bool = False


class Opening:
    """The thing that an access opens; a class for each kind, and an opener for each class."""

    def opened_ports(self) -> tuple[Port, ...]:
        """The ports that the knocker connects to; empty where it only runs something."""
        return ()

    def describe(self, access: str) -> str:
        """The opening in a few words; `access` is the name of the access that it belongs to."""
        raise NotImplementedError


@dataclass(frozen=True)
class PortOpening(Opening):
    """Ports of this host, opened in the firewall."""

    ports: tuple[Port, ...]

    def opened_ports(self) -> tuple[Port, ...]:
        return self.ports

    def describe(self, access: str) -> str:  # noqa: ARG002 the ports say it all
        return ", ".join(map(str, self.ports))


@dataclass(frozen=True)
class CommandOpening(Opening):
    """Commands run by a shell, with %IP% replaced by the knocker's address."""

    start: str
    stop: str = ""
    delay: float = 0.0
    """Seconds from the end of `start` to `stop`."""
    start6: str | None = None
    """`start` for a knocker with an IPv6 address; None for the same, empty for none."""
    stop6: str | None = None

    def describe(self, access: str) -> str:
        return f"{access}'s command"

    def start_for(self, address: Address) -> str:
        """The command that opens for this address, empty for none; %IP% is not replaced yet."""
        return self.start if address.version == 4 or self.start6 is None else self.start6

    def stop_for(self, address: Address) -> str:
        """The command that closes for this address, empty for none; %IP% is not replaced yet."""
        return self.stop if address.version == 4 or self.stop6 is None else self.stop6


@dataclass(frozen=True)
class Access:
    """The openings that a completed sequence or a request by hand grants to one address."""

    name: str = ""
    """Of the sequence that grants it."""
    openings: tuple[Opening, ...] = ()
    duration: float = 10.0
    """Seconds that a door to ports stays open."""
    closes: bool = False
    """Whether it closes the doors that the access of this name opened for the address, and opens none."""

    @classmethod
    def of(
        cls, name: str, ports: tuple[Port, ...] = (), duration: float = 10.0, command: CommandOpening | None = None
    ) -> "Access":
        """The access to these ports, with this command; either may be left out."""
        openings: list[Opening] = [PortOpening(ports)] if ports else []
        return cls(name, (*openings, *([command] if command is not None else [])), duration)

    @property
    def ports(self) -> tuple[Port, ...]:
        """All ports of this host that it opens."""
        return tuple(port for opening in self.openings for port in opening.opened_ports())

    @property
    def command(self) -> CommandOpening | None:
        """The commands that it runs, if any."""
        return next((opening for opening in self.openings if isinstance(opening, CommandOpening)), None)


class Origin(Enum):
    """The origin of an access request."""

    KNOCK = "knock"
    CONTROL = "control"  # an administrator, over the control socket


class AccessRequest(NamedTuple):
    """A request of one address for one access: proven, and not yet granted."""

    source: Address
    interface: str
    """Name of the interface that the knock arrived on; empty where it is not known."""
    access: Access
    when: float
    """Seconds of `clock.now`."""
    origin: Origin = Origin.KNOCK


@dataclass(frozen=True)
class Sequence:
    """Named, ordered steps, and the access that they grant. No representation shows `steps`: they are the secret."""

    name: str
    steps: tuple[Step, ...] = field(repr=False)
    access: Access = Access()
    lifetime: float = math.inf
    """Seconds after its last knock at which a knocker starts again."""
    timeout: float = math.inf
    """Seconds after its first knock at which a knocker starts again."""
    traps: int = 0
    """How many ports of each of its protocols count as wrong knocks between two steps."""
    listened: bool = False
    """Whether sockets receive its knocks, and not the sniffer."""
    any_payload: bool = False
    """Whether sockets receive its knocks whatever their payload; the sniffer never looks at it."""
    dialect: Dialect = Dialect.NATIVE
    group: str = ""
    """Its file. In knockd's dialect, a knock for one sequence of a group is a knock for all of the group."""
    flags: tuple[int, int] = (0, 0)
    """In knockd's dialect, mask and value: TCP packets with other flags are not knocks, right or wrong."""
    scope: Scope = Scope()
    one_time: str = ""
    """Path of its file of one-time sequences, of which `steps` is the active line; empty `steps` if no line is left."""
    close_steps: tuple[Step, ...] = field(default=(), repr=False)
    """The steps by which a knocker closes its own doors of this sequence ahead of time; empty for none."""

    def closing(self) -> "tuple[Sequence, ...]":
        """The sequence of `close_steps`, if it has any. Its name is one that no configured sequence can have.

        Without traps: a scan that closes the scanner's own door does no harm.
        """
        return self._closing

    @cached_property
    def _closing(self) -> "tuple[Sequence, ...]":
        # Made once: a thousand sequences are compared with each other (measured: 2.7 against 7.7 s).
        if not self.close_steps:
            return ()
        access = Access(self.access.name, closes=True)
        return (
            replace(self, name=f"{self.name}/close", steps=self.close_steps, close_steps=(), access=access, traps=0),
        )


@dataclass(frozen=True)
class Import:
    """Another daemon's file, `[[import]]` in ours."""

    dialect: Dialect
    path: str
    traps: int = 0
    """For each of its sequences, as in `Sequence.traps`."""


@dataclass(frozen=True)
class Settings:
    """The whole configuration, checked. Periods are in seconds."""

    guarded_ports: tuple[Port, ...] = (Port(22),)
    opening_sequence: tuple[int, ...] = field(default=DEFAULT_SEQUENCE, repr=False)
    payload: Payload = Payload.KNOCK
    rule_check_period: float = 10.0
    ignoring_period: float = 5.0
    knocker_lifetime: float = 30.0
    door_duration: float = 10.0
    doors_cleanup_period: float = 10.0
    zone: str = ""
    """firewalld zone of the doors; empty for the zone that the knocker's packets fall into."""
    open_knock_ports: bool = True
    doors_for_banned: bool = False
    """Whether doors open for addresses that are banned in firewalld."""
    max_knockers: int = 65536
    max_open_doors: int = 1024
    rule_priority: int = RULE_PRIORITY
    sequences: tuple[Sequence, ...] = ()
    """The sniffed ones: `[[sequence]]` in the file, and what the imported files have."""
    imports: tuple[Import, ...] = ()
    interfaces: tuple[str, ...] = ()
    """Interfaces that sniffed knocks arrive on: names or patterns such as `ppp*`; empty for every interface."""


@dataclass(frozen=True)
class Door:
    """One opening of an access, for one address. The same address on another interface is another door: it may be in
    another zone."""

    address: Address
    interface: str
    """Name of the interface that the knock arrived on; empty where it is not known, or makes no difference."""
    access: str
    """Name of the access."""
    opening: Opening

    def __str__(self) -> str:
        return self.opening.describe(self.access)
