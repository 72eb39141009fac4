"""The sockets of the knock ports, on the loopback interface: what a flood on one port is to the others."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from port_knocking_doors.capture import udp
from port_knocking_doors.capture.recvmmsg import BATCH
from port_knocking_doors.capture.udp import UdpListeners
from port_knocking_doors.knocks.authenticator import NOT_A_KNOCK, Outcome
from port_knocking_doors.model import PAYLOAD
from tests.helpers.ports import free_ports

SOON = 10.0


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Run on one processor: packets that several of them send over the loopback interface arrive in any order."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_processor")
def test_flooded_port_starves_neither_another_port_nor_the_loop() -> None:
    flooded, quiet = free_ports(2)
    told: list[int] = []
    at_turn: list[int] = []

    def judge(_: bytes, code: int, __: int, ___: float) -> Outcome:
        told.append(code & 0xFFFF)
        return NOT_A_KNOCK

    async def story() -> None:
        with UdpListeners((flooded, quiet), judge, lambda *_: None):
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
def sender(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        yield sock


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_after_many_at_once_the_sockets_rest_and_nothing_that_came_meanwhile_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []
    (port,) = free_ports(1)
    monkeypatch.setattr(udp, "REST", 0.3)

    def judge(*_: object) -> Outcome:
        told.append(port)
        return NOT_A_KNOCK

    async def story() -> None:
        with UdpListeners((port,), judge, lambda *_: None), sender(port) as sock:
            sock.send(PAYLOAD)
            await turns()
            assert len(told) == 1, "who knocks alone is heard at once"
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


def test_closed_while_they_rest_they_do_not_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    (port,) = free_ports(1)
    monkeypatch.setattr(udp, "REST", 0.05)

    def judge(*_: object) -> Outcome:
        told.append(port)
        return NOT_A_KNOCK

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: told.append(-1))
        with UdpListeners((port,), judge, lambda *_: None) as ears, sender(port) as sock:
            for _ in range(udp.MANY):
                sock.send(PAYLOAD)
            await turns()
            ears.close()
            await asyncio.sleep(0.1)

    asyncio.run(asyncio.wait_for(story(), SOON))
    assert told == [port] * udp.MANY
