"""Ports that programs of this host listen on: neither knocks nor traps may use them."""

import re
import sys
from pathlib import Path

from port_knocking_doors.model import PORT_MAX, EphemeralPorts, Port, Protocol

PROC_NET = Path("/proc/net")
LOCAL_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
RESERVED_PORTS = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")

# Protocol and state of listening sockets, by the kernel's file (include/net/tcp_states.h: TCP_LISTEN, and TCP_CLOSE for
# a UDP socket without a peer).
_FILES = {
    "tcp": (Protocol.TCP, "0A"),
    "tcp6": (Protocol.TCP, "0A"),
    "udp": (Protocol.UDP, "07"),
    "udp6": (Protocol.UDP, "07"),
}
_LINE = re.compile(
    r"\s*\d+: (?P<address>[0-9A-F]+):(?P<port>[0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} (?P<state>[0-9A-F]{2}) "
)


# As the kernel writes addresses there: each word of 32 bits in the machine's byte order (%08X).
_LOOPBACK4 = re.compile(r"[0-9A-F]{6}7F" if sys.byteorder == "little" else r"7F[0-9A-F]{6}")
_MAPPED = f"{0:016X}" + ("FFFF0000" if sys.byteorder == "little" else "0000FFFF")
_LOOPBACK6 = f"{0:024X}" + ("01000000" if sys.byteorder == "little" else "00000001")


def listening_ports(folder: Path = PROC_NET, *, from_outside: bool = False) -> frozenset[Port]:
    """The ports that sockets of this network namespace listen on now; a file that does not exist adds none.

    `from_outside`: only ports on which a socket listens beyond loopback.
    """
    ports: set[Port] = set()
    for name, (protocol, state) in _FILES.items():
        try:
            lines = (folder / name).read_text("ascii", "replace").splitlines()
        except OSError:
            continue
        found = filter(None, map(_LINE.match, lines))
        ports.update(
            Port(int(line["port"], 16), protocol)
            for line in found
            if line["state"] == state and not (from_outside and _is_loopback(line["address"]))
        )
    return frozenset(ports)


def served_ports() -> frozenset[Port]:
    """The ports that services of this host listen on beyond loopback: without UDP sockets of outgoing traffic."""
    outgoing = ephemeral_ports()
    return frozenset(
        port
        for port in listening_ports(from_outside=True)
        if port.protocol is Protocol.TCP or port.number not in outgoing
    )


def _is_loopback(address: str) -> bool:
    is_ipv4 = len(address) == 8 or address[:-8] == _MAPPED
    return address == _LOOPBACK6 or (is_ipv4 and _LOOPBACK4.fullmatch(address[-8:]) is not None)


def ephemeral_ports(file: Path = LOCAL_PORT_RANGE) -> range:
    """The ports that the kernel gives to outgoing connections (ip(7), ip_local_port_range)."""
    try:
        low, high = map(int, file.read_text("ascii").split())
    except (OSError, ValueError):
        low, high = 32768, 60999  # the kernel's own default
    return range(low, high + 1)


def reserved_ports(file: Path = RESERVED_PORTS) -> frozenset[int]:
    """The ports that the kernel gives to no outgoing connection though they are in the range
    (ip_local_reserved_ports); none where the file cannot be read."""
    ports: set[int] = set()
    try:
        for part in filter(None, file.read_text("ascii").strip().split(",")):
            low, _, high = part.partition("-")
            ports.update(range(int(low), min(int(high or low), PORT_MAX) + 1))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(ports)


def outgoing_ports() -> EphemeralPorts:
    """The ports that outgoing sockets of this network namespace may have."""
    return EphemeralPorts(ephemeral_ports(), reserved_ports())
