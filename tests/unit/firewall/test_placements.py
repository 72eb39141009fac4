"""Owners that are asked for the items that they desire, while others come and go."""

import asyncio
from collections.abc import Hashable

from port_knocking_doors.firewall import placements
from port_knocking_doors.firewall.placements import Placements
from port_knocking_doors.firewall.plan import Item
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.firewall.zones import Zones

OWNERS = range(placements._PART + 1)


def test_owner_that_is_removed_while_others_are_asked_is_not_asked() -> None:
    placed, asked = Placements(), []
    for owner in OWNERS:
        placed.set(owner, lambda zones: [ZoneRule(zones.default, "rule")], owner)
    last = OWNERS[-1]

    def desire(owner: Hashable, items: frozenset[Item], when: float) -> None:
        assert (items, when) == (frozenset([ZoneRule("public", "rule")]), owner)
        asked.append(owner)
        placed.remove(last)

    placed.ask_all()
    asyncio.run(placed.ask_due(Zones("public"), desire))
    assert asked == [*OWNERS[:-1]]
    assert not placed.is_due
    assert (len(placed), placed.remove(last), placed.touch(last, 1)) == (len(OWNERS) - 1, False, False)
