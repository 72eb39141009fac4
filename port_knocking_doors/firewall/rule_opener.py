"""Opens doors to ports, by marked rules that the reconciler brings to firewalld; the rules for the knock ports, too."""

import asyncio
from collections.abc import Hashable

from port_knocking_doors.doors.opener import DoorListener
from port_knocking_doors.errors import ConfigError, FirewallError
from port_knocking_doors.firewall import rich_rule
from port_knocking_doors.firewall.health import RESTART, UNVERIFIED, left_line
from port_knocking_doors.firewall.plan import time_to_close
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.firewall.zone_doubts import ZoneDoubts
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Access, Door, FirewalldState, Port, Protocol, Settings
from port_knocking_doors.system.clock import now, wait_at_most
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.sd_notify import extend_timeout

_KNOCK_PORTS = "knock ports"


class RuleOpener:
    """Opens and closes doors by rich rules (`doors.opener`).

    With `uses_firewalld` false it has nothing to open and never asks firewalld: the daemon only runs commands.
    """

    uses_interface = True
    counts_from_open = False

    def __init__(self, settings: Settings, *, uses_firewalld: bool) -> None:
        self.listener: DoorListener
        self._settings = settings
        self._uses_firewalld = uses_firewalld
        self._doubts = ZoneDoubts()
        self._confirmed: set[Door] = set()
        """Doors whose rules are active."""
        self.reconciler = RuleReconciler(settings.rule_priority, self)

    def start(self) -> None:
        """Do nothing: the reconciler removes what an earlier daemon left as soon as firewalld answers."""

    async def run(self) -> None:
        """Keep the active rules equal to the desired ones, until cancelled."""
        if self._uses_firewalld:
            await self.reconciler.run()
        else:
            await asyncio.Event().wait()

    async def prepare(self) -> None:
        """Wait for firewalld, check the zone, and let the knock ports through. Raises `ConfigError`."""
        await self.reconciler.ready()
        self.verify(self._settings)
        self._place_knock_ports()
        await self.reconciler.settled()

    # Settings. -------------------------------------------------------------------------------------------------------

    def verify(self, settings: Settings) -> None:
        """Raise `ConfigError` if firewalld has no zone of the name in the settings. Before it answered, any will do."""
        zones = self.reconciler.zones
        if settings.zone and zones is not None and settings.zone not in zones.known:
            raise ConfigError(
                f"zone {settings.zone!r} is unknown to firewalld, expected one of: {', '.join(sorted(zones.known))}",
                field="zone",
            )

    def apply(self, settings: Settings) -> None:
        """Let these settings hold for all doors, the open ones among them."""
        self._settings = settings
        if self._uses_firewalld:
            self._doubts.forget()
            self._place_knock_ports()
            self.reconciler.replace_all()

    def _place_knock_ports(self) -> None:
        if self._settings.open_knock_ports:
            self.reconciler.set_desired(_KNOCK_PORTS, self._knock_port_rules)
        else:
            self.reconciler.clear(_KNOCK_PORTS)

    def _knock_port_rules(self, zones: Zones) -> list[ZoneRule]:
        settings = self._settings
        return [
            ZoneRule(zone, rich_rule.knock_port_rule(Port(port, Protocol.UDP), settings.rule_priority))
            for zone in ([settings.zone] if settings.zone else zones.active())
            for port in dict.fromkeys(settings.opening_sequence)
        ]

    # Doors. ----------------------------------------------------------------------------------------------------------

    @property
    def is_available(self) -> bool:
        """Whether firewalld is on the bus, and its rules are what is active."""
        return self.reconciler.is_usable

    @property
    def state(self) -> FirewalldState:
        """How firewalld responds."""
        return self.reconciler.state if self._uses_firewalld else FirewalldState.UNUSED

    def denial(self, door: Door) -> str:
        """How the address is banned in firewalld; empty until firewalld has answered."""
        zones = self.reconciler.zones
        if zones is None or self._settings.doors_for_banned:
            return ""
        return zones.ban(door.address, door.interface, door.opening.opened_ports())

    def stays_open(self, door: Door) -> bool:  # noqa: ARG002 the protocol has it
        """A rule is active until it is removed."""
        return True

    def seconds(self, door: Door, access: Access) -> float:  # noqa: ARG002 the protocol has it
        """The access's duration."""
        return access.duration

    def open(self, door: Door) -> None:
        """Have a rule for each port of the door, in the zone of the knocker's packets."""
        self.reconciler.set_desired(door, lambda zones: self._door_rules(door, zones), now())
        if self.reconciler.zones is not None and not self._settings.zone:
            self._doubts.log(door, self.reconciler.zones)

    def prolong(self, door: Door) -> None:
        """Have the door come back ahead of others after a reload of firewalld."""
        self.reconciler.touch(door, now())

    def _door_rules(self, door: Door, zones: Zones) -> list[ZoneRule]:
        if not self._settings.doors_for_banned and (reason := self._late_ban(door, zones)):
            # Later: the reconciler, which this is called by, is at work.
            asyncio.get_running_loop().call_soon(self.listener.on_denied, door, reason)
            return []
        names = [self._settings.zone] if self._settings.zone else zones.match(door.address, door.interface).zones
        rules = rich_rule.door_rules(door, self._settings.rule_priority)
        return [ZoneRule(zone, rule) for zone in names for rule in rules]

    def _late_ban(self, door: Door, zones: Zones) -> str:
        """A ban that was not known, or not there, when the door was requested.

        A rich rule that bans the address of an open door needs nothing: it wins over the door for as long as it exists.
        """
        ports = () if door in self._confirmed else door.opening.opened_ports()
        return zones.ban(door.address, door.interface, ports)

    def close(self, door: Door) -> None:
        """Have the door's rules removed."""
        self.reconciler.clear(door)

    async def settled(self) -> None:
        """Return once the desired rules are active, and no other marked one."""
        if self._uses_firewalld:
            await self.reconciler.settled()

    async def close_all(self) -> None:
        """Remove every rule. Raises `FirewallError` if some are not confirmed removed in time."""
        if not self._uses_firewalld:
            return
        self.reconciler.clear_all()
        if self.reconciler.present:
            await self._await_removal()
        if self.state is FirewalldState.FLUSHED:
            raise FirewallError(
                f"doors are not closed: firewalld {self.reconciler.unavailable_reason}: run `{RESTART}`"
            )
        if self.state is FirewalldState.FAILED and self.reconciler.active_rules:
            raise FirewallError(
                f"doors are not closed: firewalld {self.reconciler.unavailable_reason}: mend what `firewall-cmd "
                f"--check-config` names, then run `{RESTART}`"
            )
        if not self.reconciler.present:
            await self._verify_without_firewalld()
        elif rules := self.reconciler.active_rules:
            raise FirewallError(f"firewalld refused to remove {rules} rules; see above")

    async def _await_removal(self) -> None:
        seconds = time_to_close(self.reconciler.active_rules)
        extend_timeout(seconds)
        try:
            await wait_at_most(seconds, self.reconciler.settled())
        except asyncio.TimeoutError:
            raise FirewallError(
                "doors are not closed: firewalld does not answer; a helper process waits for it and closes them"
            ) from None

    async def _verify_without_firewalld(self) -> None:
        """Raises `FirewallError` where firewalld does not run and left its rules in the kernel."""
        doors = await self.reconciler.kernel.doors_left()
        if doors:
            raise FirewallError(left_line(doors))
        if doors is None and self.reconciler.kernel.had_doors:
            logger.warning("%s", UNVERIFIED)

    # What the reconciler reports. ------------------------------------------------------------------------------------

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        """Every rule of the owner is confirmed."""
        if isinstance(owner, Door) and zones:  # a door without rules is about to be denied
            self._confirmed.add(owner)
            self.listener.on_open(owner, zones)

    def on_removed(self, owner: Hashable) -> None:
        """No rule of the owner is left."""
        if isinstance(owner, Door):
            self._confirmed.discard(owner)
            self.listener.on_closed(owner)
