"""Turns judged packets into events, and completed sequences into access requests."""

import ipaddress
import logging
import socket

from port_knocking_doors.capture import payload
from port_knocking_doors.daemon.running_config import RunningConfig
from port_knocking_doors.doors.manager import DoorManager
from port_knocking_doors.events import (
    EventStream,
    Knocked,
    OtherPayload,
    SequenceAdvanced,
    SequenceCompleted,
    SequenceTimedOut,
    StepsSuppressed,
    WrongKnock,
)
from port_knocking_doors.knocks.authenticator import Judge, Outcome, Verdict
from port_knocking_doors.knocks.timeouts import AttemptTimeouts
from port_knocking_doors.model import AccessRequest, Dialect
from port_knocking_doors.system.deadline_timer import DeadlineTimer
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.rate_limit import RateLimit

STEPS_MAX, STEPS_PERIOD = 1000, 10.0
"""`SequenceAdvanced` events in so many seconds, at most."""


class KnockHandler:
    """Handles the outcomes that need action (`Outcome.needs_action`), and reports time limits that ran out."""

    def __init__(self, config: RunningConfig, doors: DoorManager, events: EventStream, timer: DeadlineTimer) -> None:
        self._config = config
        self._doors = doors
        self._events = events
        self._timer = timer
        self._verbose = logger.isEnabledFor(logging.DEBUG)
        self._watched = False
        self._steps = RateLimit(STEPS_MAX, STEPS_PERIOD)
        self._timeouts = AttemptTimeouts()
        timer.add(self._timeouts.next_deadline, self._report_timeouts)
        timer.add(self._steps.next_deadline, self._report_suppressed)

    def wrap(self, judge: Judge) -> Judge:
        """What the receivers call for each packet: the judge, or one that reports each knock while that is wanted."""

        def aloud(source: bytes, code: int, packet_id: int, when: float) -> Outcome:
            outcome = judge(source, code, packet_id, when)
            # A wrong knock has an event of its own; a completed sequence has a door's.
            is_reported = outcome.verdict is Verdict.COMPLETE and not self._watched
            if outcome.verdict not in (Verdict.WRONG, Verdict.FORGIVEN) and not is_reported:
                names = tuple(sequence.name for sequence in outcome.sequences)
                verdict = outcome.verdict.name.lower()
                self._events.publish(Knocked(source, verdict, outcome.stage, names, when))
            return outcome

        return aloud if self._verbose or self._watched else judge

    def watch(self, is_watched: bool) -> None:
        """Start or stop reporting every single knock, and datagrams that are none for their payload."""
        self._watched = is_watched
        self._config.receiver.wrap(self.wrap)
        self._config.receiver.show_others(self._on_other if is_watched else None)

    def _on_other(self, source: bytes, length: int, beginning: bytes, when: float) -> None:
        self._events.publish(OtherPayload(source, length, payload.hint(length, beginning), when))

    def handle(self, source: bytes, interface: int, outcome: Outcome, when: float) -> None:
        """Publish the events of an outcome, and grant the access of completed sequences."""
        if outcome.verdict is Verdict.FORGIVEN:  # first: a flood of them is what costs
            self._events.publish(WrongKnock(source, 0.0, when))
            return
        if outcome.verdict is Verdict.WRONG:
            self._events.publish(WrongKnock(source, self._config.settings.ignoring_period, when))
            return
        if outcome.stages:
            self._report_stages(source, outcome, when)
        if outcome.verdict is Verdict.COMPLETE:
            self._grant(source, interface, outcome, when)

    def _report_stages(self, source: bytes, outcome: Outcome, when: float) -> None:
        # A flood of first steps of a thousand doors at once is counted and not gone through.
        if outcome.verdict is Verdict.ADVANCED and self._steps.withholds(outcome.logged, when):
            if self._steps.withheld == outcome.logged:
                self._timer.update()
            return
        for sequence, stage in outcome.stages:
            is_complete = stage == len(sequence.steps)
            if sequence.dialect is Dialect.KNOCKD and (is_complete or self._admits_step(when)):
                self._events.publish(SequenceAdvanced(source, sequence, stage))
                if stage == 1 and not is_complete:
                    self._timeouts.watch(source, sequence, when + sequence.timeout)
                    self._timer.update()
            if is_complete:
                self._events.publish(SequenceCompleted(source, sequence))

    def _admits_step(self, when: float) -> bool:
        """Whether a step of one of knockd's sequences, of which knockd's log has a line for each, is reported."""
        admitted = self._steps.admits(when)
        if self._steps.withheld == 1:
            self._timer.update()
        return admitted

    def _grant(self, source: bytes, interface: int, outcome: Outcome, when: float) -> None:
        address, name = ipaddress.ip_address(source), _interface_name(interface)
        consumed: set[tuple[str, int]] = set()
        for access, sequence in outcome.grants:
            if sequence is None or not sequence.one_time or self._config.consume(sequence, consumed):
                self._doors.grant(AccessRequest(address, name, access, when))

    def _report_timeouts(self, when: float) -> None:
        for source, sequence in self._timeouts.due(when):
            if stage := self._config.active.knockers.stage(source, sequence):
                self._events.publish(SequenceTimedOut(source, sequence, stage))

    def _report_suppressed(self, when: float) -> None:
        if count := self._steps.summary(when):
            self._events.publish(StepsSuppressed(count))


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # unknown, or gone already
        return ""
