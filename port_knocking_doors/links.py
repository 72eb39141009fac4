"""What the kernel knows of links and of this host's addresses, kept up to date by its own notifications.

Everything comes over one rtnetlink socket (rtnetlink(7)) and nothing is asked for again by a timer: the kernel tells
each change, and whoever asks about something that is not known first reads what waits on the socket. When the kernel
had more to tell than the socket holds, everything is asked for anew.

The upper half is bytes → changes of a table, with no socket; `Links` is the socket.
"""

import asyncio
import errno
import os
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, auto
from fnmatch import fnmatchcase
from math import inf
from types import MappingProxyType, TracebackType
from typing import NamedTuple

from .clock import now
from .errors import DoorsError
from .log import logger

NETLINK_ROUTE = 0  # linux/netlink.h
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300
NLA_TYPE_MASK = 0x3FFF
_NLMSGHDR = struct.Struct("@IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_NLMSGERR = struct.Struct("@i")  # struct nlmsgerr: negative errno, and what it was about
_NLATTR = struct.Struct("@HH")  # struct nlattr: length, type
_IFINFOMSG = struct.Struct("@BxHiII")  # struct ifinfomsg (linux/rtnetlink.h): family, type, index, flags, flags changed
_IFADDRMSG = struct.Struct("@BBBBI")  # struct ifaddrmsg (linux/if_addr.h): family, prefix length, flags, scope, index
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100  # linux/rtnetlink.h
IFF_UP = 0x1  # linux/if.h
IFA_F_DADFAILED = 0x08  # linux/if_addr.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h


class Kind(IntEnum):
    """Types of messages (linux/netlink.h, linux/rtnetlink.h)."""

    ERROR = 2
    DONE = 3
    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22


class Ifla(IntEnum):
    """Attributes of a link (linux/if_link.h)."""

    IFNAME = 3
    MASTER = 10
    WIRELESS = 11
    LINKINFO = 18
    PROP_LIST = 52
    ALT_IFNAME = 53  # inside of PROP_LIST


class LinkInfo(IntEnum):
    """Attributes inside of IFLA_LINKINFO (linux/if_link.h)."""

    KIND = 1
    SLAVE_KIND = 4


class Ifa(IntEnum):
    """Attributes of an address (linux/if_addr.h)."""

    ADDRESS = 1
    LOCAL = 2
    FLAGS = 8


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
_LOOPBACK6 = socket.inet_pton(socket.AF_INET6, "::1")
_LOOPBACK4 = 127
_ADDRESS_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Message(NamedTuple):
    """One netlink message."""

    kind: int
    flags: int
    port: int
    """Of the socket whose request led to it; 0 where none did."""
    body: memoryview


def messages(data: memoryview) -> Iterator[Message]:
    """The messages in what one `recv` gave; one that is cut short is left out."""
    while len(data) >= _NLMSGHDR.size:
        length, kind, flags, _, port = _NLMSGHDR.unpack_from(data)
        if not _NLMSGHDR.size <= length <= len(data):
            return
        yield Message(kind, flags, port, data[_NLMSGHDR.size : length])
        data = data[_aligned(length) :]


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Types and values of the attributes in `data`; one that is cut short is left out."""
    while len(data) >= _NLATTR.size:
        length, kind = _NLATTR.unpack_from(data)
        if not _NLATTR.size <= length <= len(data):
            return
        yield kind & NLA_TYPE_MASK, data[_NLATTR.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return length + 3 & ~3


@dataclass(frozen=True)
class Link:
    """One network interface."""

    name: str
    index: int
    up: bool = False
    """Whether it was switched on, with or without a carrier."""
    master: int = 0
    """Index of the link that it is a part of, such as a bridge; 0 for none."""
    kind: str = ""
    """`bridge`, `vlan`, `veth`, …; empty for a device."""
    part: str = ""
    """What it is to its master: `bridge`, `bond`, `vrf`, …"""
    alternatives: tuple[str, ...] = ()
    """Its other names (altname in ip-link(8))."""
    addresses: set[bytes] = field(default_factory=set, compare=False)
    """Its own, packed: one set for as long as the link lives. (Copies of thousands of addresses would take seconds.)"""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.alternatives)


def read_link(body: memoryview) -> Link | None:
    """What RTM_NEWLINK or RTM_DELLINK tells, without addresses; None where it is not about the link itself."""
    if len(body) < _IFINFOMSG.size:
        return None
    family, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    if family != socket.AF_UNSPEC:
        return None  # from a bridge: a port that leaves it is "deleted", and the link lives on
    name, master, kind, part, alternatives = "", 0, "", "", []
    for attribute, value in attributes(body[_aligned(_IFINFOMSG.size) :]):
        match attribute:
            case Ifla.IFNAME:
                name = _text(value)
            case Ifla.MASTER:
                master = _number(value)
            case Ifla.WIRELESS:  # an event of a radio, with next to nothing about the link
                return None
            case Ifla.LINKINFO:
                info = dict(attributes(value))
                kind, part = (_text(info.get(which, b"")) for which in (LinkInfo.KIND, LinkInfo.SLAVE_KIND))
            case Ifla.PROP_LIST:
                alternatives = [_text(other) for which, other in attributes(value) if which == Ifla.ALT_IFNAME]
    if not name or index <= 0:
        return None
    return Link(name, index, bool(flags & IFF_UP), master, kind, part, tuple(alternatives))


def read_address(body: memoryview) -> tuple[int, bytes, bool] | None:
    """What RTM_NEWADDR or RTM_DELADDR tells: the link's index, its packed address, and whether it is really ours.

    An IPv6 address that is still tentative is ours already, so that none is missed; one that another host turned out to
    have is not.
    """
    if len(body) < _IFADDRMSG.size:
        return None
    family, _, flags, _, index = _IFADDRMSG.unpack_from(body)
    found = dict(attributes(body[_aligned(_IFADDRMSG.size) :]))
    # Where both are there, ADDRESS is the other end of a point-to-point link.
    address = bytes(found.get(Ifa.LOCAL, found.get(Ifa.ADDRESS, b"")))
    if len(address) != _ADDRESS_SIZES.get(family):
        return None
    if Ifa.FLAGS in found:  # all of them; the header has room for eight bits
        flags = _number(found[Ifa.FLAGS])
    return index, address, not flags & IFA_F_DADFAILED


def _text(value: memoryview | bytes) -> str:
    return bytes(value).partition(b"\0")[0].decode(errors="replace")


def _number(value: memoryview) -> int:
    return int.from_bytes(value[:4], sys.byteorder)


class Change(Enum):
    """What happened to a link."""

    APPEARED = auto()
    WENT = auto()
    CAME_UP = auto()
    WENT_DOWN = auto()
    RENAMED = auto()
    MASTERED = auto()  # it became part of another link, or ceased to be
    ADDRESSED = auto()  # an address came or went


Event = tuple[Change, Link]
"""With the link as it is after the change, or as it was before it went."""


class Table:
    """Links by index and the host's addresses, as messages tell them."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.local: set[bytes] = {_LOOPBACK6}
        self._has_stale = False

    def apply(self, message: Message) -> list[Event]:
        """Take note of one message; what it changed. A message of another kind changes nothing."""
        match message.kind:
            case Kind.NEWLINK | Kind.DELLINK:
                link = read_link(message.body)
                if link is None:
                    return []
                return self._put(link) if message.kind == Kind.NEWLINK else self._remove(link.index)
            case Kind.NEWADDR | Kind.DELADDR:
                told = read_address(message.body)
                if told is None:
                    return []
                index, address, ours = told
                return self._address(index, address, ours and message.kind == Kind.NEWADDR)
        return []

    def tidy(self) -> None:
        """Forget addresses that no link has any more; once for many messages, since it looks at every address."""
        if self._has_stale:
            self._has_stale = False
            self.local = {_LOOPBACK6}.union(*(link.addresses for link in self.links.values()))

    def become(self, newer: "Table") -> list[Event]:
        """Be equal to `newer`; what that changes."""
        events = [event for index in self.links.keys() - newer.links.keys() for event in self._remove(index)]
        for index, link in newer.links.items():
            events += self._put(link)
            mine = self.links[index]
            if mine.addresses != link.addresses:
                mine.addresses.clear()
                mine.addresses.update(link.addresses)
                self._has_stale = True
                events.append((Change.ADDRESSED, mine))
        self.tidy()
        return events

    def _put(self, link: Link) -> list[Event]:
        before = self.links.get(link.index)
        if before is None:
            self.links[link.index] = link
            self.local |= link.addresses
            return [(Change.APPEARED, link)]
        link = self.links[link.index] = replace(link, addresses=before.addresses)
        changes = []
        if link.names != before.names:
            changes.append(Change.RENAMED)
        if (link.master, link.part) != (before.master, before.part):
            changes.append(Change.MASTERED)
        if link.up != before.up:
            changes.append(Change.CAME_UP if link.up else Change.WENT_DOWN)
        return [(change, link) for change in changes]

    def _remove(self, index: int) -> list[Event]:
        link = self.links.pop(index, None)
        if link is None:
            return []
        self._has_stale |= bool(link.addresses)
        return [(Change.WENT, link)]

    def _address(self, index: int, address: bytes, ours: bool) -> list[Event]:
        link = self.links.get(index)
        if link is None or (address in link.addresses) == ours:
            return []
        if ours:
            link.addresses.add(address)
            self.local.add(address)
        else:
            link.addresses.discard(address)
            self._has_stale = True
        return [(Change.ADDRESSED, link)]


OnChange = Callable[[Change, Link], None]
"""Called once a change is in force; never from within a question, so that it may bind, close and ask as it likes."""


class Links:
    """The links of this network namespace: a context manager, and once entered everything is known.

    With `on_change` it needs a running loop, and reads there by itself; without, it reads when it is asked something.
    Entering raises `DoorsError` where the kernel does not tell.
    """

    def __init__(self, on_change: OnChange | None = None) -> None:
        self._on_change = on_change
        self._table = Table()
        self.changes = 0
        """How often something changed, as of the last `drain`: whoever remembers an answer remembers this, too."""
        self._heard: dict[tuple[int, tuple[str, ...]], bool] = {}
        self._news: deque[Event] = deque()
        self._buffer = bytearray(_MESSAGE_MAX)
        self._is_stale = False  # the kernel told more than was read
        self._ask_again = -inf
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "Links":
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
            self._news.clear()
            if self._on_change is not None:
                asyncio.get_running_loop().add_reader(self._socket, self.drain)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Read no more, and tell no more; again is harmless."""
        self._news.clear()
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

    def heard(self, index: int, patterns: tuple[str, ...] = ()) -> bool:
        """Whether packets seen on this link count where `patterns` (as of fnmatch: `eth0`, `ppp*`; none for all) name
        the links that are heard.

        Those seen on a part of a bridge, a bond or a team are seen again on the whole, and count there if that is
        heard. A vrf sees none of its parts' packets.
        """
        known = self._heard.get((index, patterns))
        if known is None:
            if index not in self._table.links and not (self.drain() and index in self._table.links):
                return False
            known = self._heard[index, patterns] = self._is_heard(index, patterns)
        return known

    def _is_heard(self, index: int, patterns: tuple[str, ...]) -> bool:
        links, link = self._table.links, self._table.links[index]
        if not fits(link, patterns):
            return False
        below = {index}
        while link.part != "vrf" and link.master in links and link.master not in below:
            below.add(link.master)
            link = links[link.master]
            if fits(link, patterns):
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
            self._table.tidy()
        if self._is_stale and now() >= self._ask_again:
            found = True
            try:
                self.refresh()
            except DoorsError as error:
                logger.warning("what is known of network links may be old: %s", error)
                self._ask_again = now() + PAUSE
                if self._on_change is not None:
                    self._timer = asyncio.get_running_loop().call_later(PAUSE, self.drain)
        return found

    def refresh(self) -> None:
        """Ask the kernel for everything. Raises `DoorsError` where it does not answer."""
        for _ in range(TRIALS):
            with suppress(_Overrun):
                self._note(self._table.become(self._dump()))
                self._is_stale = False
                return
        raise DoorsError("network links change faster than the kernel can tell")

    def _dump(self) -> Table:
        """All that the kernel knows. Raises `_Overrun` where it changed meanwhile and could not be followed."""
        self._discard()
        table, meanwhile = Table(), list[Message]()
        for kind, header in ((Kind.GETLINK, _IFINFOMSG), (Kind.GETADDR, _IFADDRMSG)):
            for message in self._answers(kind, bytes(header.size)):
                if message.port == self._port:
                    table.apply(message)
                else:
                    meanwhile.append(message._replace(body=memoryview(bytes(message.body))))
        # The answers are put together while changes go on, and a change may overtake the answer that lacks it.
        for message in meanwhile:
            table.apply(message)
        table.tidy()
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

    def _answers(self, kind: Kind, body: bytes) -> Iterator[Message]:
        """The answers to one request, and the notifications between them; each is good until the next is asked for."""
        header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, 0, self._port)
        self._socket.send(header + body)
        torn = False
        while True:
            data = self._receive()
            if data is None:
                if not self._poll.poll(ANSWER_WITHIN * 1000):
                    raise DoorsError(f"the kernel does not tell of network links within {ANSWER_WITHIN:g} s")
                continue
            for message in messages(data):
                torn |= bool(message.flags & NLM_F_DUMP_INTR)
                if message.kind == Kind.ERROR and len(message.body) >= _NLMSGERR.size:
                    why = os.strerror(-_NLMSGERR.unpack_from(message.body)[0])
                    raise DoorsError(f"the kernel does not tell of network links: {why}")
                if message.kind == Kind.DONE:
                    if torn:
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

    def _note(self, events: list[Event]) -> None:
        if not events:
            return
        self.changes += 1
        self._heard.clear()
        if self._on_change is not None:
            if not self._news:
                asyncio.get_running_loop().call_soon(self._announce)
            self._news += events

    def _announce(self) -> None:
        assert self._on_change is not None
        while self._news:
            self._on_change(*self._news.popleft())


class _Overrun(Exception):  # noqa: N818 it is no error: everything is asked for again
    """Notifications were lost."""


def fits(link: Link, patterns: tuple[str, ...]) -> bool:
    """Whether the link has a name that the patterns ask for."""
    return not patterns or any(fnmatchcase(name, pattern) for name in link.names for pattern in patterns)


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
