"""A pipe whose reader stands still, as that of a log does after Ctrl-S, in a pager, or in a hung journal."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def full_pipe(path: Path) -> Iterator["FullPipe"]:
    """A named pipe at this path that takes nothing more until it is read."""
    os.mkfifo(path)
    pipe = FullPipe(path)
    try:
        yield pipe
    finally:
        pipe.close()


class FullPipe:
    """`path` can be opened for writing; each write waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._filled = 0
        with suppress(BlockingIOError):
            while True:
                self._filled += os.write(self._end, bytes(4096))

    def read(self, until: str) -> list[str]:
        """What was written, line by line, up to the line that contains this text."""
        data = b""
        while until.encode() not in data or not data.endswith(b"\n"):
            select.select([self._end], [], [], 10)
            data += os.read(self._end, 65536)
            filling = min(self._filled, len(data))
            self._filled -= filling
            data = data[filling:]
        return data.decode().splitlines()

    def close(self) -> None:
        """Close the reading end: a write that waits fails."""
        os.close(self._end)
