"""Handles the requests of the control socket (`control.server.Handler`)."""

from port_knocking_doors.config.readers import RESERVED_NAME
from port_knocking_doors.control.server import CloseResult
from port_knocking_doors.control.status import DoorStatus, Snapshot
from port_knocking_doors.daemon.active import sequences_of
from port_knocking_doors.daemon.knock_handler import KnockHandler
from port_knocking_doors.daemon.running_config import RunningConfig
from port_knocking_doors.daemon.status_collector import StatusCollector
from port_knocking_doors.doors.manager import FOR_BANNED, DoorManager
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import AccessRequest, Address, Origin, Sequence
from port_knocking_doors.system.clock import now

CONFIRMED_WITHIN = 3.0
"""Seconds that a request to open or close waits for the confirmation."""


class ControlHandler:
    """The requests of the control socket, for a running daemon."""

    def __init__(
        self, config: RunningConfig, doors: DoorManager, knocks: KnockHandler, collector: StatusCollector
    ) -> None:
        self._config = config
        self._doors = doors
        self._knocks = knocks
        self._collector = collector

    def snapshot(self) -> Snapshot:
        """The state of the daemon at this moment."""
        return self._collector.snapshot()

    async def open(self, address: Address, name: str) -> list[DoorStatus]:
        """Grant the access of a sequence, the opening sequence's if the name is empty; return its doors."""
        self._config.refuse_at_end()
        access = self._sequence(name).access
        # A door that a knock opened is prolonged in its zone; no second door is opened in another zone.
        interfaces = (door.interface for door in self._doors.doors_of(address, access.name) if door.interface)
        request = AccessRequest(address, next(interfaces, ""), access, now(), Origin.CONTROL)
        self._doors.grant(request)
        await self._doors.unsettled(CONFIRMED_WITHIN)
        opened = self._doors.doors_of(address, access.name)
        if access.ports and not any(door.opening.opened_ports() for door in opened):
            if reason := self._doors.denial(request):
                raise DoorsError(f"not opened: {reason}; {FOR_BANNED}")
            raise DoorsError("not opened: max_open_doors reached, or already closed")
        return [self._collector.of_door(door) for door in opened]

    def _sequence(self, name: str) -> Sequence:
        sequences = {sequence.name: sequence for sequence in reversed(sequences_of(self._config.settings))}
        sequence = sequences.get(name or RESERVED_NAME)
        if sequence is None:
            what = f"sequence {name!r}" if name else "opening sequence"
            raise ConfigError(f"there is no {what}, expected one of: {', '.join(sorted(sequences))}")
        return sequence

    async def close(self, address: Address | None) -> CloseResult:
        """Close the doors of an address, or all."""
        doors = self._doors.close(address)
        unsettled = await self._doors.unsettled(CONFIRMED_WITHIN)
        waiting = (door for door in doors if self._doors.is_open(door) or type(door.opening) in unsettled)
        return CloseResult(len(doors), sum(1 for _ in waiting))

    def forget(self, address: Address) -> bool:
        """Forget a knocker; whether it was known."""
        return self._config.active.forget(address.packed)

    def reload(self) -> None:
        """Read the configuration again."""
        self._config.reload()

    def watch(self, is_watched: bool) -> None:
        """Start or stop reporting every single knock."""
        self._knocks.watch(is_watched)
