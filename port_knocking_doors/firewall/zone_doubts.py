"""The log's warnings about doors whose zone cannot be known from a knock."""

from dataclasses import replace

from port_knocking_doors.firewall.bans import REFUSING
from port_knocking_doors.firewall.kernel_rules import TABLE
from port_knocking_doors.firewall.source_set import SourceSet
from port_knocking_doors.firewall.zones import SET, Doubt, ZoneMatch, Zones
from port_knocking_doors.model import Door
from port_knocking_doors.system import nft_set
from port_knocking_doors.system.log import LogEvent, event_fields, logger


class ZoneDoubts:
    """Writes a warning for each source of a zone that may match, once until `forget`."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()
        self._may_ask = True
        """Whether the kernel answers this process."""

    def forget(self) -> None:
        """Write the warnings again from now on."""
        self._logged.clear()

    def log(self, door: Door, zones: Zones) -> None:
        """Write which zones the packets of the door's address may belong to, other than the one of the door."""
        match = zones.match(door.address, door.interface)
        for doubt in (*match.doubts, *self._by_kernel(door, zones, match)):
            if (doubt.zone, doubt.source) not in self._logged:
                self._logged.add((doubt.zone, doubt.source))
                extra = event_fields(
                    LogEvent.UNCERTAIN_ZONE, address=door.address, zone=doubt.zone, reason=doubt.reason
                )
                text = f"{doubt_text(doubt)}: the door opens in zone {match.zones[0]}; {remedy(doubt, zones)}"
                logger.warning("%s: %s", door.address, text, extra=extra)

    def _by_kernel(self, door: Door, zones: Zones, match: ZoneMatch) -> list[Doubt]:
        """The zones of sets that contain the address in the kernel, and not by what firewalld knows."""
        found = []
        for source, zone in sorted(zones.sources.items()):
            entries = zones.sets.get(source.removeprefix(SET)) if source.startswith(SET) else None
            is_known = entries is not None and not entries.doubt
            if not is_known or not self._may_ask or zone in match.zones:
                continue
            is_inside = nft_set.set_contains(TABLE, source.removeprefix(SET), door.address)
            self._may_ask = is_inside is not None
            if is_inside:
                # If firewalld knew: another zone may come first all the same.
                with_address = SourceSet()
                with_address.add([str(door.address)])
                known = replace(zones, sets={**zones.sets, source.removeprefix(SET): with_address})
                if zone in known.match(door.address, door.interface).zones:
                    found.append(Doubt(zone, source, "another program has put the address into the set"))
        return found


def filled_by_others(zones: Zones) -> list[Doubt]:
    """The sources of zones that are sets with more in the kernel than firewalld knows; what the kernel does not say is
    left out."""
    found = []
    for source, zone in sorted(zones.sources.items()):
        entries = zones.sets.get(source.removeprefix(SET)) if source.startswith(SET) else None
        if entries is not None and not entries.doubt:
            size = nft_set.set_size(TABLE, source.removeprefix(SET))
            if size is not None and size > entries.size:
                reason = f"the kernel has {size} entries and firewalld {entries.size}: another program adds some"
                found.append(Doubt(zone, source, reason))
    return found


def doubt_text(doubt: Doubt) -> str:
    """What cannot be known; continues a sentence that begins with an address."""
    return f"may be in zone {doubt.zone}, by its source {doubt.source} ({doubt.reason})"


def remedy(doubt: Doubt, zones: Zones) -> str:
    """What to set where the address is in that zone."""
    if zones.targets.get(doubt.zone, "") in REFUSING:
        return "in that zone it is banned, and its door lets nothing in"
    return f'if its door lets nothing in, set zone = "{doubt.zone}"'
