"""The one clock, and waiting: by it, for a descriptor, for work to end. Every time that passes between the rooms comes
from here."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

now = time.monotonic
"""Seconds that never go back and that nobody sets (CLOCK_MONOTONIC): a wall clock that jumps moves no deadline."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, without a warning of work never awaited where no event loop can be made (Python 3.14 has one)."""
    try:
        return asyncio.run(work)
    finally:
        work.close()


async def within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises `asyncio.TimeoutError`, and cancels it, if that takes longer. None: no limit.

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
    """Wait until there is something to read. Nothing is read, so that nothing is lost by whoever is cancelled."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
