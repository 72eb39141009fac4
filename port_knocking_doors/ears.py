"""Both ears: sockets on the ports of the opening sequence, and a sniffer for everything else.

The sniffer, and what it must know of links and addresses, is there only while a sequence is sniffed: without one the
daemon needs no capability.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from fnmatch import fnmatchcase
from types import TracebackType

from .capture.sniffer import Sniffer
from .knockers import Act, Judge
from .links import Change, Link, Links
from .listeners import Listeners
from .log import LogEvent, about, logger


class Ears:
    """A context manager: once entered, every knock is heard.

    `ports`: what the sockets listen on. `codes`: what the sniffer hears (`Step.code`), none for no sniffer.
    `interfaces`: names or patterns of the links that it hears them on, none for all. Entering raises `ListenError` or
    `CaptureError` with nothing left open.
    """

    def __init__(
        self, ports: Iterable[int], codes: frozenset[int], interfaces: tuple[str, ...], judge: Judge, act: Act
    ) -> None:
        self._listeners = Listeners(ports, judge, act)
        self._codes = codes
        self._interfaces = interfaces
        self._judge = judge
        self._act = act
        self._sniffer: Sniffer | None = None
        self._sniffing = ExitStack()

    def __enter__(self) -> "Ears":
        try:
            self._listeners.__enter__()
            if self._codes:
                self._start_sniffing(self._codes)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hear nothing any more; again is harmless."""
        self._listeners.close()
        self._stop_sniffing()

    def replace(self, ports: Iterable[int], codes: frozenset[int], judge: Judge) -> None:
        """Hear these from now on, and judge them so. Raises `ListenError` or `CaptureError` with nothing changed."""
        is_new = self._sniffer is None and bool(codes)
        before, self._judge = self._judge, judge
        try:
            if is_new:
                self._start_sniffing(codes)
            self._listeners.replace(ports)
        except BaseException:
            self._judge = before
            if is_new:
                self._stop_sniffing()
            raise
        self._listeners.judge = judge
        if not codes:
            self._stop_sniffing()
        elif self._sniffer is not None and not is_new:
            self._sniffer.replace(codes, judge)

    def judge_by(self, judge: Judge) -> None:
        """Judge what is heard so from now on."""
        self._judge = self._listeners.judge = judge
        if self._sniffer is not None:
            self._sniffer.judge_by(judge)

    @property
    def listening(self) -> int:
        """How many ports are listened on."""
        return len(self._listeners)

    @property
    def sniffed(self) -> tuple[int, int] | None:
        """How many packets the sniffer has seen, and how many the kernel dropped; None without a sniffer."""
        return None if self._sniffer is None else (self._sniffer.seen, self._sniffer.dropped)

    def _start_sniffing(self, codes: frozenset[int]) -> None:
        with ExitStack() as stack:
            links = stack.enter_context(Links(self._interfaces, self._on_link))
            self._sniffer = stack.enter_context(Sniffer(codes, self._judge, self._act, links.is_local, links.heard))
            self._sniffing = stack.pop_all()
        for pattern in self._interfaces:
            if not any(fnmatchcase(name, pattern) for link in links.links.values() for name in link.names):
                text = "interface %s is not there: it is heard once it appears"
                logger.warning(text, pattern, extra=about(LogEvent.INTERFACE))

    def _stop_sniffing(self) -> None:
        self._sniffer = None
        self._sniffing.close()

    def _on_link(self, change: Change, link: Link) -> None:
        if not any(fnmatchcase(name, pattern) for name in link.names for pattern in self._interfaces):
            return
        if change is Change.APPEARED:
            logger.info("interface %s is there: it is heard", link.name, extra=about(LogEvent.INTERFACE))
        elif change is Change.WENT:
            text = "interface %s is gone: it is heard again once it is back"
            logger.warning(text, link.name, extra=about(LogEvent.INTERFACE))
