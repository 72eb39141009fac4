"""The log: one event a line on standard error, in the form for a terminal, the journal or a program.

Logging never waits: `background_writer` writes the lines, and those that a reader does not take in time are lost.

The log for programs has the same events as the lines for people: each log call gives its event and fields with
`event_fields`, from a fixed vocabulary. Neither ever shows a sequence's steps.
"""

import atexit
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from enum import Enum
from functools import partial
from typing import Any

from port_knocking_doors.system import background_writer
from port_knocking_doors.system.background_writer import BackgroundWriter
from port_knocking_doors.system.printable import escaped

logger = logging.getLogger("port_knocking_doors")

# Priorities of syslog(3), as sd-daemon(3) wants them in front of a line.
_SYSLOG_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

SYSLOG = "/dev/log"
_SYSLOG_LONGEST = 8192
LOG_USER, LOG_DAEMON = 1 << 3, 3 << 3  # sys/syslog.h
LOG_NOTICE = 5


class LogEvent(str, Enum):
    """The events of the log; a published name never changes."""

    READY = "ready"
    RELOADED = "reloaded"  # the configuration was read again
    RELOAD_FAILED = "reload_failed"
    FAILED = "failed"  # the daemon ends with an error
    STOPPED = "stopped"  # the daemon has closed its doors and ends
    ASKED = "asked"  # by a command over the control socket
    OPEN_WITHOUT_KNOCK = "open_without_knock"  # firewalld accepts packets to a guarded port without a door

    KNOCK = "knock"
    WRONG_KNOCK = "wrong_knock"
    OTHER_PAYLOAD = "other_payload"  # a datagram to a knock port, while a client watches
    COMPLETE = "complete"  # and its door is pending: firewalld does not answer
    OPENED = "opened"
    CLOSED = "closed"
    PROLONGED = "prolonged"
    REFUSED = "refused"
    DENIED = "denied"  # a door is not opened, or is closed: its address is banned in firewalld
    UNCERTAIN_ZONE = "uncertain_zone"  # the zone of an address cannot be known from a knock
    NEVER_OPENED = "never_opened"
    NOTHING_TO_CLOSE = "nothing_to_close"  # a knocker knocked to close, and no such door is open for its address
    MORE = "more"  # events of the kind in `of` without a line of their own

    COMMAND_STARTED = "command_started"
    COMMAND_ENDED = "command_ended"
    COMMAND_REFUSED = "command_refused"
    COMMAND_FAILED = "command_failed"  # a stop command failed; it is kept on record
    COMMAND_OUTPUT = "command_output"  # a line that a command printed

    FIREWALLD = "firewalld"  # started, stopped, hangs, was reloaded, refuses
    INTERFACE = "interface"  # appeared, disappeared
    LOST = "lost"  # lines that the log's reader did not take in time
    MESSAGE = "message"  # anything else


def event_fields(event: LogEvent, **fields: object) -> dict[str, Any]:
    """The `extra` of a log call: the event and its fields (`address`, `sequence`, `stage`, `reason`, …)."""
    return {"about": (event, fields)}


def as_data(record: logging.LogRecord) -> dict[str, Any]:
    """The record as a JSON object; its time is UTC (RFC 3339)."""
    event, fields = getattr(record, "about", (LogEvent.MESSAGE, {}))
    if record.exc_info:
        fields = {**fields, "traceback": logging.Formatter().formatException(record.exc_info)}
    when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
    return {
        "time": when.replace("+00:00", "Z"),
        "event": event.value,
        "level": record.levelname.lower(),
        **{name: _plain(value) for name, value in fields.items() if value is not None},
        "message": record.getMessage().replace("\n", " "),
    }


def _plain(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value)


class _JournalFormatter(logging.Formatter):
    """`<N>text`: the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_priority(record)}{escaped(super().format(record))}"


class _TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, behind the journal's priority where standard error is the journal."""

    def __init__(self, for_journal: bool) -> None:
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        return f"{_priority(record) if self._for_journal else ''}{json.dumps(as_data(record))}"


