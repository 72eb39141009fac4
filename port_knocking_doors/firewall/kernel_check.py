"""firewalld's account of its rules against what is active: its own state, and the kernel's tables.

A reload of firewalld repairs what an earlier firewalld left in the kernel. Anything else needs an administrator.
"""

import asyncio
import math
from collections.abc import Collection

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import rich_rule
from port_knocking_doors.firewall.error_codes import NO_ANSWER, NO_SUCH_CHAIN
from port_knocking_doors.firewall.firewalld import Firewalld, FirewalldEvent, FirewalldFacts
from port_knocking_doors.firewall.health import FirewalldHealth
from port_knocking_doors.firewall.kernel_rules import KernelRules, read_base_rules, read_kernel_rules_in_parts
from port_knocking_doors.firewall.leftovers import in_kernel, is_door, unknown_to_firewalld
from port_knocking_doors.firewall.plan import Item
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system import unconfirmed
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.instance import turn_to_reload

FLUSHING = 1.0
"""Seconds that a firewalld that left the bus may take to remove its rules from the kernel."""
_PAUSE = 0.1
OTHERS_RELOAD = 30.0
"""Seconds to wait for another daemon that reloads firewalld."""


class KernelCheck:
    """What is active although firewalld does not know it, and the reverse. `priority`: our mark."""

    def __init__(self, firewalld: Firewalld, health: FirewalldHealth, priority: int) -> None:
        self._firewalld = firewalld
        self._health = health
        self._priority = priority
        self._facts = FirewalldFacts()
        self._before: frozenset[ZoneRule] = frozenset()
        """Rules of doors that were active when firewalld left the bus."""
        self._knows_before = False
        """Whether that is all: before the first comparison, another daemon may have had doors."""
        self._flushed_at = -math.inf
        self._look: asyncio.Task[None] | None = None
        self.is_account_stale = True
        """Whether firewalld's rules may be others than those in the kernel: it was started or reloaded."""
        self._may_reload = True
        self._reloads = 0
        self.is_due = True
        """Whether `examine` has to be awaited before the next change."""
        self.removed = 0
        """How many rules reloads of firewalld removed."""
        self.left: frozenset[ZoneRule] = frozenset()
        """Rules of ours that are in the kernel and that firewalld does not know: only a reload removes them."""

    def on_event(self, event: FirewalldEvent, active: Collection[Item]) -> None:
        """`active`: what was active of ours until now."""
        if event is FirewalldEvent.DISAPPEARED:
            self._flushed_at = now() + FLUSHING
            self.close()
            self._look = asyncio.get_running_loop().create_task(self._report_doors())
            self._before |= {item for item in active if isinstance(item, ZoneRule) and is_door(item)}
            self._note()
        elif event in (FirewalldEvent.APPEARED, FirewalldEvent.RELOADED):
            self.is_due = self.is_account_stale = True
            self._may_reload |= event is FirewalldEvent.APPEARED
            self._reloads += event is FirewalldEvent.RELOADED

    def _note(self) -> None:
        """Leave a note for a successor where the kernel cannot be read, and doors may stay open."""
        may_stay = not self._facts.cleans_up or not self._facts.clears_at_start
        if self._before and may_stay and self._base() is None:
            unconfirmed.write(self._priority, 0 if self._facts.cleans_up else len(self._before))

    def close(self) -> None:
        """End what runs by itself."""
        if self._look is not None:
            self._look.cancel()

    # While firewalld runs. -------------------------------------------------------------------------------------------

    async def examine(self, zones: Zones) -> None:
        """Look, log what is wrong, and have firewalld reloaded where that removes what was left. Raises `FirewallError`
        where firewalld does not answer."""
        self.is_due = False
        try:
            problem = await self._problem()
            self._health.on_problem(problem)
            if problem is None and self.is_account_stale:
                await self._compare(zones)
            elif problem is FirewalldState.FAILED and self.is_account_stale:
                kept = await self._kept_by_failed(zones)
                if kept and not self.left:
                    self._health.on_kept_by_failed(len(kept))
                self.left = kept
        except FirewallError:
            self.is_due = True
            raise

    async def _problem(self) -> FirewalldState | None:
        if await self._firewalld.has_failed():
            return FirewalldState.FAILED
        if self.is_account_stale:
            self._facts = await self._firewalld.facts()
        base = self._base()
        if base is None and not self.is_account_stale:
            return self._health.problem  # until firewalld is reloaded or started
        return FirewalldState.FLUSHED if base is not None and not base.exist else None

    def is_flushed(self, error: FirewallError) -> bool:
        """Whether firewalld's rules are gone from the kernel, where firewalld refused a change with this error."""
        base = self._base()
        if NO_SUCH_CHAIN not in str(error) or (base is not None and base.exist):
            return False
        self._health.on_problem(FirewalldState.FLUSHED)
        return True

    async def _compare(self, zones: Zones) -> None:
        left, is_denied = await self._left(zones), False
        if self._may_reload and (left or (left is None and self._is_suspect())):
            reloads = self._reloads
            async with turn_to_reload(OTHERS_RELOAD):
                if reloads == self._reloads:  # else another daemon had it reloaded
                    self._may_reload = False
                    is_denied = not await self._reload(left)
            left = await self._left(zones)
        self.left = left or frozenset()
        if self.left:
            self._health.on_left(len(self.left))
        elif not is_denied:
            unconfirmed.remove(self._priority)
        self._before, self._knows_before = frozenset(), True
        self.is_account_stale = False

    async def _reload(self, left: Collection[ZoneRule] | None) -> bool:
        """Whether firewalld was reloaded. Raises `FirewallError` where it does not answer."""
        self._health.on_leftovers(None if left is None else len(left))
        try:
            await self._firewalld.reload(lambda rule: rich_rule.is_marked(rule, self._priority))
        except FirewallError as error:
            if error.code in NO_ANSWER:
                raise
            self._health.on_reload_failed(error)
            return False
        self.removed += len(left or ())
        return True

    async def _kept_by_failed(self, zones: Zones) -> frozenset[ZoneRule]:
        """Doors of before that a firewalld that failed to start has in the kernel, or may have."""
        kernel = await read_kernel_rules_in_parts() if self._facts.uses_nftables else None
        if kernel is None:
            return self._before
        left = doors_in(kernel, self._priority).difference(await self._known(zones))
        return left & self._before if self._knows_before else left

    async def _left(self, zones: Zones) -> frozenset[ZoneRule] | None:
        """What the kernel holds of ours and firewalld does not know; None where the kernel does not say."""
        base = self._base()
        if base is None or not base.are_doubled:
            return None if base is None else frozenset()
        kernel = await read_kernel_rules_in_parts()
        if kernel is None:
            return None
        return unknown_to_firewalld(kernel, await self._known(zones), self._priority)

    async def _known(self, zones: Zones) -> list[ZoneRule]:
        return [ZoneRule(zone, rule) for zone in sorted(zones.known) for rule in await self._firewalld.rules(zone)]

    def _is_suspect(self) -> bool:
        """Whether the firewalld that started may have left doors open, as far as is known without the kernel."""
        had_doors = bool(self._before) or unconfirmed.read(self._priority) is not None
        return had_doors and not self._facts.clears_at_start

    def _base(self) -> KernelRules | None:
        return read_base_rules() if self._facts.uses_nftables else None

    # While firewalld does not run. -----------------------------------------------------------------------------------

    async def _report_doors(self) -> None:
        doors = await self.doors_left()
        if not self._firewalld.present:
            self._health.on_doors_left(doors)

    @property
    def had_doors(self) -> bool:
        """Whether doors were open when firewalld left the bus."""
        return bool(self._before)

    async def doors_left(self) -> int | None:
        """While firewalld does not run: how many rules of doors are active in the kernel. None where that is unknown.

        Waits for up to `FLUSHING` seconds, since firewalld leaves the bus before it removes its rules.
        """
        while True:
            may_know = self._facts.uses_nftables or not self._facts.version
            kernel = await read_kernel_rules_in_parts() if may_know else None
            if kernel is None:
                return None if self._facts.cleans_up else len(self._before)
            left = doors_in(kernel, self._priority)
            if self._knows_before:
                left = self._before.intersection(left)
            if not left or now() > self._flushed_at:
                return len(left)
            await asyncio.sleep(_PAUSE)


def doors_in(kernel: KernelRules, priority: int) -> frozenset[ZoneRule]:
    """The kernel's rules that have the form of doors, as of `leftovers.in_kernel`."""
    return frozenset(item for item in in_kernel(kernel, priority) if is_door(item))
