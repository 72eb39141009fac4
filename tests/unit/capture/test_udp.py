"""The sockets of the knock ports, on the loopback interface: what a flood on one port is to the others."""

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from port_knocking_doors.capture import udp
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.recvmmsg import BATCH, SO_TIMESTAMPNS, Datagram, ReceiveBatch
from port_knocking_doors.capture.udp import UdpListeners
from port_knocking_doors.errors import DoorsError, ListenError, PortInUseError
from port_knocking_doors.knocks.authenticator import NOT_A_KNOCK, Capture, Judge, Outcome
from port_knocking_doors.knocks.code import listened_code
from port_knocking_doors.model import PAYLOAD
from tests.helpers.ports import free_ports

SOON = 10.0


@pytest.fixture
def stamped_on_arrival() -> Iterator[None]:
    """Wait until the kernel stamps datagrams when they arrive, and keep it doing so.

    A worker of the kernel switches that on after the first socket has asked for it (net/core/dev.c: netstamp_work);
    until then a datagram is stamped when it is read.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind(("127.0.0.1", 0))
        deadline = time.monotonic() + SOON
        while True:
            sock.sendto(b"", sock.getsockname())
            sent = time.time()
            time.sleep(0.01)
            ((_, _, stamp),) = sock.recvmsg(1, 64)[1]
            seconds, nanoseconds = struct.unpack("qq", stamp)
            if seconds + nanoseconds / 1e9 <= sent:
                break
            assert time.monotonic() < deadline
        yield


@pytest.mark.usefixtures("stamped_on_arrival")
def test_flooded_port_starves_neither_another_port_nor_the_loop() -> None:
    flooded, quiet = free_ports(2)
    told: list[int] = []
    at_turn: list[int] = []

    def judge(_: bytes, code: int, __: int, ___: float) -> Outcome:
        told.append(code & 0xFFFF)
        return NOT_A_KNOCK

    async def story() -> None:
        with listening((flooded, quiet), judge):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for place in range(8 * BATCH):
                    if place == 3 * BATCH // 2:
                        sock.sendto(PAYLOAD, ("127.0.0.1", quiet))
                    sock.sendto(PAYLOAD, ("127.0.0.1", flooded))
            while len(told) < 8 * BATCH + 1:
                at_turn.append(len(told))
                await asyncio.sleep(0)
            at_turn.append(len(told))

    asyncio.run(asyncio.wait_for(story(), SOON))
    assert told.index(quiet) == 3 * BATCH // 2, "it is judged when its turn has come, and not after the flood"
    # In a turn of the loop two looks, or twice as many where something is held back, of a batch each.
    assert max(after - before for before, after in pairwise(at_turn)) <= 4 * BATCH + 1


@contextmanager
def listening(ports: tuple[int, ...], judge: Judge) -> Iterator[UdpListeners]:
    dispatch = Dispatch(lambda *_: None)
    dispatch.judges = {listened_code(port): judge for port in ports}
    listeners = UdpListeners(dispatch)
    try:
        listeners.start(Capture(ports))
        yield listeners
    finally:
        listeners.stop()


@contextmanager
def sender(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        yield sock


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_sockets_rest_after_a_burst_and_lose_no_datagram(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    (port,) = free_ports(1)
    monkeypatch.setattr(udp, "REST", 0.3)

    def judge(*_: object) -> Outcome:
        told.append(port)
        return NOT_A_KNOCK

    async def story() -> None:
        with listening((port,), judge), sender(port) as sock:
            sock.send(PAYLOAD)
            await turns()
            assert len(told) == 1, "a lone knock is judged at once"
            sock.send(PAYLOAD)
            await turns()
            assert len(told) == 2, "and once more"
            for _ in range(udp.MANY):
                sock.send(PAYLOAD)
            await turns()
            assert len(told) == 2 + udp.MANY
            sock.send(PAYLOAD)
            await turns()
            assert len(told) == 2 + udp.MANY, "they rest"
            while len(told) < 3 + udp.MANY:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(story(), SOON))


def test_sockets_stopped_while_they_rest_do_not_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    (port,) = free_ports(1)
    monkeypatch.setattr(udp, "REST", 0.05)

    def judge(*_: object) -> Outcome:
        told.append(port)
        return NOT_A_KNOCK

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: told.append(-1))
        with listening((port,), judge) as listeners, sender(port) as sock:
            for _ in range(udp.MANY):
                sock.send(PAYLOAD)
            await turns()
            listeners.stop()
            await asyncio.sleep(0.1)

    asyncio.run(asyncio.wait_for(story(), SOON))
    assert told == [port] * udp.MANY


# What counts as a payload

OTHER_PAYLOADS = (b"", b"\0", b"knock", b"knock\r\n", b"X", bytes(3000))


class Seen:
    """What listeners on one port judged and showed."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.judged = 0
        self.shown: list[tuple[bytes, int, bytes]] = []
        dispatch = Dispatch(lambda *_: None)
        dispatch.judges = {listened_code(self.port): self._judge}
        dispatch.on_other = lambda source, length, beginning, _: self.shown.append((source, length, beginning))
        self.listeners = UdpListeners(dispatch)

    def _judge(self, *_: object) -> Outcome:
        self.judged += 1
        return NOT_A_KNOCK

    def capture(self, *, of_any: bool = False, others: bool = False) -> Capture:
        of = frozenset({self.port} if of_any else ())
        return Capture((self.port,), "opening_sequence", any_payload=of, others=others)

    async def judges(self, *payloads: bytes) -> int:
        """How many of these datagrams are judged, and of a right one behind them."""
        before = self.judged
        with sender(self.port) as sock:
            for payload in (*payloads, PAYLOAD):
                sock.send(payload)
        await asyncio.sleep(udp.REST * 2)
        await turns()
        return self.judged - before

    async def replaced(self, capture: Capture) -> None:
        with self.listeners.replacing(capture):
            pass


