"""The client: knocks at a host, looks whether its door opened, and brings back the connection that proved it."""

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from port_knocking_doors.client.packets import SendMethod, means, segment
from port_knocking_doors.errors import DoorClosedError, DoorsError, NotPermittedError, UnknownHostError
from port_knocking_doors.model import PAYLOAD, Address, Step

FIRST_TRY = 0.25
"""Seconds for a port to answer that may be open already. Longer would delay all knocks where a firewall is silent."""
OPENING = 0.05
"""Seconds between the knocks and the first try: a door takes a moment, and a try that came too early costs more."""
PATIENCE = 0.2, 1.0
"""Seconds that a try of the port gets, at first and at most. A far host needs more than a near one. At most as long as
the kernel itself waits before it repeats a try."""
REST = 0.05, 0.25
"""Seconds from a refusal to the next try, at first and at most."""
GROWTH = 1.5

_UNDER_WAY = (0, errno.EINPROGRESS)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
_FORBIDDEN = (errno.EPERM, errno.EACCES)
_ANYWHERE = 9  # discard: a UDP socket that is connected asks for a route, and sends nothing
_NUMBER = 4  # bytes of a sequence number

Tell = Callable[[str], None]


def nothing(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Target:
    """One address of a host, and the address of ours that leads there."""

    family: socket.AddressFamily
    socket_address: tuple[Any, ...]
    source: tuple[Any, ...]

    def at(self, port: int) -> tuple[Any, ...]:
        """What a socket of the family needs to know to get to the port."""
        return (self.socket_address[0], port, *self.socket_address[2:])

    @property
    def address(self) -> Address:
        return _address(self.socket_address)

    @property
    def own_address(self) -> Address:
        return _address(self.source)

    def __str__(self) -> str:
        return str(self.socket_address[0])


def _address(socket_address: tuple[Any, ...]) -> Address:
    return ip_address(str(socket_address[0]).partition("%")[0])


def find(host: str, version: int | None = None) -> tuple[Target, ...]:
    """The addresses of a host that there is a way to, the best first (RFC 6724); with `version`, of IPv4 or IPv6 only.

    Raises `UnknownHostError`, and `DoorsError` if there is a way to none of them.
    """
    families = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}
    try:
        found = socket.getaddrinfo(host, _ANYWHERE, families[version], socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError) as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise UnknownHostError(f"{host}: the name cannot be looked up now") from None
        which = f" or has no IPv{version} address" if version else ""
        raise UnknownHostError(f"{host}: the host is unknown{which}") from None
    places = []
    for family, _, _, _, socket_address in found:
        place = _routed(family, socket_address)
        if place is not None:
            places.append(place)
    if not places:
        raise DoorsError(f"{host}: there is no route to it from here")
    return tuple(dict.fromkeys(places))


def _routed(family: socket.AddressFamily, socket_address: tuple[Any, ...]) -> Target | None:
    mapped = IPv6Address(socket_address[0].partition("%")[0]).ipv4_mapped if family == socket.AF_INET6 else None
    if mapped is not None:
        family, socket_address = socket.AF_INET, (str(mapped), socket_address[1])
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        try:
            asker.connect(socket_address)
        except PermissionError:  # a broadcast address: sending will say what is wrong
            return Target(family, socket_address, socket_address)
        except OSError:
            return None
        return Target(family, socket_address, asker.getsockname())


