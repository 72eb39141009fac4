"""The daemon: what it is made of, and its whole life from start to end.

One knock, from wire to door: a receiver hands it to the table of knockers, which judges it. The knock handler makes an
access request of what was completed; the door manager grants it; the opener of its kind has the reconciler bring the
rules to firewalld. The timer closes the door at its deadline. What happens is published as events, and comes back in no
other way.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control.server import ControlServer
from port_knocking_doors.daemon import components, sweep
from port_knocking_doors.daemon.control_handler import ControlHandler
from port_knocking_doors.daemon.counters import Counters
from port_knocking_doors.daemon.knock_handler import KnockHandler
from port_knocking_doors.daemon.observer import Observer
from port_knocking_doors.daemon.running_config import Load, RunningConfig, Swap, Verify
from port_knocking_doors.daemon.startup import Startup
from port_knocking_doors.daemon.status_collector import StatusCollector
from port_knocking_doors.doors.commands import FAREWELL
from port_knocking_doors.doors.manager import DoorManager
from port_knocking_doors.doors.owed_stops import PATIENCE
from port_knocking_doors.errors import ConfigError, DoorsError, PortInUseError
from port_knocking_doors.events import EventStream, Reloaded, Stopped
from port_knocking_doors.firewall.rule_opener import RuleOpener
from port_knocking_doors.model import CommandOpening
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.crash_guard import CrashGuard
from port_knocking_doors.system.deadline_timer import DeadlineTimer
from port_knocking_doors.system.instance import has_rules, instance_lock
from port_knocking_doors.system.sd_notify import STOPPING, Watchdog, notify, reloading, report_wait
from port_knocking_doors.system.shell_command import keep_statuses

_MARGIN = 5.0
"""Seconds that the end of the daemon is given beyond its own limits."""


class Daemon:
    """Everything that runs; `run` is its whole life.

    `observers` and `verifiers`: what a program that takes over from another daemon adds, such as that daemon's log.
    """

    def __init__(
        self, loaded: Loaded, load: Load, observers: Iterable[Observer] = (), verifiers: Iterable[Verify] = ()
    ) -> None:
        settings = loaded.settings
        self._priority = settings.rule_priority
        self._uses_firewalld = has_rules(self._priority)
        self._events = EventStream()
        self._timer = DeadlineTimer()
        self._rules = RuleOpener(settings, uses_firewalld=self._uses_firewalld)
        parts = components.Parts(self._priority, self._rules, Counters(), self._events, self._timer)
        components.observe(parts)
        self._doors = DoorManager(
            settings.max_open_doors, components.openers(parts), self._events, changed=self._timer.update
        )
        self._timer.add(self._doors.next_deadline, self._doors.close_due)
        self._config = RunningConfig(loaded, load, self._events)
        self._knocks = KnockHandler(self._config, self._doors, self._events, self._timer)
        self._receiver = self._config.connect(self._knocks.handle, self._knocks.wrap)
        self._startup = Startup(self._config, self._receiver, self._rules, self._recover, self._events)
        collector = StatusCollector(self._config, self._doors, self._rules, parts.counters)
        self.handler = ControlHandler(self._config, self._doors, self._knocks, collector)
        """Does what the control socket is asked for."""
        for verify in (self._verify_doors, self._verify_rules, *verifiers):
            self._config.add_verifier(verify)
        for observer in observers:
            components.add_observer(parts, observer)
        self._events.add({Reloaded: self._audit_again})
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then close every door.

        Raises `DoorsError` if something is wrong from the start, with nothing opened, and if doors could not be closed
        at the end.
        """
        try:
            await self._run()
        except ConfigError as error:
            placed = self._config.loaded.placed(error)
            if isinstance(error, PortInUseError):  # the next start may find it free: a status that is tried again
                raise DoorsError(str(placed)) from error
            raise placed from error

    async def _run(self) -> None:
        keep_statuses()
        with ExitStack() as stack:
            stack.enter_context(instance_lock(self._priority))
            stack.enter_context(Watchdog())
            self._doors.start()
            stack.callback(self._receiver.close)
            self._startup.receive()
            # From here on a door may be open; what went wrong before needs no closer.
            guard = stack.enter_context(CrashGuard(sweep.closer(self._priority)))
            handlers = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: self._on_hangup}
            stack.enter_context(_signals(handlers))
            control = stack.enter_context(ControlServer(self._priority, self.handler))
            worker = asyncio.create_task(self._rules.run())
            self._taking_over = asyncio.create_task(sweep.take_over(self._priority))
            others = [
                asyncio.create_task(work) for work in (self._start(), self._check(), control.run(), guard.watch())
            ]
            ending = asyncio.create_task(self._ending.wait())
            try:
                await _until(ending, worker, *others)
            finally:
                for task in (ending, *others):
                    task.cancel()
                self._taking_over.cancel()
                await self._end(guard)
                worker.cancel()
                await asyncio.gather(ending, worker, self._taking_over, *others, return_exceptions=True)

    # Start. ----------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        await self._startup.run()
        await self._audit()

    async def _recover(self) -> None:
        """Finish what dead daemons of any mark left behind. What takes longer goes on beside this."""
        await asyncio.wait({self._taking_over}, timeout=PATIENCE)
        await self._doors.unsettled(PATIENCE, [CommandOpening])

    async def _audit(self) -> None:
        from port_knocking_doors.daemon import (
            port_audit,  # after the start: it would delay `ready` by some milliseconds
        )

        await port_audit.audit(self._config.settings, self._rules.reconciler, self._events)

    def _audit_again(self, _: Reloaded) -> None:
        self._running_audit = asyncio.create_task(self._audit())  # kept: the loop does not keep tasks alive

    # While it runs. --------------------------------------------------------------------------------------------------

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._config.settings.rule_check_period)
            if self._uses_firewalld:
                self._rules.reconciler.check()
            self._config.active.expire(now())  # a matter of memory only
            self._startup.report()

    def _on_hangup(self) -> None:
        with reloading(), suppress(DoorsError):  # the log has the error
            self._config.reload()

    def _verify_doors(self, loaded: Loaded) -> Swap:
        def swap() -> None:
            self._doors.limit = loaded.settings.max_open_doors

        return swap

    def _verify_rules(self, loaded: Loaded) -> Swap:
        self._rules.verify(loaded.settings)
        return lambda: self._rules.apply(loaded.settings)

    def stop(self) -> None:
        """Let `run` come to its end, as SIGTERM does."""
        self._ending.set()

    # End. ------------------------------------------------------------------------------------------------------------

    async def _end(self, guard: CrashGuard) -> None:
        """Close every door, and dismiss the crash guard if that worked."""
        notify(STOPPING)
        report_wait("closing the doors", FAREWELL + _MARGIN)
        is_requested = self._ending.is_set()
        self._ending.set()
        self._config.end()  # a request for a door is too late now
        self._receiver.close()
        self._timer.cancel()
        try:
            doors = await self._doors.close_all()
        except DoorsError:
            self._events.publish(Stopped(0, is_requested, are_all_closed=False))
            raise
        guard.dismiss()
        self._events.publish(Stopped(doors, is_requested))


async def _until(ending: "asyncio.Task[bool]", *tasks: "asyncio.Task[None]") -> None:
    """Wait for the end, or for the first of the tasks that fails, whose exception is raised."""
    pending: set[asyncio.Task[None] | asyncio.Task[bool]] = {ending, *tasks}
    while ending in pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


@contextmanager
def _signals(handlers: Mapping[signal.Signals, Callable[[], object]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
