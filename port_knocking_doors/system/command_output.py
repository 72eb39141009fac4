"""Where commands write to: never a pipe or a terminal, which may have lost its reader.

A pipe whose reader is gone ends a command that prints (SIGPIPE), and one whose reader stops holds it up, as a terminal
does: the rest of a stop command would not run. So a command writes to the journal (a connection of its own), to
the file that standard error is, or to a file in memory that this process reads and that outlives it.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from port_knocking_doors.system.resource import Resource

JOURNAL = "/run/systemd/journal/stdout"
NAME = "port-knocking-doors"

_STANDARD_ERROR = 2
_CHUNK = 1 << 16
"""Bytes that are read at once, and after which the file in memory is emptied."""
_LONGEST = 1 << 10
"""Bytes of a line; the rest is a line of its own."""
_MEMORY_DEVICES = 1  # MEM_MAJOR (linux/major.h): /dev/null, /dev/full …
_INFO = 6  # a priority of syslog(3)


class CommandOutput(Resource):
    """What one command prints, its background processes included.

    `descriptor` is for the command; `release` closes it here.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self.descriptor = -1
        self._reading = -1
        self._at = 0
        self._rest = b""
        self._was_emptied = False

    def open(self) -> None:
        """Raises `OSError`."""
        journal = _journal(self._environ)
        if journal is not None:
            self.descriptor = journal.detach()
        elif _is_file(_STANDARD_ERROR):
            self.descriptor = os.dup(_STANDARD_ERROR)
        else:
            # Descriptors of their own: by the end of the last writer a lease can tell that no more will come.
            file = os.memfd_create(NAME, os.MFD_CLOEXEC)
            try:
                place = f"/proc/self/fd/{file}"
                self.descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                self._reading = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(file)

    def release(self) -> None:
        """The command has its copy of the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close(self) -> None:
        """Read no more."""
        self.release()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1

    def handed_over(self) -> "CommandOutput":
        """The same output for another owner: the end of this one's context closes nothing."""
        other = CommandOutput(self._environ)
        other._reading, self._reading = self._reading, -1
        return other

    @property
    def is_read(self) -> bool:
        """Whether this process has to read it."""
        return self._reading >= 0

    def is_over(self) -> bool:
        """Whether no process is left that could print more: the kernel leases a file for reading only then."""
        try:
            fcntl.fcntl(self._reading, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(self._reading, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return False
        except OSError:  # no leases here: what the command started in the background is not read
            return True
        return True

    def new_lines(self) -> list[str]:
        """The lines that were printed since the last call, at most 64 KiB of them."""
        if os.fstat(self._reading).st_size < self._at:
            self._at = 0  # the command emptied the file: `echo >/dev/stderr`
        data = os.pread(self._reading, _CHUNK, self._at)
        self._at += len(data)
        if self._at >= _CHUNK:
            os.truncate(f"/proc/self/fd/{self._reading}", 0)  # memory; what is printed this very moment is lost
            self._at = 0
            self._was_emptied = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            lines.append(self._rest)
            self._rest = b""
        return [_text(line) for line in lines]

    def was_emptied(self) -> bool:
        """Whether the command printed so much since the last call that the file was emptied: it is to be read soon."""
        emptied, self._was_emptied = self._was_emptied, False
        return emptied

    def last_line(self) -> list[str]:
        """What came behind the last line's end."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    return line[:_LONGEST].decode(errors="replace")


def _is_file(descriptor: int) -> bool:
    """Whether it is a file, or a device such as /dev/null; no terminal, pipe or socket."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) or (
        stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _MEMORY_DEVICES
    )


def _journal(environ: Mapping[str, str]) -> socket.socket | None:
    """A connection to the journal, where standard error is one (JOURNAL_STREAM in systemd.exec(5)); else None.

    One of its own has an empty buffer: a journal that hangs takes some 200 kB before it holds a command up.
    """
    with suppress(OSError):
        status = os.fstat(_STANDARD_ERROR)
        if environ.get("JOURNAL_STREAM") != f"{status.st_dev}:{status.st_ino}" or not Path(JOURNAL).exists():
            return None
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            stream.setblocking(False)
            stream.connect(JOURNAL)
            stream.shutdown(socket.SHUT_RD)
            # sd_journal_stream_fd(3): name, unit, priority, whether lines have priorities, and three ways to forward.
            stream.sendall(f"{NAME}\n\n{_INFO}\n1\n0\n0\n0\n".encode())
            stream.setblocking(True)
        except OSError:
            stream.close()
            raise
        return stream
    return None
