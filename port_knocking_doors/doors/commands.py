"""Doors that are commands: a shell runs the one that opens at once, and the one that closes at the deadline.

A stop command is recorded in the runtime directory before its door is opened, and removed once the door is closed.
After a crash of the daemon, a closer (`sweep`) or the next daemon runs the recorded commands. A stop command may run
twice, if the daemon was killed while it ran, but it always runs.

No text that a knocker chose reaches the shell: %IP% becomes the text of an address. As with knockd, no command is ever
killed: half a command may be worse than a slow one.
"""

import asyncio
import fcntl
import json
import math
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from port_knocking_doors.doors.opener import DoorListener
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.events import CommandEnded, CommandStarted, EventStream
from port_knocking_doors.model import Access, Address, CommandOpening, Door
from port_knocking_doors.system import instance
from port_knocking_doors.system.clock import now, readable
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.rate_limit import RateLimit
from port_knocking_doors.system.sd_notify import report_wait

PLACES = 16
"""Start commands that run at the same time, and as many stop commands; more wait. Apart, so that hung start commands
delay no stop command."""

QUEUE = 1024
"""Start commands that wait at the most; more are refused."""

PATIENCE = 5.0
"""Seconds that a closer gives the start commands that outlived their daemon, and then its own stop commands."""

FAREWELL = 10.0
"""Seconds that the end of the daemon gives start and stop commands."""

MOMENT = 1.0
"""Seconds that the end of the daemon gives start commands that no stop command follows."""

RETRY = 1.0
"""Seconds between two tries of a stop command that cannot be started."""

QUIET = 60.0
"""Seconds between two log lines about start commands that wait for others to end."""

_SHELL = "/bin/sh"
_RECORD, _DRAFT = ".json", ".draft"
_PAUSE = 0.02
# The daemon's own variables, one of which is a secret.
_WITHHELD = frozenset({"KNOCKER_SEQ", "KNOCKER_PORTS", "NOTIFY_SOCKET", "JOURNAL_STREAM"})


def command_line(command: str, address: Address) -> str:
    """The command with every %IP% replaced by the address."""
    return command.replace("%IP%", str(address))


def pending_directory(priority: int) -> Path:
    """The directory in which the stop commands of the daemon with this mark are remembered. Raises `DoorsError`."""
    return instance.runtime_directory() / f"pending-{priority}"


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
        self._warned_at = -math.inf
        # One task for each door, from its start command to the end of its stop command, and the event that ends it.
        self._lives: dict[Door, asyncio.Task[None]] = {}
        self._closing: dict[Door, asyncio.Event] = {}
        self._started: set[Door] = set()
        """The doors of `_closing` whose start command has ended."""

    def start(self) -> None:
        """Run the recorded stop commands of an earlier daemon. Raises `DoorsError`."""
        self._directory = pending_directory(self._priority)
        if any(self._directory.glob(f"*{_RECORD}")):
            report_wait("running stop commands that an earlier daemon left behind", 4 * PATIENCE)
        run_pending(self._directory)

    def stays_open(self, door: Door) -> bool:
        """Whether the door has a stop command. Without one, the start command runs at each request."""
        return _has_stop(door)

    def seconds(self, door: Door, access: Access) -> float:  # noqa: ARG002 the commands have a delay of their own
        """The delay from the end of the start command to the stop command."""
        return _commands_of(door).delay

    async def settled(self) -> None:
        """Return at once: commands have no time limit."""

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
        """Run every door's stop command. Raises `DoorsError` if some have not ended `timeout` seconds later: these
        stay on record.

        A start command without a stop command gets `MOMENT` seconds, and then runs on without the daemon.
        """
        self._started.clear()  # the end of the daemon is no event of a single door
        for door in list(self._closing):
            self.close(door)
        lives = set(self._lives.values())
        to_stop = {life for door, life in self._lives.items() if _has_stop(door)}
        for those, moment in ((lives, min(timeout, MOMENT)), (to_stop, max(0.0, timeout - MOMENT))):
            if those:
                await asyncio.wait(those, timeout=moment)
        unfinished = {life for life in lives if not life.done()}
        for life in unfinished:
            life.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        if unstopped := len(unfinished & to_stop):
            raise DoorsError(f"{unstopped} stop commands have not ended; a helper process runs them again")

    async def _live(self, door: Door, closing: asyncio.Event, before: "asyncio.Task[None] | None") -> None:
        commands = _commands_of(door)
        start = command_line(commands.start_for(door.address), door.address)
        stop = command_line(commands.stop_for(door.address), door.address)
        record = None
        try:
            if before is not None:
                await asyncio.wait({before})
            if self._start_places.locked():
                self._warn_that_one_waits(door)
            async with self._start_places:
                record = _remember(self._directory, door, stop) if stop else None
                if start:
                    await self._run(door, "start", start, record)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in it
            # A door that could not be closed after a crash is not opened.
            extra = _about(LogEvent.COMMAND_REFUSED, door, command="start", reason=error)
            logger.error("%s: %s: start command not run: %s", door.address, door.access, error, extra=extra)
            if record is not None:
                record.unlink(missing_ok=True)
            self.listener.on_failed(door)
            return
        finally:
            self._waiting -= 1
        if record is None:
            return
        self._report_open(door, closing)
        await closing.wait()
        async with self._stop_places:
            if await self._run_stop(door, stop):
                record.unlink(missing_ok=True)

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

    async def _run_stop(self, door: Door, line: str) -> bool:
        """Run the stop command, and try again until it can be started; False if it can never be started."""
        reported = False
        while True:
            is_hopeless = False
            try:
                await self._run(door, "stop", line)
                return True
            except (OSError, ValueError) as error:
                is_hopeless = isinstance(error, ValueError)
                if not reported:
                    extra = _about(LogEvent.COMMAND_REFUSED, door, command="stop", reason=error)
                    text = "%s: %s: stop command not run%s: %s"
                    again = "" if is_hopeless else f", it is tried again every {RETRY:g} s"
                    logger.error(text, door.address, door.access, again, error, extra=extra)
                    reported = True
            if is_hopeless:
                return False
            await asyncio.sleep(RETRY)

    async def _run(self, door: Door, which: str, line: str, record: Path | None = None) -> None:
        """Run one command to its end. The record stays locked while the command runs: a closer waits for that."""
        lock = _lock(record) if record is not None else -1
        try:
            process = subprocess.Popen(
                [_SHELL, "-c", line],
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard error, as the log
                env=_environment(),
                start_new_session=True,
                pass_fds=(lock,) if lock >= 0 else (),
            )
        finally:
            if lock >= 0:
                os.close(lock)
        extra = _about(LogEvent.COMMAND_STARTED, door, command=which)
        logger.debug("%s: %s: running the %s command", door.address, door.access, which, extra=extra)
        self._events.publish(CommandStarted(door, line))
        status = await _end_of(process)
        self._events.publish(CommandEnded(door, status))
        report = logger.info if status == 0 else logger.warning
        extra = _about(LogEvent.COMMAND_ENDED, door, command=which, status=status)
        report("%s: %s: %s command ended with status %d", door.address, door.access, which, status, extra=extra)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _WITHHELD}


