"""Knock ports in the range of outgoing sockets: which they are, and how to keep those sockets off them."""

from collections.abc import Iterable

from port_knocking_doors.model import EphemeralPorts

SETTING = "net.ipv4.ip_local_reserved_ports"
FILE = "/etc/sysctl.d/50-port-knocking-doors.conf"
BLOCK = 256
"""Ports that are reserved together with one of them: every user of the host can read the setting, and must not read the
ports of the sequence in it."""


def at_risk(ports: Iterable[int], outgoing: EphemeralPorts) -> list[int]:
    """Those of the ports that an outgoing socket may have when the daemon starts."""
    return [port for port in dict.fromkeys(ports) if port in outgoing]


def reservation(ports: Iterable[int], outgoing: EphemeralPorts) -> str:
    """The value of `SETTING` that keeps outgoing sockets off these ports, and off what is reserved already."""
    blocks = {port // BLOCK * BLOCK for port in at_risk(ports, outgoing)}
    reserved = {*outgoing.reserved, *(port for low in blocks for port in range(low, low + BLOCK))}
    return ",".join(_runs(reserved))


def commands(ports: Iterable[int], outgoing: EphemeralPorts) -> tuple[str, str]:
    """The shell commands that reserve the ports: now, and at each boot."""
    value = reservation(ports, outgoing)
    return f"sysctl -w {SETTING}={value}", f"echo '{SETTING} = {value}' >{FILE}"


def _runs(ports: Iterable[int]) -> Iterable[str]:
    """Ranges as sysctl has them: 5,7-9."""
    first = last = -1
    for port in (*sorted(ports), None):
        if port is not None and port == last + 1:
            last = port
            continue
        if last >= 0:
            yield str(first) if first == last else f"{first}-{last}"
        if port is not None:
            first = last = port
