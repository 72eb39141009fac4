"""The configuration of the running daemon: reloaded by verifiers, and renewed when a one-time sequence was used.

A reload has three parts. Every component verifies the new settings, and a component that refuses them ends the reload
with nothing changed; then all swap; then all are notified by an event.
"""

import asyncio
from collections.abc import Callable, Collection

from port_knocking_doors.capture.dispatch import Wrap
from port_knocking_doors.capture.receiver import KnockReceiver
from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.daemon.active import ActiveConfig
from port_knocking_doors.errors import ConfigError, DoorsError, LineGoneError
from port_knocking_doors.events import EventStream, LineNotMarked, Reloaded, ReloadFailed, SequenceDisabled
from port_knocking_doors.knocks.authenticator import Act
from port_knocking_doors.model import Sequence, Settings
from port_knocking_doors.system import one_time_file
from port_knocking_doors.system.log import logger

Load = Callable[[], Loaded]
"""Reads the configuration again; raises `DoorsError` where it is wrong, and changes nothing."""

Swap = Callable[[], None]
"""Makes verified settings active; cannot fail."""

Verify = Callable[[Loaded], Swap]
"""Checks new settings, and returns what makes them active. Raises `ConfigError` with nothing changed."""


class RunningConfig:
    """Settings, table of knockers and receivers, as they are now."""

    def __init__(self, loaded: Loaded, load: Load, events: EventStream) -> None:
        self.loaded = loaded
        self._load = load
        self._events = events
        self.active = ActiveConfig.of(loaded.settings)
        """The authenticators that are active, and what belongs to them."""
        self._verifiers: list[Verify] = [self._verify_priority]
        self._is_ending = False
        self.receiver: KnockReceiver

    def connect(self, act: Act, wrap: Wrap) -> KnockReceiver:
        """Make the receivers that the authenticators need; `act` gets the outcomes, `wrap` wraps each judge."""
        self.receiver = KnockReceiver(self.active.authenticators.values(), act, wrap)
        return self.receiver

    @property
    def settings(self) -> Settings:
        """The settings that are active."""
        return self.loaded.settings

    def end(self) -> None:
        """Refuse every change from now on."""
        self._is_ending = True

    def refuse_at_end(self) -> None:
        """Raise `DoorsError` if the daemon is ending."""
        if self._is_ending:
            raise DoorsError("the daemon is ending")

    # Reload. ---------------------------------------------------------------------------------------------------------

    def add_verifier(self, verify: Verify) -> None:
        """Let one more component verify new settings."""
        self._verifiers.append(verify)

    def reload(self) -> None:
        """Read the configuration again, and make it active. Raises `DoorsError` with nothing changed."""
        self.refuse_at_end()
        try:
            loaded = self._load()
            try:
                self._adopt(loaded)
            except ConfigError as error:
                raise loaded.placed(error) from error
        except DoorsError as error:
            self._events.publish(ReloadFailed(str(error)))
            raise
        self._events.publish(Reloaded())
        self.report_disabled()

    def _adopt(self, loaded: Loaded) -> None:
        swaps = [verify(loaded) for verify in self._verifiers]
        # Last: the receivers open new sockets and swap them in at once, or change nothing.
        active = ActiveConfig.of(loaded.settings)
        active.adopt(self.active)
        self.receiver.replace(active.authenticators.values())
        self.active = active
        self.loaded = loaded
        for swap in swaps:
            swap()

    def _verify_priority(self, loaded: Loaded) -> Swap:
        if loaded.settings.rule_priority != self.settings.rule_priority:
            raise ConfigError(
                "rule_priority cannot change while the daemon runs, expected a restart", field="rule_priority"
            )
        return lambda: None

    # One-time sequences. ---------------------------------------------------------------------------------------------

    def consume(self, sequence: Sequence, consumed: set[tuple[str, int]]) -> bool:
        """Whether the one-time sequence counts: its line is marked as used, on the disk, before it grants anything.

        `consumed`: path and place of the lines that this very knock has used, for every door that names their file.
        """
        line = self.active.lines.pop(sequence, None)
        if line is None:  # the same line again, in the same moment
            return False
        if (line.path, line.offset) in consumed:
            return True
        # The next line becomes active once all packets that arrived with this knock are judged.
        asyncio.get_running_loop().call_soon(self._renew)
        try:
            one_time_file.consume(line)
        except LineGoneError as error:
            logger.warning("%s: %s: not opened, its next sequence is active", sequence.name, error)
            return False
        except DoorsError as error:
            self._events.publish(LineNotMarked(sequence, str(error)))
            self.active.disabled.add(line.path)
            return False
        consumed.add((line.path, line.offset))
        return True

    def _renew(self) -> None:
        """Make the next one-time sequences active; every knocker keeps its progress."""
        if self._is_ending:
            return
        before = {sequence for sequence, _ in self.active.shut}
        self.active = self.active.renewed(self.settings)
        try:
            self.receiver.replace(self.active.authenticators.values())
        except DoorsError as error:
            logger.error("no further one-time sequence is active until the configuration is reloaded: %s", error)
        else:
            self.report_disabled(before)

    def report_disabled(self, known: Collection[Sequence] = ()) -> None:
        """Publish which sequences have no one-time sequence left, but for those that are known."""
        for sequence, reason in self.active.shut:
            if sequence not in known:
                self._events.publish(SequenceDisabled(sequence, reason))
