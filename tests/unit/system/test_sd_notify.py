"""Messages to the service manager: ready, reloading, and the watchdog's, which the event loop itself sends."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from port_knocking_doors.system import sd_notify
from port_knocking_doors.system.sd_notify import Watchdog, reloading, watchdog_period


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in place of systemd's."""
    monkeypatch.setattr(sd_notify, "_ready_sent", False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def all_received(supervisor: socket.socket) -> list[str]:
    received = []
    with suppress(BlockingIOError):
        while True:
            received.append(supervisor.recv(4096).decode())
    return received


# --- the watchdog


PERIODS = {
    "no watchdog": ({}, None),
    "watchdog": ({"WATCHDOG_USEC": "30000000"}, 30.0),
    "watchdog of this process": ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
    "watchdog of the parent process": ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
    "zero": ({"WATCHDOG_USEC": "0"}, None),
    "negative": ({"WATCHDOG_USEC": "-5"}, None),
    "not a number": ({"WATCHDOG_USEC": "soon"}, None),
}


@pytest.mark.parametrize(("environ", "period"), PERIODS.values(), ids=PERIODS)
def test_watchdog_period_is_read_from_environment(environ: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environ) == period


def test_running_loop_sends_watchdog_twice_in_each_period(supervisor: socket.socket) -> None:
    async def live() -> None:
        start = time.monotonic()
        with Watchdog({"WATCHDOG_USEC": "100000"}):
            while len(received := all_received(supervisor)) < 1:
                await asyncio.sleep(0)
            while len(received) < 4:
                await asyncio.sleep(0.001)
                received += all_received(supervisor)
        assert received == ["WATCHDOG=1"] * 4
        assert time.monotonic() - start >= 0.14, "three pauses of half a period, less what a clock may err"

    asyncio.run(live())


def test_hanging_loop_sends_no_watchdog(supervisor: socket.socket) -> None:
    async def hang() -> None:
        with Watchdog({"WATCHDOG_USEC": "20000"}):
            all_received(supervisor)
            time.sleep(0.1)  # this is the hanging
            assert all_received(supervisor) == []

    asyncio.run(hang())


def test_watchdog_sends_nothing_after_its_end(supervisor: socket.socket) -> None:
    async def end() -> None:
        with Watchdog({"WATCHDOG_USEC": "20000"}):
            pass
        all_received(supervisor)
        await asyncio.sleep(0.05)
        assert all_received(supervisor) == []

    asyncio.run(end())


def test_nothing_is_sent_without_watchdog(supervisor: socket.socket) -> None:
    with Watchdog({}):  # outside of any loop, too
        assert all_received(supervisor) == []


def test_service_manager_that_reads_nothing_does_not_block(supervisor: socket.socket) -> None:
    start = time.monotonic()
    for _ in range(2000):  # far beyond what its socket keeps
        sd_notify.notify("WATCHDOG=1")
    assert time.monotonic() - start < 5
    assert 0 < len(all_received(supervisor)) < 2000


# --- the end


def test_longer_timeout_is_requested_in_microseconds(supervisor: socket.socket) -> None:
    sd_notify.extend_timeout(76.8)
    assert all_received(supervisor) == ["EXTEND_TIMEOUT_USEC=76800000"]


# --- a reload


def test_reload_is_sent_from_its_beginning_to_its_end(supervisor: socket.socket) -> None:
    sd_notify.notify("READY=1")
    before = time.monotonic_ns() // 1000
    with reloading():
        (sent,) = all_received(supervisor)[-1:]
        state, _, moment = sent.partition("\nMONOTONIC_USEC=")
        assert state == "RELOADING=1"
        assert before <= int(moment) <= time.monotonic_ns() // 1000
    assert all_received(supervisor) == ["READY=1"]


def test_reload_that_raises_is_sent_as_ended(supervisor: socket.socket) -> None:
    sd_notify.notify("READY=1")
    with pytest.raises(ZeroDivisionError), reloading():
        raise ZeroDivisionError
    assert all_received(supervisor)[-1] == "READY=1"


def test_reload_before_ready_sends_nothing(supervisor: socket.socket) -> None:
    with reloading():
        pass
    assert all_received(supervisor) == []
