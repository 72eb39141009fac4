"""Makes firewalld's items of ours equal to the desired ones; nothing else adds or removes any.

Owners (a door, the knock ports) say what they desire. One worker compares that with what is active (`plan`) and sends
the difference, one call after the other. More calls at once would not be faster (firewalld works one after the other,
and its own work is over 90 % of the time), and what becomes due to be closed would wait behind them.

What is active is believed only for as long as nothing happened to firewalld: after a start, a reload or a call without
an answer it is read back before the next change. So every failure has the same remedy, and needs no list of its own.
"""

import asyncio
from collections.abc import Hashable

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.error_codes import INVALID_ZONE, NO_ANSWER, UNANSWERED, UNREACHABLE
from port_knocking_doors.firewall.firewalld import Firewalld, FirewalldEvent
from port_knocking_doors.firewall.kinds import FirewallItems
from port_knocking_doors.firewall.known_rules import KnownRules
from port_knocking_doors.firewall.permanent import PermanentConfiguration
from port_knocking_doors.firewall.placements import Placement, Placements
from port_knocking_doors.firewall.plan import FIRST, Change, Plan, RuleListener
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system.log import logger

_CLOSING_RETRY = 0.25
"""Seconds between attempts while firewalld answers with errors, and something is due to be closed."""
_RULES_LOST = (FirewalldEvent.APPEARED, FirewalldEvent.DISAPPEARED, FirewalldEvent.RELOADED)


