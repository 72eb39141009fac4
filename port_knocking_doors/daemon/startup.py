"""The start: what it waits for, and the line about the daemon that the service manager shows.

No wait ends the start by a time-out of the service manager. Before the daemon receives knocks it asks for more time,
for as long as it waits; once it receives them it is up, whatever firewalld does, and its status says what is missing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from port_knocking_doors.capture.receiver import KnockReceiver
from port_knocking_doors.daemon import active
from port_knocking_doors.daemon.event_log import ready_line
from port_knocking_doors.daemon.running_config import RunningConfig
from port_knocking_doors.errors import PortInUseError
from port_knocking_doors.events import EventStream, Ready, Reloaded
from port_knocking_doors.firewall.health import pending_line
from port_knocking_doors.firewall.rule_opener import RuleOpener
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system.clock import now, wait_at_most
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.sd_notify import READY, has_service_manager, notify, report_status, report_wait

FIRST_ANSWER = 1.0
"""Seconds without firewalld after which the daemon says what it waits for, and is up without it."""

PORT_PATIENCE = 60.0
"""Seconds that the start waits for a knock port that another program uses. An outgoing socket has it for less. A start
that waited for ever would hold up whatever is ordered behind it, such as the end of the boot."""
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 5.0
"""Seconds between two tries to listen on such a port."""
_REQUESTED = 30.0
"""Seconds that the service manager is asked for with each try."""


class Startup:
    """From the first socket to `READY=1`, and the line of `systemctl status` from then on.

    `recover` finishes what ended daemons left behind.
    """

    def __init__(
        self,
        config: RunningConfig,
        receiver: KnockReceiver,
        rules: RuleOpener,
        recover: Callable[[], Coroutine[Any, Any, None]],
        events: EventStream,
    ) -> None:
        self._config = config
        self._receiver = receiver
        self._rules = rules
        self._recover = recover
        self._events = events
        self._in_use: PortInUseError | None = None
        self._try_again = asyncio.Event()
        self._is_up = False
        self._status = ""
        events.add({Reloaded: self._on_reloaded})
        rules.reconciler.on_state_change(self._on_changed)

    def receive(self) -> None:
        """Receive knocks. Raises `DoorsError`.

        Where a service manager waits, a knock port that another program uses is no error yet: `run` waits for it.
        """
        try:
            self._receiver.open()
        except PortInUseError as error:
            if not has_service_manager():
                raise  # there is a person who can do something about it now
            self._in_use = error

    async def run(self) -> None:
        """Return once every knock is received and gets through firewalld. Raises `DoorsError`."""
        preparing = asyncio.ensure_future(asyncio.gather(self._prepare(), self._recover()))
        try:
            await self._wait_for_ports()
            await asyncio.wait({preparing}, timeout=FIRST_ANSWER)
            if not preparing.done():
                self._be_up()
            await preparing
        finally:
            preparing.cancel()
            await asyncio.wait({preparing})
            if not preparing.cancelled():
                preparing.exception()  # it was raised already, or the end is under way
        settings = self._config.settings
        self._events.publish(Ready(settings, tuple(active.interfaces(settings))))
        self._config.report_disabled()
        self._be_up()

    def _be_up(self) -> None:
        if not self._is_up:
            self._is_up = True
            notify(READY)
        self.report()

    # Knock ports. ----------------------------------------------------------------------------------------------------

    async def _wait_for_ports(self) -> None:
        if self._in_use is None:
            return
        logger.warning("%s: waiting until it is free", self._config.loaded.placed(self._in_use))
        end, pause = now() + PORT_PATIENCE, _FIRST_PAUSE
        while self._in_use is not None:
            if not self._is_up:
                report_wait(self._text(), _REQUESTED)
            with suppress(asyncio.TimeoutError):
                await wait_at_most(pause, self._try_again.wait())
            self._try_again.clear()
            pause = min(2 * pause, _LAST_PAUSE)
            self._listen_again(is_last=now() > end)
        logger.info("the knock port is free: listening on it")

    def _listen_again(self, *, is_last: bool) -> None:
        try:
            self._receiver.open()
        except PortInUseError as error:
            self._in_use = error
            if is_last and not self._config.settings.sequences:
                raise
            if is_last:  # the sniffed sequences are received
                self._be_up()
        else:
            self._in_use = None

    def _on_reloaded(self, _: Reloaded) -> None:
        self._try_again.set()
        self._on_changed()

    def _on_changed(self) -> None:
        if self._is_up:
            self.report()

    # firewalld. ------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Wait for firewalld where there is a use for it, and let the knocks through."""
        if self._rules.state is FirewalldState.UNUSED:
            return
        reconciler = self._rules.reconciler
        try:
            await wait_at_most(FIRST_ANSWER, reconciler.ready())
        except asyncio.TimeoutError:
            reason = reconciler.unavailable_reason
            text = pending_line(reason, reconciler.present)
            logger.warning("%s", text, extra=event_fields(LogEvent.FIREWALLD, reason=reason))
        await self._rules.prepare()

    # The status. -----------------------------------------------------------------------------------------------------

    def report(self) -> None:
        """Send the line about the daemon to the service manager, if it has changed."""
        if (text := self._text()) != self._status:
            self._status = text
            report_status(text)

    def _text(self) -> str:
        if self._in_use is not None:
            return f"waiting for a knock port: {self._in_use}"
        reconciler = self._rules.reconciler
        if self._rules.state is FirewalldState.UNUSED:
            return ready_line(self._config.settings)
        if not reconciler.firewalld.connected.is_set():
            return "waiting for the D-Bus system bus, on which firewalld is; accepting knocks, doors stay pending"
        if self._rules.state is not FirewalldState.PRESENT or reconciler.zones is None:
            reason = reconciler.unavailable_reason
            return f"waiting for firewalld, which {reason}; accepting knocks, doors stay pending"
        return ready_line(self._config.settings)
