"""The one clock, and waiting: by it, for a descriptor, for work to end. Every time that passes between the rooms comes
from here."""

import asyncio
import select
import socket
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

now = time.monotonic
"""Seconds that never go back and that nobody sets (CLOCK_MONOTONIC): a wall clock that jumps moves no deadline."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, which raises `OSError`, and no more, where there are no descriptors for an event loop.

    By itself it leaves a loop built halfway and work that was never awaited, both of which complain once they are
    thrown away (Python 3.14).
    """
    try:
        with select.epoll():
            for end in socket.socketpair():
                end.close()
        return asyncio.run(work)
    finally:
        work.close()


async def wait_at_most(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
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