def seen_in(story: Callable[[Seen], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        seen = Seen()
        try:
            await story(seen)
        finally:
            seen.listeners.stop()

    asyncio.run(asyncio.wait_for(whole(), SOON))


def test_any_payload_counts_where_it_is_wanted_and_from_reload_to_reload() -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture())
        assert await seen.judges(*OTHER_PAYLOADS) == 1
        await seen.replaced(seen.capture(of_any=True))
        assert await seen.judges(*OTHER_PAYLOADS) == len(OTHER_PAYLOADS) + 1
        await seen.replaced(seen.capture())
        assert await seen.judges(*OTHER_PAYLOADS) == 1
        assert seen.shown == []

    seen_in(story)


def test_any_payload_counts_from_the_start() -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture(of_any=True))
        assert await seen.judges(*OTHER_PAYLOADS) == len(OTHER_PAYLOADS) + 1

    seen_in(story)


def test_other_payloads_are_shown_while_they_are_watched_and_never_judged() -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture())
        await seen.replaced(seen.capture(others=True))
        assert await seen.judges(*OTHER_PAYLOADS) == 1
        client = socket.inet_aton("127.0.0.1")
        assert seen.shown == [(client, len(payload), payload[:8]) for payload in OTHER_PAYLOADS]
        await seen.replaced(seen.capture())
        assert await seen.judges(*OTHER_PAYLOADS) == 1
        assert len(seen.shown) == len(OTHER_PAYLOADS)
        await seen.replaced(seen.capture(of_any=True, others=True))
        assert await seen.judges(*OTHER_PAYLOADS) == len(OTHER_PAYLOADS) + 1
        assert len(seen.shown) == len(OTHER_PAYLOADS), "each of them is a knock"

    seen_in(story)


def test_lone_datagram_with_another_payload_is_shown_at_once() -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture(others=True))
        with sender(seen.port) as sock:
            sock.send(b"\0")
            await turns()
        assert [length for _, length, _ in seen.shown] == [1]

    seen_in(story)


def test_flood_of_other_payloads_shows_a_few_of_each_read() -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture(others=True))
        assert await seen.judges(*[b"x"] * BATCH) == 1
        assert len(seen.shown) == udp.OTHERS_AT_ONCE

    seen_in(story)


def test_filter_without_memory_refuses_the_reload_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture(of_any=True))
        with monkeypatch.context() as patched:
            patched.setattr(udp, "attach_filter", lambda *_: False)
            with pytest.raises(DoorsError, match=r"^the kernel has no memory for the filter of a knock port"):
                await seen.replaced(seen.capture())
        assert await seen.judges(*OTHER_PAYLOADS) == len(OTHER_PAYLOADS) + 1

    seen_in(story)


def test_reload_that_fails_elsewhere_leaves_any_payload_a_knock() -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture(of_any=True))
        with pytest.raises(ListenError), seen.listeners.replacing(seen.capture()):
            raise ListenError("not possible")
        assert await seen.judges(*OTHER_PAYLOADS) == len(OTHER_PAYLOADS) + 1

    seen_in(story)


# Errors


def test_socket_that_fails_is_reported_once_and_stays_in_use(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[int] = []

    def take(_: ReceiveBatch, descriptor: int, *__: object) -> bool:
        taken.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture())
        with monkeypatch.context() as patched:
            patched.setattr(ReceiveBatch, "take", take)
            await seen.judges()
        assert len(taken) > 1
        assert await seen.judges() >= 1, "it is read again once it works"

    seen_in(story)
    assert caplog.messages == ["a knock port cannot be read: Input/output error"]


