"""What firewalld's own settings say of ports, and what is reported of it already."""

from typing import NamedTuple

from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Port


class Expected(NamedTuple):
    """What the settings of firewalld say, as far as it answered."""

    zones: Zones | None = None
    exposed: frozenset[tuple[str, Port]] = frozenset()
    """Zones (empty: a policy) and the ports that they are reported to accept without a knock."""
    limited: frozenset[Port] = frozenset()
    """The ports that are reported to be open to some addresses."""
    denied: frozenset[tuple[str, Port]] = frozenset()
    """Zones (empty: a policy) and the ports that they are reported to deny."""
    shut: frozenset[str] = frozenset()
    """Zones of which closed knock ports are reported."""
    panic: bool = False
    failed: bool = False
    """Whether firewalld is in the state FAILED."""

    def explains_open(self, zone: str, port: Port) -> bool:
        return bool(self.exposed & {(zone, port), ("", port)})

    def explains_denied(self, zone: str, port: Port) -> bool:
        return bool(self.denied & {(zone, port), ("", port)})
