"""The links that an `InterfaceMonitor` selects, and what it knows of this machine."""

import asyncio
import errno
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system import interfaces
from port_knocking_doors.system.interfaces import InterfaceMonitor
from port_knocking_doors.system.rtnetlink import (
    NLM_F_DUMP_INTR,
    Link,
    LinkChange,
    NetlinkMessage,
    NetlinkType,
    messages,
)
from tests.unit.control.test_server import until

LO = bytes([127, 0, 0, 1])
NLMSG_NOOP, UNKNOWN_TYPE = 1, 0x7FFF  # linux/netlink.h: the kernel drops the one, and refuses the other

SELECTED = [
    # patterns, links as (index, name, master, kind of its master), the selected names
    pytest.param((), [(1, "eth0", 0, "")], {"eth0"}, id="all by default"),
    pytest.param((), [(1, "eth0", 2, "bridge"), (2, "br0", 0, "")], {"br0"}, id="a port is not, its bridge is"),
    pytest.param((), [(1, "eth0", 2, "bond"), (2, "bond0", 3, "bridge"), (3, "br0", 0, "")], {"br0"}, id="two up"),
    pytest.param((), [(1, "eth0", 2, "vrf"), (2, "red", 0, "")], {"eth0", "red"}, id="a vrf's part is"),
    pytest.param((), [(1, "eth0", 2, "bridge")], {"eth0"}, id="an unknown master"),
    pytest.param((), [(1, "a", 2, "bond"), (2, "b", 1, "bond")], set(), id="a circle ends"),
    pytest.param(("ppp*", "eth0"), [(1, "eth0", 0, ""), (2, "eth1", 0, ""), (3, "ppp7", 0, "")], {"eth0", "ppp7"}),
    pytest.param(("eth0",), [(1, "eth0", 2, "bridge"), (2, "br0", 0, "")], {"eth0"}, id="the port alone was asked for"),
    pytest.param(("br0", "eth*"), [(1, "eth0", 2, "bridge"), (2, "br0", 0, "")], {"br0"}, id="both were asked for"),
]


@pytest.mark.parametrize(("patterns", "links", "expected"), SELECTED)
def test_links_are_selected_by_patterns_and_masters(
    patterns: tuple[str, ...], links: list[tuple[int, str, int, str]], expected: set[str]
) -> None:
    with InterfaceMonitor() as watched:
        watched._table.links = {  # in place of the machine's own
            index: Link(name, index, True, master, "", part) for index, name, master, part in links
        }
        assert {name for index, name, _, _ in links if watched.is_selected(index, patterns)} == expected


def test_loopback_is_known_and_local_without_an_event_loop() -> None:
    with InterfaceMonitor() as links:
        index = links.index_of("lo")
        assert index is not None
        assert links.name_of(index) == "lo"
        assert links.is_selected(index)
        assert all(map(links.is_local, (bytes([127, 0, 0, 1]), bytes([127, 9, 8, 7]), bytes(15) + b"\1")))
        assert not links.is_local(bytes([203, 0, 113, 77]))
        assert not links.is_local(socket.inet_pton(socket.AF_INET6, "7f00::1"))
        assert links.name_of(10**6) == ""
        assert links.index_of("no-such-link") is None
        assert not links.is_selected(10**6)
    links.close()


def header(kind: int) -> Callable[..., bytes]:
    """In place of a request: a message of this type, without a body."""
    return lambda _, port: struct.pack("=IHHII", 16, kind, 1, 0, port)


def interrupted(data: memoryview) -> Iterator[NetlinkMessage]:
    return (message._replace(flags=message.flags | NLM_F_DUMP_INTR) for message in messages(data))


FAILURES: dict[str, tuple[str, Any, str]] = {
    "refused": ("request", header(UNKNOWN_TYPE), "cannot read network links from the kernel: Operation not supported"),
    "unanswered": ("request", header(NLMSG_NOOP), "cannot read network links from the kernel: timed out after 0.01 s"),
    "changes": ("messages", interrupted, "network links changed during each of 8 requests"),
}


