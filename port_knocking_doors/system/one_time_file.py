"""Files of one-time sequences, a line each: which line is in force, and the mark that it was used.

The first usable line is in force. A used one gets `#` over its first character, in place, so that every other byte of
the file stays as it is; the mark is on the disk before whoever knocked gets anything. Whatever keeps it from getting
there leaves the door shut: a sequence is never good for two knockers.
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
"""Bytes of such a file; more is a mistake."""

Read = Callable[[str], tuple[Step, ...] | None]
"""The steps that a line names; None for a line that is none: a comment, or malformed."""


@dataclass(frozen=True)
class OneTimeLine:
    """A line in force, and where it stands."""

    path: str
    offset: int
    """Of its first byte."""
    text: bytes = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)


def current_line(path: str, read: Read) -> OneTimeLine | None:
    """The first usable line, or None where none is left. Raises `DoorsError` where the file cannot be read."""
    try:
        descriptor = _open(path, os.O_RDONLY)
        try:
            return next(_usable(path, _content(descriptor), read), None)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DoorsError(f"{path}: cannot be read ({error.strerror})") from error


def consume(line: OneTimeLine) -> None:
    """Mark the line as used, on the disk. Raises `DoorsError` where that cannot be done: then it must not count.

    `LineGoneError` where the line is not there any more: somebody else used it, or edited the file.
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
    # Of two daemons that hear the same knock one gets the line. Not every file system has locks.
    with suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LineGoneError(f"{line.path}: somebody else uses a line of it at this moment") from None
    if os.pread(descriptor, len(line.text), line.offset) != line.text:
        raise LineGoneError(f"{line.path}: was changed while its line was in force")
    if os.pwrite(descriptor, MARK, line.offset) != len(MARK):
        raise DoorsError(f"{line.path}: cannot be written")
    os.fsync(descriptor)


def _open(path: str, flags: int) -> int:
    # Opening a pipe would wait for its other end.
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
    for whole in content.split(b"\n"):  # and not at a carriage return: behind one, a comment goes on
        text = whole.rstrip(b"\r")
        try:
            steps = read(text.decode())
        except UnicodeDecodeError:
            steps = None
        if steps:
            yield OneTimeLine(path, offset, text, steps)
        offset += len(whole) + 1
