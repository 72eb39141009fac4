"""The closer: removes every rule with a mark after a daemon that ended without doing so, and runs its stop commands.

The crash guard runs it in its own memory or, if that fails, as `python -m port_knocking_doors.daemon.sweep PRIORITY
[json]`; the command `sweep` is for people and for systemd's ExecStopPost. While a daemon with the mark runs it does
nothing: the daemon removes the rules.
"""

import asyncio
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.doors import owed_stops, pending
from port_knocking_doors.doors.command_run import CommandRuns
from port_knocking_doors.doors.owed_stops import run_left_behind
from port_knocking_doors.errors import AlreadyRunningError, DoorsError, FirewallError
from port_knocking_doors.firewall.error_codes import UNREACHABLE
from port_knocking_doors.firewall.firewalld import Firewalld, FirewalldEvent
from port_knocking_doors.firewall.health import RESTART, UNVERIFIED, left_line
from port_knocking_doors.firewall.kernel_check import doors_in
from port_knocking_doors.firewall.kernel_rules import read_kernel_rules
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system import as_user, log, unconfirmed
from port_knocking_doors.system.clock import now, run, wait_at_most
from port_knocking_doors.system.crash_guard import Closer, Program
from port_knocking_doors.system.instance import (
    CLOSER,
    foreign_directories,
    has_rules,
    instance_lock,
    pending_directory,
    runtime_directory,
    unreleased_marks,
    usable_directories,
)
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.shell_command import keep_statuses

ABSENCE = 5.0
"""Seconds after which a firewalld that is not on the bus counts as stopped, and its runtime rules as gone."""
TURN = 10.0
"""Seconds for which the mark is held at a time; the removal of many doors goes on in the next turn."""
PATIENCE = 600.0
"""Seconds to wait for a hung firewalld."""
_PAUSE = 0.1
_SCRIPT = "port-knocking-doors"
_JSON = "json"
"""Argument of this module: the log is for a program."""


class _NoOwner:
    """A listener without owners, and so without calls."""

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:  # noqa: ARG002 the protocol has it
        raise AssertionError(owner)

    def on_removed(self, owner: Hashable) -> None:
        raise AssertionError(owner)


class Swept(NamedTuple):
    """What the closer did for a mark."""

    removed: int
    """Rules."""
    failed: int
    """Stop commands that are still on record."""


