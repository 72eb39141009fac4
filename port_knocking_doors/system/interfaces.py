"""What the kernel knows of links and of this host's addresses, kept up to date by its own notifications.

Everything comes over one rtnetlink socket (rtnetlink(7)) and nothing is asked for again by a timer: the kernel tells
each change, and whoever asks about something that is not known first reads what waits on the socket. When the kernel
had more to tell than the socket holds, everything is asked for anew.
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
    Change,
    Kind,
    Link,
    LinkEvent,
    LinkTable,
    NetlinkMessage,
    matches,
    messages,
    request,
)

NETLINK_ROUTE = 0  # linux/netlink.h
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100  # linux/rtnetlink.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h

RECEIVE_BUFFER = 1 << 20
"""Bytes of kernel memory asked for, to hold a burst of notifications; each takes some kilobytes of it."""

BATCH = 1024
"""Notifications that are read in one go, before others have their turn."""

ANSWER_WITHIN = 1.0
"""Seconds for the kernel's answer, which takes some microseconds."""

TRIALS = 8
"""How often everything is asked for again at once while it changes under our hands."""

PAUSE = 1.0
"""Seconds until it is tried again when that, too, was in vain."""

_MESSAGE_MAX = 1 << 16  # attributes have 16 bits for their length, and the kernel's dumps are cut to half of it
_LOOPBACK4 = 127

OnChange = Callable[[Change, Link], None]
"""Called once a change is in force; never from within a question, so that it may bind, close and ask as it likes."""


class InterfaceMonitor:
    """The links of this network namespace: a context manager, and once entered everything is known.

    With `on_change` it needs a running loop, and reads there by itself; without, it reads when it is asked something.
    Entering raises `DoorsError` where the kernel does not tell.
    """

    def __init__(self, on_change: OnChange | None = None) -> None:
        self._on_change = on_change
        self._table = LinkTable()
        self.changes = 0
        """How often something changed, as of the last `drain`: whoever remembers an answer remembers this, too."""
        self._selected: dict[tuple[int, tuple[str, ...]], bool] = {}
        self._unannounced: deque[LinkEvent] = deque()
        self._buffer = bytearray(_MESSAGE_MAX)
        self._is_stale = False  # the kernel told more than was read
        self._retry_at = -inf
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "InterfaceMonitor":
        try:
            self._socket = _socket()
        except OSError as error:
            raise DoorsError(f"the kernel does not tell of network links: {error.strerror}") from error
        try:
            self._port = self._socket.getsockname()[0]
            # A poll costs a third of a read that finds nothing, and that is what a flood to other hosts comes to.
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
        """Read no more, and tell no more; again is harmless."""
        self._unannounced.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._on_change is not None and self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor: readable when there is something to `drain`."""
        return self._socket.fileno()

    @property
    def links(self) -> Mapping[int, Link]:
        """All links by index, as of the last `drain`."""
        return MappingProxyType(self._table.links)

    # Questions. ------------------------------------------------------------------------------------------------------

    def is_local(self, address: bytes) -> bool:
        """Whether a packed address is one of this host's, also if it became so a moment ago."""
        if address in self._table.local or (address[0] == _LOOPBACK4 and len(address) == 4):
            return True
        return self.drain() and address in self._table.local

    def name_of(self, index: int) -> str:
        """The link's name as of now, or the empty text where there is none of that index."""
        self.drain()
        link = self._table.links.get(index)
        return link.name if link is not None else ""

    def index_of(self, name: str) -> int | None:
        """The index of the link that has this name, or also has it, as of now."""
        self.drain()
        return next((index for index, link in self._table.links.items() if name in link.names), None)

    def is_selected(self, index: int, patterns: tuple[str, ...] = ()) -> bool:
        """Whether packets seen on this link count where `patterns` (as of fnmatch: `eth0`, `ppp*`; none for all) name
        the links that are heard.

        Those seen on a part of a bridge, a bond or a team are seen again on the whole, and count there if that is
        heard. A vrf sees none of its parts' packets.
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

    # What the kernel tells. ------------------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Take note of what waits on the socket, without blocking; whether there was anything."""
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
                logger.warning("what is known of network links may be old: %s", error)
                self._retry_at = now() + PAUSE
                if self._on_change is not None:
                    self._timer = asyncio.get_running_loop().call_later(PAUSE, self.drain)
        return found

    def refresh(self) -> None:
        """Ask the kernel for everything. Raises `DoorsError` where it does not answer."""
        for _ in range(TRIALS):
            with suppress(_Overrun):
                self._note(self._table.replace_with(self._dump()))
                self._is_stale = False
                return
        raise DoorsError("network links change faster than the kernel can tell")

    def _dump(self) -> LinkTable:
        """All that the kernel knows. Raises `_Overrun` where it changed meanwhile and could not be followed."""
        self._discard()
        table, meanwhile = LinkTable(), list[NetlinkMessage]()
        for kind in (Kind.GETLINK, Kind.GETADDR):
            for message in self._answers(kind):
                if message.port == self._port:
                    table.apply(message)
                else:
                    meanwhile.append(message._replace(body=memoryview(bytes(message.body))))
        # The answers are put together while changes go on, and a change may overtake the answer that lacks it.
        for message in meanwhile:
            table.apply(message)
        table.drop_stale_addresses()
        return table

    def _discard(self) -> None:
        """Empty the socket.

        What waits is older than the answer to come; and until it is read, a socket that was overrun gets nothing new,
        and an answer that was given up on keeps the kernel from beginning another.
        """
        while True:
            with suppress(_Overrun):
                if self._receive() is None:
                    return

    def _answers(self, kind: Kind) -> Iterator[NetlinkMessage]:
        """The answers to one request, and the notifications between them; each is good until the next is asked for."""
        self._socket.send(request(kind, self._port))
        interrupted = False
        while True:
            data = self._receive()
            if data is None:
                if not self._poll.poll(ANSWER_WITHIN * 1000):
                    raise DoorsError(f"the kernel does not tell of network links within {ANSWER_WITHIN:g} s")
                continue
            for message in messages(data):
                interrupted |= message.is_interrupted
                if message.kind == Kind.ERROR and message.errno:
                    why = os.strerror(message.errno)
                    raise DoorsError(f"the kernel does not tell of network links: {why}")
                if message.kind == Kind.DONE:
                    if interrupted:
                        raise _Overrun
                    return
                yield message

    def _receive(self) -> memoryview | None:
        """One message or several from the kernel, good until the next call; None where none waits."""
        while True:
            try:
                length, (sender, _) = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in (errno.ENOBUFS, errno.ENOMEM):
                    raise _Overrun from None
                raise
            if sender == 0:  # others may write to us, too
                return memoryview(self._buffer)[:length]

    def _note(self, events: list[LinkEvent]) -> None:
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


class _Overrun(Exception):  # noqa: N818 it is no error: everything is asked for again
    """Notifications were lost."""


def _socket() -> socket.socket:
    """A non-blocking rtnetlink socket that is told of links and addresses."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
    try:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
    except BaseException:
        sock.close()
        raise
    return sock