class RuleReconciler(KnownRules):
    """The worker, and what owners desire. `priority` is our mark of ownership in firewalld."""

    def __init__(self, priority: int, listener: RuleListener) -> None:
        super().__init__(Firewalld(self._on_event), Plan(listener), priority)
        self._items = FirewallItems(self._firewalld, priority)
        self._permanent = PermanentConfiguration(self._items)
        self._placements = Placements()
        # What has to be read again before the next change; of the rules, whether in every zone or in the used ones.
        self._zones_stale = True
        self._rules_stale = True
        self._all_rules_stale = True
        self._wake = asyncio.Event()
        self._closing_due = asyncio.Event()
        self._settled = asyncio.Event()
        self._ready = asyncio.Event()
        self.zones: Zones | None = None
        """The zones as they were last read; None until firewalld answered for the first time."""

    # What owners say. ------------------------------------------------------------------------------------------------

    def set_desired(self, owner: Hashable, placement: Placement, when: float = FIRST) -> None:
        """From now on the owner desires these items, and no others that it desired before.

        `when` orders what waits to be added: the latest first. For a door it is the time of its latest knock.
        """
        self._placements.set(owner, placement, when)
        if self.zones is not None:
            self._plan.set_desired(owner, frozenset(placement(self.zones)), when)
        self._stir()

    def touch(self, owner: Hashable, when: float) -> None:
        """The door was prolonged by a knock at `when`. Changes no rule, and only the order of what waits."""
        if self._placements.touch(owner, when):
            self._plan.touch(owner, when)

    def clear(self, owner: Hashable) -> None:
        """From now on the owner desires nothing."""
        if self._placements.remove(owner):
            self._plan.clear(owner)
            self._closing_due.set()
            self._stir()

    def clear_all(self) -> None:
        """From now on no owner desires anything, and the permanent configuration is searched for our items."""
        for owner in list(self._placements):
            self.clear(owner)
        self._permanent.is_stale = True
        self._stir()

    def replace_all(self) -> None:
        """Ask every owner again what it desires, since what its placement depends on has changed."""
        self._placements.ask_all()
        self._stir()

    def check(self) -> None:
        """Compare with what is really active in the zones that are used, and try again what was refused."""
        self._distrust(everywhere=False)
        self.kernel.is_due = True
        self._stir()

    async def settled(self) -> None:
        """Return once the desired items are active and no other of ours is, but for what firewalld refused."""
        await self._settled.wait()

    async def ready(self) -> None:
        """Return once firewalld has answered for the first time, and `zones` is known."""
        await self._ready.wait()

    # What firewalld reports. -----------------------------------------------------------------------------------------

    def _on_event(self, event: FirewalldEvent) -> None:
        self.kernel.on_event(event, self._plan.active)
        appeared, reloaded = event is FirewalldEvent.APPEARED, event is FirewalldEvent.RELOADED
        if event is FirewalldEvent.DISAPPEARED:
            self._health.on_disappeared()
        elif reloaded:
            self._health.on_reloaded(self._plan.desired_count)
        if event in _RULES_LOST:
            self._distrust(everywhere=True)
        self._zones_stale |= appeared or reloaded or event is FirewalldEvent.ZONES_CHANGED
        if event is FirewalldEvent.SETS_CHANGED:
            self._placements.ask_all()
        self._permanent.is_stale |= appeared or event is FirewalldEvent.PERMANENT_CHANGED
        self._stir()
        if event is FirewalldEvent.DISAPPEARED and not self._placements:
            self._plan.forget_active()  # it took its rules along, and no owner waits for others
            self._settled.set()

    def _distrust(self, *, everywhere: bool) -> None:
        """The rules have to be read again: in every zone, or in those that are used."""
        self._plan.distrust()
        self._rules_stale = True
        self._all_rules_stale |= everywhere

    def _stir(self) -> None:
        self._settled.clear()
        self._wake.set()

    # The worker. -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the connection and do the work, until cancelled."""
        connection = asyncio.create_task(self._firewalld.run())
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if not self._firewalld.present:
                    continue
                try:
                    await self._work()
                except FirewallError as error:
                    await self._recover(error)
        finally:
            connection.cancel()
            self.kernel.close()
            await self._permanent.close()
            await asyncio.gather(connection, return_exceptions=True)

    async def _work(self) -> None:
        """Go on until every desired item is active and no other is."""
        while True:
            if self._may_close_first and (closing := self._plan.next_change(adds=False)):
                await self._apply(closing)
            elif self._zones_stale or self.zones is None:
                await self._read_zones()
            elif self._placements.is_due:
                await self._placements.ask_due(self.zones, self._plan.set_desired)
            elif self.kernel.is_due:
                await self.kernel.examine(self.zones)
            elif self._health.problem is FirewalldState.FLUSHED:
                # What firewalld says is not so, and it can change nothing.
                if not self._placements:
                    self._settled.set()
                return
            elif self._rules_stale:
                await self._read_back()
            elif change := self._plan.next_change(adds=self._health.problem is None):
                await self._apply(change)
            elif self._health.problem is not None and self._plan.waits_to_add:
                return
            elif not self._permanent.is_clean:
                await self._permanent.clean(self._wake)
                self._wake.clear()
            else:
                self._settled.set()
                return

    @property
    def _may_close_first(self) -> bool:
        """Whether what is due to be closed can be removed now, ahead of whatever is to be read.

        Not after a start or a reload of firewalld, when its rules are others and the kernel may hold more than it says;
        nor while an answer is missing.
        """
        is_flushed = self._health.problem is FirewalldState.FLUSHED
        return self._plan.is_certain and not self.kernel.is_account_stale and not is_flushed

    async def _read_zones(self) -> None:
        self._zones_stale = False
        try:
            self.zones = await self._firewalld.zones()
        except FirewallError:
            self._zones_stale = True
            raise
        self._health.on_answer()
        self.replace_all()

    async def _read_back(self) -> None:
        """Read what is active. What is ours and not desired is removed, whichever process added it."""
        assert self.zones is not None
        places = self._items.places(self.zones)
        if not self._all_rules_stale:
            places &= self._plan.places()
        # First, so that what happens meanwhile leads to another reading.
        self._rules_stale = self._all_rules_stale = False
        try:
            found = await self._items.read(places)
        except FirewallError:
            self._distrust(everywhere=True)
            self._zones_stale = True  # a zone may have been removed meanwhile
            raise
        if strangers := self._plan.read_back(found | self.kernel.left):
            logger.warning("%d rules carry our mark and belong to no open door: removing them", len(strangers))
        self._health.on_readable()
        self._ready.set()

    async def _apply(self, change: Change) -> None:
        """Send one change. Raises `FirewallError` where it is unknown whether firewalld did it."""
        try:
            await self._items.apply(change)
        except FirewallError as error:
            if error.code in NO_ANSWER:
                raise
            if self.kernel.is_flushed(error):
                self._plan.refused(change)
                return
            if change.adds or error.code != INVALID_ZONE:  # a zone that is gone took its rules along
                self._plan.refused(change)
                self._zones_stale |= error.code == INVALID_ZONE
                self._health.on_refused(change.adds, change.item.place, error)
                return
        if change.item in self.kernel.left and not change.adds:
            self._plan.refused(change)  # firewalld has removed its own; the kernel holds another
        elif change.adds:
            self._health.on_added()
            self._plan.added(change.item)
        else:
            self._removed += 1
            self._plan.removed(change.item)

    async def _recover(self, error: FirewallError) -> None:
        """Wait until a new attempt makes sense; the log says once what is waited for."""
        self._distrust(everywhere=True)
        if error.code == UNREACHABLE:
            return  # the event of its return wakes the worker
        if error.code == UNANSWERED:
            self._health.on_silence()
            self._zones_stale = True
            try:
                await self._firewalld.wait_for_answer()
            except FirewallError:
                return
        else:
            self._zones_stale |= error.code == INVALID_ZONE
            await self._pause(self._health.on_error(error))
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or less where something is due to be closed."""
        self._closing_due.clear()
        if self._plan.waits_to_remove:
            await asyncio.sleep(min(seconds, _CLOSING_RETRY))
        else:
            waits = [asyncio.create_task(wait) for wait in (asyncio.sleep(seconds), self._closing_due.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
