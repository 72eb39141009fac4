"""Makes the firewall's marked rules equal to the wanted ones: the only caller that adds and removes.

Owners (a door, the knock ports) say what they want; one worker compares that with what stands and sends the difference,
one call after the other, since firewalld works them off one by one anyway. What stands is believed only for as long as
nothing happened to firewalld: after a start, a reload or a call without an answer it is read back before the next
change. So whatever goes wrong has one remedy, and nothing that failed needs a list of its own.
"""

import asyncio
import os
import pwd
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, Protocol

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import error_codes, rich_rule
from port_knocking_doors.firewall.firewalld import Firewalld, FirewalldEvent
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system.log import LogEvent, event_fields, logger

_FIRST_RETRY, _LAST_RETRY = 0.05, 5.0
"""Seconds between looks at a firewalld that answers with errors: it does so for a moment while it starts."""

SERVICE_USER = "port-knocking-doors"
POLKIT_RULES = "/etc/polkit-1/rules.d"
"""Where an administrator's rules are; a package has its own in /usr/share/polkit-1/rules.d."""


class ZoneRule(NamedTuple):
    """A rule in a zone."""

    zone: str
    rule: str


Placement = Callable[[Zones], Iterable[ZoneRule]]
"""Tells an owner's rules from the zones as they are; asked again whenever they change."""


class RuleListener(Protocol):
    """Who is told what firewalld confirmed."""

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        """Every rule of the owner stands, in these zones."""

    def on_removed(self, owner: Hashable) -> None:
        """No rule stands for the owner any more."""