class Sender:
    """Sends steps to one place: a context manager, and whoever entered it may send all of `steps`.

    Entering raises `NotPermittedError` if one of them needs a privilege that this user lacks, before anything is sent.
    """

    def __init__(self, place: Target, steps: Iterable[Step]) -> None:
        self._place = place
        self._needs = {means(step) for step in steps}
        self._sockets = ExitStack()

    def __enter__(self) -> "Sender":
        with ExitStack() as opened:
            # All datagrams leave by one port: a router that translates addresses then has one sender to translate.
            self._udp = opened.enter_context(socket.socket(self._place.family, socket.SOCK_DGRAM))
            if SendMethod.RAW in self._needs:
                self._raw = opened.enter_context(self._raw_socket())
            self._sockets = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def send(self, step: Step) -> None:
        """Send one step, once. Raises `NotPermittedError`, and `DoorsError` if there is no way."""
        try:
            _SEND[means(step)](self, step)
        except OSError as error:
            raise self._failure(error) from None

    def _datagram(self, step: Step) -> None:
        self._udp.sendto(PAYLOAD, self._place.at(step.port))

    def _connect(self, step: Step) -> None:
        """The SYN leaves before `connect_ex` returns; a socket that is closed then neither repeats it nor resets."""
        with socket.socket(self._place.family, socket.SOCK_STREAM) as attempt:
            attempt.setblocking(False)
            result = attempt.connect_ex(self._place.at(step.port))
        if result not in (*_UNDER_WAY, errno.ECONNREFUSED):
            raise OSError(result, os.strerror(result))

    def _segment(self, step: Step) -> None:
        place = self._place
        number, answers = (int.from_bytes(os.urandom(_NUMBER), "big") for _ in range(2))
        with socket.socket(place.family, socket.SOCK_STREAM) as holder:  # a port that nobody else here uses meanwhile
            holder.bind((place.source[0], 0, *place.source[2:]))
            port = holder.getsockname()[1]
            packet = segment(place.own_address, place.address, port, step, number, answers)
            self._raw.sendto(packet, place.at(0))

    def _raw_socket(self) -> socket.socket:
        try:
            raw = socket.socket(self._place.family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        except PermissionError:
            raise NotPermittedError(
                "steps with TCP flags need a raw socket, which this user may not open: run it as root, or with the "
                "capability CAP_NET_RAW"
            ) from None
        raw.bind((self._place.source[0], 0, *self._place.source[2:]))
        return raw

    def _failure(self, error: OSError) -> DoorsError:
        if error.errno in _FORBIDDEN:
            return NotPermittedError(f"{self._place}: this machine does not let the knock out ({error.strerror})")
        if error.errno in _NO_ROUTE:
            return DoorsError(f"{self._place}: there is no route to it from here")
        return DoorsError(f"{self._place}: a knock could not be sent ({error.strerror})")


_SEND: dict[SendMethod, Callable[[Sender, Step], None]] = {
    SendMethod.DATAGRAM: Sender._datagram,
    SendMethod.CONNECT: Sender._connect,
    SendMethod.RAW: Sender._segment,
}


def knock(place: Target, steps: tuple[Step, ...], delay: float, detail: Tell = nothing) -> None:
    """Send all steps, `delay` seconds apart. Raises as `Sender` does."""
    with Sender(place, steps) as sender:
        for position, step in enumerate(steps):
            if position:
                time.sleep(delay)
            sender.send(step)
            detail(f"{place}: knock {position + 1} of {len(steps)} sent")


@dataclass(frozen=True)
class Visit:
    """How to get through a door: what to knock, and how patiently."""

    host: str
    """As the user calls it."""
    places: tuple[Target, ...]
    steps: tuple[Step, ...]
    delay: float
    """Seconds between two knocks."""
    port: int
    """The guarded TCP port."""
    tries: int
    pause: float
    """Seconds from the last knock of a try to the first of the next. Who knocked wrongly is not heard for a while, and
    so long the port is tried."""

    def enter(self, *, first_look: bool, tell: Tell, detail: Tell) -> tuple[socket.socket, Target]:
        """Knock until the port answers; returns the connection that it answered, and where.

        All knocks of a try go to one address. The tries take the host's addresses in turn, for a door may open in one
        family only. With `first_look`, nothing is knocked if the port is open already.

        Raises `DoorClosedError` if it did not answer, and what `knock` raises.
        """
        reason = errno.ETIMEDOUT
        if first_look:
            connection, reason = try_port(self.places[0], self.port, FIRST_TRY)
            if connection is not None:
                detail(f"{self.places[0]}: port {self.port} is open already")
                return connection, self.places[0]
        for number in range(self.tries):
            place = self.places[number % len(self.places)]
            if number:
                tell(
                    f"{self.host}: port {self.port} is not open yet, knocking again (try {number + 1} of {self.tries})"
                )
            knock(place, self.steps, self.delay, detail)
            connection, reason = await_open(place, self.port, self.pause)
            if connection is not None:
                return connection, place
        times = "once" if self.tries == 1 else f"{self.tries} times"
        where = called(self.host, *self.places[: self.tries])
        raise DoorClosedError(f"{where}: port {self.port} is not open, knocked {times}; {_reason_in_words(reason)}")


def called(host: str, *places: Target) -> str:
    """A host as the user calls it, with the addresses in question."""
    addresses = ", ".join(map(str, places))
    return host if addresses == host else f"{host} ({addresses})"


def try_port(place: Target, port: int, seconds: float) -> tuple[socket.socket | None, int]:
    """A connection to the port, or None and the number of the error; `ETIMEDOUT` where nothing answered in time."""
    attempt = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        attempt.setblocking(False)
        result = attempt.connect_ex(place.at(port))
        if result == errno.EINPROGRESS:
            result = _await_answer(attempt, seconds)
    except BaseException:
        attempt.close()
        raise
    if result:
        attempt.close()
        return None, result
    return attempt, 0


def _await_answer(attempt: socket.socket, seconds: float) -> int:
    poll = select.poll()
    poll.register(attempt, select.POLLOUT)
    if not poll.poll(seconds * 1000):
        return errno.ETIMEDOUT
    return attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def await_open(place: Target, port: int, seconds: float) -> tuple[socket.socket | None, int]:
    """Try the port again and again for so long: its connection, or None and the last error."""
    deadline = time.monotonic() + seconds
    time.sleep(min(OPENING, seconds))
    patience, most = PATIENCE
    rest, most_rest = REST
    while True:
        left = deadline - time.monotonic()
        connection, result = try_port(place, port, max(0.0, min(patience, left)))
        left = deadline - time.monotonic()
        if connection is not None or left <= 0:
            return connection, result
        if result == errno.ETIMEDOUT:
            patience = min(patience * GROWTH, most)
        else:
            time.sleep(min(rest, left))
            rest = min(rest * GROWTH, most_rest)


def _reason_in_words(result: int) -> str:
    if result == errno.ECONNREFUSED:
        return "the connection was refused, so either no service listens there or the firewall refuses it"
    if result in (errno.EHOSTUNREACH, errno.EACCES):
        return "a firewall turned the connection away"
    if result == errno.ETIMEDOUT:
        return "nothing answered"
    return os.strerror(result)
