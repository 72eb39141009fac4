"""The receivers of knocks as one: what they capture is replaced as a whole, or not at all.

`RECEIVERS` has a line for each kind. A new kind is a module with a class like the others, and a line; what it is to
capture is a field of `knocks.authenticator.Capture`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Protocol

from port_knocking_doors.capture.dispatch import Dispatch, OnOther, Wrap
from port_knocking_doors.capture.on_demand import OnDemandSniffer
from port_knocking_doors.capture.udp import UdpListeners
from port_knocking_doors.errors import DoorsError, PortInUseError
from port_knocking_doors.knocks.authenticator import Act, Authenticator, Capture
from port_knocking_doors.system.resource import Resource


class Receiver(Protocol):
    """A kind of receiver: packets in, and each of them to the judge that `Dispatch` has for its code."""

    def start(self, capture: Capture) -> None:
        """Receive what the capture asks this kind for. Raises `DoorsError`; `stop` is called then, too."""

    def stop(self) -> None:
        """Receive nothing any more; harmless if it never started."""

    def replacing(self, capture: Capture) -> AbstractContextManager[None]:
        """A context that prepares on entry to receive this instead, and does so at its end.

        Entering raises `DoorsError` with nothing changed; an exception in its body leaves everything as it was, too.
        """

    @property
    def counters(self) -> Mapping[str, int]:
        """What it counts, for `status`."""


RECEIVERS: dict[str, Callable[[Dispatch], Receiver]] = {
    "listened UDP ports": UdpListeners,
    "sniffed packets": OnDemandSniffer,
}
"""Every kind of receiver, in the order in which they start."""


class KnockReceiver(Resource):
    """Everything that receives knocks: a context manager, and once entered every packet that is asked for is judged.

    `authenticators`: what judges packets, and says which must be captured. `act` handles the outcomes that need action.
    `wrap`: see `Dispatch`. Entering raises `ListenError` or `CaptureError` with nothing left open. A caller that can
    wait for a port calls `open` by itself: after a `PortInUseError`, what needs no such port receives already, and
    another call tries the rest again.
    """

    def __init__(self, authenticators: Iterable[Authenticator], act: Act, wrap: Wrap = lambda judge: judge) -> None:
        self._authenticators = tuple(authenticators)
        self._dispatch = Dispatch(act, wrap)
        self._receivers = [make(self._dispatch) for make in RECEIVERS.values()]
        self._stopped = [*self._receivers]
        """Those that have not started, in their order."""
        self._shows_others = False

    def open(self) -> None:
        """Start what has not started yet.

        Raises `ListenError` or `CaptureError`, and `PortInUseError` only after every other receiver was started.
        """
        self._dispatch.use(self._authenticators)
        capture = self._capture(self._authenticators)
        problems = [problem for one in [*self._stopped] if (problem := self._start(one, capture)) is not None]
        for problem in problems:
            raise problem

    def _start(self, receiver: Receiver, capture: Capture) -> PortInUseError | None:
        try:
            receiver.start(capture)
        except PortInUseError as error:
            receiver.stop()
            return error
        self._stopped.remove(receiver)
        return None

    def close(self) -> None:
        """Receive nothing any more; again is harmless."""
        for receiver in self._receivers:
            receiver.stop()
        self._stopped = [*self._receivers]

    def replace(self, authenticators: Iterable[Authenticator]) -> None:
        """Let these judge from now on, and capture what they ask for: also if that alone has changed.

        Raises `ListenError` or `CaptureError` with nothing changed. What `open` has not started yet stays so.
        """
        every = tuple(authenticators)
        with self._replacing(every):
            self._dispatch.use(every)
        self._authenticators = every

    @contextmanager
    def _replacing(self, authenticators: Iterable[Authenticator]) -> Iterator[None]:
        capture = self._capture(authenticators)
        with ExitStack() as prepared:
            for receiver in self._receivers:
                if receiver not in self._stopped:
                    prepared.enter_context(receiver.replacing(capture))
            yield

    def _capture(self, authenticators: Iterable[Authenticator]) -> Capture:
        capture = Capture.of(one.capture for one in authenticators)
        return replace(capture, others=self._shows_others)

    def show_others(self, on_other: OnOther | None) -> None:
        """Report datagrams with another payload to `on_other` from now on, or drop them in the kernel again (None)."""
        self._dispatch.on_other = on_other or (lambda *_: None)
        self._shows_others = on_other is not None
        # Where the kernel has no memory for a filter, they are dropped by the daemon.
        with suppress(DoorsError), self._replacing(self._authenticators):
            pass

    def wrap(self, wrap: Wrap) -> None:
        """Put this around every judge from now on."""
        self._dispatch.wrap(wrap)

    @property
    def counters(self) -> Mapping[str, int]:
        """What the receivers count: `ports` listened on; while something is sniffed `seen` and `dropped` packets."""
        return {name: count for receiver in self._receivers for name, count in receiver.counters.items()}
