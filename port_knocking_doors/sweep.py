"""The closer: removes every rule that carries a mark, for a daemon that could not do it itself.

Run as `python -m port_knocking_doors.sweep PRIORITY [commands-only]`. Where a daemon with the mark is running, there is
nothing to do: it removes them itself.
"""

import asyncio
import sys
from collections.abc import Hashable
from contextlib import suppress

from . import log
from .clock import within
from .commands import pending_directory, run_pending
from .doorkeeper import Doorkeeper
from .errors import AlreadyRunningError, DoorsError, FirewallError
from .firewalld import Event, Firewalld
from .guardian import COMMANDS_ONLY
from .log import logger
from .runtime import CLOSER, hold_mark

ABSENCE = 5.0
"""Seconds after which a firewalld that is not on the bus is taken for stopped: its runtime rules went with it."""
TURN = 10.0
"""Seconds for which the mark is held in one go; more than the removal of many doors takes."""
PATIENCE = 600.0
"""Seconds that a firewalld which hangs is waited for."""


class _Nobody:
    """Owns nothing, and is never called."""

    def on_standing(self, owner: Hashable, zones: tuple[str, ...]) -> None:  # noqa: ARG002 the protocol has it
        raise AssertionError(owner)

    def on_gone(self, owner: Hashable) -> None:
        raise AssertionError(owner)


async def sweep(priority: int, firewall: bool = True) -> int:
    """Run the stop commands that wait, then remove what carries the mark once firewalld answers; how many rules.

    `firewall`: whether any may stand there; without, firewalld need not be there either.

    Raises `AlreadyRunningError` where a daemon has the mark, `FirewallError` where firewalld does not answer.
    """
    with hold_mark(priority, CLOSER):
        run_pending(pending_directory(priority))
    removed = None if firewall else 0
    while removed is None:
        await _answering()
        with hold_mark(priority, CLOSER):
            removed = await _remove_all(priority)
    return removed


async def _remove_all(priority: int) -> int | None:
    """How many rules were removed, or None where firewalld stopped answering: a new daemon shall not wait for that."""
    keeper = Doorkeeper(priority, _Nobody())
    worker = asyncio.create_task(keeper.run())
    try:
        await within(TURN, keeper.settled())
    except asyncio.TimeoutError:
        return None
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    if keeper.standing:
        raise FirewallError(f"firewalld refuses to remove {keeper.standing} rules of a daemon that was killed")
    return keeper.removed


async def _answering() -> None:
    """Return once firewalld answers. The mark is not held meanwhile: a daemon that starts now need not wait for us."""
    came = asyncio.Event()
    client = Firewalld(lambda event: came.set() if event is Event.CAME else None)
    connection = asyncio.create_task(client.run())
    try:
        await within(PATIENCE, client.connected.wait())
        await within(ABSENCE, came.wait())
        await within(PATIENCE, client.answer())
    except asyncio.TimeoutError:
        raise FirewallError("firewalld is not there") from None
    finally:
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)


def main() -> int:
    """Run the closer with the command line's arguments."""
    log.set_up(verbose=False)
    try:
        removed = asyncio.run(sweep(int(sys.argv[1]), firewall=COMMANDS_ONLY not in sys.argv[2:]))
    except AlreadyRunningError:
        return 0
    except DoorsError as error:
        logger.error("closing the doors of a daemon that ended: %s", error)
        return error.exit_status
    logger.warning("closed the doors of a daemon that ended without doing so: %d rules removed", removed)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