def _about(event: LogEvent, door: Door, **more: object) -> dict[str, object]:
    return event_fields(event, address=door.address, sequence=door.access, **more)


async def _end_of(process: "subprocess.Popen[bytes]") -> int:
    """The exit status. asyncio's own subprocesses are killed when no task waits for them any more; these run on."""
    try:
        with suppress(OSError), _handle_of(process) as handle:  # without a descriptor it is polled
            await readable(handle)
        while (status := process.poll()) is None:
            await asyncio.sleep(_PAUSE)
        return status
    except asyncio.CancelledError:
        process.returncode = 0  # no warning that it was not waited for
        raise


@contextmanager
def _handle_of(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """A descriptor that is readable once the process has ended."""
    handle = os.pidfd_open(process.pid)
    try:
        yield handle
    finally:
        os.close(handle)


def run_pending(directory: Path) -> int:
    """Run every stop command that an ended daemon left behind, all at once; returns their number.

    The caller holds the mark, so no other process does the same. A command that takes longer than `PATIENCE` works on.
    """
    if not directory.is_dir():
        return 0
    for path in directory.glob(f"*{_DRAFT}"):
        path.unlink(missing_ok=True)  # its door was not opened
    deadline = now() + PATIENCE
    begun = (_begin_pending(path, deadline) for path in sorted(directory.glob(f"*{_RECORD}")))
    running = [stop for stop in begun if stop is not None]
    deadline = now() + PATIENCE
    for path, what, process in running:
        try:
            status = process.wait(max(0.0, deadline - now()))
            extra = event_fields(LogEvent.COMMAND_ENDED, command="stop", status=status)
            text = "%s: stop command, left behind by an earlier run, ended with status %d"
            logger.warning(text, what, status, extra=extra)
        except subprocess.TimeoutExpired:
            logger.warning("%s: stop command, left behind by an earlier run, has not ended yet", what)
            process.returncode = 0  # no warning that it was not waited for
        path.unlink(missing_ok=True)
    return len(running)


def _begin_pending(path: Path, deadline: float) -> "tuple[Path, str, subprocess.Popen[bytes]] | None":
    try:
        record = json.loads(path.read_bytes())
        what, line = f"{record['address']}: {record['sequence']}", str(record["stop"])
        _await_end_of_start(path, deadline)
        process = subprocess.Popen(
            [_SHELL, "-c", line], stdin=subprocess.DEVNULL, stdout=2, env=_environment(), start_new_session=True
        )
    except (OSError, ValueError, KeyError, TypeError):
        logger.error("%s is no record of a stop command that can be run: left alone", path)
        return None
    return path, what, process


def _remember(directory: Path, door: Door, stop: str) -> Path:
    """Record the door's stop command, atomically. Raises `OSError`."""
    directory.mkdir(mode=0o700, exist_ok=True)
    name = secrets.token_hex(8)
    draft, path = directory / (name + _DRAFT), directory / (name + _RECORD)
    record = {"sequence": door.access, "address": str(door.address), "stop": stop}
    try:
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_text(json.dumps(record))
        return draft.rename(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def _lock(record: Path) -> int:
    descriptor = os.open(record, os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _await_end_of_start(record: Path, deadline: float) -> None:
    with record.open("rb") as file:
        while now() < deadline:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_PAUSE)
