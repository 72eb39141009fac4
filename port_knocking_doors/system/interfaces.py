"""The host's links and addresses, kept up to date by the kernel's notifications.

Everything comes over one rtnetlink socket (rtnetlink(7)), and no timer polls: the kernel sends each change, and a
question about something unknown reads the waiting notifications first. If the socket overflows, everything is
requested again.
"""

import asyncio
import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import inf
from types import MappingProxyType

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.rtnetlink import (
    Link,
    LinkChange,
    LinkEvent,
    LinkTable,
    NetlinkMessage,
    NetlinkType,
    matches,
    messages,
    request,
)
from port_knocking_doors.system.sockets import enlarge_receive_buffer

NETLINK_ROUTE = 0  # linux/netlink.h
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100  # linux/rtnetlink.h
RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE = 0x40, 0x400
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12  # linux/socket.h, linux/netlink.h

RECEIVE_BUFFER = 1 << 20
"""Bytes of kernel memory for a burst of notifications, of which each takes some kilobytes."""

BATCH = 1024
"""Notifications read in one call, before other tasks of the loop run."""

ANSWER_WITHIN = 1.0
"""Seconds within which the kernel must answer; it takes some microseconds."""

TRIALS = 8
"""Number of requests for everything in a row, while it changes during each."""

PAUSE = 1.0
"""Seconds until the next row of requests if these failed."""

_MESSAGE_MAX = 1 << 16  # attributes have 16 bits for their length, and the kernel's dumps are cut to half of it
_LOOPBACK4 = 127

OnChange = Callable[[LinkChange, Link], None]
"""Called after a change, and never from within a question, so that it may bind, close and ask."""


