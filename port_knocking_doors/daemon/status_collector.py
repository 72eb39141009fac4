"""The state of the daemon at this moment, as a value (`control.status`): collecting it changes nothing."""

import os
from ipaddress import ip_address

from port_knocking_doors import __version__
from port_knocking_doors.control.status import (
    DOORS_SHOWN,
    KNOCKERS_SHOWN,
    DoorState,
    DoorStatus,
    KnockerStatus,
    Snapshot,
)
from port_knocking_doors.daemon.active import sequences_of
from port_knocking_doors.daemon.counters import Counters
from port_knocking_doors.daemon.running_config import RunningConfig
from port_knocking_doors.doors.manager import DoorManager
from port_knocking_doors.firewall.rule_opener import RuleOpener
from port_knocking_doors.model import Door, FirewalldState, PortOpening
from port_knocking_doors.system.clock import now

_RULES_NOT_ACTIVE = (FirewalldState.FAILED, FirewalldState.FLUSHED)


class StatusCollector:
    """Reads the parts of a running daemon."""

    def __init__(self, config: RunningConfig, doors: DoorManager, rules: RuleOpener, counters: Counters) -> None:
        self._config = config
        self._doors = doors
        self._rules = rules
        self._counters = counters
        self._started = now()

    def snapshot(self) -> Snapshot:
        """The state of the daemon at this moment."""
        when = now()
        settings, active = self._config.settings, self._config.active
        known, received = active.counts(when), self._config.receiver.counters
        doors, closing = self._doors.doors(), self._doors.closing()
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            uptime=when - self._started,
            configuration=str(self._config.loaded.path or ""),
            rule_priority=settings.rule_priority,
            sequences=tuple(sequence.name for sequence in sequences_of(settings)),
            listeners=received.get("ports", 0),
            sniffing="seen" in received,
            sniffer_seen=received.get("seen", 0),
            sniffer_dropped=received.get("dropped", 0),
            firewalld=self._rules.state,
            rules=self._rules.reconciler.active_rules,
            rules_pending=self._rules.reconciler.pending,
            rules_refused=self._rules.reconciler.refused_rules,
            doors_open=len(doors),
            doors_waiting=sum(self._standing(door) is DoorState.WAITING for door in doors),
            doors_closing=len(closing),
            doors_limit=self._doors.limit,
            doors=tuple(map(self.of_door, (*closing, *doors)[:DOORS_SHOWN])),
            knockers_known=known.known,
            knockers_ignored=known.ignored,
            knockers_limit=settings.max_knockers,
            knockers=tuple(
                KnockerStatus(
                    str(ip_address(seen.source)),
                    tuple((sequence.name, steps) for sequence, steps in seen.done),
                    round(seen.ignored, 3),
                    round(seen.last_seen, 3),
                )
                for seen in active.view(when, KNOCKERS_SHOWN)
            ),
            counts=self._counters.counts(),
        )

    def of_door(self, door: Door) -> DoorStatus:
        """How far a door is, and for how long it stays open."""
        deadline = self._doors.deadline(door)
        return DoorStatus(
            address=str(door.address),
            sequence=door.access,
            opens=tuple(map(str, door.opening.opened_ports())),
            interface=door.interface,
            zones=self._doors.zones(door),
            standing=self._standing(door),
            seconds_left=None if deadline is None else round(max(0.0, deadline - now()), 3),
        )

    def _standing(self, door: Door) -> DoorState:
        if self._doors.is_closing(door):
            return DoorState.CLOSING
        is_void = isinstance(door.opening, PortOpening) and self._rules.state in _RULES_NOT_ACTIVE
        return DoorState.OPEN if self._doors.is_open(door) and not is_void else DoorState.WAITING
