"""Doors that are commands: a shell runs the one that opens at once, and the one that closes at the deadline.

A stop command is on record in the runtime directory (`pending`) before its door is opened, and until it has worked. If
it fails it is tried again (`owed_stops`). After a crash of the daemon, a closer (`sweep`) or the next daemon runs what
is on record. A stop command may run twice, if the daemon was killed while it ran, but it always runs.

No text that a knocker chose reaches the shell: %IP% becomes the text of an address. As with knockd, no command is ever
killed: half a command may be worse than a slow one.
"""

import asyncio
import math
from pathlib import Path

from port_knocking_doors.doors import owed_stops, pending
from port_knocking_doors.doors.command_run import CommandName, CommandRuns
from port_knocking_doors.doors.opener import DoorListener
from port_knocking_doors.doors.owed_stops import OwedStops
from port_knocking_doors.doors.pending import StopRecord
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.events import CommandEnded, CommandStarted, EventStream
from port_knocking_doors.model import Access, Address, CommandOpening, Door
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.instance import pending_directory
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.rate_limit import RateLimit

PLACES = 16
"""Start commands that run at the same time, and as many stop commands; more wait. Apart, so that hung start commands
delay no stop command."""

QUEUE = 1024
"""Start commands that wait at the most; more are refused."""

FAREWELL = 10.0
"""Seconds that the end of the daemon gives start and stop commands."""

MOMENT = 1.0
"""Seconds that the end of the daemon gives start commands that no stop command follows."""

ENDED_MAX, ENDED_PERIOD = 200, 10.0
"""Lines about commands that have ended in so many seconds: an attacker who knows a sequence can start them."""

QUIET = 60.0
"""Seconds between two log lines about start commands that wait for others to end."""


def command_line(command: str, address: Address) -> str:
    """The command with every %IP% replaced by the address."""
    return command.replace("%IP%", str(address))


def _has_stop(door: Door) -> bool:
    return _commands_of(door).stop_for(door.address) != ""


def _commands_of(door: Door) -> CommandOpening:
    assert isinstance(door.opening, CommandOpening)
    return door.opening