class _Mark:
    """The lock on a mark, which the two tasks of a sweep share."""

    def __init__(self, priority: int, directory: Path | None) -> None:
        self._priority = priority
        self._directory = directory
        self._users = 0
        self._held = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises `AlreadyRunningError` if another process holds it."""
        if self._users == 0:
            lock = instance_lock(self._priority, CLOSER, leaves_rules=True, directory=self._directory)
            self._held.enter_context(lock)
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self._held.close()

    def release(self) -> None:
        """Nothing is left of what had the mark."""
        with suppress(AlreadyRunningError), instance_lock(self._priority, CLOSER, directory=self._directory):
            pass


async def sweep(
    priority: int, patience: float = PATIENCE, directory: Path | None = None, absence: float | None = None
) -> Swept:
    """Remove the rules with the mark once firewalld answers, and run recorded stop commands at the same time.

    Neither waits for the other. `directory`: another runtime directory; `absence`: in place of `ABSENCE`. Raises
    `AlreadyRunningError` if a daemon has the mark, `FirewallError` if firewalld has not answered for `patience`
    seconds, with the code `UNREACHABLE` if it is not running.
    """
    mark = _Mark(priority, directory)
    with mark.held():
        commands = asyncio.create_task(_run_commands(mark, pending_directory(priority, directory)))
        await asyncio.sleep(0)  # from now on it holds the mark itself
    try:
        removed = await _remove_rules(mark, priority, patience, absence) if has_rules(priority) else 0
    except asyncio.CancelledError:
        commands.cancel()
        raise
    finally:
        failed = await commands
    mark.release()
    return Swept(removed, failed)


async def _run_commands(mark: _Mark, directory: Path) -> int:
    with mark.held():
        runs = CommandRuns()
        try:
            return len(await run_left_behind(runs, directory))
        finally:
            runs.end()


async def _remove_rules(mark: _Mark, priority: int, patience: float, absence: float | None) -> int:
    removed = 0
    while True:
        await _answering(priority, patience, ABSENCE if absence is None else absence)
        reconciler = RuleReconciler(priority, _NoOwner())
        # If firewalld stops answering, the mark is released: a new daemon must not wait for that.
        with suppress(asyncio.TimeoutError), mark.held():
            await _remove_all(reconciler)
            return removed + reconciler.removed
        removed += reconciler.removed


async def _remove_all(reconciler: RuleReconciler) -> None:
    """Raises `asyncio.TimeoutError` if rules are left after `TURN`, and `FirewallError` if firewalld refuses."""
    worker = asyncio.create_task(reconciler.run())
    try:
        await wait_at_most(TURN, reconciler.settled())
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    if not reconciler.present:
        raise asyncio.TimeoutError  # it may have left its rules in the kernel
    if reconciler.state is FirewalldState.FLUSHED:
        raise FirewallError(f"firewalld {reconciler.unavailable_reason}: run `{RESTART}`")
    if rules := reconciler.active_rules:
        raise FirewallError(f"firewalld refuses to remove {rules} rules of a daemon that was killed")


async def _answering(priority: int, patience: float, absence: float) -> None:
    """Return once firewalld answers. The mark is not held meanwhile, so that a daemon can start at once."""
    came = asyncio.Event()
    client = Firewalld(lambda event: came.set() if event is FirewalldEvent.APPEARED else None)
    connection = asyncio.create_task(client.run())
    try:
        await wait_at_most(patience, client.connected.wait())
        await _appeared(priority, came, patience, absence)
        await wait_at_most(patience, client.wait_for_answer())
    except asyncio.TimeoutError:
        raise FirewallError(f"firewalld has not answered for {patience:g} s") from None
    finally:
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)


async def _appeared(priority: int, came: asyncio.Event, patience: float, absence: float) -> None:
    """Return once firewalld is on the bus. It gets more time if it left doors open in the kernel when it ended.

    Raises `FirewallError`, with `UNREACHABLE` where no door is known to be open.
    """
    with suppress(asyncio.TimeoutError):
        await wait_at_most(absence, came.wait())
        return
    kernel = read_kernel_rules()
    doors = len(doors_in(kernel, priority)) if kernel is not None else unconfirmed.read(priority) or 0
    if not doors:
        raise FirewallError("firewalld is not running", UNREACHABLE)
    logger.error("%s", left_line(doors))
    try:
        await wait_at_most(patience, came.wait())
    except asyncio.TimeoutError:
        raise FirewallError(left_line(doors)) from None


def close(priority: int, patience: float = PATIENCE, directory: Path | None = None) -> DoorsError | None:
    """`sweep`, with its result in the log; return the error if rules may be left, or a stop command failed."""
    try:
        swept = _sweep_after_others(priority, patience, directory)
    except DoorsError as error:
        if isinstance(error, FirewallError) and error.code == UNREACHABLE:
            if read_kernel_rules() is None:
                logger.warning("%s", UNVERIFIED)
            else:
                logger.info("firewalld is not running: what was open went with it")
            return None
        return error
    if swept is None:
        return None
    text = "closed the doors of a daemon that ended without doing so: %d rules removed"
    logger.warning(text, swept.removed)
    if swept.failed:
        return DoorsError(
            f"{swept.failed} stop commands of a daemon that ended have failed or not ended: kept in "
            f"{pending_directory(priority, directory)}, and run at each start until they work "
            "(`port-knocking-doors sweep --forget` drops them)"
        )
    return None


def _sweep_after_others(priority: int, patience: float, directory: Path | None) -> Swept | None:
    """`sweep`; None where another process did it, or does. Another closer is waited for: it may have less patience."""
    deadline = now() + patience
    while True:
        try:
            return run(sweep(priority, patience, directory))
        except AlreadyRunningError as error:
            if error.by_daemon or now() > deadline:
                return None
        time.sleep(_PAUSE)
        if priority not in unreleased_marks(directory):
            return None


def close_all(patience: float) -> None:
    """`close` for every mark that a daemon left behind, in every runtime directory. Raises `DoorsError` where rules may
    be left.

    For root that is also the directory of the unit's user: its stop commands run as that user.
    """
    keep_statuses()
    _in_every_directory(lambda directory: _close_all_in(directory, patience))


def _close_all_in(directory: Path, patience: float) -> DoorsError | None:
    failures = [error for mark in unreleased_marks(directory) if (error := close(mark, patience, directory))]
    return failures[0] if failures else None


def _in_every_directory(work: Callable[[Path], DoorsError | None]) -> None:
    failures = [error for directory in usable_directories() if (error := work(directory))]
    for directory in foreign_directories():
        if unreleased_marks(directory):
            _prepare()  # that user may be unable to read the files of this program
            status = as_user.run(directory.stat().st_uid, partial(_report, work, directory))
            if status:
                failures.append(DoorsError(f"{directory}: not everything is closed; the log has the reason"))
    if failures:
        raise failures[0]


def _report(work: Callable[[Path], DoorsError | None], directory: Path) -> int:
    os.environ["RUNTIME_DIRECTORY"] = str(directory)
    error = work(directory)
    if error is None:
        return 0
    logger.error("%s", error)
    return error.exit_status


async def take_over(own: int) -> None:
    """Remove the rules that dead daemons of other marks than `own` left; those of live ones stay.

    Waits for firewalld without end.
    """
    left = (
        (mark, directory)
        for directory in usable_directories()
        for mark in unreleased_marks(directory)
        if mark != own and has_rules(mark)
    )
    await asyncio.gather(*(_take_over(mark, directory) for mark, directory in left))


async def _take_over(mark: int, directory: Path) -> None:
    absence = ABSENCE
    while True:
        try:
            swept = await sweep(mark, math.inf, directory, absence)
            break
        except AlreadyRunningError:
            return
        except DoorsError as error:
            if isinstance(error, FirewallError) and error.code == UNREACHABLE:
                absence = math.inf
                continue
            logger.error("closing the doors of a daemon that ended, with rule_priority = %d: %s", mark, error)
            return
    text = "closed the doors of a daemon that ended without doing so, with rule_priority = %d: %d rules removed"
    logger.warning(text, mark, swept.removed)


def forget_failed() -> None:
    """Drop every stop command that failed, and log it."""
    _in_every_directory(_forget_in)


def _forget_in(directory: Path) -> None:
    for mark in unreleased_marks(directory):
        for record in pending.failed_on_record(pending_directory(mark, directory)):
            if record.remove():
                text = "%s: %s: stop command dropped, which failed %d times, at last with status %s"
                logger.warning(text, record.address, record.sequence, record.tries, record.status)


# For the crash guard. -------------------------------------------------------------------------------------------------


def closer(priority: int) -> Closer:
    """The closer of a killed daemon with this mark, and other ways to run it where that one fails."""
    module = (sys.executable, "-m", __name__, str(priority), *([_JSON] if log.is_json() else []))
    programs = [Program("/proc/self/exe", module), Program(sys.executable, module)]
    if script := shutil.which(_SCRIPT):
        programs.append(Program(script, (script, "sweep", "--patience", f"{PATIENCE:g}")))
    directory = runtime_directory()  # while it can be written: later its file system may be read-only
    return Closer(_prepare, lambda: _close_and_report(priority, directory), programs)


def _prepare() -> None:
    """Load what Python loads late: a run that does nothing does the same as the closer."""
    run(asyncio.sleep(0))
    "x".encode("ascii").decode("latin-1")


def _close_and_report(priority: int, directory: Path) -> None:
    """`close`, and again with growing pauses while stop commands fail or the runtime directory cannot be used."""
    reported = ""
    for pause in (*owed_stops.PAUSES, None):
        error = close(priority, directory=directory if directory.is_dir() else None)  # None: another one, or made again
        if error is None:
            return
        if str(error) != reported:
            reported = str(error)
            logger.error("closing the doors of a daemon that ended: %s", error)
        if pause is None or isinstance(error, FirewallError):
            return
        time.sleep(pause)


def main() -> int:
    """Run the closer with the command line's arguments."""
    log.set_up(verbose=False, as_json=_JSON in sys.argv[2:])
    keep_statuses()
    error = close(int(sys.argv[1]))
    if error is None:
        return 0
    logger.error("closing the doors of a daemon that ended: %s", error)
    return error.exit_status


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