@pytest.mark.parametrize(("name", "value", "said"), FAILURES.values(), ids=FAILURES)
def test_links_that_cannot_be_read_are_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any, said: str
) -> None:
    monkeypatch.setattr(interfaces, "ANSWER_WITHIN", 0.01)
    monkeypatch.setattr(interfaces, name, value)
    links = InterfaceMonitor()
    with pytest.raises(DoorsError) as caught:
        links.__enter__()
    assert str(caught.value) == said
    assert links._socket.fileno() == -1


def test_refused_socket_is_an_error_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Refused(socket.socket):
        def bind(self, _: Any) -> None:
            made.append(self)
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(DoorsError, match=r"^cannot read network links from the kernel: Operation not permitted$"):
        InterfaceMonitor().__enter__()
    assert [one.fileno() for one in made] == [-1]


def test_notifications_during_the_answers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def announced(data: memoryview) -> Iterator[NetlinkMessage]:
        for message in messages(data):
            yield message if message.kind == NetlinkType.DONE else message._replace(port=0)

    monkeypatch.setattr(interfaces, "messages", announced)
    with InterfaceMonitor() as links:
        assert links.is_local(LO)
        assert links.index_of("lo") is not None


def test_links_out_of_date_are_read_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        with InterfaceMonitor(lambda *_: None) as links:
            links._is_stale = True
            with monkeypatch.context() as patch:
                patch.setattr(interfaces, "messages", interrupted)
                assert links.drain()
            assert caplog.messages == [
                "network links may be out of date: network links changed during each of 8 requests"
            ]
            await until(lambda: not links._is_stale)
            assert links.is_local(LO)

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(interfaces, "PAUSE", 0.01)
    asyncio.run(story())


def test_one_call_reads_at_most_a_batch_of_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "BATCH", 1)
    with InterfaceMonitor() as links:
        for _ in range(3):
            links._socket.send(struct.pack("=IHHII", 16, UNKNOWN_TYPE, 1, 0, links._port))
        assert [links.drain() for _ in range(4)] == [True, True, True, False]


class Scripted:
    """A socket that receives these messages: the number of the sender, or an error."""

    def __init__(self, *received: int | OSError) -> None:
        self._received = deque(received)

    def recvfrom_into(self, _: bytearray) -> tuple[int, tuple[int, int]]:
        if not self._received:
            raise BlockingIOError
        one = self._received.popleft()
        if isinstance(one, OSError):
            raise one
        return one + 1, (one, 0)


def test_message_of_another_process_is_ignored() -> None:
    links = InterfaceMonitor()
    links._socket = Scripted(7, 8, 0)  # type: ignore[assignment]
    received = links._receive()
    assert received is not None
    assert len(received) == 1
    links._socket = Scripted(7)  # type: ignore[assignment]
    assert links._receive() is None


@pytest.mark.parametrize(
    ("number", "raised"),
    [(errno.ENOBUFS, interfaces._Overrun), (errno.ENOMEM, interfaces._Overrun), (errno.EBADF, OSError)],
    ids=["overrun", "no memory", "another error"],
)
def test_full_socket_is_an_overrun_and_no_error(number: int, raised: type[Exception]) -> None:
    links = InterfaceMonitor()
    links._socket = Scripted(OSError(number, ""))  # type: ignore[assignment]
    with pytest.raises(raised):
        links._receive()


def test_changes_of_one_turn_are_announced_in_order() -> None:
    async def story() -> None:
        seen: list[tuple[LinkChange, str]] = []
        with InterfaceMonitor(lambda change, link: seen.append((change, link.name))) as links:
            for name in ("a", "b"):
                link = Link(name, 1000, True, 0, "", "")
                links._note([(LinkChange.APPEARED, link), (LinkChange.DISAPPEARED, link)])
            assert seen == []
            await until(lambda: len(seen) == 4)
        assert [name for _, name in seen] == ["a", "a", "b", "b"]

    asyncio.run(story())
