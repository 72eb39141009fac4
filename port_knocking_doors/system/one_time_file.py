"""Files of one-time sequences, one in each line: the active line, and the mark of a used line.

The first usable line is active. A used line gets `#` over its first character, in place, so that every other byte of
the file stays as it is; the mark is on the disk before the door opens. If the mark cannot be written, the door stays
closed: a sequence never opens a door for two knockers.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from port_knocking_doors.errors import DoorsError, LineGoneError
from port_knocking_doors.model import Step

MARK = b"#"
SIZE_MAX = 2**20
"""Bytes; a larger file is a mistake."""

Read = Callable[[str], tuple[Step, ...] | None]
"""The steps in a line; None for a comment and for a malformed line."""


@dataclass(frozen=True)
class OneTimeLine:
    """An active line, and its place in the file."""

    path: str
    offset: int
    """Bytes from the start of the file to the line's first byte."""
    text: bytes = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)


def current_line(path: str, read: Read) -> OneTimeLine | None:
    """The first usable line, or None if none is left. Raises `DoorsError` if the file cannot be read."""
    try:
        descriptor = _open(path, os.O_RDONLY)
        try:
            return next(_usable(path, _content(descriptor), read), None)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DoorsError(f"{path}: cannot be read ({error.strerror})") from error


def consume(line: OneTimeLine) -> None:
    """Mark the line as used, on the disk. Raises `DoorsError` if that fails: then the door must stay closed.

    Raises `LineGoneError` if another process used the line, or the file was edited.
    """
    try:
        descriptor = _open(line.path, os.O_RDWR)
        try:
            _mark(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DoorsError(f"{line.path}: cannot be written ({error.strerror})") from error


def _mark(descriptor: int, line: OneTimeLine) -> None:
    # Of two daemons that receive the same knock, one gets the line. Not every file system has locks.
    with suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LineGoneError(f"{line.path}: locked by another process") from None
    if os.pread(descriptor, len(line.text), line.offset) != line.text:
        raise LineGoneError(f"{line.path}: was changed while its line was active")
    if os.pwrite(descriptor, MARK, line.offset) != len(MARK):
        raise DoorsError(f"{line.path}: cannot be written")
    os.fsync(descriptor)


def _open(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe would wait for its other end.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DoorsError(f"{path}: is not an ordinary file")
    return descriptor


def _content(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, SIZE_MAX):
        pieces.append(piece)
        if sum(map(len, pieces)) > SIZE_MAX:
            raise OSError(0, f"more than {SIZE_MAX} bytes")
    return b"".join(pieces)


def _usable(path: str, content: bytes, read: Read) -> Iterator[OneTimeLine]:
    offset = 0
    for whole in content.split(b"\n"):  # not at a carriage return: a comment continues behind it
        text = whole.rstrip(b"\r")
        try:
            steps = read(text.decode())
        except UnicodeDecodeError:
            steps = None
        if steps:
            yield OneTimeLine(path, offset, text, steps)
        offset += len(whole) + 1
