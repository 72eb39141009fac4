"""What firewalld is asked for, and what it reports by itself.

Interfaces, members and results are those of firewalld.dbus(5).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from enum import Enum, auto
from typing import Any, NamedTuple

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import dbus_settings
from port_knocking_doors.firewall.bus import NAME, PATH, FirewalldBus
from port_knocking_doors.firewall.error_codes import (
    ALREADY_ENABLED,
    INVALID_RULE,
    NO_ANSWER,
    NOT_ENABLED,
    UNREACHABLE,
)
from port_knocking_doors.firewall.runtime_settings import reload_sparing_others
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zone_survey import HOST, IPSET, POLICY, RULE_SIGNALS, ZONE, ZoneSurvey, read_services
from port_knocking_doors.firewall.zones import Zones

CONFIG_PATH = PATH + "/config"
CONFIG = NAME + ".config"
CONFIG_ZONE = NAME + ".config.zone"
PROPERTIES = "org.freedesktop.DBus.Properties"

NO_TIMEOUT = 0
"""The time-out that firewalld gets with a rule: always none. Its own timers outlive a reload (1.3) or break it
(2.3.3 and later, firewalld#1597)."""

# The types of the results (D-Bus signatures).
_RESULTS = {
    "getDefaultZone": "s",
    "getActiveZones": "a{sa{sas}}",
    "getZones": "as",
    "getRichRules": "as",
    "getIPSetSettings": "(ssssa{ss}as)",
    "getZoneNames": "as",
    "getZoneByName": "o",
    "getZoneSettings2": "a{sv}",
    "getServiceSettings2": "a{sv}",
    "getPolicySettings": "a{sv}",
    "getActivePolicies": "a{sa{sas}}",
    "queryPanicMode": "b",
    "Get": "v",
}
_ZONE_SIGNALS = frozenset(
    {"InterfaceAdded", "InterfaceRemoved", "ZoneOfInterfaceChanged", "ZoneChanged"}
    | {"SourceAdded", "SourceRemoved", "ZoneOfSourceChanged", "DefaultZoneChanged", "ZoneUpdated"}
)
_MATCHES = (
    f"type='signal',sender='{NAME}',interface='{NAME}',member='Reloaded'",
    f"type='signal',sender='{NAME}',interface='{NAME}',member='DefaultZoneChanged'",
    f"type='signal',sender='{NAME}',interface='{CONFIG_ZONE}',member='Updated'",
    f"type='signal',sender='{NAME}',interface='{POLICY}',member='PolicyUpdated'",
    *(
        f"type='signal',sender='{NAME}',interface='{ZONE}',member='{member}'"
        for member in sorted({*_ZONE_SIGNALS, *RULE_SIGNALS} - {"DefaultZoneChanged"})
    ),
)
_FAILED = "FAILED"
_CLEAN_STARTS = {(1, 2): 7, (1, 3): 4, (2, 0): 1}
"""The releases with firewalld's change "always flush main table on start", by branch; later branches have it."""
# The symbolic zone of policies for packets from every zone (firewalld.policy(5)).
_ANY = "ANY"
_SERVICE_IN_RULE = re.compile(r'\bservice name="([^"]+)"')


class FirewalldEvent(Enum):
    """What firewalld or the bus reported without being asked."""

    APPEARED = auto()  # firewalld owns its name (again): it has no earlier runtime rules
    DISAPPEARED = auto()
    RELOADED = auto()  # runtime rules are gone
    ZONES_CHANGED = auto()
    SETS_CHANGED = auto()  # entries of sets that are sources of zones: `Zones.sets` has changed
    PERMANENT_CHANGED = auto()  # another program wrote the permanent configuration


class FirewalldFacts(NamedTuple):
    """Properties of the running firewalld, with the values for one that does not say."""

    version: str = ""
    cleans_up: bool = True
    """Whether it removes its rules from the kernel when it ends (CleanupOnExit in firewalld.conf(5))."""
    uses_nftables: bool = False
    """Whether its rules are in a table of nftables (FirewallBackend)."""

    @property
    def clears_at_start(self) -> bool:
        """Whether it removes what an earlier one left in the kernel; an unknown version counts as a new one."""
        found = re.match(r"(\d+)\.(\d+)\.?(\d*)", self.version)
        if found is None:
            return True
        branch = int(found[1]), int(found[2])
        return branch > max(_CLEAN_STARTS) or int(found[3] or 0) >= _CLEAN_STARTS.get(branch, 1 << 16)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator["Firewalld"]:
    """A single connection, without reconnecting. Raises `FirewallError` where there is no bus."""
    client = Firewalld(lambda _event: None)
    try:
        await client.connect()
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        raise FirewallError("there is no D-Bus system bus", UNREACHABLE) from error
    try:
        yield client
    finally:
        client.close()


class Firewalld:
    """firewalld's interface, as far as it is needed here.

    Every coroutine but `run` raises `FirewallError`, with `UNREACHABLE` while there is no bus or no firewalld on it.
    `on_event` is called from the event loop.
    """

    def __init__(self, on_event: Callable[[FirewalldEvent], None]) -> None:
        self._on_event = on_event
        self._bus = FirewalldBus(self._on_presence, self._on_signal, _MATCHES, _RESULTS, packs_strings=True)
        self._call = self._bus.call
        self._survey = ZoneSurvey(self._bus)

    async def run(self) -> None:
        """Keep a connection to the bus, and connect again whenever it broke; until cancelled."""
        await self._bus.run()

    async def connect(self) -> None:
        """Connect once. Raises `OSError`, `EOFError`, `asyncio.TimeoutError` or `FirewallError` where that fails."""
        await self._bus.connect()

    def close(self) -> None:
        """Close the connection where there is one."""
        self._bus.close()

    @property
    def connected(self) -> asyncio.Event:
        """Set while there is a bus, with or without firewalld."""
        return self._bus.connected

    @property
    def present(self) -> bool:
        """Whether firewalld is on the bus; it may hang all the same."""
        return self._bus.present

    def _on_presence(self, present: bool) -> None:
        self._survey.forget()
        self._on_event(FirewalldEvent.APPEARED if present else FirewalldEvent.DISAPPEARED)

    def _on_signal(self, interface: str, member: str, arguments: list[Any]) -> None:
        if interface == CONFIG_ZONE:
            self._on_event(FirewalldEvent.PERMANENT_CHANGED)
        elif interface == NAME and member == "Reloaded":
            self._survey.forget()
            self._on_event(FirewalldEvent.RELOADED)
        elif interface == IPSET:
            if self._survey.on_entry(member, arguments):
                self._on_event(FirewalldEvent.SETS_CHANGED)
        elif member in RULE_SIGNALS:
            if self._survey.on_rule(member, arguments):
                self._on_event(FirewalldEvent.ZONES_CHANGED)
        elif member in _ZONE_SIGNALS or interface == POLICY:
            self._on_event(FirewalldEvent.ZONES_CHANGED)

    async def zones(self) -> Zones:
        """All zones, with their interfaces and sources."""
        return await self._survey.read()

    async def facts(self) -> FirewalldFacts:
        """Its version, and settings that a running firewalld has from its start or latest reload."""
        version = await self._property(NAME, "version", PATH)
        cleanup = await self._property(CONFIG, "CleanupOnExit", CONFIG_PATH)
        backend = await self._property(CONFIG, "FirewallBackend", CONFIG_PATH)
        return FirewalldFacts(version, cleanup.lower() not in ("no", "false"), backend.lower() == "nftables")

    async def has_failed(self) -> bool:
        """Whether it is in the state FAILED: it could not load its own configuration, which is not active."""
        return await self._property(NAME, "state", PATH) == _FAILED

    async def _property(self, interface: str, name: str, path: str) -> str:
        try:
            return str((await self._call(PROPERTIES, "Get", "ss", interface, name, path=path)).value)
        except FirewallError as error:
            if error.code in NO_ANSWER:
                raise
            return ""

    async def reload(self, is_ours: Callable[[str], bool]) -> None:
        """Reload it: every rule in the kernel is then one that it knows. Runtime settings of others stay; rich rules
        that `is_ours` selects are dropped."""
        await reload_sparing_others(self._call, is_ours)

    async def rules(self, zone: str) -> list[str]:
        """The rich rules of a zone, as firewalld writes them."""
        return list(await self._call(ZONE, "getRichRules", "s", zone))

    async def add(self, zone: str, rule: str) -> None:
        """Add the rule, without a time limit; one that is active already is no error."""
        with _ignoring(ALREADY_ENABLED):
            await self._call(ZONE, "addRichRule", "ssi", zone, rule, NO_TIMEOUT)

    async def remove(self, zone: str, rule: str) -> None:
        """Remove the rule; one that is not there is no error."""
        with _ignoring(NOT_ENABLED):
            await self._call(ZONE, "removeRichRule", "ss", zone, rule)

    async def wait_for_answer(self) -> None:
        """Wait without a time limit until firewalld answers any call. Raises `FirewallError` where it ends instead."""
        await self._call(NAME, "getDefaultZone", patient=True)

    async def permanent_rules(self) -> dict[str, list[str]]:
        """The rich rules of the permanent configuration, by zone."""
        zones = await self._call(CONFIG, "getZoneNames", path=CONFIG_PATH)
        paths = [await self._permanent_zone(zone) for zone in zones]
        return {
            zone: list(await self._call(CONFIG_ZONE, "getRichRules", path=path))
            for zone, path in zip(zones, paths, strict=True)
        }

    async def remove_permanent(self, zone: str, rule: str) -> None:
        """Remove the rule from the permanent configuration; one that is not there is no error."""
        with _ignoring(NOT_ENABLED):
            await self._call(CONFIG_ZONE, "removeRichRule", "s", rule, path=await self._permanent_zone(zone))

    async def firewall(self, zones: Iterable[str]) -> tuple[list[ZoneSettings], dict[str, ServiceSettings]]:
        """Settings of these zones and of the policies from them to this host, and every service that they name, with
        the services that it includes. Reads only."""
        wanted = list(zones)
        rules = [dbus_settings.settings(zone, await self._call(ZONE, "getZoneSettings2", "s", zone)) for zone in wanted]
        rules += await self._policies({*wanted, _ANY})
        named = {name for one in rules for name in (*one.services, *_SERVICE_IN_RULE.findall(" ".join(one.rich_rules)))}
        return rules, await read_services(self._bus, named)

    async def _policies(self, zones: set[str]) -> list[ZoneSettings]:
        try:
            active = await self._call(POLICY, "getActivePolicies")
            return [
                dbus_settings.settings(name, await self._call(POLICY, "getPolicySettings", "s", name), is_policy=True)
                for name, what in sorted(active.items())
                if HOST in what.get("egress_zones", ()) and zones.intersection(what.get("ingress_zones", ()))
            ]
        except FirewallError as error:
            if error.code in NO_ANSWER:
                raise
            return []  # firewalld before 0.9 has no policies

    async def panic_mode(self) -> bool:
        """Whether panic mode is on, in which every packet is dropped."""
        return bool(await self._call(NAME, "queryPanicMode"))

    async def check_authorization(self) -> None:
        """Raise `FirewallError` (`NOT_AUTHORIZED`) where this user may not change the firewall; nothing is changed.

        firewalld is asked to remove an invalid rule: it checks the authorization first.
        """
        with _ignoring(INVALID_RULE):
            await self._call(ZONE, "removeRichRule", "ss", "", "rule")

    async def _permanent_zone(self, zone: str) -> str:
        return str(await self._call(CONFIG, "getZoneByName", "s", zone, path=CONFIG_PATH))


@contextlib.contextmanager
def _ignoring(code: str) -> Iterator[None]:
    try:
        yield
    except FirewallError as error:
        if error.code != code:
            raise