class CommandRunner:
    """Opens and closes doors by commands (`doors.opener`). `priority`: the mark, whose lock the caller holds."""

    is_available = True
    uses_interface = False
    counts_from_open = True

    def __init__(self, priority: int, events: EventStream) -> None:
        self.listener: DoorListener
        self._priority = priority
        self._events = events
        self._directory = Path()
        self._start_places = asyncio.Semaphore(PLACES)
        self._stop_places = asyncio.Semaphore(PLACES)
        self._waiting = 0
        self._refused = RateLimit(burst=5, period=10.0)
        self._ended = RateLimit(ENDED_MAX, ENDED_PERIOD)
        self._warned_at = -math.inf
        # One task for each door, from its start command to the end of its stop command, and the event that ends it.
        self._lives: dict[Door, asyncio.Task[None]] = {}
        self._closing: dict[Door, asyncio.Event] = {}
        self._runs = CommandRuns()
        self._owed = OwedStops(self._runs)
        self._started: set[Door] = set()
        """The doors of `_closing` whose start command has ended."""

    def start(self) -> None:
        """Begin to run the stop commands that dead daemons left on record, of any mark. Raises `DoorsError`."""
        self._directory = pending_directory(self._priority)
        pending.adopt(self._directory, self._priority)
        self._owed.add_left_behind(self._directory)

    def denial(self, door: Door) -> str:  # noqa: ARG002 the protocol has it
        """Every address may run its command: what it may do is the command's business."""
        return ""

    def stays_open(self, door: Door) -> bool:
        """Whether the door has a stop command. Without one, the start command runs at each request."""
        return _has_stop(door)

    def seconds(self, door: Door, access: Access) -> float:  # noqa: ARG002 the commands have a delay of their own
        """The delay from the end of the start command to the stop command."""
        return _commands_of(door).delay

    async def settled(self) -> None:
        """Return once what an earlier daemon left on record was tried. Other commands have no time limit."""
        await self._owed.tried_once()

    def open(self, door: Door) -> None:
        """Run the door's start command, as soon as a place is free, and after all earlier commands of this door."""
        if self._waiting >= QUEUE:
            if more := self._refused.summary(now()):
                logger.error("%d more start commands not run", more)
            if self._refused.admits(now()):
                extra = _about(LogEvent.COMMAND_REFUSED, door, reason="too many commands wait")
                text = "%s: %s: not started, %d commands wait already"
                logger.error(text, door.address, door.access, QUEUE, extra=extra)
            self.listener.on_failed(door)
            return
        self._waiting += 1
        closing = asyncio.Event()
        life = asyncio.create_task(self._live(door, closing, self._lives.get(door)))
        self._lives[door] = life
        self._closing[door] = closing
        life.add_done_callback(lambda _: self._forget(door, life, closing))

    def prolong(self, door: Door) -> None:
        """Do nothing: no command waits behind another door's."""

    def close(self, door: Door) -> None:
        """Run the door's stop command, once its start command has ended."""
        if closing := self._closing.pop(door, None):
            closing.set()
        if door in self._started:
            self._started.discard(door)
            self.listener.on_closed(door)

    def _forget(self, door: Door, life: "asyncio.Task[None]", closing: asyncio.Event) -> None:
        if self._lives.get(door) is life:
            del self._lives[door]
        if self._closing.get(door) is closing:
            del self._closing[door]
            self._started.discard(door)

    async def close_all(self, timeout: float = FAREWELL) -> None:
        """Run every door's stop command. Raises `DoorsError` if some have not ended `timeout` seconds later, or have
        failed: these stay on record.

        A start command without a stop command gets `MOMENT` seconds, and then runs on without the daemon.
        """
        self._started.clear()  # the end of the daemon is no event of a single door
        for door in list(self._closing):
            self.close(door)
        lives = set(self._lives.values())
        to_stop = {life for door, life in self._lives.items() if _has_stop(door)}
        deadline = now() + timeout
        for those, moment in ((lives, min(timeout, MOMENT)), (to_stop, max(0.0, timeout - MOMENT))):
            if those:
                await asyncio.wait(those, timeout=moment)
        unfinished = {life for life in lives if not life.done()}
        for life in unfinished:
            life.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        failed = await self._owed.end(max(0.0, deadline - now()))
        self._runs.end()
        self._report_more_ends()
        if unstopped := len(unfinished & to_stop):
            raise DoorsError(f"{unstopped} stop commands have not ended; a helper process runs them again")
        if failed:
            raise DoorsError(
                f"{failed} stop commands failed; a helper process runs them again, and the next start "
                f"(`port-knocking-doors sweep --forget` drops them)"
            )

    async def _live(self, door: Door, closing: asyncio.Event, before: "asyncio.Task[None] | None") -> None:
        """The door's life, from its start command to the end of its stop command."""
        commands = _commands_of(door)
        start = command_line(commands.start_for(door.address), door.address)
        stop = command_line(commands.stop_for(door.address), door.address)
        owed: list[StopRecord] = []
        record = None
        try:
            if before is not None:
                await asyncio.wait({before})
            if self._start_places.locked():
                self._warn_that_one_waits(door)
            async with self._start_places:
                if stop:
                    owed = await self._owed.take(stop)
                    record = self._remember(door, stop)
                if start:
                    record, _ = await self._run(CommandName.of(door, "start"), door, start, record)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in it
            # A door that could not be closed after a crash is not opened.
            extra = _about(LogEvent.COMMAND_REFUSED, door, command="start", reason=error)
            logger.error("%s: %s: start command not run: %s", door.address, door.access, error, extra=extra)
            if record is not None:
                record.remove()
            self._owed.add(owed)
            self.listener.on_failed(door)
            return
        finally:
            self._waiting -= 1
        if record is None:
            return
        self._report_open(door, closing)
        await closing.wait()
        async with self._stop_places:
            await self._stop(door, record, owed)

    def _remember(self, door: Door, stop: str) -> StopRecord:
        if len(self._owed) >= QUEUE:
            raise OSError(f"{QUEUE} stop commands have failed; see `port-knocking-doors sweep --forget`")
        return pending.remember(self._directory, door, stop)

    async def _stop(self, door: Door, record: StopRecord, owed: list[StopRecord]) -> None:
        """Run the stop command. If it fails it is owed, and so is what this door owed before it was opened again."""
        name = CommandName.of(door, "stop")
        try:
            noted, status = await self._run(name, door, record.stop, record)
        except OSError as error:
            text = f"it is tried again every {owed_stops.RETRY:g} s"
            logger.error(
                "%s not run, %s: %s", name, text, error, extra=name.fields(LogEvent.COMMAND_REFUSED, reason=error)
            )
            self._owed.add([*owed, record], (owed_stops.RETRY, *owed_stops.PAUSES))
        except ValueError as error:
            logger.error("%s not run: %s", name, error, extra=name.fields(LogEvent.COMMAND_REFUSED, reason=error))
        else:
            assert noted is not None
            if status == 0:
                noted.remove()
                self._owed.add(owed, (0.0, *owed_stops.PAUSES))
            elif again := owed_stops.failed(noted, status):
                self._owed.add([*owed, again])

    def _report_open(self, door: Door, closing: asyncio.Event) -> None:
        if self._closing.get(door) is closing:
            self._started.add(door)
            self.listener.on_open(door, ())
        elif door not in self._closing:  # it was closed before its start command had ended
            self.listener.on_open(door, ())
            self.listener.on_closed(door)

    def _warn_that_one_waits(self, door: Door) -> None:
        if now() - self._warned_at >= QUIET:
            self._warned_at = now()
            text = "%s: %s: start command waits, %d run already and have not ended"
            logger.warning(text, door.address, door.access, PLACES)

    async def _run(
        self, name: CommandName, door: Door, line: str, record: StopRecord | None
    ) -> tuple[StopRecord | None, int]:
        """Run one command to its end; the record as it is now, and the exit status. Raises `OSError`, `ValueError`."""
        run = self._runs.begin(name, line, record)
        logger.debug("%s: %s: running the %s command", *name, extra=name.fields(LogEvent.COMMAND_STARTED))
        self._events.publish(CommandStarted(door, line))
        status = await run.ended()
        self._events.publish(CommandEnded(door, status))
        self._report_end(name, status)
        return run.record, status

    def _report_end(self, name: CommandName, status: int) -> None:
        self._report_more_ends()
        if self._ended.admits(now()):
            again = ", it is tried again" if name.which == "stop" and status else ""
            report = logger.info if status == 0 else logger.warning
            extra = name.fields(LogEvent.COMMAND_ENDED, status=status)
            report("%s ended with status %d%s", name, status, again, extra=extra)

    def _report_more_ends(self) -> None:
        if more := self._ended.summary(now()):
            extra = event_fields(LogEvent.MORE, of=LogEvent.COMMAND_ENDED.value, count=more)
            logger.info("%d more commands ended", more, extra=extra)


def _about(event: LogEvent, door: Door, **more: object) -> dict[str, object]:
    return event_fields(event, address=door.address, sequence=door.access, **more)
