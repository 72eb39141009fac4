"""Stop commands that are owed: they failed, or an ended daemon left them behind. They are tried again until they work.

The pauses between the tries of one daemon grow, and end. The record stays: the next start tries again.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from port_knocking_doors.doors import pending
from port_knocking_doors.doors.command_run import CommandName, CommandRuns
from port_knocking_doors.doors.pending import StopRecord
from port_knocking_doors.system.clock import now, wait_at_most
from port_knocking_doors.system.log import LogEvent

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Seconds between the tries of a stop command that fails."""

PATIENCE = 5.0
"""Seconds that a closer gives the commands that outlived their daemon, and then its own stop commands."""

RETRY = 1.0
"""Seconds between two tries of a command that cannot be started, for want of memory or processes; without end."""

_PAUSE, _MOMENT = 0.02, 0.1
_CANNOT_EXECUTE = 126
"""The exit status that a shell gives such a command."""
_LEFT_BEHIND = "left behind by an earlier run"


class OwedStops:
    """Tries owed stop commands again, each in a task of its own."""

    def __init__(self, runs: CommandRuns) -> None:
        self._runs = runs
        self._records: defaultdict[str, list[StopRecord]] = defaultdict(list)
        """By the stop command: a door that is opened again owes what it owed before."""
        self._retries: dict[str, asyncio.Task[None]] = {}
        self._interrupts: dict[str, asyncio.Event] = {}
        self._untried: set[str] = set()
        self._tried = asyncio.Event()
        self._tried.set()

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def add(self, records: Iterable[StopRecord], pauses: Sequence[float] | None = None) -> None:
        """Try these after each of the pauses (`PAUSES`), until they work."""
        lines = set()
        for record in records:
            self._records[record.stop].append(record)
            lines.add(record.stop)
        for line in lines:
            if line not in self._retries:
                self._interrupts[line] = asyncio.Event()
                self._retries[line] = asyncio.create_task(self._retry(line, PAUSES if pauses is None else pauses))

    def add_left_behind(self, directory: Path) -> None:
        """Run what an ended daemon left on record, at once; the caller holds its mark."""
        records = pending.on_record(directory)
        self._untried = {record.stop for record in records}
        if records:
            self._tried.clear()
        self.add(records, (0.0, *PAUSES))

    async def tried_once(self) -> None:
        """Return once everything that was left behind was tried."""
        await self._tried.wait()

    async def take(self, line: str) -> list[StopRecord]:
        """Stop trying this stop command, since its door is opened again; what it owes. Waits for the end of a try."""
        if retry := self._retries.get(line):
            self._interrupts[line].set()
            await asyncio.wait({retry})
        return self._records.pop(line, [])

    async def end(self, seconds: float) -> int:
        """Try no more, and give a try that runs so many seconds; how many are owed still."""
        for interrupt in self._interrupts.values():
            interrupt.set()
        if retries := set(self._retries.values()):
            await asyncio.wait(retries, timeout=seconds)
            for retry in retries:
                retry.cancel()
            await asyncio.gather(*retries, return_exceptions=True)
        return len(self)

    async def _retry(self, line: str, pauses: Sequence[float]) -> None:
        try:
            for pause in pauses:
                if await self._is_interrupted(line, pause) or await self._try(line):
                    return
            for record in self._records[line]:
                text = (
                    f"stop command failed {record.tries} times, at last with status {record.status}: kept in "
                    f"{record.path}, and run at each start until it works or `port-knocking-doors sweep --forget` "
                    "drops it"
                )
                fields = {"reason": f"status {record.status}", "status": record.status}
                self._runs.report(logging.ERROR, text, record, LogEvent.COMMAND_FAILED, **fields)
        finally:
            self._note_tried(line)
            if not self._records[line]:
                del self._records[line]
            del self._retries[line]
            del self._interrupts[line]

    async def _try(self, line: str) -> bool:
        """Run the stop command for each of its records; whether that is over, by success or by an interrupt."""
        tried = list(self._records[line])
        left = [await self._try_one(record) for record in tried]
        added = self._records[line][len(tried) :]  # meanwhile, by another door with this stop command
        self._records[line] = [*(record for record in left if record is not None), *added]
        self._note_tried(line)
        return not self._records[line]

    async def _try_one(self, record: StopRecord) -> StopRecord | None:
        is_logged = False
        while True:
            try:
                return await try_stop(self._runs, record, report=record.stop in self._untried)
            except OSError as error:
                if not is_logged:
                    text = f"stop command not run, it is tried again every {RETRY:g} s: {error}"
                    self._runs.report(logging.ERROR, text, record, LogEvent.COMMAND_REFUSED, reason=error)
                    is_logged = True
            if await self._is_interrupted(record.stop, RETRY):
                return record

    async def _is_interrupted(self, line: str, seconds: float) -> bool:
        interrupt = self._interrupts[line]
        with suppress(asyncio.TimeoutError):
            await wait_at_most(seconds, interrupt.wait())
        return interrupt.is_set()

    def _note_tried(self, line: str) -> None:
        self._untried.discard(line)
        if not self._untried:
            self._tried.set()


