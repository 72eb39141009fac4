"""The sockets of the knock ports, on the loopback interface: what a flood on one port is to the others."""

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from port_knocking_doors.capture import udp
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.recvmmsg import BATCH, SO_TIMESTAMPNS
from port_knocking_doors.capture.udp import UdpListeners
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