class RuleReconciler:
    """The worker and its two sets of rules: those that are wanted and those that stand."""

    def __init__(self, priority: int, listener: RuleListener) -> None:
        self._priority = priority
        self._listener = listener
        self._firewalld = Firewalld(self._on_event)
        self._placements: dict[Hashable, Placement] = {}
        self._wanted_by: dict[Hashable, frozenset[ZoneRule]] = {}
        self._wanted: dict[ZoneRule, set[Hashable]] = {}
        self._active: set[ZoneRule] = set()
        # Owners that wait for firewalld to confirm the rest of their rules: up, or down.
        self._pending_active: dict[Hashable, set[ZoneRule]] = {}
        self._pending_removed: dict[Hashable, set[ZoneRule]] = {}
        # What to add and what to remove next. A rule may be in both or in neither by the time it is looked at.
        self._to_add: dict[ZoneRule, None] = {}
        self._to_remove: dict[ZoneRule, None] = {}
        self._closing_is_next = False
        self._refused: set[ZoneRule] = set()
        self._explained: set[tuple[str, str]] = set()
        self._trusted = False
        self._everywhere = True
        self._zones_stale = True
        self._permanent_stale = True
        self._silent = False
        self._failures = 0
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._ready = asyncio.Event()
        self.removed = 0
        """How many rules were removed so far."""
        self.zones: Zones | None = None
        """The zones as they were last read; None until firewalld answered for the first time."""

    # What owners say. ------------------------------------------------------------------------------------------------

    def set_desired(self, owner: Hashable, placement: Placement) -> None:
        """From now on the owner wants these rules, and no others that it wanted before."""
        self._placements[owner] = placement
        self._pending_removed.pop(owner, None)
        if self.zones is not None:
            self._place(owner, frozenset(placement(self.zones)))
        self._stir()

    def clear(self, owner: Hashable) -> None:
        """From now on the owner wants nothing."""
        if self._placements.pop(owner, None) is None:
            return
        self._pending_active.pop(owner, None)
        rules = self._wanted_by.get(owner, frozenset())
        self._place(owner, frozenset())
        del self._wanted_by[owner]
        left = {placed for placed in rules if placed in self._active and placed not in self._wanted}
        if left:
            self._pending_removed[owner] = left
        else:
            self._listener.on_removed(owner)
        self._stir()

    def check(self) -> None:
        """Compare with what really stands in the zones that we use, and try again what was refused."""
        self._trusted = False
        self._refused.clear()
        self._stir()

    def _invalidate(self) -> None:
        """Nothing is known of any zone any more."""
        self._trusted = False
        self._everywhere = True
        self._refused.clear()

    def replace_all(self) -> None:
        """Ask every owner again what it wants, since what it goes by has changed."""
        if self.zones is not None:
            for owner, placement in self._placements.items():
                self._place(owner, frozenset(placement(self.zones)))
            self._stir()

    def clear_all(self) -> None:
        """From now on nobody wants anything, and nothing of ours shall be in the permanent configuration either."""
        for owner in list(self._placements):
            self.clear(owner)
        self._permanent_stale = True
        self._stir()

    async def settled(self) -> None:
        """Return once the wanted rules stand and no other marked one does, but for what firewalld refused."""
        await self._settled.wait()

    async def ready(self) -> None:
        """Return once firewalld has answered for the first time, and `zones` is known."""
        await self._ready.wait()

    @property
    def present(self) -> bool:
        """Whether firewalld is on the bus."""
        return self._firewalld.present

    @property
    def unavailable_reason(self) -> str:
        """What firewalld does instead of obeying, as far as is known."""
        if not self.present:
            return "is not running"
        return "refuses" if self._failures else "does not answer"

    @property
    def active_rules(self) -> int:
        """How many marked rules stand, as far as is known."""
        return len(self._active)

    @property
    def state(self) -> FirewalldState:
        """How firewalld does, as far as is known: that it hangs shows when it is asked for something."""
        if not self.present:
            return FirewalldState.ABSENT
        if self._silent:
            return FirewalldState.HUNG
        return FirewalldState.REFUSING if self._failures else FirewalldState.PRESENT

    @property
    def refused_rules(self) -> int:
        """How many rules firewalld refused to add or to remove when they were tried last."""
        return len(self._refused)

    @property
    def firewalld(self) -> Firewalld:
        """The connection, for whoever wants to read."""
        return self._firewalld

    def _place(self, owner: Hashable, rules: frozenset[ZoneRule]) -> None:
        before = self._wanted_by.get(owner, frozenset())
        self._wanted_by[owner] = rules
        for placed in before - rules:
            owners = self._wanted[placed]
            owners.discard(owner)
            if not owners:
                del self._wanted[placed]
                self._to_remove[placed] = None
        for placed in rules - before:
            self._wanted.setdefault(placed, set()).add(owner)
            self._to_add[placed] = None
        if rules != before and owner in self._placements:
            # Of what is not known to stand any more, a look at firewalld is to confirm it.
            self._pending_active[owner] = set(rules - self._active if self._trusted else rules)
            self._announce_active(owner)

    # What firewalld says. --------------------------------------------------------------------------------------------

    def _on_event(self, event: FirewalldEvent) -> None:
        match event:
            case FirewalldEvent.APPEARED:
                self._invalidate()
                self._zones_stale = True
                self._permanent_stale = True
            case FirewalldEvent.DISAPPEARED:
                self._invalidate()
                if not self._silent:
                    logger.warning("firewalld is gone: doors wait until it is back", extra=_about("gone"))
                self._silent = True
            case FirewalldEvent.RELOADED:
                logger.info(
                    "firewalld was reloaded: %d rules are put back", len(self._wanted), extra=_about("reloaded")
                )
                self._invalidate()
                self._zones_stale = True
            case FirewalldEvent.ZONES_CHANGED:
                self._zones_stale = True
            case FirewalldEvent.PERMANENT_CHANGED:
                self._permanent_stale = True
        self._stir()
        if event is FirewalldEvent.DISAPPEARED and not self._placements:
            self._active.clear()  # it took its rules along, and nobody waits for others
            self._settled.set()

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
            await asyncio.gather(connection, return_exceptions=True)

    async def _work(self) -> None:
        """Go on until everything wanted stands and nothing else does."""
        while True:
            if self._zones_stale:
                await self._read_zones()
            elif not self._trusted:
                await self._read_back()
            elif self._closing_is_next and (placed := self._next_to_close()):
                self._closing_is_next = False
                if placed in self._active and placed not in self._wanted:
                    await self._remove(placed)
            elif placed := self._next(self._to_add):
                self._closing_is_next = True
                if placed in self._wanted and placed not in self._active and placed not in self._refused:
                    await self._add(placed)
            elif placed := self._next(self._to_remove):
                if placed in self._active and placed not in self._wanted:
                    await self._remove(placed)
            elif self._permanent_stale:
                await self._clean_permanent()
            else:
                self._settled.set()
                return

    @staticmethod
    def _next(queue: dict[ZoneRule, None]) -> ZoneRule | None:
        for placed in queue:
            del queue[placed]
            return placed
        return None

    def _next_to_close(self) -> ZoneRule | None:
        """A rule of an owner that wants nothing any more: it waits for one rule that is added, and not for all of them.
        A rule that another one takes the place of does, so that there is no gap."""
        for rules in self._pending_removed.values():
            for placed in rules:
                if placed in self._to_remove:
                    del self._to_remove[placed]
                    return placed
        return None

    async def _read_zones(self) -> None:
        self._zones_stale = False
        try:
            self.zones = await self._firewalld.zones()
        except FirewallError:
            self._zones_stale = True
            raise
        if self._silent:
            self._silent = False
            logger.info("firewalld answers", extra=_about("answers"))
        self.replace_all()

    async def _read_back(self) -> None:
        """Read back what stands. What carries the mark and nobody wants goes; it is not asked whose it was."""
        assert self.zones is not None
        used = {placed.zone for placed in (*self._wanted, *self._active)}
        looked_at = self.zones.known if self._everywhere else self.zones.known & used
        self._trusted, self._everywhere = True, False
        try:
            standing = {
                ZoneRule(zone, rule)
                for zone in sorted(looked_at)
                for rule in await self._firewalld.rules(zone)
                if rich_rule.is_marked(rule, self._priority)
            }
        except FirewallError:
            self._invalidate()
            self._zones_stale = True  # a zone may have gone while we looked
            raise
        if strangers := standing - self._active - self._wanted.keys():
            logger.warning("%d rules carry our mark and belong to no open door: removing them", len(strangers))
        self._active = standing
        self._to_add = dict.fromkeys(placed for placed in self._wanted if placed not in standing)
        self._to_remove = dict.fromkeys(placed for placed in standing if placed not in self._wanted)
        for owner in list(self._pending_active):
            self._pending_active[owner] = set(self._wanted_by[owner] & self._to_add.keys())
            self._announce_active(owner)
        for owner in list(self._pending_removed):
            self._pending_removed[owner] &= standing
            self._announce_removed(owner)
        self._failures = 0
        self._ready.set()

    async def _add(self, placed: ZoneRule) -> None:
        try:
            await self._firewalld.add(*placed)
        except FirewallError as error:
            if error.code in error_codes.NO_ANSWER:
                raise
            self._refused.add(placed)
            self._zones_stale |= error.code == error_codes.INVALID_ZONE
            self._explain("a rule is not added", placed, error)
            return
        self._active.add(placed)
        self._explained.clear()
        for owner in self._wanted.get(placed, ()):
            if owner in self._pending_active:
                self._pending_active[owner].discard(placed)
                self._announce_active(owner)
        if placed not in self._wanted:  # it closed meanwhile
            self._to_remove[placed] = None

    async def _remove(self, placed: ZoneRule) -> None:
        # From the moment that it is asked for: who wants the rule again meanwhile waits until it was added again.
        self._active.discard(placed)
        try:
            await self._firewalld.remove(*placed)
        except FirewallError as error:
            if error.code in error_codes.NO_ANSWER:
                raise
            if error.code != error_codes.INVALID_ZONE:
                self._active.add(placed)
                self._refused.add(placed)
                self._explain("a rule is not removed", placed, error)
                return
        self.removed += 1
        for owner in list(self._pending_removed):
            self._pending_removed[owner].discard(placed)
            self._announce_removed(owner)
        if placed in self._wanted:  # it was opened again meanwhile
            self._to_add[placed] = None

    async def _clean_permanent(self) -> None:
        """`firewall-cmd --runtime-to-permanent` while a door stands would leave it open for ever."""
        self._permanent_stale = False
        try:
            for zone, rules in (await self._firewalld.permanent_rules()).items():
                for rule in rules:
                    if rich_rule.is_marked(rule, self._priority):
                        await self._firewalld.remove_permanent(zone, rule)
                        logger.warning("zone %s: removed a rule of ours from firewalld's permanent configuration", zone)
        except FirewallError as error:
            if error.code in error_codes.NO_ANSWER:
                self._permanent_stale = True
                raise
            logger.error("firewalld's permanent configuration is not looked after: %s", error)

    async def _recover(self, error: FirewallError) -> None:
        """Wait until it makes sense to look again; the log says once what it waits for."""
        self._invalidate()
        if error.code == error_codes.UNREACHABLE:
            return  # its coming back will wake us
        if error.code == error_codes.UNANSWERED:
            if not self._silent:
                logger.warning("firewalld does not answer: doors wait until it does", extra=_about("hung"))
            self._silent = True
            self._zones_stale = True
            try:
                await self._firewalld.wait_for_answer()
            except FirewallError:
                return
        else:
            # A zone that is gone is no news: the zones are read again.
            if not self._failures and error.code != error_codes.INVALID_ZONE:
                logger.error("firewalld: %s%s", error, _remedy(error), extra=_about(error))
            self._failures += 1
            await asyncio.sleep(min(_FIRST_RETRY * 2**self._failures, _LAST_RETRY))
        self._wake.set()

    def _explain(self, what: str, placed: ZoneRule, error: FirewallError) -> None:
        """Once for each zone and reason: what is refused is tried again at every check."""
        if (placed.zone, error.code) not in self._explained:
            self._explained.add((placed.zone, error.code))
            extra = _about(error, zone=placed.zone)
            logger.error("zone %s: %s: firewalld says: %s%s", placed.zone, what, error, _remedy(error), extra=extra)

    def _announce_active(self, owner: Hashable) -> None:
        if owner in self._pending_active and not self._pending_active[owner]:
            del self._pending_active[owner]
            self._listener.on_active(owner, tuple(sorted({placed.zone for placed in self._wanted_by[owner]})))

    def _announce_removed(self, owner: Hashable) -> None:
        if owner in self._pending_removed and not self._pending_removed[owner]:
            del self._pending_removed[owner]
            self._listener.on_removed(owner)


def _about(reason: object, **more: object) -> dict[str, object]:
    return event_fields(LogEvent.FIREWALLD, reason=reason, **more)


def _remedy(error: FirewallError) -> str:
    if error.code != error_codes.NOT_AUTHORIZED:
        return ""
    user = _user()
    if "(uid)" in str(error):  # firewalld's word for: it found no polkit to ask, and asks for root
        return f": polkit does not run here, so user {user} may not change the firewall: install and start it"
    rule = f"{POLKIT_RULES}/50-port-knocking-doors.rules"
    if user == SERVICE_USER:
        return f": polkit does not let user {user} change the firewall: install {rule} (README, On a server)"
    return (
        f": polkit does not let user {user} change the firewall: run as user {SERVICE_USER}, whom {rule} lets "
        "(README, On a server), or as root"
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
