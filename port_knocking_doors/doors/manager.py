"""From access request to door, until its deadline: the table decides, and an opener of the door's kind does the work.

A door is reported open or closed only once its opener has confirmed it.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping

from port_knocking_doors.doors.opener import Opener
from port_knocking_doors.doors.table import Answer, DoorTable
from port_knocking_doors.events import (
    DoorClosed,
    DoorDenied,
    DoorNeverOpened,
    DoorOpened,
    DoorPending,
    DoorProlonged,
    DoorRefused,
    DoorReopened,
    EventStream,
    NothingToClose,
)
from port_knocking_doors.model import Access, AccessRequest, Address, Door, Opening, Origin
from port_knocking_doors.system.clock import now, wait_at_most

FOR_BANNED = "set doors_for_banned = true to open doors for banned addresses"
"""The remedy where a door is denied."""


class DoorManager:
    """Grants access requests, and closes doors at their deadlines.

    `openers`: one for each kind of opening. `changed` is called once a deadline is new or moved.
    """

    def __init__(
        self,
        limit: int,
        openers: Mapping[type[Opening], Opener],
        events: EventStream,
        changed: Callable[[], None],
    ) -> None:
        self._table = DoorTable(limit)
        self._openers = openers
        self._events = events
        self._changed = changed
        self._open: dict[Door, tuple[str, ...]] = {}
        """The doors that are confirmed open, with the zones of their rules."""
        self._seconds: dict[Door, float] = {}
        """For how long doors will stay open whose time runs from the moment that they are open."""
        self._causes: dict[Door, Origin] = {}
        """What closes the doors that are closing ahead of their deadlines."""
        for opener in openers.values():
            opener.listener = self

    def start(self) -> None:
        """Finish the work that an earlier process left behind. Raises `DoorsError`."""
        for opener in self._openers.values():
            opener.start()

    # Requests. -------------------------------------------------------------------------------------------------------

    def grant(self, request: AccessRequest) -> None:
        """Open the doors of the access, or prolong them; or close those of the address, where the access closes."""
        access = request.access
        if access.closes:
            doors = self.doors_of(request.source, access.name)
            self._close(doors, request.origin)
            if not doors:
                self._events.publish(NothingToClose(request.source, access.name, request.when))
            return
        for opening in access.openings:
            opener = self._openers[type(opening)]
            door = self._door(request, opening)
            if reason := opener.denial(door):
                self.on_denied(door, reason)
            elif not opener.stays_open(door):
                opener.open(door)
            elif self._admit(door, opener, access, request.when):
                self._start_opening(door, opener)
        self._changed()

    def denial(self, request: AccessRequest) -> str:
        """Why a door of the access must not be opened for the address; empty where all may."""
        doors = (self._door(request, opening) for opening in request.access.openings)
        return next((reason for door in doors if (reason := self._opener_of(door).denial(door))), "")

    def _door(self, request: AccessRequest, opening: Opening) -> Door:
        interface = request.interface if self._openers[type(opening)].uses_interface else ""
        return Door(request.source, interface, request.access.name, opening)

    def _admit(self, door: Door, opener: Opener, access: Access, when: float) -> bool:
        """Whether the door is to be opened now; where it is open already, its deadline moves."""
        seconds = opener.seconds(door, access)
        runs = door in self._open or not opener.counts_from_open
        answer = self._table.open(door, when + seconds if runs else None)
        if answer is not Answer.REFUSE and not runs:
            self._seconds[door] = seconds
        if answer is Answer.PROLONG:
            opener.prolong(door)
            self._events.publish(DoorProlonged(door, seconds if runs else None, when))
        elif answer is Answer.REFUSE:
            self._events.publish(DoorRefused(door, len(self._table), when))
        return answer is Answer.OPEN

    def _start_opening(self, door: Door, opener: Opener) -> None:
        self._causes.pop(door, None)
        if self._open.pop(door, None) is not None:
            self._events.publish(DoorReopened(door))
        opener.open(door)
        if not opener.is_available:
            self._events.publish(DoorPending(door))

    def close(self, address: Address | None) -> list[Door]:
        """Close the doors of this address, or all (None), before their deadlines; return these doors."""
        doors = [door for door in self._table if address in (None, door.address)]
        self._close(doors, Origin.CONTROL)
        return doors

    def _close(self, doors: Iterable[Door], cause: Origin) -> None:
        for door in doors:
            opener = self._opener_of(door)
            self._table.close(door)
            if door in self._open or opener.counts_from_open:  # its opener reports that it is closed
                self._causes[door] = cause
            else:
                self._events.publish(DoorNeverOpened(door, cause))
            opener.close(door)
        self._changed()

    def close_due(self, when: float) -> None:
        """Close the doors whose time is over."""
        for door in self._table.due(when):
            if door not in self._open:
                self._events.publish(DoorNeverOpened(door))
            self._opener_of(door).close(door)

    async def close_all(self) -> int:
        """Close every door; how many are closed. Raises `DoorsError` if some are not confirmed closed in time."""
        doors = len(self._open)
        closings = (opener.close_all() for opener in self._openers.values())
        for outcome in await asyncio.gather(*closings, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return doors - sum(not self._opener_of(door).is_available for door in self._open)

    async def unsettled(
        self, seconds: float, kinds: Collection[type[Opening]] | None = None
    ) -> frozenset[type[Opening]]:
        """The kinds of openings (None: of all) with requests that are not confirmed after so many seconds."""
        kinds = tuple(self._openers if kinds is None else kinds)
        waits = (_settled(self._openers[kind], seconds) for kind in kinds)
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.TimeoutError):
                raise outcome
        return frozenset(kind for kind, outcome in zip(kinds, outcomes, strict=True) if outcome is not None)

    def _opener_of(self, door: Door) -> Opener:
        return self._openers[type(door.opening)]

    # Reports of openers. ---------------------------------------------------------------------------------------------

    def on_open(self, door: Door, zones: tuple[str, ...]) -> None:
        """The door is open, or open again after firewalld lost its rules."""
        if door in self._open:
            return
        self._open[door] = zones
        seconds = self._seconds.pop(door, None)
        if seconds is not None and door in self._table:
            self._table.run_until(door, now() + seconds)
            self._changed()
        deadline = self._table.deadline(door)
        self._events.publish(DoorOpened(door, zones, 0.0 if deadline is None else deadline - now()))

    def on_closed(self, door: Door) -> None:
        """The door is closed. For a door that was never open no event is published."""
        cause = self._causes.pop(door, None)
        if self._open.pop(door, None) is not None:
            self._events.publish(DoorClosed(door, cause))

    def on_denied(self, door: Door, reason: str) -> None:
        """The door must not be open: its address is banned. A door that is open is closed."""
        self._events.publish(DoorDenied(door, reason, now()))
        if door in self._table:
            self._table.close(door)
            self._seconds.pop(door, None)
            self._opener_of(door).close(door)
            self._changed()

    def on_failed(self, door: Door) -> None:
        """The door cannot be opened: the next request may try again."""
        self._table.close(door)
        self._seconds.pop(door, None)
        self._causes.pop(door, None)

    # State of the doors. ---------------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """How many doors may be open at once. Lowering it closes none."""
        return self._table.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._table.limit = limit

    def doors(self) -> list[Door]:
        """Every door, the nearest deadline first; last the doors whose time does not run yet."""
        return sorted(self._table, key=lambda door: (self._table.deadline(door) is None, self._table.deadline(door)))

    def closing(self) -> list[Door]:
        """The doors whose time is over, and that are not confirmed closed."""
        return [door for door in self._open if self.is_closing(door)]

    def is_closing(self, door: Door) -> bool:
        """Whether the door's time is over, and it is not confirmed closed."""
        return door in self._open and door not in self._table

    def doors_of(self, address: Address, access: str) -> list[Door]:
        """The doors that an access opened for an address: one for each of its openings."""
        return [door for door in self._table if (door.address, door.access) == (address, access)]

    def is_open(self, door: Door) -> bool:
        """Whether the door is confirmed open."""
        return door in self._open

    def zones(self, door: Door) -> tuple[str, ...]:
        """The zones in which the door's rules are confirmed; empty for none."""
        return self._open.get(door, ())

    def deadline(self, door: Door) -> float | None:
        """The door's deadline; None if its time does not run yet."""
        return self._table.deadline(door)

    def next_deadline(self) -> float | None:
        """The nearest deadline of all doors."""
        return self._table.next_deadline()


async def _settled(opener: Opener, seconds: float) -> None:
    await wait_at_most(seconds, opener.settled())  # made here: a task that is cancelled at once never begins