REFUSED: dict[str, tuple[OSError, type[DoorsError], str]] = {
    "in use": (
        OSError(errno.EADDRINUSE, "x"),
        PortInUseError,
        "port number 2 of it is in use by another program, expected a free one (`ss -ulpn` shows whose it is)",
    ),
    "below 1024": (
        OSError(errno.EACCES, "x"),
        ListenError,
        "port number 2 of it is below 1024 and this user may not listen there, expected 1024 or above, or root",
    ),
    "no memory": (
        OSError(errno.ENOBUFS, "No buffer space available"),
        DoorsError,
        "port number 2 of it cannot be listened on: No buffer space available",
    ),
}


@pytest.mark.parametrize(("error", "kind", "said"), REFUSED.values(), ids=REFUSED)
def test_port_that_cannot_be_had_is_named_by_its_place(
    monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[DoorsError], said: str
) -> None:
    first, second = free_ports(2)

    class Socket(socket.socket):
        def bind(self, address: Any) -> None:
            if address[1] == second:
                raise error
            super().bind(address)

    async def story(seen: Seen) -> None:
        monkeypatch.setattr("port_knocking_doors.capture.udp.socket.socket", Socket)
        with pytest.raises(DoorsError) as caught:
            seen.listeners.start(Capture((first, second), "opening_sequence"))
        assert type(caught.value) is kind
        assert str(caught.value) == f"opening_sequence: {said}"
        assert str(second) not in str(caught.value)
        assert seen.listeners.counters == {"ports": 0}

    seen_in(story)


def test_filter_without_memory_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(seen: Seen) -> None:
        monkeypatch.setattr(udp, "attach_filter", lambda *_: False)
        with pytest.raises(DoorsError, match="port number 1 of it cannot be listened on: Cannot allocate memory"):
            seen.listeners.start(seen.capture())

    seen_in(story)


def test_kernel_without_ipv6_is_listened_on_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

    async def story(seen: Seen) -> None:
        monkeypatch.setattr("port_knocking_doors.capture.udp.socket.socket", Socket)
        seen.listeners.start(seen.capture())
        assert await seen.judges() == 1
        assert {sock.family for sock in seen.listeners._sockets.values()} == {socket.AF_INET}

    seen_in(story)


def test_kernel_that_has_ipv6_switched_off_is_listened_on_by_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            super().bind(address)

    async def story(seen: Seen) -> None:
        monkeypatch.setattr("port_knocking_doors.capture.udp.socket.socket", Socket)
        seen.listeners.start(seen.capture())
        assert await seen.judges() == 1

    seen_in(story)


def test_datagram_held_back_for_a_port_that_a_reload_dropped_is_not_judged() -> None:
    async def story(seen: Seen) -> None:
        seen.listeners.start(seen.capture())
        (dropped,) = free_ports(1)
        seen.listeners._held = [(1, b"\x0a\x00\x00\x02", listened_code(dropped), 40000, 1)]
        assert await seen.judges() == 1

    seen_in(story)


def test_other_error_of_ipv6_is_not_taken_for_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(family, *rest, **named)

    async def story(seen: Seen) -> None:
        monkeypatch.setattr("port_knocking_doors.capture.udp.socket.socket", Socket)
        with pytest.raises(DoorsError, match="cannot be listened on: Too many open files"):
            seen.listeners.start(seen.capture())

    seen_in(story)


# A wall clock that is set


HOUR = 3600 * 10**9


@pytest.mark.usefixtures("stamped_on_arrival")
@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])
@pytest.mark.parametrize("before", [0, 1, 2, 3], ids=lambda count: f"{count} of 3 knocks before the step")
def test_wall_clock_that_is_set_between_knocks_does_not_swap_them(
    monkeypatch: pytest.MonkeyPatch, step: int, before: int
) -> None:
    ports = free_ports(3)
    judged: list[int] = []
    take = ReceiveBatch.take

    def take_stepped(batch: ReceiveBatch, descriptor: int, code: int, received: list[Datagram], *rest: Any) -> bool:
        """The stamps of knocks that came before the step are those of the clock as it was."""
        had = len(received)
        there_is_more = take(batch, descriptor, code, received, *rest)
        if code in [listened_code(port) for port in ports[:before]]:
            received[had:] = [(stamp - step, *others) for stamp, *others in received[had:]]  # type: ignore[misc]
        return there_is_more

    def judge(_: bytes, code: int, *__: object) -> Outcome:
        judged.append(code & 0xFFFF)
        return NOT_A_KNOCK

    async def story() -> None:
        with listening(tuple(ports), judge) as listeners:
            monkeypatch.setattr(ReceiveBatch, "take", take_stepped)
            steps = iter([step])
            monkeypatch.setattr(listeners._wall_clock, "step", lambda: next(steps, 0))
            for port in ports:  # all of them wait before the daemon reads the first
                with sender(port) as sock:
                    sock.send(PAYLOAD)
            while len(judged) < len(ports):
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(story(), SOON))
    assert judged == list(ports)
