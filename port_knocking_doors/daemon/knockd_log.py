"""knockd's log, line by line as its watchers know it: to a file, to syslog, and to standard output with `--verbose`.

With `--lookup` the host's name follows an address. One thread resolves names, and another writes: a hung resolver or
disk delays log lines, and nothing else. If the log cannot be written, doors open all the same. An
attacker who knows a sequence could cause lines without a bound: each kind has a limit in each period, and then a sum.
"""

import os
import queue
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address

from port_knocking_doors import events
from port_knocking_doors.model import Address
from port_knocking_doors.system.background_writer import BackgroundWriter, write_all
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.log import LOG_NOTICE, LOG_USER, Syslog, logger
from port_knocking_doors.system.printable import escaped
from port_knocking_doors.system.rate_limit import RateLimit

_ODD = "backslashreplace"
LINES_MAX, LINES_PERIOD = 200, 10.0
"""Lines of one kind in so many seconds, at most. Stages have a limit of their own (`knock_handler`)."""
WAITING_MAX = 1000
"""Lines that wait for a name; those beyond get none."""
QUEUE_MAX = 2000
"""Lines that wait at all; those beyond are written at once, ahead of them."""
NAMES_MAX = 1024
"""Addresses whose names are remembered."""
FAREWELL = 2.0
"""Seconds that the last lines wait for their names."""


class KnockdLog:
    """A context manager. `file`: the log file's path, empty for none. `config`: that of the configuration."""

    def __init__(
        self, file: str = "", *, config: str = "", syslog: bool = False, verbose: bool = False, lookup: bool = False
    ) -> None:
        self._path = file
        self._uses_syslog = syslog
        self._config = config
        self._file = -1
        self._syslog = Syslog("knockd", LOG_USER)
        self._verbose = verbose and sys.stdout is not None
        # Also opening a file can hang with its disk.
        self._writer = BackgroundWriter(self._lost)
        self._lookup = _Lookup(self._write) if lookup else None
        self._limits = {kind: RateLimit(LINES_MAX, LINES_PERIOD) for kind in _LIMITED}

    def __enter__(self) -> "KnockdLog":
        self._writer.put(partial(self._open, self._path))
        return self

    def __exit__(self, *_: object) -> None:
        if self._lookup is not None:
            self._lookup.close()
        if self._writer.flush():
            self._close()
        self._syslog.close()

    def next_deadline(self) -> float | None:
        """When the next sum is due."""
        return min((due for one in self._limits.values() if (due := one.next_deadline()) is not None), default=None)

    def sum_up(self, when: float) -> None:
        """Write the sums that are due."""
        for kind, limit in self._limits.items():
            if more := limit.summary(when):
                self._write_event(None, f"{more} more lines: {_LIMITED[kind]}")

    # In the writer's thread. -----------------------------------------------------------------------------------------

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _reopen(self, path: str) -> None:
        self._close()
        self._open(path)

    def _open(self, path: str) -> None:
        if not path:
            return
        try:
            # Readable by owner and group alone, since it has addresses of knockers; knockd leaves this to the umask.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o640)
        except OSError as error:
            why = f"({error.strerror}): it is tried again at SIGHUP"
            logger.warning("%s: the log file cannot be opened %s", path, why)

    def _put_out(self, when: time.struct_time, text: str, shown: str | None) -> None:
        if self._file >= 0:
            with suppress(OSError):  # a full disk
                line = f"[{time.strftime('%Y-%m-%d %H:%M', when)}] {text}\n"
                write_all(self._file, line.encode(errors=_ODD))
        if self._verbose and shown != "":
            try:
                write_all(sys.stdout.fileno(), f"{shown or text}\n".encode(errors=_ODD))
            except OSError:
                self._verbose = False

    # In the daemon's. ------------------------------------------------------------------------------------------------

    def use(self, file: str, *, syslog: bool) -> None:
        """Write to this file, empty for none, once it is opened again; and to syslog, too, or not."""
        self._path = file
        self._uses_syslog = syslog

    # Events. ---------------------------------------------------------------------------------------------------------

    def handlers(self) -> events.Handlers:
        """Every kind of event that knockd's log has a line for."""
        return {
            events.Ready: self._on_ready,
            events.SequenceAdvanced: self._on_advanced,
            events.SequenceCompleted: self._on_completed,
            events.SequenceTimedOut: self._on_timed_out,
            events.SequenceDisabled: self._on_disabled,
            events.LineNotMarked: self._on_not_marked,
            events.CommandStarted: self._on_command_started,
            events.CommandEnded: self._on_command_ended,
            events.DoorClosed: self._on_door_closed,
            events.Reloaded: self._on_reload,
            events.ReloadFailed: self._on_reload,
            events.Stopped: self._on_stopped,
        }

    def _on_ready(self, event: events.Ready) -> None:
        where = f"listening on {', '.join(event.interfaces) or 'any'}"
        self._write_event(None, f"starting up, {where}", shown=f"{where}...")

    def _on_advanced(self, event: events.SequenceAdvanced) -> None:
        self._write_event(ip_address(event.source), f"{event.sequence.name}: Stage {event.stage}")

    def _on_completed(self, event: events.SequenceCompleted) -> None:
        if self._admits(event):
            self._write_event(ip_address(event.source), f"{event.sequence.name}: OPEN SESAME")

    def _on_timed_out(self, event: events.SequenceTimedOut) -> None:
        text = f"{event.sequence.name}: sequence timeout (stage {event.stage})"
        if self._admits(event):
            self._write_event(ip_address(event.source), text)

    def _on_disabled(self, event: events.SequenceDisabled) -> None:
        door = event.sequence.name
        text = f"no more sequences left in the one time sequences file for door {door} --> disabling the door"
        self._write_event(None, text)

    def _on_not_marked(self, event: events.LineNotMarked) -> None:
        door = event.sequence.name
        text = f"error while disabling used one time sequence for door {door} --> disabling the door"
        self._write_event(None, text)

    def _on_command_started(self, event: events.CommandStarted) -> None:
        if self._admits(event):
            self._write_event(None, f"{event.door.access}: running command: {event.line}")

    def _on_command_ended(self, event: events.CommandEnded) -> None:
        if event.status and self._admits(event):
            self._write_event(None, f"{event.door.access}: command returned non-zero status code ({event.status})")

    def _on_door_closed(self, event: events.DoorClosed) -> None:
        if self._admits(event):
            self._write_event(event.door.address, f"{event.door.access}: command timeout")

    def _on_reload(self, _: object) -> None:
        config = f": {self._config}" if self._config else ""
        self._write_event(None, f"re-reading config file{config}")
        self._writer.put(partial(self._reopen, self._path))

    def _on_stopped(self, _: events.Stopped) -> None:
        self._write_event(None, "shutting down", shown="")

    # Output. ---------------------------------------------------------------------------------------------------------

    def _admits(self, event: object) -> bool:
        """Whether this line is written. An attacker who knows a sequence can cause lines as fast as packets arrive."""
        limit, when = self._limits[type(event)], now()
        if more := limit.summary(when):
            self._write_event(None, f"{more} more lines: {_LIMITED[type(event)]}")
        return limit.admits(when)

    def _write_event(self, address: Address | None, text: str, shown: str | None = None) -> None:
        """`shown`: the text for standard output, if it differs."""
        when = time.localtime()
        if self._lookup is not None:
            self._lookup.put(when, address, text, shown)
        else:
            self._write(when, f"{address}: {text}" if address is not None else text, shown)

    def _write(self, when: time.struct_time, text: str, shown: str | None) -> None:
        text = escaped(text)
        self._writer.put(partial(self._put_out, when, text, shown))
        if self._uses_syslog:
            self._syslog.send(LOG_NOTICE, text)

    def _lost(self, number: int) -> Callable[[], None]:
        text = f"{number} lines lost: the log did not take them in time"
        return partial(self._put_out, time.localtime(), text, None)


