"""The findings of test packets: guarded ports closed without a knock, knocks that arrive, doors that let in."""

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from port_knocking_doors.doctor.expected import Expected
from port_knocking_doors.doctor.finding import Finding, ok, problem, shortened, warning
from port_knocking_doors.doctor.guarded import opened_by
from port_knocking_doors.doctor.host import used_interfaces
from port_knocking_doors.doctor.observation import SOURCES, TIME, Observation, Passage, Way, observe
from port_knocking_doors.doctor.report import waiting
from port_knocking_doors.doctor.trace import FIREWALLD, Decision
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.firewall.zones import INNER
from port_knocking_doors.model import Port, Protocol, Settings

PORTS_SHOWN = 20
_RESTART = "systemctl restart firewalld"
# Not a reload: firewalld 1.3.3 fails to delete the table that is gone, and drops all new connections from then on.


class PacketFindings(NamedTuple):
    """The findings of test packets, and ports that a rule redirects past the zones."""

    findings: list[Finding]
    redirected: frozenset[Port] = frozenset()


def about_packets(settings: Settings, expected: Expected, *, has_daemon: bool) -> PacketFindings:
    """Send test packets through a copy of this host, and report what became of them."""
    if expected.panic:
        return PacketFindings([warning("firewall: not verified with test packets, since panic mode drops them all")])
    knocks = [Port(port, Protocol.UDP) for port in dict.fromkeys(settings.opening_sequence)]
    zones = expected.zones
    inner = [name for name in used_interfaces() if zones and zones.zone_of(SOURCES[0], name) in INNER]
    try:
        with waiting(f"sending test packets through a copy of the kernel's tables, for at most {TIME:g} s"):
            seen = observe(list(opened_by(settings)), knocks, settings.zone, inner)
    except DoorsError as error:
        text = "firewall: not verified with test packets that guarded ports are closed and knocks arrive"
        return PacketFindings([warning(f"{text}: {error}")])
    return PacketFindings(list(findings(settings, expected, seen, has_daemon=has_daemon)), seen.redirected)


def findings(settings: Settings, expected: Expected, seen: Observation, *, has_daemon: bool) -> Iterator[Finding]:
    """What was seen, beside what the settings of firewalld say already."""
    yield from _Report(settings, expected, seen).lines(has_daemon=has_daemon)


