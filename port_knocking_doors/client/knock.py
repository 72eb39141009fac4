"""The client: knocks at a host, tries the guarded port, and returns the connection that it accepted."""

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

from port_knocking_doors.client.packets import SendMethod, segment, send_method
from port_knocking_doors.errors import DoorClosedError, DoorsError, NotPermittedError, UnknownHostError
from port_knocking_doors.model import PAYLOAD, Address, Step

FIRST_TRY = 0.25
"""Seconds for a port that may be open already. More would delay every knock where a firewall drops packets."""
OPENING = 0.05
"""Seconds between the last knock and the first try: opening takes a moment, and a try that is too early costs more."""
PATIENCE = 0.2, 1.0
"""Seconds that a try of the port gets, at first and at most. A far host needs more than a near one. The kernel repeats
a SYN after one second."""
REST = 0.05, 0.25
"""Seconds from a refusal to the next try, at first and at most."""
GROWTH = 1.5

_UNDER_WAY = (0, errno.EINPROGRESS)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
_FORBIDDEN = (errno.EPERM, errno.EACCES)
_DISCARD = 9  # any port will do: connecting a UDP socket looks up the route and sends nothing
_NUMBER = 4  # bytes of a sequence number

Report = Callable[[str], None]


def no_report(_: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Target:
    """One address of a host, and the source address of this machine for it."""

    family: socket.AddressFamily
    socket_address: tuple[Any, ...]
    source: tuple[Any, ...]

    def at(self, port: int) -> tuple[Any, ...]:
        """The socket address of a port of the host."""
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


def resolve(host: str, version: int | None = None) -> tuple[Target, ...]:
    """The addresses of a host that have a route, the best first (RFC 6724); with `version`, of IPv4 or IPv6 only.

    Raises `UnknownHostError`, and `DoorsError` if none has a route.
    """
    families = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}
    try:
        found = socket.getaddrinfo(host, _DISCARD, families[version], socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError) as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise UnknownHostError(f"{host}: name resolution failed, try again") from None
        which = f" or has no IPv{version} address" if version else ""
        raise UnknownHostError(f"{host}: host not found{which}") from None
    targets = []
    for family, _, _, _, socket_address in found:
        target = _routed(family, socket_address)
        if target is not None:
            targets.append(target)
    if not targets:
        raise DoorsError(f"{host}: no route to host")
    return tuple(dict.fromkeys(targets))


def _routed(family: socket.AddressFamily, socket_address: tuple[Any, ...]) -> Target | None:
    mapped = IPv6Address(socket_address[0].partition("%")[0]).ipv4_mapped if family == socket.AF_INET6 else None
    if mapped is not None:
        family, socket_address = socket.AF_INET, (str(mapped), socket_address[1])
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(socket_address)
        except PermissionError:  # a broadcast address: sending reports the error
            return Target(family, socket_address, socket_address)
        except OSError:
            return None
        return Target(family, socket_address, probe.getsockname())


