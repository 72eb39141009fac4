"""The log's warnings about doors whose zone cannot be known from a knock."""

from port_knocking_doors.firewall.bans import REFUSING
from port_knocking_doors.firewall.zones import Doubt, Zones
from port_knocking_doors.model import Door
from port_knocking_doors.system.log import LogEvent, event_fields, logger


class ZoneDoubts:
    """Writes a warning for each source of a zone that may match, once until `forget`."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def forget(self) -> None:
        """Write the warnings again from now on."""
        self._logged.clear()

    def log(self, door: Door, zones: Zones) -> None:
        """Write which zones the packets of the door's address may belong to, other than the one of the door."""
        match = zones.match(door.address, door.interface)
        for doubt in match.doubts:
            if (doubt.zone, doubt.source) not in self._logged:
                self._logged.add((doubt.zone, doubt.source))
                extra = event_fields(
                    LogEvent.UNCERTAIN_ZONE, address=door.address, zone=doubt.zone, reason=doubt.reason
                )
                text = f"{doubt_text(doubt)}: the door opens in zone {match.zones[0]}; {remedy(doubt, zones)}"
                logger.warning("%s: %s", door.address, text, extra=extra)


def doubt_text(doubt: Doubt) -> str:
    """What cannot be known; continues a sentence that begins with an address."""
    return f"may be in zone {doubt.zone}, by its source {doubt.source} ({doubt.reason})"


def remedy(doubt: Doubt, zones: Zones) -> str:
    """What to set where the address is in that zone."""
    if zones.targets.get(doubt.zone, "") in REFUSING:
        return "in that zone it is banned, and its door lets nothing in"
    return f'if its door lets nothing in, set zone = "{doubt.zone}"'
