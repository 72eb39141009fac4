"""The closer: removes every rule with a mark after a daemon that ended without doing so.

The crash guard runs it as `python -m port_knocking_doors.daemon.sweep PRIORITY [json]`; the command `sweep` is for
people and for systemd's ExecStopPost. While a daemon with the mark runs it does nothing: the daemon removes the rules.
"""

import asyncio
import sys
import time
from collections.abc import Hashable
from contextlib import suppress

from port_knocking_doors.doors.commands import pending_directory, run_pending
from port_knocking_doors.errors import AlreadyRunningError, DoorsError, FirewallError
from port_knocking_doors.firewall.error_codes import UNREACHABLE
from port_knocking_doors.firewall.firewalld import Firewalld, FirewalldEvent
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.system import log
from port_knocking_doors.system.clock import now, run, wait_at_most
from port_knocking_doors.system.instance import CLOSER, has_rules, instance_lock, unreleased_marks
from port_knocking_doors.system.log import logger

ABSENCE = 5.0
"""Seconds after which a firewalld that is not on the bus counts as stopped, and its runtime rules as gone."""
TURN = 10.0
"""Seconds for which the mark is held at a time; the removal of many doors goes on in the next turn."""
PATIENCE = 600.0
"""Seconds to wait for a hung firewalld."""
_PAUSE = 0.1
_JSON = "json"
"""Argument of this module: the log is for a program."""


class _NoOwner:
    """A listener without owners, and so without calls."""

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:  # noqa: ARG002 the protocol has it
        raise AssertionError(owner)

    def on_removed(self, owner: Hashable) -> None:
        raise AssertionError(owner)


def command(priority: int) -> tuple[str, ...]:
    """Program and arguments of a process that runs `close` for a mark, with a log like this process's."""
    return (sys.executable, "-m", __name__, str(priority), *([_JSON] if log.is_json() else []))


async def sweep(priority: int, patience: float = PATIENCE) -> int:
    """Run recorded stop commands, then remove the rules with the mark once firewalld answers; return their number.

    Raises `AlreadyRunningError` if a daemon has the mark, `FirewallError` if firewalld has not answered for `patience`
    seconds, with the code `UNREACHABLE` if it is not running.
    """
    with instance_lock(priority, CLOSER, leaves_rules=has_rules(priority)):
        run_pending(pending_directory(priority))
    removed = 0
    while has_rules(priority):
        await _answering(patience)
        reconciler = RuleReconciler(priority, _NoOwner())
        # If firewalld stops answering, the mark is released: a new daemon must not wait for that.
        with suppress(asyncio.TimeoutError), instance_lock(priority, CLOSER):
            await _remove_all(reconciler)
            return removed + reconciler.removed
        removed += reconciler.removed
    return removed


async def _remove_all(reconciler: RuleReconciler) -> None:
    """Raises `asyncio.TimeoutError` if rules are left after `TURN`, and `FirewallError` if firewalld refuses."""
    worker = asyncio.create_task(reconciler.run())
    try:
        await wait_at_most(TURN, reconciler.settled())
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    if rules := reconciler.active_rules:
        raise FirewallError(f"firewalld refuses to remove {rules} rules of a daemon that was killed")


async def _answering(patience: float) -> None:
    """Return once firewalld answers. The mark is not held meanwhile, so that a daemon can start at once."""
    came = asyncio.Event()
    client = Firewalld(lambda event: came.set() if event is FirewalldEvent.APPEARED else None)
    connection = asyncio.create_task(client.run())
    try:
        await wait_at_most(patience, client.connected.wait())
        await wait_at_most(ABSENCE, came.wait())
        await wait_at_most(patience, client.wait_for_answer())
    except asyncio.TimeoutError:
        if client.connected.is_set() and not client.present:
            raise FirewallError("firewalld is not running", UNREACHABLE) from None
        raise FirewallError(f"firewalld has not answered for {patience:g} s") from None
    finally:
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)


def close(priority: int, patience: float = PATIENCE) -> DoorsError | None:
    """`sweep`, with its result in the log; return the error if rules may be left."""
    try:
        removed = _sweep_after_others(priority, patience)
    except DoorsError as error:
        if isinstance(error, FirewallError) and error.code == UNREACHABLE:
            logger.info("firewalld is not running: what was open went with it")
            return None
        return error
    if removed is not None:
        logger.warning("closed the doors of a daemon that ended without doing so: %d rules removed", removed)
    return None


def _sweep_after_others(priority: int, patience: float) -> int | None:
    """`sweep`; None where another process did it, or does. Another closer is waited for: it may have less patience."""
    deadline = now() + patience
    while True:
        try:
            return run(sweep(priority, patience))
        except AlreadyRunningError as error:
            if error.by_daemon or now() > deadline:
                return None
        time.sleep(_PAUSE)
        if priority not in unreleased_marks():
            return None


def close_all(patience: float) -> None:
    """`close` for every mark that a daemon left behind. Raises `DoorsError` where rules may be left."""
    failures = [failure for mark in unreleased_marks() if (failure := close(mark, patience))]
    if failures:
        raise failures[0]


def main() -> int:
    """Run the closer with the command line's arguments."""
    log.set_up(verbose=False, as_json=_JSON in sys.argv[2:])
    error = close(int(sys.argv[1]))
    if error is None:
        return 0
    logger.error("closing the doors of a daemon that ended: %s", error)
    return error.exit_status


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
