"""What the daemon is doing at this moment, gathered into a value (`status`): nothing is changed by looking."""

import math
import os
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address

from port_knocking_doors import __version__
from port_knocking_doors.capture.receiver import KnockReceiver
from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control.status import (
    DOORS_SHOWN,
    KNOCKERS_SHOWN,
    Counts,
    DoorStatus,
    KnockerStatus,
    Snapshot,
    Standing,
)
from port_knocking_doors.daemon.active import sequences_of
from port_knocking_doors.doors.table import DoorTable
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import Door, FirewalldState, PortOpening
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.instance import has_rules


class StatusCollector:
    """A look into those rooms of a daemon that stay the same for its life.

    `confirmed`: the zones of each door that firewalld confirmed. `counts`: by the names that `Counts` has.
    """

    def __init__(
        self,
        ears: KnockReceiver,
        doors: DoorTable,
        keeper: RuleReconciler,
        confirmed: Mapping[Door, tuple[str, ...]],
        counts: Counter[str],
    ) -> None:
        self._ears = ears
        self._doors = doors
        self._keeper = keeper
        self._confirmed = confirmed
        self._counts = counts
        self._started = now()

    def snapshot(self, loaded: Loaded, knockers: KnockerTable) -> Snapshot:
        """Everything, with the configuration and the table of knockers that are in force."""
        when = now()
        sniffed = self._ears.sniffed
        counts = knockers.counts(when)
        doors = sorted(self._doors, key=lambda door: self._doors.until(door) or 0.0)
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            uptime=when - self._started,
            configuration=str(loaded.path or ""),
            rule_priority=loaded.settings.rule_priority,
            sequences=tuple(sequence.name for sequence in sequences_of(loaded.settings)),
            listeners=self._ears.listening,
            sniffing=sniffed is not None,
            sniffer_seen=sniffed[0] if sniffed else 0,
            sniffer_dropped=sniffed[1] if sniffed else 0,
            firewalld=self._keeper.state if has_rules(loaded.settings.rule_priority) else FirewalldState.UNUSED,
            rules=self._keeper.active_rules,
            rules_refused=self._keeper.refused_rules,
            doors_open=len(doors),
            doors_waiting=sum(not self._is_open(door) for door in doors),
            doors_limit=self._doors.limit,
            doors=tuple(map(self.of_door, doors[:DOORS_SHOWN])),
            knockers_known=counts.known,
            knockers_ignored=counts.ignored,
            knockers_limit=loaded.settings.max_knockers,
            knockers=tuple(
                KnockerStatus(
                    str(ip_address(seen.source)),
                    tuple((sequence.name, steps) for sequence, steps in seen.done),
                    round(seen.ignored, 3),
                    round(seen.last_seen, 3),
                )
                for seen in knockers.view(when, KNOCKERS_SHOWN)
            ),
            counts=Counts(**self._counts),
        )

    def of_door(self, door: Door) -> DoorStatus:
        """How far a door is, and for how long it stays."""
        when = now()
        left = (self._doors.until(door) or when) - when
        return DoorStatus(
            address=str(door.address),
            sequence=door.access,
            opens=tuple(map(str, door.opening.opened_ports())),
            interface=door.interface,
            zones=self._confirmed.get(door, ()),
            standing=Standing.OPEN if self._is_open(door) else Standing.WAITING,
            seconds_left=round(max(0.0, left), 3) if left < math.inf else None,
        )

    def _is_open(self, door: Door) -> bool:
        """Whether firewalld confirmed it, or its start command has ended."""
        return door in self._confirmed if isinstance(door.opening, PortOpening) else self._doors.until(door) != math.inf