async def try_stop(
    runs: CommandRuns, record: StopRecord, patience: float | None = None, *, report: bool = True
) -> StopRecord | None:
    """Run a stop command on record; None once it worked, else the record with its failure in it.

    First waits for its door's start command and for an earlier try, for up to `PATIENCE`, if they outlived their
    daemon. A try that takes longer than `patience` seconds works on, and removes the record if it works. `report`:
    whether a failure gets a line in the log. Raises `OSError` if the command cannot be started.
    """
    deadline = now() + PATIENCE
    for process in (record.start_process, record.stop_process):
        while process is not None and process.is_running() and now() < deadline:
            await asyncio.sleep(_PAUSE)
    if not record.exists():
        return None
    if record.stop_process is not None and record.stop_process.is_running():
        return record
    async with runs.places:
        try:
            async with runs.turns:
                await asyncio.sleep(0)
                run = runs.begin(CommandName(record.address, record.sequence, "stop"), record.stop, record)
        except ValueError as error:
            runs.report(logging.ERROR, f"stop command not run: {error}", record, LogEvent.COMMAND_REFUSED, reason=error)
            return failed(record, _CANNOT_EXECUTE)
        noted = run.record or record
        try:
            status = await wait_at_most(patience, run.ended())
        except asyncio.TimeoutError:
            text = f"stop command, {_LEFT_BEHIND}, has not ended yet"
            runs.report(logging.WARNING, text, record, LogEvent.MESSAGE)
            return noted
    return _outcome(runs, noted, status, report=report)


def _outcome(runs: CommandRuns, record: StopRecord, status: int, *, report: bool) -> StopRecord | None:
    if status != 0:
        if report:
            text = f"stop command, {_LEFT_BEHIND}, ended with status {status}, it is tried again"
            runs.report(logging.WARNING, text, record, LogEvent.COMMAND_ENDED, status=status)
        return failed(record, status)
    record.remove()
    after = f"tried again after {record.tries} failures" if record.tries else _LEFT_BEHIND
    text = f"stop command, {after}, ended with status 0"
    runs.report(logging.WARNING, text, record, LogEvent.COMMAND_ENDED, status=status)
    return None


def failed(record: StopRecord, status: int) -> StopRecord | None:
    """The record with one more failure; None if it was dropped meanwhile."""
    if not record.exists():
        return None
    again = record._replace(tries=record.tries + 1, status=status, start_process=None, stop_process=None)
    with suppress(OSError):  # the record as it was is enough
        again.save()
    return again


async def run_left_behind(runs: CommandRuns, directory: Path) -> list[StopRecord]:
    """Run every stop command that an ended daemon left behind, all at once; those that did not work.

    The caller holds the mark, so no other process does the same.
    """
    outcomes = await asyncio.gather(*(_run_one(runs, record) for record in pending.on_record(directory)))
    return [record for record in outcomes if record is not None]


async def _run_one(runs: CommandRuns, record: StopRecord) -> StopRecord | None:
    deadline = now() + PATIENCE
    while True:
        try:
            return await try_stop(runs, record, PATIENCE)
        except OSError as error:
            failure = error  # no descriptor or process is free, as others have them
        if now() < deadline:
            await asyncio.sleep(_MOMENT)
            continue
        runs.report(logging.ERROR, f"stop command not run: {failure}", record, LogEvent.COMMAND_REFUSED, reason=failure)
        return record