class Sender:
    """Sends steps to one target, as a context manager.

    Entering raises `NotPermittedError` if one of `steps` needs a privilege that this user lacks: nothing is sent then.
    """

    def __init__(self, target: Target, steps: Iterable[Step]) -> None:
        self._target = target
        self._needs = {send_method(step) for step in steps}
        self._sockets = ExitStack()

    def __enter__(self) -> "Sender":
        with ExitStack() as opened:
            # All datagrams leave from one port, so that a router with NAT has one mapping for them.
            self._udp = opened.enter_context(socket.socket(self._target.family, socket.SOCK_DGRAM))
            if SendMethod.RAW in self._needs:
                self._raw = opened.enter_context(self._raw_socket())
            self._sockets = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def send(self, step: Step) -> None:
        """Send one step, once. Raises `NotPermittedError`, and `DoorsError` if sending fails."""
        try:
            _SEND[send_method(step)](self, step)
        except OSError as error:
            raise self._failure(error) from None

    def _datagram(self, step: Step) -> None:
        self._udp.sendto(PAYLOAD, self._target.at(step.port))

    def _connect(self, step: Step) -> None:
        """The SYN leaves before `connect_ex` returns; a socket that is closed then neither repeats it nor resets."""
        with socket.socket(self._target.family, socket.SOCK_STREAM) as attempt:
            attempt.setblocking(False)
            result = attempt.connect_ex(self._target.at(step.port))
        if result not in (*_UNDER_WAY, errno.ECONNREFUSED):
            raise OSError(result, os.strerror(result))

    def _segment(self, step: Step) -> None:
        target = self._target
        number, answers = (int.from_bytes(os.urandom(_NUMBER), "big") for _ in range(2))
        with socket.socket(target.family, socket.SOCK_STREAM) as holder:  # reserves the port
            holder.bind((target.source[0], 0, *target.source[2:]))
            port = holder.getsockname()[1]
            packet = segment(target.own_address, target.address, port, step, number, answers)
            self._raw.sendto(packet, target.at(0))

    def _raw_socket(self) -> socket.socket:
        try:
            raw = socket.socket(self._target.family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        except PermissionError:
            raise NotPermittedError(
                "permission denied: steps with TCP flags need a raw socket (run as root, or with the capability "
                "CAP_NET_RAW)"
            ) from None
        raw.bind((self._target.source[0], 0, *self._target.source[2:]))
        return raw

    def _failure(self, error: OSError) -> DoorsError:
        if error.errno in _FORBIDDEN:
            return NotPermittedError(f"{self._target}: this machine does not permit the knock ({error.strerror})")
        if error.errno in _NO_ROUTE:
            return DoorsError(f"{self._target}: no route to host")
        return DoorsError(f"{self._target}: sending a knock failed ({error.strerror})")


_SEND: dict[SendMethod, Callable[[Sender, Step], None]] = {
    SendMethod.DATAGRAM: Sender._datagram,
    SendMethod.CONNECT: Sender._connect,
    SendMethod.RAW: Sender._segment,
}


def knock(target: Target, steps: tuple[Step, ...], delay: float, detail: Report = no_report) -> None:
    """Send all steps, `delay` seconds apart. Raises as `Sender` does."""
    with Sender(target, steps) as sender:
        for position, step in enumerate(steps):
            if position:
                time.sleep(delay)
            sender.send(step)
            detail(f"{target}: knock {position + 1} of {len(steps)} sent")


@dataclass(frozen=True)
class KnockPlan:
    """How to open a door and connect through it."""

    host: str
    """As the user wrote it."""
    targets: tuple[Target, ...]
    steps: tuple[Step, ...]
    delay: float
    """Seconds between two knocks."""
    port: int
    """The guarded TCP port."""
    tries: int
    pause: float
    """Seconds from the last knock of a try to the first of the next: a server ignores an address for some seconds after
    a wrong knock. The port is tried meanwhile."""

    def connect(self, *, try_first: bool, report: Report, detail: Report) -> tuple[socket.socket, Target]:
        """Knock until the port accepts a connection; returns it, and the target.

        All knocks of a try go to one address. The tries use the host's addresses in turn, because a door may open in
        one family only. With `try_first`, no knock is sent if the port is open already.

        Raises `DoorClosedError` if the port stays closed, and what `knock` raises.
        """
        reason = errno.ETIMEDOUT
        if try_first:
            connection, reason = try_port(self.targets[0], self.port, FIRST_TRY)
            if connection is not None:
                detail(f"{self.targets[0]}: port {self.port} is open already")
                return connection, self.targets[0]
        for number in range(self.tries):
            target = self.targets[number % len(self.targets)]
            if number:
                report(
                    f"{self.host}: port {self.port} is not open yet, knocking again (try {number + 1} of {self.tries})"
                )
            knock(target, self.steps, self.delay, detail)
            connection, error = wait_for_port(target, self.port, self.pause)
            if connection is not None:
                return connection, target
            reason = _more_telling(reason, error)
        times = "once" if self.tries == 1 else f"{self.tries} times"
        where = with_addresses(self.host, *self.targets[: self.tries])
        raise DoorClosedError(f"{where}: port {self.port} is not open, knocked {times}; {_reason_in_words(reason)}")


def with_addresses(host: str, *targets: Target) -> str:
    """A host as the user wrote it, with the addresses that were used."""
    addresses = ", ".join(map(str, targets))
    return host if addresses == host else f"{host} ({addresses})"


def try_port(target: Target, port: int, seconds: float) -> tuple[socket.socket | None, int]:
    """A connection to the port, or None and the error's number: `ETIMEDOUT` without an answer in time."""
    attempt = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        attempt.setblocking(False)
        result = attempt.connect_ex(target.at(port))
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


def wait_for_port(target: Target, port: int, seconds: float) -> tuple[socket.socket | None, int]:
    """Try the port for so long: its connection, or None and the most telling error (see `_more_telling`)."""
    deadline = time.monotonic() + seconds
    time.sleep(min(OPENING, seconds))
    patience, most = PATIENCE
    rest, most_rest = REST
    reason = errno.ETIMEDOUT
    while True:
        left = deadline - time.monotonic()
        connection, result = try_port(target, port, max(0.0, min(patience, left)))
        reason = _more_telling(reason, result)
        left = deadline - time.monotonic()
        if connection is not None or left <= 0:
            return connection, reason
        if result == errno.ETIMEDOUT:
            patience = min(patience * GROWTH, most)
        else:
            time.sleep(min(rest, left))
            rest = min(rest * GROWTH, most_rest)


def _more_telling(before: int, after: int) -> int:
    """The later of two errors, unless it is a timeout: a firewall limits the rate of its rejections (ICMP), so a
    timeout may follow them and says less."""
    return before if after == errno.ETIMEDOUT else after


def _reason_in_words(result: int) -> str:
    if result == errno.ECONNREFUSED:
        return "the connection was refused: no service listens there, or the firewall rejects it"
    if result in (errno.EHOSTUNREACH, errno.EACCES):
        return "a firewall rejected the connection"
    if result == errno.ETIMEDOUT:
        return "the connection timed out"
    return os.strerror(result)
