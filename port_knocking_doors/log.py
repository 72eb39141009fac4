"""The log: one event a line on standard error, as a terminal or the journal wants it."""

import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress

logger = logging.getLogger("port_knocking_doors")

# Priorities of syslog(3), as sd-daemon(3) wants them in front of a line.
_SYSLOG_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

SYSLOG = "/dev/log"
_SYSLOG_LONGEST = 8192
LOG_USER, LOG_DAEMON = 1 << 3, 3 << 3  # sys/syslog.h
LOG_NOTICE = 5


class _JournalFormatter(logging.Formatter):
    """`<N>text`: the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_SYSLOG_PRIORITY.get(record.levelno, 6)}>{_one_line(super().format(record))}"


class _TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _one_line(super().format(record))


def set_up(verbose: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Send the log to standard error; `verbose` adds the single knocks (never their ports)."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environ:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(_TerminalFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.raiseExceptions = False  # a log that cannot be written is no reason for tracebacks
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


def to_syslog(identity: str, path: str | None = None) -> None:
    """Send the log to syslog(3) instead, under that name; what the system's log does not take at once is lost."""
    handler = _SyslogHandler(Syslog(f"{identity}[{os.getpid()}]", path=path))
    handler.setFormatter(_TerminalFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class Syslog:
    """Not `logging.handlers.SysLogHandler`, nor syslog(3): these wait for a log that hangs."""

    def __init__(self, identity: str, facility: int = LOG_DAEMON, path: str | None = None) -> None:
        self._head = f"{identity}: "
        self._facility = facility
        self._path = path or SYSLOG
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, priority: int, text: str) -> None:
        """`priority`: syslog(3)'s, from 0 to 7. What the system's log does not take at once is lost."""
        with suppress(OSError):
            data = f"<{self._facility | priority}>{self._head}{text}".encode(errors="backslashreplace")
            self._socket.sendto(data[:_SYSLOG_LONGEST], self._path)

    def close(self) -> None:
        """Send nothing more."""
        self._socket.close()


class _SyslogHandler(logging.Handler):
    def __init__(self, syslog: Syslog) -> None:
        super().__init__()
        self._syslog = syslog

    def emit(self, record: logging.LogRecord) -> None:
        self._syslog.send(_SYSLOG_PRIORITY.get(record.levelno, 6), self.format(record))

    def close(self) -> None:
        self._syslog.close()
        super().close()


def _one_line(text: str) -> str:
    return text.replace("\n", " ")
