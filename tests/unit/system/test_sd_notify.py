"""What systemd hears: that we are ready, read the configuration again, end, and, by the loop itself, live."""

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
    """Who listens where systemd would."""
    monkeypatch.setattr(sd_notify, "_told_ready", False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def all_heard(supervisor: socket.socket) -> list[str]:
    heard = []
    with suppress(BlockingIOError):
        while True:
            heard.append(supervisor.recv(4096).decode())
    return heard


# --- the watchdog


PERIODS = {
    "nobody watches": ({}, None),
    "somebody does": ({"WATCHDOG_USEC": "30000000"}, 30.0),
    "and means us": ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
    "and means our parent": ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
    "for no time at all": ({"WATCHDOG_USEC": "0"}, None),
    "for less": ({"WATCHDOG_USEC": "-5"}, None),
    "for nonsense": ({"WATCHDOG_USEC": "soon"}, None),
}


@pytest.mark.parametrize(("environ", "period"), PERIODS.values(), ids=PERIODS)
def test_it_watches_whom_it_says(environ: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environ) == period


def test_the_loop_tells_twice_in_each_period_that_it_lives(supervisor: socket.socket) -> None:
    async def live() -> None:
        start = time.monotonic()
        with Watchdog({"WATCHDOG_USEC": "100000"}):
            while len(heard := all_heard(supervisor)) < 1:
                await asyncio.sleep(0)
            while len(heard) < 4:
                await asyncio.sleep(0.001)
                heard += all_heard(supervisor)
        assert heard == ["WATCHDOG=1"] * 4
        assert time.monotonic() - start >= 0.14, "three pauses of half a period, less what a clock may err"

    asyncio.run(live())


def test_a_loop_that_hangs_tells_nothing(supervisor: socket.socket) -> None:
    async def hang() -> None:
        with Watchdog({"WATCHDOG_USEC": "20000"}):
            all_heard(supervisor)
            time.sleep(0.1)  # this is the hanging
            assert all_heard(supervisor) == []

    asyncio.run(hang())


def test_after_its_end_it_is_silent(supervisor: socket.socket) -> None:
    async def end() -> None:
        with Watchdog({"WATCHDOG_USEC": "20000"}):
            pass
        all_heard(supervisor)
        await asyncio.sleep(0.05)
        assert all_heard(supervisor) == []

    asyncio.run(end())


def test_where_nobody_watches_nothing_is_told(supervisor: socket.socket) -> None:
    with Watchdog({}):  # outside of any loop, too
        assert all_heard(supervisor) == []


def test_a_supervisor_that_reads_nothing_does_not_hold_us_up(supervisor: socket.socket) -> None:
    start = time.monotonic()
    for _ in range(2000):  # far beyond what its socket keeps
        sd_notify.notify("WATCHDOG=1")
    assert time.monotonic() - start < 5
    assert 0 < len(all_heard(supervisor)) < 2000


# --- a reload


def test_a_reload_is_told_from_its_beginning_to_its_end(supervisor: socket.socket) -> None:
    sd_notify.notify("READY=1")
    before = time.monotonic_ns() // 1000

    @reloading
    def read_again() -> None:
        (told,) = all_heard(supervisor)[-1:]
        state, _, moment = told.partition("\nMONOTONIC_USEC=")
        assert state == "RELOADING=1"
        assert before <= int(moment) <= time.monotonic_ns() // 1000

    read_again()
    assert all_heard(supervisor) == ["READY=1"]


def test_a_reload_that_breaks_ends_too(supervisor: socket.socket) -> None:
    sd_notify.notify("READY=1")

    @reloading
    def read_again() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_again()
    assert all_heard(supervisor)[-1] == "READY=1"


def test_who_is_not_ready_yet_does_not_say_so_by_reading_again(supervisor: socket.socket) -> None:
    @reloading
    def read_again() -> None:
        pass

    read_again()
    assert all_heard(supervisor) == []
