"""The listeners: one UDP socket for each port of the opening sequence.

A sequence is an order, and sockets have none among each other: of two datagrams that wait, only the kernel's time
stamps tell which came first. So all sockets are read together, and what they held is judged in the order of its stamps;
these are of the wall clock, so where that was set meanwhile, they are corrected first (`arrival`).

This is the hot path of a flood of datagrams. A filter in the kernel drops every payload but the right one, so that
wrong ones never wake the daemon, unless any payload is right or wrong ones are watched; a socket is read in bounded
batches (`recvmmsg`), so that a flooded port does not starve the others; the clock is read once for all that was read
together.
"""

import asyncio
import errno
import math
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from operator import itemgetter

from port_knocking_doors.capture import payload
from port_knocking_doors.capture.arrival import restamped
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.recvmmsg import IP_PKTINFO, SO_TIMESTAMPNS, Datagram, OtherDatagram, ReceiveBatch
from port_knocking_doors.errors import DoorsError, ListenError, PortInUseError
from port_knocking_doors.knocks.authenticator import Capture, PortOrigin
from port_knocking_doors.knocks.code import listened_code
from port_knocking_doors.model import PAYLOAD
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.sockets import attach_filter, detach_filter, enlarge_receive_buffer
from port_knocking_doors.system.wall_clock import WallClockWatch

MANY = 4
"""Datagrams read together after which the sockets rest: in a flood the daemon wakes for many at once, not for a few.
Measured at 100,000 a second: 3.9 µs of CPU each, and 9.6 without a rest. A lone knock is judged at once."""
REST = 0.002
"""Seconds; the receive buffers hold more than comes in that time."""

RECEIVE_BUFFER = 1 << 20
"""Bytes of kernel memory asked for to hold a burst; the kernel grants what net.core.rmem_max allows."""

OTHERS_AT_ONCE = 16
"""Datagrams with another payload that are shown of those read together, while they are watched: a flood of them must
not cost more than one of knocks."""

_OF_THE_PORT: dict[int | None, type[ListenError]] = {
    errno.EADDRINUSE: PortInUseError,
    errno.EACCES: ListenError,
    errno.EPERM: ListenError,
}
"""What another choice of ports would mend; the rest may pass, such as a lack of memory."""


