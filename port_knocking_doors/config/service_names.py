"""Ports by the names of services: as in /etc/services, and as firewalld's services have them.

`service_files` reads both from the system.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from port_knocking_doors.model import Port, Protocol

_TCP = {
    "ftp": 21,
    "ssh": 22,
    "telnet": 23,
    "smtp": 25,
    "http": 80,
    "www": 80,
    "pop3": 110,
    "imap": 143,
    "imap2": 143,
    "https": 443,
    "submissions": 465,
    "submission": 587,
    "imaps": 993,
    "pop3s": 995,
    "mysql": 3306,
    "ms-wbt-server": 3389,
    "rdp": 3389,
    "postgresql": 5432,
    "http-alt": 8080,
    "webmin": 10000,
}
_UDP = {"ntp": 123, "isakmp": 500, "openvpn": 1194, "ipsec-nat-t": 4500, "wireguard": 51820}

COMMON: dict[str, tuple[Port, ...]] = {
    **{name: (Port(number),) for name, number in _TCP.items()},
    **{name: (Port(number, Protocol.UDP),) for name, number in _UDP.items()},
    "domain": (Port(53), Port(53, Protocol.UDP)),
}
"""Ports of well-known services (IANA's registry), for systems without /etc/services."""

_FIREWALLD = {
    "ssh": (Port(22),),
    "http": (Port(80),),
    "https": (Port(443),),
    "dns": (Port(53), Port(53, Protocol.UDP)),
    "openvpn": (Port(1194, Protocol.UDP),),
    "wireguard": (Port(51820, Protocol.UDP),),
    "cockpit": (Port(9090),),
    "mysql": (Port(3306),),
    "postgresql": (Port(5432),),
    "rdp": (Port(3389), Port(3389, Protocol.UDP)),
    "smtp": (Port(25),),
    "imaps": (Port(993),),
    "vnc-server": tuple(Port(number) for number in range(5900, 5904)),
}
"""Services that firewalld ships, for systems without its files."""


@dataclass(frozen=True)
class ServiceNames:
    """Where names of services are looked up."""

    named: Mapping[str, tuple[Port, ...]] = field(default_factory=lambda: COMMON)
    """Names of /etc/services, and their aliases."""
    firewalld: Callable[[str], tuple[Port, ...] | None] = _FIREWALLD.get
    """The ports of a service of firewalld; None if it is unknown, or is more than ports."""

    def port(self, name: str, protocol: Protocol) -> int | None:
        """The number of a service's port for one protocol."""
        return next((port.number for port in self.named.get(name, ()) if port.protocol is protocol), None)
