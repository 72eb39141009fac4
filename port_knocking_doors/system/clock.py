"""The one clock of the package, and waiting: for a time, for a descriptor, for work to end."""

import asyncio
import select
import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

now: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds of CLOCK_BOOTTIME: a wall clock that jumps moves no deadline, and the time of a suspend counts, so that no
door outlives a night in the bag. The event loop's own time does not count it: see `deadline_timer`."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` that raises `OSError` and prints nothing where no descriptor is left for an event loop.

    `asyncio.run` itself leaves a half-built loop and work that was never awaited; both print warnings when they are
    deleted (Python 3.14).
    """
    try:
        with select.epoll():
            for end in socket.socketpair():
                end.close()
        return asyncio.run(work)
    finally:
        work.close()


async def wait_at_most(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. After `seconds` (None: no limit) cancels it and raises `asyncio.TimeoutError`.

    `asyncio.wait_for` does the same, but before Python 3.12 it can swallow a cancellation.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()


async def readable(descriptor: int) -> None:
    """Wait until the descriptor is readable. Nothing is read, so a cancellation loses nothing."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def rounded(seconds: float) -> str:
    """A length of time for a message: three digits of a short one, and whole seconds of a long one."""
    return f"{seconds:.3g}" if seconds < 1000 else f"{seconds:.0f}"