class UdpListeners:
    """A `capture.receiver.Receiver`: the sockets of all knock ports."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._sockets: dict[int, socket.socket] = {}
        self._ready: select.epoll | None = None
        self._of_descriptor: dict[int, tuple[ReceiveBatch, int]] = {}
        self._batches = {
            (family, of_any): ReceiveBatch(family, None if of_any else PAYLOAD)
            for family in (socket.AF_INET6, socket.AF_INET)
            for of_any in (False, True)
        }
        self._held: list[Datagram] = []
        self._wall_clock = WallClockWatch()
        self._others: list[OtherDatagram] | None = None
        """Datagrams with another payload that were just read; None while they are not watched."""
        self._unfiltered: frozenset[int] = frozenset()
        """The ports whose sockets get every payload."""
        self._rest: asyncio.TimerHandle | None = None
        self._failing: set[int] = set()

    def start(self, capture: Capture) -> None:
        """Raises as `replacing`."""
        self._ready = select.epoll()
        with self.replacing(capture):
            pass
        asyncio.get_running_loop().add_reader(self._ready, self._read)

    def stop(self) -> None:
        """Stop listening; again is harmless."""
        if self._rest is not None:
            self._rest.cancel()
        if self._ready is not None:
            asyncio.get_running_loop().remove_reader(self._ready)
            self._ready.close()
            self._ready = None
        while self._sockets:
            self._sockets.popitem()[1].close()
        self._held.clear()

    @property
    def counters(self) -> Mapping[str, int]:
        """How many ports are listened on."""
        return {"ports": len(self._sockets)}

    @contextmanager
    def replacing(self, capture: Capture) -> Iterator[None]:
        """See `capture.receiver.Receiver`: sockets of ports that stay are kept, with the datagrams that wait in them.

        Raises `ListenError` where a port cannot be had, `PortInUseError` if another program has it, and `DoorsError`
        where the system lacks something else.
        """
        wanted = frozenset(capture.ports)
        unfiltered = wanted if capture.others else capture.any_payload
        with ExitStack() as added:
            sockets = {
                port: added.enter_context(_listen(port, capture.origin(place), is_filtered=port not in unfiltered))
                for place, port in enumerate(capture.ports)
                if port not in self._sockets
            }
            for port in self._unfiltered & self._sockets.keys() & (wanted - unfiltered):
                added.callback(_take_any, self._sockets[port])
                _filter(self._sockets[port], payload.only(PAYLOAD))
            yield
            added.pop_all()
        for port in unfiltered & self._sockets.keys():
            _take_any(self._sockets[port])
        self._unfiltered = unfiltered
        self._others = [] if capture.others else None
        self._swap(wanted, capture.any_payload, sockets)

    def _swap(self, wanted: frozenset[int], of_any: frozenset[int], added: Mapping[int, socket.socket]) -> None:
        assert self._ready is not None
        for port in self._sockets.keys() - wanted:
            sock = self._sockets.pop(port)
            self._ready.unregister(sock)
            sock.close()
        for port, sock in added.items():
            self._sockets[port] = sock
            self._ready.register(sock, select.EPOLLIN)
        self._of_descriptor = {
            sock.fileno(): (self._batches[sock.family, port in of_any], listened_code(port))
            for port, sock in self._sockets.items()
        }

    def _read(self) -> None:
        """Read what waits in all sockets, and judge it in the order in which it came.

        While one socket is read, another gets more. What the second pass finds, and what is as old as anything that the
        first one found, is complete; the rest is held back for the next time, which follows at once, or after a rest.
        """
        received, self._held = self._held, []
        first = self._take(received)
        if not received:
            self._show_others()
            return
        newest = max(received)[0]
        second = self._take(received)
        complete = min(newest, second)
        if len(received) > 1 and (step := self._wall_clock.step()):
            # What is complete would be a question of stamps, too: all of it is judged now.
            received, complete = restamped(received, time.time_ns(), step), math.inf
        received.sort(key=itemgetter(0))
        when = now()
        judges, act = self._dispatch.judges, self._dispatch.act
        for place, (stamp, source, code, port, interface) in enumerate(received):
            if stamp > complete:
                self._held = received[place:]
                break
            judge = judges.get(code)
            if judge is None:  # it was held back, and its port is not listened on any more
                continue
            outcome = judge(source, code, port, when)
            if outcome.needs_action:
                act(source, interface, outcome, when)
        self._show_others()
        loop = asyncio.get_running_loop()
        if len(received) >= MANY and first == second == math.inf and self._rest is None and self._ready is not None:
            loop.remove_reader(self._ready)
            self._rest = loop.call_later(REST, self._wake)
        elif self._held:
            loop.call_soon(self._read_again)

    def _show_others(self) -> None:
        """Report the datagrams with another payload, where they are watched."""
        if not self._others:
            return
        when, report = now(), self._dispatch.on_other
        for source, length, beginning in self._others[:OTHERS_AT_ONCE]:
            report(source, length, beginning, when)
        self._others.clear()

    def _wake(self) -> None:
        self._rest = None
        if self._ready is not None:
            asyncio.get_running_loop().add_reader(self._ready, self._read)
            self._read()

    def _read_again(self) -> None:
        if self._ready is not None and self._rest is None:
            self._read()

    def _take(self, received: list[Datagram]) -> float:
        """Read a batch from each socket in which something waits; the stamp up to which that was all."""
        assert self._ready is not None
        complete = math.inf
        for descriptor, _ in self._ready.poll(0):
            batch, code = self._of_descriptor[descriptor]
            try:
                there_is_more = batch.take(descriptor, code, received, self._others)
            except OSError as error:
                self._report(descriptor, error)
                continue
            if there_is_more and received:  # and some of it may be older than what another socket holds
                complete = min(complete, received[-1][0])
        return complete

    def _report(self, descriptor: int, error: OSError) -> None:
        """A socket that fails stays in use: say so once, a flood of errors is no news."""
        if descriptor not in self._failing:
            self._failing.add(descriptor)
            logger.error("a knock port cannot be read: %s", error.strerror)


def _listen(port: int, origin: PortOrigin, *, is_filtered: bool) -> socket.socket:
    """A non-blocking socket on `port` for IPv4 and IPv6; filtered, it gets the right payload only.

    An error names the port's `origin`: the port itself is a secret.
    """
    try:
        family, sock = _socket()
        try:
            # The filter comes ahead of the port: nothing unfiltered is ever received.
            if not attach_filter(sock, payload.only(PAYLOAD) if is_filtered else payload.unicast()):
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            enlarge_receive_buffer(sock, RECEIVE_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.setblocking(False)
            sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 every address is the point
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        problem = _why_not(error, origin)
        if kind := _OF_THE_PORT.get(error.errno):
            raise kind(problem, field=origin.key) from error
        raise DoorsError(problem) from error
    return sock


def _filter(sock: socket.socket, program: bytes) -> None:
    with suppress(OSError):
        if attach_filter(sock, program):
            return
    raise DoorsError("the kernel has no memory for the filter of a knock port (net.core.optmem_max)")


def _take_any(sock: socket.socket) -> None:
    """Let any payload through from now on; cannot fail: for want of memory broadcasts pass, too."""
    try:
        _filter(sock, payload.unicast())
    except DoorsError:
        detach_filter(sock)


def _socket() -> tuple[socket.AddressFamily, socket.socket]:
    """A socket for both families, or for IPv4 alone where the kernel has no IPv6."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trial:
                trial.bind(("::", 0))
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        return socket.AF_INET, sock
    return socket.AF_INET6, sock


def _why_not(error: OSError, origin: PortOrigin) -> str:
    which = f"{origin.key}: port number {origin.place} of it" if origin.key else "a knock port"
    if error.errno == errno.EADDRINUSE:
        return f"{which} is in use by another program, expected a free one (`ss -ulpn` shows whose it is)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{which} is below 1024 and this user may not listen there, expected 1024 or above, or root"
    return f"{which} cannot be listened on: {error.strerror}"
