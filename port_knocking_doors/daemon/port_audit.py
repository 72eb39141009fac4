"""Reports loudly which guarded ports firewalld lets through without a knock: the commonest mistake."""

import asyncio
from contextlib import suppress

from port_knocking_doors.daemon.active import sequences_of
from port_knocking_doors.errors import FirewallError
from port_knocking_doors.events import EventStream, PortExposed
from port_knocking_doors.firewall import advice, exposure
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.model import Settings
from port_knocking_doors.system.listening_ports import served_ports


async def audit(settings: Settings, reconciler: RuleReconciler, events: EventStream) -> None:
    """Check the zones that strangers' packets fall into. Does nothing before firewalld answered."""
    zones = reconciler.zones
    if zones is None:
        return
    guarded = dict.fromkeys(port for sequence in sequences_of(settings) for port in sequence.access.ports)
    examined = dict.fromkeys((*([settings.zone] if settings.zone else []), *zones.external()))
    with suppress(FirewallError):  # the reconciler reports firewalld's errors
        all_rules, services = await reconciler.firewalld.firewall(examined)
        exposed = [
            (port, rules, found)
            for rules in all_rules
            for port in guarded
            for found in exposure.find(port, rules, services, settings.rule_priority).exposures
            if not found.limited
        ]
        if not exposed:
            return
        # In a thread: of a hundred thousand connections, the kernel's list takes tenths of a second.
        served = await asyncio.to_thread(served_ports)
        host = advice.host_of(settings, served, services, all_rules, zones.default)
        for port, rules, found in exposed:
            events.publish(PortExposed(port, rules.name, found.what, advice.warning_line(port, rules, found, host)))