class _Report:
    def __init__(self, settings: Settings, expected: Expected, seen: Observation) -> None:
        self._settings = settings
        self._expected = expected
        self._seen = seen
        self._guarded = list(opened_by(settings))
        self._knocks = [Port(port, Protocol.UDP) for port in dict.fromkeys(settings.opening_sequence)]
        self._ways = list(dict.fromkeys(way for way, _ in seen.as_is))
        self._secrets = {str(step.port) for one in settings.sequences for step in (*one.steps, *one.close_steps)}
        self._secrets |= {str(port) for port in settings.opening_sequence}

    def lines(self, *, has_daemon: bool) -> Iterator[Finding]:
        if self._expected.zones is not None and not self._seen.has_firewalld:
            yield problem(
                "firewalld: runs, but the kernel has none of its rules: another program flushed them, such as "
                f"`nft flush ruleset`, and no door can open: {_RESTART}"
            )
        yield from self._open_ports()
        yield from self._knock_ports(has_daemon=has_daemon)
        yield from self._doors()

    # Guarded ports. --------------------------------------------------------------------------------------------------

    def _open_ports(self) -> Iterator[Finding]:
        seen = self._seen
        for passage, grade, text in (
            (Passage.OPEN, problem, "OPEN WITHOUT A KNOCK"),
            (Passage.LIMITED, warning, "open to some addresses without a knock"),
        ):
            unexplained = [
                (way, port)
                for way in self._ways
                for port in self._guarded
                if seen.as_is.get((way, port)) is passage and not self._is_reported(way, port, passage)
            ]
            for ways, ports, decision in self._grouped(unexplained):
                yield grade(
                    f"{_ports(ports)}: {text}: a test packet from outside arrives on {ways}; {self._why_open(decision)}"
                )
        closed = [
            port
            for port in self._guarded
            if port not in seen.redirected and all(seen.as_is[way, port] is Passage.CLOSED for way in self._ways)
        ]
        if not closed:
            return
        where = _ways(self._ways)
        if seen.queues:
            yield warning(
                f"guarded ports: not verified ({_texts(closed)}): a rule leaves packets to another program (NFQUEUE), "
                "whose verdict cannot be seen"
            )
        else:
            yield ok(f"guarded ports: closed without a knock ({_texts(closed)}): test packets are denied on {where}")

    def _is_reported(self, way: Way, port: Port, passage: Passage) -> bool:
        """Whether the settings of firewalld say so already; some addresses may be in another zone."""
        if passage is Passage.LIMITED:
            return port in self._expected.limited or any(one == port for _, one in self._expected.exposed)
        return self._expected.explains_open(self._zone(way), port)

    def _why_open(self, decision: Decision | None) -> str:
        if self._expected.failed:
            return "firewalld is in the state FAILED"
        if decision is not None:
            return f"the rule that accepts it: {self._hidden(decision)}"
        if not self._seen.has_firewalld:
            remedy = f": {_RESTART}" if self._expected.zones is not None else ""  # else it is said of firewalld
            return f"firewalld has no rule in the kernel{remedy}"
        return "no rule denies it: `nft list ruleset` shows the rules"

    # Knock ports. ----------------------------------------------------------------------------------------------------

    def _knock_ports(self, *, has_daemon: bool) -> Iterator[Finding]:
        settings, seen = self._settings, self._seen
        if not self._knocks:
            return
        opened_later = settings.open_knock_ports and not has_daemon
        arriving: list[Way] = []
        blocked: dict[tuple[int, Decision | None], list[Way]] = {}
        for way in self._ways:
            zone = self._zone(way)
            if zone in self._expected.shut or (settings.open_knock_ports and settings.zone not in ("", zone)):
                continue
            lost = [port for port in self._knocks if seen.as_is[way, port] is Passage.CLOSED]
            if opened_later and seen.with_doors:
                lost = [port for port in lost if seen.with_doors[way, port] is Passage.CLOSED]
            elif opened_later and lost:
                continue
            if not lost:
                arriving.append(way)
                continue
            decision = next((found for port in lost if (found := seen.decisions.get((way, port)))), None)
            blocked.setdefault((len(lost), decision and decision._replace(rule="")), []).append(way)
        for (count, decision), ways in blocked.items():
            yield problem(
                f"knock ports: test datagrams to {count} of {len(self._knocks)} do not arrive on {_ways(ways)}: "
                f"{self._why_denied(decision, secret=True)}"
            )
        if arriving:
            later = ", once the daemon has opened them (open_knock_ports)" if opened_later and seen.with_doors else ""
            yield ok(f"knock ports: test datagrams to all {len(self._knocks)} arrive on {_ways(arriving)}{later}")

    # Doors. ----------------------------------------------------------------------------------------------------------

    def _doors(self) -> Iterator[Finding]:
        settings, seen = self._settings, self._seen
        tested = [
            (way, port)
            for way in self._ways
            for port in self._guarded
            if (way, port) in seen.with_doors and settings.zone in ("", self._zone(way)) and port not in seen.redirected
        ]
        denied = [
            (way, port)
            for way, port in tested
            if seen.with_doors[way, port] is Passage.CLOSED
            and not self._expected.explains_denied(self._zone(way), port)
        ]
        for ways, ports, decision in self._grouped(denied):
            yield problem(f"{_ports(ports)}: a door has no effect on {ways}: {self._why_denied(decision)}")
        through = list(dict.fromkeys(way for way, port in tested if seen.with_doors[way, port] is not Passage.CLOSED))
        if through and not denied:
            yield ok(f"doors: test packets pass where a door opens on {_ways(through)}")

    def _why_denied(self, decision: Decision | None, *, secret: bool = False) -> str:
        if decision is None or decision.accepts:
            return "a rule ahead of the zone denies them: `nft list ruleset` shows the rules"
        shown = _place(decision) if secret else self._hidden(decision)
        if (policy := decision.policy) is not None:
            name = shlex.quote(policy)
            return (
                f"denied by {shown}, ahead of the zone: let the policy accept these packets, or change its rules "
                f"(firewall-cmd --info-policy={name} shows them)"
            )
        if decision.table == FIREWALLD:
            return f"denied by {shown}: see `nft list chain {decision.family} {FIREWALLD} {decision.chain}`"
        return (
            f"denied by {shown}, which firewalld cannot undo: accept these packets there, too "
            f"(`nft list chain {decision.family} {decision.table} {decision.chain}` shows its rules)"
        )

    # Texts. ----------------------------------------------------------------------------------------------------------

    def _zone(self, way: Way) -> str:
        """The zone of most packets that come this way; empty if it is not known."""
        if self._expected.zones is None:
            return ""
        zones = [self._expected.zones.zone_of(one, way.interface) for one in SOURCES if one.version == way.version]
        return max(zones, key=zones.count)

    def _grouped(self, keys: Iterable[tuple[Way, Port]]) -> Iterator[tuple[str, list[Port], Decision | None]]:
        """Ports with the same ways, and with one reason; `ways` as text."""
        ways: dict[Port, list[Way]] = {}
        for way, port in keys:
            ways.setdefault(port, []).append(way)
        groups: dict[tuple[tuple[Way, ...], Decision | None], list[Port]] = {}
        for port, found in ways.items():
            decision = next((one for way in found if (one := self._seen.decisions.get((way, port)))), None)
            groups.setdefault((tuple(found), decision), []).append(port)
        for (found_ways, decision), ports in groups.items():
            yield _ways(found_ways), ports, decision

    def _hidden(self, decision: Decision) -> str:
        """The decision without ports of sequences."""
        return re.sub(r"\d+", lambda found: "PORT" if found[0] in self._secrets else found[0], str(decision))


def _place(decision: Decision) -> str:
    if decision.policy is not None:
        return f"policy {decision.policy} of firewalld"
    return f"table {decision.family} {decision.table}, chain {decision.chain}"


def _texts(values: Iterable[object]) -> str:
    return shortened(list(map(str, values)), PORTS_SHOWN)


def _ways(ways: Iterable[Way]) -> str:
    """Each interface with its families."""
    found: dict[str, list[str]] = {}
    for way in ways:
        found.setdefault(way.interface, []).append(f"IPv{way.version}")
    return _texts(f"{interface} ({', '.join(versions)})" for interface, versions in found.items())


def _ports(ports: Iterable[Port]) -> str:
    found = list(ports)
    return f"port{'s' if len(found) > 1 else ''} {_texts(found)}"
