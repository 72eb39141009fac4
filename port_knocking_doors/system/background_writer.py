"""Writes that never make the caller wait: a thread of its own does them in their order, however slow their target is.

The reader of a log may stand still for ever (Ctrl-S, a pager, a hung journal), and so may a disk. What is put here is
then kept up to a limit, and beyond the limit it is lost and counted. Doors open and close meanwhile.
"""

import os
import queue
import select
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

LIMIT = 2000
"""Writes that wait at most. A line of the log has some hundred octets, so that is less than 1 MiB."""
FAREWELL = 1.0
"""Seconds that the end of the process waits for a target that takes nothing more."""

Write = Callable[[], None]

_writers: "weakref.WeakSet[BackgroundWriter]" = weakref.WeakSet()


class BackgroundWriter:
    """`lost` makes the write that reports how many were lost, once the target takes writes again."""

    def __init__(self, lost: Callable[[int], Write], limit: int = LIMIT) -> None:
        self._lost = lost
        self._limit = limit
        self._start_empty()
        _writers.add(self)

    def _start_empty(self) -> None:
        self._lock = threading.RLock()
        self._writes: queue.SimpleQueue[Write] = queue.SimpleQueue()
        self._number_lost = 0
        self._put = self._done = 0
        self._thread: threading.Thread | None = None

    def put(self, write: Write) -> None:
        """Have this done after what was put before; or lose it, where too much waits already."""
        with self._lock:
            if self._put - self._done >= self._limit:
                self._number_lost += 1
                return
            self._report_lost()
            self._enqueue(write)

    def _enqueue(self, write: Write) -> None:
        self._put += 1
        self._writes.put(write)
        if self._thread is None:  # not earlier: a daemon that goes into the background forks first
            self._thread = threading.Thread(target=self._run, name="background-writer", daemon=True)
            self._thread.start()

    def _report_lost(self) -> None:
        if number := self._number_lost:
            self._number_lost = 0
            self._enqueue(self._lost(number))

    def _run(self) -> None:
        while True:
            write = self._writes.get()
            with suppress(OSError):  # a full disk, a reader that ended
                write()
            self._done += 1

    def flush(self, patience: float = FAREWELL) -> bool:
        """Wait until everything is written, at most `patience` seconds without any progress; whether it is."""
        with self._lock:
            self._report_lost()
        done, deadline = self._done, time.monotonic() + patience
        while self._done != self._put:
            if self._done != done:
                done, deadline = self._done, time.monotonic() + patience
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def forget(self) -> None:
        """After a fork: what waits is the parent's to write, and so is its thread."""
        self._start_empty()


def flush_all(patience: float = FAREWELL) -> bool:
    """`flush` each writer of this process; whether everything is written."""
    results = [writer.flush(patience) for writer in list(_writers)]
    return all(results)


def _forget_all() -> None:
    for writer in list(_writers):
        writer.forget()


os.register_at_fork(after_in_child=_forget_all)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, and wait where the target is not ready, also where another process made it non-blocking.

    Raises `OSError`.
    """
    while data:
        data = data[_write_some(descriptor, data) :]


def _write_some(descriptor: int, data: bytes) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLOUT)
        waiting.poll()
        return 0
