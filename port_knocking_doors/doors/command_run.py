"""One start or stop command from its start to its end, and what it prints.

What a command prints where this process has to read it (`system.command_output`) becomes lines of the log, bounded:
`LINES` for each command, and all commands together `BURST` in `PERIOD` seconds.
"""

import asyncio
from contextlib import suppress
from typing import NamedTuple

from port_knocking_doors.doors.pending import StopRecord
from port_knocking_doors.model import Door
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.command_output import CommandOutput
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.rate_limit import RateLimit
from port_knocking_doors.system.shell_command import ProcessIdentity, ShellCommand

LINES = 20
"""Lines of one command's output that are logged; the others are counted."""
BURST, PERIOD = 50, 10.0
"""Lines of all commands' output that are logged in so many seconds."""

REPORTS = 10
"""Lines about stop commands on record in so many seconds."""

PLACES = 256
"""Stop commands on record that run at the same time: each has two descriptors, of a usual limit of 1,024."""

_SOON, _LATER = 0.05, 1.0
"""Seconds between two looks at what a command printed, first and later."""
_CHUNKS = 16
"""Readings at one look."""


class CommandName(NamedTuple):
    """Which command it is, for the log."""

    address: str
    sequence: str
    which: str
    """`start` or `stop`."""

    @classmethod
    def of(cls, door: Door, which: str) -> "CommandName":
        """The door's start or stop command."""
        return cls(str(door.address), door.access, which)

    def __str__(self) -> str:
        return f"{self.address}: {self.sequence}: {self.which} command"

    def fields(self, event: LogEvent, **more: object) -> dict[str, object]:
        """The `extra` of a log call."""
        return event_fields(event, address=self.address, sequence=self.sequence, command=self.which, **more)


class CommandRuns:
    """Runs commands, and logs what they print."""

    def __init__(self) -> None:
        self._limit = RateLimit(BURST, PERIOD)
        self._relays: dict[asyncio.Task[None], _OutputLog] = {}
        self._reports = RateLimit(REPORTS, PERIOD)
        self.places = asyncio.Semaphore(PLACES)
        """For stop commands on record."""
        self.turns = asyncio.Lock()
        """One of them is started in each turn of the loop: rules are removed between the starts of a thousand."""

    def begin(self, name: CommandName, line: str, record: StopRecord | None = None) -> "CommandRun":
        """Start a command. `record`: where its process is noted first; a stop command that works removes it.

        A stop command runs also where its process cannot be noted. Raises `OSError`, and `ValueError` for a zero byte:
        then nothing was started.
        """
        with CommandOutput() as output:
            is_stop = record is not None and name.which == "stop"
            command = ShellCommand(line, output, record.path if record is not None and is_stop else None)
            if record is not None:
                record = _noted(record, command.identity, is_stop=is_stop)
                try:
                    record.save()
                except OSError:
                    if not is_stop:  # a full disk must keep no door open
                        command.give_up()
                        raise
            command.go()
            log = _OutputLog(name, output.handed_over(), self._limit) if output.is_read else None
        if log is not None:
            relay = asyncio.create_task(log.follow())
            self._relays[relay] = log
            relay.add_done_callback(lambda done: self._relays.pop(done, None))
        return CommandRun(command, log, record)

    def report(self, level: int, text: str, record: StopRecord, event: LogEvent, **fields: object) -> None:
        """Log what became of a stop command on record; of many at once a number."""
        if more := self._reports.summary(now()):
            logger.warning("%d more lines about stop commands on record", more)
        if self._reports.admits(now()):
            extra = CommandName(record.address, record.sequence, "stop").fields(event, **fields)
            logger.log(level, "%s: %s: %s", record.address, record.sequence, text, extra=extra)

    def end(self) -> None:
        """Log what was printed so far; what commands print from now on is lost."""
        for relay, log in list(self._relays.items()):
            log.finish()
            relay.cancel()
        self._relays.clear()


class CommandRun:
    """A command that runs; `record` is the record with its process noted."""

    def __init__(self, command: ShellCommand, log: "_OutputLog | None", record: StopRecord | None) -> None:
        self._command = command
        self._log = log
        self.record = record

    async def ended(self) -> int:
        """Wait for its end; its exit status. A cancellation leaves it alone."""
        status = await self._command.ended()
        if self._log is not None:
            self._log.look()  # before the line that says how it ended
        return status


class _OutputLog:
    """Logs what one command prints."""

    def __init__(self, name: CommandName, output: CommandOutput, limit: RateLimit) -> None:
        self._name = name
        self._output = output
        self._limit = limit
        self._logged = 0
        self._withheld = 0

    async def follow(self) -> None:
        """Read until no process is left that could print."""
        pause = _SOON
        try:
            while self._output.is_read:
                self.look()
                await asyncio.sleep(pause)
                pause = min(_LATER, 2 * pause) if not self._output.was_emptied() else _SOON
        finally:
            self.finish()

    def read(self) -> None:
        """Log the lines so far."""
        for _ in range(_CHUNKS):  # not without end: a command may print faster than this is read
            if not self._output.is_read or not (lines := self._output.new_lines()):
                return
            self._log(lines)

    def look(self) -> None:
        """Log the lines so far, and the rest where no process is left that could print more."""
        if self._output.is_read:
            is_over = self._output.is_over()  # before the last reading
            self.read()
            if is_over:
                self.finish()

    def finish(self) -> None:
        """Log the rest, and read no more."""
        if not self._output.is_read:
            return
        with suppress(OSError):
            self.read()
            self._log(self._output.last_line())
        self._output.close()
        if self._withheld and self._limit.admits(now()):
            logger.info("%s printed %d more lines", self._name, self._withheld)

    def _log(self, lines: list[str]) -> None:
        self._limit.summary(now())  # so that the next period begins; the commands count for themselves
        for line in lines:
            if self._logged < LINES and self._limit.admits(now()):
                self._logged += 1
                extra = self._name.fields(LogEvent.COMMAND_OUTPUT, text=line)
                logger.info("%s printed: %s", self._name, line, extra=extra)
            else:
                self._withheld += 1


def _noted(record: StopRecord, process: ProcessIdentity, *, is_stop: bool) -> StopRecord:
    return record._replace(stop_process=process) if is_stop else record._replace(start_process=process)
