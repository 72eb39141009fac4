"""A daemon with one fault built in, to see that the soak test notices: `python -m tests.soak.broken NAME [OPTION]…`."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from port_knocking_doors.system import clock


def deaf_to_reloads() -> None:
    """A reload of firewalld restores no rule."""
    from port_knocking_doors.firewall.firewalld import FirewalldEvent
    from port_knocking_doors.firewall.reconciler import RuleReconciler

    heed = RuleReconciler._on_event
    RuleReconciler._on_event = lambda self, event: None if event is FirewalldEvent.RELOADED else heed(self, event)  # type: ignore[method-assign]


def never_closes() -> None:
    """Doors whose time is over stay open."""
    from port_knocking_doors.doors.manager import DoorManager

    def forget(self: DoorManager, when: float) -> None:
        self._table.due(when)

    DoorManager.close_due = forget  # type: ignore[method-assign]


def never_ignores() -> None:
    """An address is not ignored after a wrong knock."""
    from port_knocking_doors.knocks.table import KnockerTable

    make: Any = KnockerTable.__init__

    def forgive(self: KnockerTable, sequences: Any, _: float, *rest: Any) -> None:
        make(self, sequences, 0.0, *rest)

    KnockerTable.__init__ = forgive  # type: ignore[assignment,method-assign]


def leaves_commands() -> None:
    """Stop commands do not run before the daemon's end."""
    from port_knocking_doors.doors.commands import CommandRunner

    CommandRunner.close = lambda *_: None  # type: ignore[method-assign]


def no_crash_guard() -> None:
    """The doors of a killed daemon stay open."""
    from port_knocking_doors.system import crash_guard

    crash_guard._close = lambda closer: 0  # noqa: ARG005


def one_crash_guard() -> None:
    """A crash guard that is killed is not replaced."""
    from port_knocking_doors.system.crash_guard import CrashGuard

    async def stand_still(_: CrashGuard) -> None:
        await asyncio.Event().wait()

    CrashGuard.watch = stand_still  # type: ignore[method-assign, assignment]


def believes_firewalld() -> None:
    """What firewalld confirmed is taken for what the kernel has."""
    from port_knocking_doors.firewall.kernel_check import KernelCheck
    from port_knocking_doors.firewall.zones import Zones

    async def believe(self: KernelCheck, _: Zones) -> None:
        self.is_due = False

    KernelCheck.examine = believe  # type: ignore[method-assign, assignment]


def waits_for_its_log() -> None:
    """The event loop writes the log itself."""
    from port_knocking_doors.system.background_writer import BackgroundWriter, Write

    def put(_: BackgroundWriter, write: Write) -> None:
        write()

    BackgroundWriter.put = put  # type: ignore[method-assign, assignment]


def leaks() -> None:
    """Memory for each knock that is never given back."""
    from port_knocking_doors.knocks.table import KnockerTable

    kept: list[bytes] = []
    judge: Any = KnockerTable.on_knock

    def keep(self: KnockerTable, source: bytes, code: int, packet_id: int, now: float) -> Any:
        kept.append(source * 256)
        return judge(self, source, code, packet_id, now)

    KnockerTable.on_knock = keep  # type: ignore[method-assign]


def shows_port() -> None:
    """A sequence's port in the log."""
    from port_knocking_doors.daemon.knock_handler import KnockHandler

    grant: Any = KnockHandler._grant

    def show(self: KnockHandler, *arguments: Any) -> Any:
        logging.getLogger("port_knocking_doors").info("after %s", self._config.settings.opening_sequence[0])
        return grant(self, *arguments)

    KnockHandler._grant = show  # type: ignore[method-assign, assignment]


def by_the_wall_clock() -> None:
    """Deadlines by a clock that can be set."""
    clock.now = time.time


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (
        deaf_to_reloads,
        never_closes,
        never_ignores,
        leaves_commands,
        no_crash_guard,
        one_crash_guard,
        believes_firewalld,
        waits_for_its_log,
        leaks,
        shows_port,
        by_the_wall_clock,
    )
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.argv[1:] = sys.argv[2:]
    from port_knocking_doors.cli import main  # what it imports takes the clock along

    main()