def set_up(verbose: bool, environ: Mapping[str, str] = os.environ, *, as_json: bool = False) -> None:
    """Send the log to standard error; `verbose` adds single knocks, never their ports."""
    handler = _BackgroundHandler()
    for_journal = "JOURNAL_STREAM" in environ
    if as_json:
        handler.setFormatter(_JsonFormatter(for_journal))
    elif for_journal:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(_TerminalFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)  # a mirror gets more
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.raiseExceptions = False  # a log that cannot be written must cause no traceback
    logger.setLevel(handler.level)


class _BackgroundHandler(logging.Handler):
    """Standard error, through a thread that may wait for the reader."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = -1 if sys.stderr is None else sys.stderr.fileno()
        self._writer = BackgroundWriter(self._lost)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(self._write(record))
        except Exception:  # a line that cannot be written ends nothing
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> Callable[[], None]:
        return partial(background_writer.write_all, self.descriptor, self._octets(record))

    def _octets(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _lost(self, number: int) -> Callable[[], None]:
        text = "%d lines of the log lost: its reader did not take them in time"
        record = logger.makeRecord(
            logger.name, logging.WARNING, "", 0, text, (number,), None, extra=_lost_fields(number)
        )
        return self._write(record)


def _lost_fields(number: int) -> dict[str, Any]:
    return event_fields(LogEvent.LOST, count=number)


def flush() -> bool:
    """Wait a moment for the log's reader; whether it took every line."""
    return background_writer.flush_all()


atexit.register(flush)


def descriptors() -> set[int]:
    """What the log is written to: a fork that closes the others can still log."""
    return {number for handler in logging.getLogger().handlers if (number := getattr(handler, "descriptor", -1)) >= 0}


def forget_mirrors() -> None:
    """After a fork: who receives the events is the parent's."""
    for handler in [one for one in logger.handlers if isinstance(one, _MirrorHandler)]:
        logger.removeHandler(handler)
        logger.setLevel(handler.level_before)


def is_json() -> bool:
    """Whether the log is JSON."""
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.getLogger().handlers)


@contextmanager
def mirrored(receive: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """While this lasts, `receive` gets every event too, single knocks included; it must not log."""
    others = [handler for handler in logger.handlers if isinstance(handler, _MirrorHandler)]
    mirror = _MirrorHandler(receive, others[0].level_before if others else logger.level)
    logger.addHandler(mirror)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(mirror)
        if not any(isinstance(handler, _MirrorHandler) for handler in logger.handlers):
            logger.setLevel(mirror.level_before)


class _MirrorHandler(logging.Handler):
    def __init__(self, receive: Callable[[dict[str, Any]], None], level_before: int) -> None:
        super().__init__(logging.DEBUG)
        self._receive = receive
        self.level_before = level_before
        """The logger's level without any mirror."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._receive(as_data(record))
        except Exception:  # as above
            self.handleError(record)


def _priority(record: logging.LogRecord) -> str:
    return f"<{_SYSLOG_PRIORITY.get(record.levelno, 6)}>"


def to_syslog(identity: str, path: str | None = None) -> None:
    """Send the log to syslog(3) instead, as `identity`; lines that it does not accept at once are lost."""
    handler = _SyslogHandler(Syslog(f"{identity}[{os.getpid()}]", path=path))
    handler.setFormatter(_TerminalFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class Syslog:
    """A client of the system's log that never waits, as `logging.handlers.SysLogHandler` and syslog(3) do."""

    def __init__(self, identity: str, facility: int = LOG_DAEMON, path: str | None = None) -> None:
        self._head = f"{identity}: "
        self._facility = facility
        self._path = path or SYSLOG
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.descriptor = self._socket.fileno()

    def send(self, priority: int, text: str) -> None:
        """Send one line, or lose it if that would block. `priority`: 0 to 7 (syslog(3))."""
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
        self.descriptor = syslog.descriptor

    def emit(self, record: logging.LogRecord) -> None:
        self._syslog.send(_SYSLOG_PRIORITY.get(record.levelno, 6), self.format(record))

    def close(self) -> None:
        self._syslog.close()
        super().close()
