"""Both ears: sockets on the ports of the opening sequence, and a sniffer for everything else.

The sniffer, and what it must know of links and addresses, is there only while a sequence is sniffed: without one the
daemon needs no capability.
"""

from collections.abc import Iterable
from contextlib import ExitStack, suppress

from port_knocking_doors.capture.sniffer import Sniffer
from port_knocking_doors.capture.udp import UdpListeners
from port_knocking_doors.errors import CaptureError
from port_knocking_doors.knocks.authenticator import Act, Judge
from port_knocking_doors.knocks.code import SCOPE_SHIFT
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import Address, Scope
from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.resource import Resource
from port_knocking_doors.system.rtnetlink import Change, Link, matches

_IPV4_SIZE = 4
_KNOWN_WAYS = 1024
"""Destinations and links of packets, of which it is remembered who hears them. Somebody may send to many."""


class KnockReceiver(Resource):
    """A context manager: once entered, every knock is heard.

    `ports`: what the sockets listen on. `knockers`: tells what else is to be heard, and from where. Entering raises
    `ListenError` or `CaptureError` with nothing left open.
    """

    def __init__(self, ports: Iterable[int], knockers: KnockerTable, judge: Judge, act: Act) -> None:
        self._listeners = UdpListeners(ports, judge, act)
        self._knockers = knockers
        self._judge = judge
        self._act = act
        self._links: InterfaceMonitor | None = None
        self._ways: dict[tuple[bytes, int], int | None] = {}
        self._numbers: dict[frozenset[Scope], int] = {}
        self._as_of = 0
        self.sniffer: Sniffer | None = None
        """There while something is sniffed."""
        self._sniffing = ExitStack()

    def open(self) -> None:
        """Raises `ListenError` or `CaptureError`."""
        self._listeners.open()
        if self._knockers.capture.codes:
            self._start_sniffing()

    def close(self) -> None:
        """Hear nothing any more; again is harmless."""
        self._listeners.close()
        self._stop_sniffing()

    def replace(self, ports: Iterable[int], knockers: KnockerTable, judge: Judge) -> None:
        """Hear these from now on, and judge them so. Raises `ListenError` or `CaptureError` with nothing changed."""
        codes = knockers.capture.codes
        is_new = self.sniffer is None and bool(codes)
        before = self._knockers, self._judge
        self._knockers, self._judge = knockers, judge
        try:
            if is_new:
                self._start_sniffing()
            elif self.sniffer is not None and codes:
                self.sniffer.replace(codes, judge, self._targets())
            # Last, since it closes what is not wanted any more.
            self._listeners.replace(ports)
        except BaseException:
            self._knockers, self._judge = before
            if is_new:
                self._stop_sniffing()
            elif self.sniffer is not None and codes:
                with suppress(CaptureError):
                    self.sniffer.replace(before[0].capture.codes, before[1], self._targets())
            raise
        self._listeners.judge = judge
        self._ways.clear()
        self._numbers.clear()
        if not codes:
            self._stop_sniffing()

    def judge_by(self, judge: Judge) -> None:
        """Judge what is heard so from now on."""
        self._judge = self._listeners.judge = judge
        if self.sniffer is not None:
            self.sniffer.judge_by(judge)

    @property
    def listening(self) -> int:
        """How many ports are listened on."""
        return len(self._listeners)

    @property
    def sniffed(self) -> tuple[int, int] | None:
        """How many packets the sniffer has seen, and how many the kernel dropped; None without a sniffer."""
        return None if self.sniffer is None else (self.sniffer.seen, self.sniffer.dropped)

    def _start_sniffing(self) -> None:
        knockers = self._knockers
        with ExitStack() as stack:
            self._ways.clear()
            self._links = links = stack.enter_context(InterfaceMonitor(self._on_link))
            self.sniffer = stack.enter_context(
                Sniffer(knockers.capture.codes, self._judge, self._act, self._scope_of, self._targets())
            )
            self._sniffing = stack.pop_all()
        for pattern in self._patterns():
            if not any(matches(link, (pattern,)) for link in links.links.values()):
                text = "interface %s is not there: it is heard once it appears"
                logger.warning(text, pattern, extra=_about(pattern, "absent"))

    def _stop_sniffing(self) -> None:
        self.sniffer = self._links = None
        self._sniffing.close()

    def _targets(self) -> list[Address]:
        return [scope.target for scope in self._knockers.capture.scopes if scope.target is not None]

    def _patterns(self) -> list[str]:
        return list(dict.fromkeys(pattern for scope in self._knockers.capture.scopes for pattern in scope.interfaces))

    def _scope_of(self, destination: bytes, interface: int) -> int | None:
        """What the table of knockers is told of packets that come this way; None where nobody hears them."""
        assert self._links is not None
        self._links.drain()
        if self._links.changes != self._as_of:
            self._ways.clear()
            self._as_of = self._links.changes
        way = (destination, interface)
        try:
            return self._ways[way]
        except KeyError:
            if len(self._ways) >= _KNOWN_WAYS:
                self._ways.clear()
            self._ways[way] = scope = self._scope_bits(self._scopes_of(destination, interface, self._links))
            return scope

    def _scope_bits(self, scopes: frozenset[Scope]) -> int | None:
        if not scopes:
            return None
        if scopes == self._knockers.capture.scopes:
            return 0
        if scopes not in self._numbers:
            self._numbers[scopes] = len(self._numbers) + 1
            self._knockers.add_scopes(self._numbers[scopes], scopes)
        return self._numbers[scopes] << SCOPE_SHIFT

    def _scopes_of(self, destination: bytes, interface: int, links: InterfaceMonitor) -> frozenset[Scope]:
        is_local = links.is_local(destination)
        return frozenset(
            scope
            for scope in self._knockers.capture.scopes
            if (is_local if scope.target is None else destination == scope.target.packed)
            and links.is_selected(interface, scope.interfaces)
            and not (scope.ipv4_only and len(destination) != _IPV4_SIZE)
        )

    def _on_link(self, change: Change, link: Link) -> None:
        patterns = tuple(self._patterns())
        if not patterns or not matches(link, patterns):
            return
        if change is Change.APPEARED:
            logger.info("interface %s is there: it is heard", link.name, extra=_about(link.name, "there"))
        elif change is Change.WENT:
            text = "interface %s is gone: it is heard again once it is back"
            logger.warning(text, link.name, extra=_about(link.name, "gone"))


def _about(interface: str, reason: str) -> dict[str, object]:
    return event_fields(LogEvent.INTERFACE, interface=interface, reason=reason)
