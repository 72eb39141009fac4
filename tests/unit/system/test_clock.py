"""Waiting for work, and the event loop that cannot be made."""

import asyncio
import inspect
import os
import time

import pytest

from port_knocking_doors.system import clock
from port_knocking_doors.system.clock import readable, wait_at_most


async def result() -> str:
    await asyncio.sleep(0)
    return "result"


def test_clock_counts_the_time_of_a_suspend() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.now() <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("seconds", [None, 10.0])
def test_work_that_ends_in_time_gives_its_result(seconds: float | None) -> None:
    assert clock.run(wait_at_most(seconds, result())) == "result"


def test_work_that_takes_too_long_is_cancelled() -> None:
    cancelled = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def wait() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await wait_at_most(0.01, hang())
        await asyncio.sleep(0)
        assert cancelled == [True]

    clock.run(wait())


def test_cancelled_wait_cancels_the_work() -> None:
    async def wait() -> None:
        work = asyncio.ensure_future(asyncio.Event().wait())

        async def outer() -> None:
            await wait_at_most(None, asyncio.wait_for(work, None))

        task = asyncio.create_task(outer())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait({work})
        assert work.cancelled()

    clock.run(wait())


def test_readable_waits_for_data_and_leaves_it() -> None:
    reading, writing = os.pipe()

    async def wait() -> None:
        waiting = asyncio.create_task(readable(reading))
        await asyncio.sleep(0)
        assert not waiting.done()
        os.write(writing, b"x")
        await waiting

    try:
        clock.run(wait())
        assert os.read(reading, 10) == b"x"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.filterwarnings("error")
def test_loop_without_descriptors_is_an_os_error_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("select.epoll", fail)
    work = result()
    with pytest.raises(OSError, match="Too many open files"):
        clock.run(work)
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED, "Python would warn that it was never awaited"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.1234, "0.123"), (9.99, "9.99"), (60, "60"), (3600, "3600"), (2e9, "2000000000")]
)
def test_rounded_seconds_have_no_exponent(seconds: float, text: str) -> None:
    assert clock.rounded(seconds) == text