class InterfaceMonitor:
    """The links of this network namespace: a context manager that knows everything once it is entered.

    With `on_change` it needs a running loop, and reads notifications there by itself; without, a question reads them.
    Entering raises `DoorsError` if the kernel refuses.
    """

    def __init__(self, on_change: OnChange | None = None) -> None:
        self._on_change = on_change
        self._table = LinkTable()
        self.changes = 0
        """Number of changes as of the last `drain`: a cached answer is valid for the number that it was given at."""
        self._selected: dict[tuple[int, tuple[str, ...]], bool] = {}
        self._unannounced: deque[LinkEvent] = deque()
        self._buffer = bytearray(_MESSAGE_MAX)
        self._is_stale = False  # notifications were lost
        self._retry_at = -inf
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "InterfaceMonitor":
        try:
            self._socket = _socket()
        except OSError as error:
            raise DoorsError(f"cannot read network links from the kernel: {error.strerror}") from error
        try:
            self._port = self._socket.getsockname()[0]
            # Under a flood to other hosts each packet asks here; a poll costs a third of a read that finds nothing.
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
            self.refresh()
            self._unannounced.clear()
            if self._on_change is not None:
                asyncio.get_running_loop().add_reader(self._socket, self.drain)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and calling; closing twice is harmless."""
        self._unannounced.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._on_change is not None and self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    @property
    def links(self) -> Mapping[int, Link]:
        """All links by index, as of the last `drain`."""
        return MappingProxyType(self._table.links)

    # Questions. ------------------------------------------------------------------------------------------------------

    def is_local(self, address: bytes) -> bool:
        """Whether packets to a packed address are for this host, even if it was added a moment ago: an address of a
        link, or of a local route."""
        if address[0] == _LOOPBACK4 and len(address) == 4:
            return True
        return self._is_known_as_local(address) or (self.drain() and self._is_known_as_local(address))

    def _is_known_as_local(self, address: bytes) -> bool:
        return address in self._table.local or self._table.routes.is_local(address)

    def is_broadcast(self, address: bytes) -> bool:
        """Whether a packed address is a broadcast address of a network that this host is in, as of the last `drain`."""
        return self._table.routes.is_broadcast(address)

    def name_of(self, index: int) -> str:
        """The current name of the link; empty if no link has that index."""
        self.drain()
        link = self._table.links.get(index)
        return link.name if link is not None else ""

    def index_of(self, name: str) -> int | None:
        """The index of the link with this name or alternative name, if there is one now."""
        self.drain()
        return next((index for index, link in self._table.links.items() if name in link.names), None)

    def is_selected(self, index: int, patterns: tuple[str, ...] = ()) -> bool:
        """Whether packets captured on this link count, if `patterns` (fnmatch: `eth0`, `ppp*`; none: all) select links.

        A packet on a part of a bridge, bond or team is captured again on its master, and counts there if the master is
        selected. A vrf captures no packets of its parts.
        """
        known = self._selected.get((index, patterns))
        if known is None:
            if index not in self._table.links and not (self.drain() and index in self._table.links):
                return False
            known = self._selected[index, patterns] = self._compute_selected(index, patterns)
        return known

    def _compute_selected(self, index: int, patterns: tuple[str, ...]) -> bool:
        links, link = self._table.links, self._table.links[index]
        if not matches(link, patterns):
            return False
        below = {index}
        while link.part != "vrf" and link.master in links and link.master not in below:
            below.add(link.master)
            link = links[link.master]
            if matches(link, patterns):
                return False
        return True

    # Notifications. ------------------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Apply the notifications that wait on the socket, without blocking; whether there were any."""
        found = bool(self._poll.poll(0))
        if found:
            try:
                for _ in range(BATCH):
                    if (data := self._receive()) is None:
                        break
                    for message in messages(data):
                        self._note(self._table.apply(message))
            except _Overrun:
                self._is_stale = True
            self._table.drop_stale_addresses()
        if self._is_stale and now() >= self._retry_at:
            found = True
            try:
                self.refresh()
            except DoorsError as error:
                logger.warning("network links may be out of date: %s", error)
                self._retry_at = now() + PAUSE
                if self._on_change is not None:
                    self._timer = asyncio.get_running_loop().call_later(PAUSE, self.drain)
        return found

    def refresh(self) -> None:
        """Request everything from the kernel. Raises `DoorsError` if that fails."""
        for _ in range(TRIALS):
            with suppress(_Overrun):
                self._note(self._table.replace_with(self._dump()))
                self._is_stale = False
                return
        raise DoorsError(f"network links changed during each of {TRIALS} requests")

    def _dump(self) -> LinkTable:
        """All links, addresses and local routes of the kernel. Raises `_Overrun` if a change was lost meanwhile."""
        self._discard()
        table, meanwhile = LinkTable(), list[NetlinkMessage]()
        for kind in (NetlinkType.GETLINK, NetlinkType.GETADDR, NetlinkType.GETROUTE):
            for message in self._answers(kind):
                if message.port == self._port:
                    table.apply(message)
                else:
                    meanwhile.append(message._replace(body=memoryview(bytes(message.body))))
        # The kernel builds the answers while changes go on, and a change may arrive before the answer that lacks it.
        for message in meanwhile:
            table.apply(message)
        table.drop_stale_addresses()
        return table

    def _discard(self) -> None:
        """Empty the socket.

        Its messages are older than the next answer. Until they are read, an overrun socket gets no new ones, and an
        abandoned dump keeps the kernel from starting another.
        """
        while True:
            with suppress(_Overrun):
                if self._receive() is None:
                    return

    def _answers(self, kind: NetlinkType) -> Iterator[NetlinkMessage]:
        """The answers to one request and the notifications between them; each is valid until the next."""
        self._socket.send(request(kind, self._port))
        interrupted = False
        while True:
            data = self._receive()
            if data is None:
                if not self._poll.poll(ANSWER_WITHIN * 1000):
                    raise DoorsError(f"cannot read network links from the kernel: timed out after {ANSWER_WITHIN:g} s")
                continue
            for message in messages(data):
                interrupted |= message.is_interrupted
                if message.kind == NetlinkType.ERROR and message.errno:
                    why = os.strerror(message.errno)
                    raise DoorsError(f"cannot read network links from the kernel: {why}")
                if message.kind == NetlinkType.DONE:
                    if interrupted:
                        raise _Overrun
                    return
                yield message

    def _receive(self) -> memoryview | None:
        """One message or several from the kernel, valid until the next call; None if none waits."""
        while True:
            try:
                length, (sender, _) = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in (errno.ENOBUFS, errno.ENOMEM):
                    raise _Overrun from None
                raise
            if sender == 0:  # other processes may send to this socket
                return memoryview(self._buffer)[:length]

    def _note(self, events: list[LinkEvent]) -> None:
        if self._table.has_new_routes:
            self._table.has_new_routes = False
            self.changes += 1
        if not events:
            return
        self.changes += 1
        self._selected.clear()
        if self._on_change is not None:
            if not self._unannounced:
                asyncio.get_running_loop().call_soon(self._announce)
            self._unannounced += events

    def _announce(self) -> None:
        assert self._on_change is not None
        while self._unannounced:
            self._on_change(*self._unannounced.popleft())


class _Overrun(Exception):  # noqa: N818 no error: everything is requested again
    """Notifications were lost."""


def _socket() -> socket.socket:
    """A non-blocking rtnetlink socket, subscribed to links, addresses and routes."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
    try:
        enlarge_receive_buffer(sock, RECEIVE_BUFFER)
        with suppress(OSError):  # before Linux 4.20: then routes of all tables are read once, and left out here
            sock.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        addresses, routes = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR, RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
        sock.bind((0, RTMGRP_LINK | addresses | routes))
    except BaseException:
        sock.close()
        raise
    return sock
