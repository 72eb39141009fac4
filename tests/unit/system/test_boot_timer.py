"""The kernel's timer on CLOCK_BOOTTIME."""

import asyncio
import ctypes
import errno
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.system import boot_timer
from port_knocking_doors.system.boot_timer import BootTimer
from port_knocking_doors.system.clock import now

SOON = 5.0


def info(timer: BootTimer) -> dict[str, str]:
    """What the kernel says of the timer (proc_pid_fdinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{timer._descriptor}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def run(story: Callable[[BootTimer, asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        woken = asyncio.Event()
        timer = BootTimer(woken.set)
        try:
            await asyncio.wait_for(story(timer, woken), SOON)
        finally:
            timer.close()

    asyncio.run(whole())


def test_timer_runs_on_the_clock_that_counts_suspends() -> None:
    async def story(timer: BootTimer, _: asyncio.Event) -> None:
        timer.set(now() + 1000)
        assert info(timer)["clockid"] == str(time.CLOCK_BOOTTIME)
        assert info(timer)["settime flags"] == "01", "it is absolute (TFD_TIMER_ABSTIME)"
        left, _nanoseconds = map(int, re.findall(r"\d+", info(timer)["it_value"]))
        assert left in (998, 999)
        assert re.findall(r"\d+", info(timer)["it_interval"]) == ["0", "0"]

    run(story)


@pytest.mark.parametrize("delay", [0.02, 0.0, -1000.0, -1e12], ids=["soon", "now", "passed", "long before the boot"])
def test_timer_wakes_at_its_time_and_not_ahead_of_it(delay: float) -> None:
    async def story(timer: BootTimer, woken: asyncio.Event) -> None:
        due = now() + delay
        timer.set(due)
        await woken.wait()
        assert now() >= due

    run(story)


def test_timer_that_is_set_again_wakes_at_the_new_time_once() -> None:
    async def story(timer: BootTimer, woken: asyncio.Event) -> None:
        timer.set(now() - 1)
        timer.set(now() + 1000)  # before the loop looks: what had expired is forgotten
        await asyncio.sleep(0.01)
        assert not woken.is_set()
        timer.set(now() + 0.01)
        await woken.wait()
        woken.clear()
        await asyncio.sleep(0.03)
        assert not woken.is_set()

    run(story)


def test_timer_that_is_unset_does_not_wake() -> None:
    async def story(timer: BootTimer, woken: asyncio.Event) -> None:
        timer.set(now() + 0.01)
        timer.unset()
        await asyncio.sleep(0.03)
        assert not woken.is_set()

    run(story)


def test_expiration_that_another_call_took_back_wakes_nothing() -> None:
    async def story(timer: BootTimer, woken: asyncio.Event) -> None:
        timer._on_expired()
        assert not woken.is_set()

    run(story)


def test_lack_of_descriptors_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def timerfd_create(self, *_: object) -> int:
            ctypes.set_errno(errno.EMFILE)
            return -1

    async def story() -> None:
        monkeypatch.setattr(boot_timer, "_libc", Library())
        before = [*Path("/proc/self/fd").iterdir()]
        with pytest.raises(OSError, match="Too many open files"):
            BootTimer(lambda: None)
        assert [*Path("/proc/self/fd").iterdir()] == before

    asyncio.run(story())


def test_time_that_cannot_be_set_is_an_error() -> None:
    async def story() -> None:
        timer = BootTimer(lambda: None)
        timer.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            timer.set(1.0)

    asyncio.run(story())