_LIMITED = {
    events.SequenceCompleted: "OPEN SESAME",
    events.SequenceTimedOut: "sequence timeout",
    events.CommandStarted: "running command",
    events.CommandEnded: "command returned non-zero status code",
    events.DoorClosed: "command timeout",
}
"""What an attacker who knows a sequence can cause, and how its line begins."""

_Line = tuple[time.struct_time, Address | None, str, str | None]


class _Lookup:
    """Adds names to addresses in one thread, so that lines keep their order."""

    def __init__(self, write: Callable[[time.struct_time, str, str | None], None]) -> None:
        self._write_line = write
        self._lines: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self._names: OrderedDict[Address, str] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name="lookup", daemon=True)
        self._started = False
        self._lock = threading.Lock()
        self._closed = False

    def put(self, when: time.struct_time, address: Address | None, text: str, shown: str | None) -> None:
        if self._lines.qsize() >= QUEUE_MAX:
            self._write_out((when, address, text, shown), "")
            return
        if not self._started:  # not earlier: a daemon forks before its first line
            self._started = True
            self._thread.start()
        self._lines.put((when, address, text, shown))

    def close(self) -> None:
        """Write the remaining lines, without the names that take too long."""
        if not self._started:
            return
        self._lines.put(None)
        self._thread.join(FAREWELL)
        with self._lock:
            self._closed = True
            while not self._lines.empty():
                if (line := self._lines.get()) is not None:
                    self._write_out(line, "")

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            name = ""
            if line[1] is not None and self._lines.qsize() < WAITING_MAX:
                name = self._name_of(line[1])
            with self._lock:
                self._write_out(line, name)
                if self._closed:
                    return

    def _write_out(self, line: _Line, name: str) -> None:
        when, address, text, shown = line
        if address is not None:
            text = f"{address} ({name}): {text}" if name else f"{address}: {text}"
        self._write_line(when, text, shown)

    def _name_of(self, address: Address) -> str:
        if address not in self._names:
            try:
                # Not getnameinfo: Debian 12's Python 3.11.2 holds its global lock meanwhile, and so the daemon.
                name = socket.gethostbyaddr(str(address))[0]
            except OSError:
                name = ""
            # The name server of that address chooses it: accepted is only what a host name may be.
            is_name = name.isascii() and name.replace("-", "").replace(".", "").replace("_", "").isalnum()
            self._names[address] = name if is_name else ""
            if len(self._names) > NAMES_MAX:
                self._names.popitem(last=False)
        return self._names[address]
