"""The sniffer as a receiver: it exists while something is sniffed, and gets the scopes of each packet.

Without a sniffed sequence there is no packet socket and no monitor of interfaces, and the daemon needs no capability.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from port_knocking_doors.capture.bpf_source import LOOPBACK_IFINDEX
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.sniffer import Sniffer
from port_knocking_doors.knocks.authenticator import Capture
from port_knocking_doors.model import Scope
from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.rtnetlink import Link, LinkChange, matches

_IPV4_SIZE = 4
_ROUTES_MAX = 1024
"""Destinations and links of packets, of which it is remembered which scopes they are within. A flood may have many."""


class OnDemandSniffer:
    """A `capture.receiver.Receiver`: a `Sniffer` while the capture has codes."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._links: InterfaceMonitor | None = None
        self._bits: dict[tuple[bytes, int], int | None] = {}
        self._as_of = 0
        self.sniffer: Sniffer | None = None
        """None while nothing is sniffed."""
        self._open = ExitStack()

    def start(self, capture: Capture) -> None:
        """Raises `CaptureError`, or `DoorsError` where the kernel does not answer about interfaces."""
        if not capture.codes:
            return
        with ExitStack() as stack:
            self._bits.clear()
            self._links = stack.enter_context(InterfaceMonitor(self._on_link))
            stack.callback(self._forget)
            self.sniffer = stack.enter_context(Sniffer(self._dispatch, capture, self._scope_bits, self._is_honest))
            self._open = stack.pop_all()
        self._report_absent(self._links, _patterns(capture.scopes))

    def stop(self) -> None:
        """Sniff nothing any more; again is harmless."""
        self._open.close()

    def _forget(self) -> None:
        self.sniffer = self._links = None

    @contextmanager
    def replacing(self, capture: Capture) -> Iterator[None]:
        """See `capture.receiver.Receiver`. A sniffer that is running keeps its socket: no packet is lost."""
        if self.sniffer is None:
            with ExitStack() as undo:
                undo.callback(self.stop)
                self.start(capture)
                yield
                undo.pop_all()
        elif capture.codes:
            with self.sniffer.replacing(capture):
                yield
        else:
            yield
            self.stop()
        self._bits.clear()

    @property
    def counters(self) -> Mapping[str, int]:
        """Packets that passed the filter, and of those the packets that the ring had no space for."""
        return {} if self.sniffer is None else {"seen": self.sniffer.seen, "dropped": self.sniffer.dropped}

    def _scope_bits(self, destination: bytes, interface: int) -> int | None:
        """What `Dispatch.scope_bits` says of packets to this destination that arrive on this interface (its index)."""
        assert self._links is not None
        self._links.drain()
        if self._links.changes != self._as_of:
            self._bits.clear()
            self._as_of = self._links.changes
        route = (destination, interface)
        try:
            return self._bits[route]
        except KeyError:
            if len(self._bits) >= _ROUTES_MAX:
                self._bits.clear()
            bits = self._bits[route] = self._dispatch.scope_bits(self._scopes_of(destination, interface, self._links))
            return bits

    def _is_honest(self, source: bytes, interface: int) -> bool:
        """Whether a packet can have this source on this interface: not a broadcast address, and this host's own address
        on `lo` alone. The kernel drops other ones ahead of its sockets, too."""
        assert self._links is not None
        if self._links.is_broadcast(source):
            return False
        return interface == LOOPBACK_IFINDEX or not self._links.is_local(source)

    def _scopes_of(self, destination: bytes, interface: int, links: InterfaceMonitor) -> frozenset[Scope]:
        is_local = links.is_local(destination)
        return frozenset(
            scope
            for scope in self._dispatch.scopes
            if (is_local if scope.target is None else destination == scope.target.packed)
            and links.is_selected(interface, scope.interfaces)
            and not (scope.ipv4_only and len(destination) != _IPV4_SIZE)
        )

    def _report_absent(self, links: InterfaceMonitor, patterns: Iterable[str]) -> None:
        for pattern in patterns:
            if not any(matches(link, (pattern,)) for link in links.links.values()):
                text = "interface %s does not exist: listening on it once it appears"
                logger.warning(text, pattern, extra=_fields(pattern, "absent"))

    def _on_link(self, change: LinkChange, link: Link) -> None:
        patterns = _patterns(self._dispatch.scopes)
        if not patterns or not matches(link, patterns):
            return
        if change is LinkChange.APPEARED:
            logger.info("interface %s exists: listening on it", link.name, extra=_fields(link.name, "there"))
        elif change is LinkChange.DISAPPEARED:
            text = "interface %s is gone: listening on it again once it is back"
            logger.warning(text, link.name, extra=_fields(link.name, "gone"))


def _patterns(scopes: Iterable[Scope]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pattern for scope in scopes for pattern in scope.interfaces))


def _fields(interface: str, reason: str) -> dict[str, object]:
    return event_fields(LogEvent.INTERFACE, interface=interface, reason=reason)
