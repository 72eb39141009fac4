"""The log's lines for events. Lines that strangers can cause have a limit in each period, and then a sum."""

import ipaddress
import logging
from collections.abc import Callable, Iterable

from port_knocking_doors import events
from port_knocking_doors.doors.manager import FOR_BANNED
from port_knocking_doors.model import Door, Origin, Port, Settings
from port_knocking_doors.system.clock import now, rounded
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.rate_limit import RateLimit

PERIOD = 10.0
"""Seconds that a limit holds for, and after which the rest is summed up."""


class _LimitedLines:
    """One kind of line, at most so many of it in each period."""

    def __init__(self, lines: int, level: int, event: LogEvent, rest: str, on_rest: Callable[[], None]) -> None:
        self.limit = RateLimit(lines, PERIOD)
        self._level = level
        self._event = event
        self._rest = rest
        self._on_rest = on_rest

    def admits(self, when: float) -> bool:
        admitted = self.limit.admits(when)
        if self.limit.withheld == 1:
            self._on_rest()
        return admitted

    def write(self, text: str, *arguments: object, extra: dict[str, object]) -> None:
        logger.log(self._level, text, *arguments, extra=extra)

    def sum_up(self, when: float) -> None:
        if more := self.limit.summary(when):
            extra = event_fields(LogEvent.MORE, of=self._event.value, count=more)
            logger.log(self._level, self._rest, more, extra=extra)


class EventLog:
    """An observer of the event stream. `changed` is called once `next_deadline` has changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        wrong = f"%d more wrong knocks in the last {PERIOD:g} s"
        self._knocks = _LimitedLines(200, logging.DEBUG, LogEvent.KNOCK, "%d more knocks", changed)
        self._wrong = _LimitedLines(20, logging.WARNING, LogEvent.WRONG_KNOCK, wrong, changed)
        self._refused = _LimitedLines(
            5, logging.ERROR, LogEvent.REFUSED, "%d more doors not opened (max_open_doors)", changed
        )
        denied = "%d more doors not opened for banned addresses"
        self._denied = _LimitedLines(20, logging.WARNING, LogEvent.DENIED, denied, changed)
        self._prolonged = _LimitedLines(20, logging.INFO, LogEvent.PROLONGED, "%d more doors prolonged", changed)
        nothing = "%d more sequences that close, and no such door open"
        self._nothing = _LimitedLines(5, logging.INFO, LogEvent.NOTHING_TO_CLOSE, nothing, changed)
        other = "%d more datagrams with another payload"
        self._other = _LimitedLines(200, logging.DEBUG, LogEvent.OTHER_PAYLOAD, other, changed)
        # Not even an attacker who knows the sequence may write without a limit.
        self._opened = _LimitedLines(200, logging.INFO, LogEvent.OPENED, "%d more doors opened", changed)
        self._closed = _LimitedLines(200, logging.INFO, LogEvent.CLOSED, "%d more doors closed", changed)
        self._pending = _LimitedLines(50, logging.WARNING, LogEvent.COMPLETE, "%d more doors pending", changed)
        self._never = _LimitedLines(50, logging.WARNING, LogEvent.NEVER_OPENED, "%d more doors never opened", changed)
        self._all = (
            self._wrong,
            self._refused,
            self._denied,
            self._knocks,
            self._prolonged,
            self._opened,
            self._closed,
            self._pending,
            self._never,
            self._nothing,
            self._other,
        )

    def handlers(self) -> events.Handlers:
        """Every kind of event that has a line."""
        return {
            events.Ready: self._on_ready,
            events.Knocked: self._on_knocked,
            events.WrongKnock: self._on_wrong_knock,
            events.OtherPayload: self._on_other_payload,
            events.StepsSuppressed: self._on_steps_suppressed,
            events.SequenceDisabled: self._on_sequence_disabled,
            events.LineNotMarked: self._on_line_not_marked,
            events.DoorPending: self._on_door_pending,
            events.DoorOpened: self._on_door_opened,
            events.DoorProlonged: self._on_door_prolonged,
            events.DoorRefused: self._on_door_refused,
            events.DoorDenied: self._on_door_denied,
            events.DoorClosed: self._on_door_closed,
            events.DoorNeverOpened: self._on_door_never_opened,
            events.NothingToClose: self._on_nothing_to_close,
            events.PortExposed: self._on_port_exposed,
            events.Reloaded: self._on_reloaded,
            events.ReloadFailed: self._on_reload_failed,
            events.Stopped: self._on_stopped,
        }

    def next_deadline(self) -> float | None:
        """When the next sum is due."""
        return min((due for lines in self._all if (due := lines.limit.next_deadline()) is not None), default=None)

    def sum_up(self, when: float) -> None:
        """Write the sums that are due."""
        for lines in self._all:
            lines.sum_up(when)

    # The daemon. -----------------------------------------------------------------------------------------------------

    def _on_ready(self, event: events.Ready) -> None:
        logger.info("%s", ready_line(event.settings), extra=event_fields(LogEvent.READY))

    def _on_port_exposed(self, event: events.PortExposed) -> None:
        extra = event_fields(LogEvent.OPEN_WITHOUT_KNOCK, port=event.port, zone=event.zone, reason=event.reason)
        logger.warning("%s", event.text, extra=extra)

    def _on_reloaded(self, _: events.Reloaded) -> None:
        logger.info("configuration reloaded", extra=event_fields(LogEvent.RELOADED))

    def _on_reload_failed(self, event: events.ReloadFailed) -> None:
        extra = event_fields(LogEvent.RELOAD_FAILED, reason=event.reason)
        logger.error("configuration reload failed, keeping the running one: %s", event.reason, extra=extra)

    def _on_stopped(self, event: events.Stopped) -> None:
        if event.is_requested and event.are_all_closed:  # an error has a line of its own
            doors = "1 door" if event.doors == 1 else f"{event.doors} doors"
            logger.info("stopped: %s closed", doors, extra=event_fields(LogEvent.STOPPED, count=event.doors))

    # Knocks. ---------------------------------------------------------------------------------------------------------

    def _on_knocked(self, event: events.Knocked) -> None:
        if self._knocks.admits(event.when):
            step = f" to step {event.stage}" if event.verdict == "advanced" else ""
            extra = event_fields(
                LogEvent.KNOCK,
                address=_text(event.source),
                sequence=", ".join(event.sequences) or None,
                stage=event.stage or None,
                reason=event.verdict,
            )
            self._knocks.write("%s: knock %s%s", _text(event.source), event.verdict, step, extra=extra)

    def _on_wrong_knock(self, event: events.WrongKnock) -> None:
        if self._wrong.admits(event.when):
            address = _text(event.source)
            extra = event_fields(LogEvent.WRONG_KNOCK, address=address, seconds=event.ignored_for)
            if event.ignored_for:
                text = "%s: wrong knock, address ignored for %.10g s"
                self._wrong.write(text, address, event.ignored_for, extra=extra)
            else:  # packets get lost: no warning
                logger.info("%s: wrong knock, address not ignored", address, extra=extra)

    def _on_other_payload(self, event: events.OtherPayload) -> None:
        if self._other.admits(event.when):
            address, size = _text(event.source), "1 byte" if event.length == 1 else f"{event.length} bytes"
            extra = event_fields(
                LogEvent.OTHER_PAYLOAD, address=address, length=event.length, reason=event.hint or None
            )
            text = '%s: datagram with another payload: %s%s; expected "knock" and a newline'
            self._other.write(text, address, size, f" ({event.hint})" if event.hint else "", extra=extra)

    def _on_steps_suppressed(self, event: events.StepsSuppressed) -> None:
        extra = event_fields(LogEvent.MORE, of=LogEvent.KNOCK.value, count=event.number)
        logger.warning("%d more steps of sequences", event.number, extra=extra)

    def _on_sequence_disabled(self, event: events.SequenceDisabled) -> None:
        logger.error("%s: %s: door disabled", event.sequence.name, event.reason)

    def _on_line_not_marked(self, event: events.LineNotMarked) -> None:
        logger.error("%s: %s: door disabled until the configuration is reloaded", event.sequence.name, event.reason)

    # Doors. ----------------------------------------------------------------------------------------------------------

    def _on_door_pending(self, event: events.DoorPending) -> None:
        if self._pending.admits(now()):
            extra = _fields(LogEvent.COMPLETE, event.door, reason="firewalld is not there")
            text = "%s: sequence complete; door pending until firewalld runs"
            self._pending.write(text, event.door.address, extra=extra)

    def _on_door_opened(self, event: events.DoorOpened) -> None:
        if event.zones and self._opened.admits(now()):  # commands have lines of their own
            where = ", ".join(event.zones)
            extra = _fields(LogEvent.OPENED, event.door, zone=where, seconds=round(event.seconds, 3))
            text = "%s: opened %s in zone %s for %s s"
            self._opened.write(text, event.door.address, event.door, where, rounded(event.seconds), extra=extra)

    def _on_door_prolonged(self, event: events.DoorProlonged) -> None:
        if self._prolonged.admits(event.when):
            seconds = None if event.seconds is None else round(event.seconds, 3)
            extra = _fields(LogEvent.PROLONGED, event.door, seconds=seconds)
            self._prolonged.write("%s: prolonged %s", event.door.address, event.door, extra=extra)

    def _on_door_refused(self, event: events.DoorRefused) -> None:
        if self._refused.admits(event.when):
            extra = _fields(LogEvent.REFUSED, event.door, reason="max_open_doors")
            text = "%s: not opened: max_open_doors (%d) reached"
            self._refused.write(text, event.door.address, event.limit, extra=extra)

    def _on_door_denied(self, event: events.DoorDenied) -> None:
        if self._denied.admits(event.when):
            extra = _fields(LogEvent.DENIED, event.door, reason=event.reason)
            self._denied.write("%s: not opened: %s; %s", event.door.address, event.reason, FOR_BANNED, extra=extra)

    def _on_door_closed(self, event: events.DoorClosed) -> None:
        if event.door.opening.opened_ports() and self._closed.admits(now()):
            extra = _fields(LogEvent.CLOSED, event.door, reason=event.cause and event.cause.value)
            why = ": the knocker closed it" if event.cause is Origin.KNOCK else ""
            self._closed.write("%s: closed %s%s", event.door.address, event.door, why, extra=extra)

    def _on_door_never_opened(self, event: events.DoorNeverOpened) -> None:
        if self._never.admits(now()):
            extra = _fields(LogEvent.NEVER_OPENED, event.door, reason="firewalld had not answered")
            why = "its time ran out" if event.cause is None else "it was closed"
            text = "%s: never opened: %s before firewalld answered"
            self._never.write(text, event.door.address, why, extra=extra)

    def _on_nothing_to_close(self, event: events.NothingToClose) -> None:
        if self._nothing.admits(event.when):
            extra = event_fields(LogEvent.NOTHING_TO_CLOSE, address=event.address, sequence=event.access)
            text = "%s: nothing to close: no door of sequence %s is open for this address"
            self._nothing.write(text, event.address, event.access, extra=extra)


def ready_line(settings: Settings) -> str:
    """The line for the start: the ports and sequences that are received, and the doors that they open."""
    receiving = []
    if settings.opening_sequence:
        receiving.append(f"listening on {len(set(settings.opening_sequence))} UDP ports")
    if settings.sequences:
        receiving.append(f"sniffing for {', '.join(sequence.name for sequence in settings.sequences)}")
    if not settings.opening_sequence:
        return f"ready: {', '.join(receiving) or 'no sequence is configured'}"
    where = f"zone {settings.zone}" if settings.zone else "the zone of each knock"
    return (
        f"ready: {', '.join(receiving)}; the opening sequence opens {_ports_text(settings.guarded_ports)} "
        f"for {settings.door_duration:.10g} s in {where}"
    )


def _ports_text(ports: Iterable[Port]) -> str:
    return ", ".join(map(str, ports))


def _text(source: bytes) -> str:
    return str(ipaddress.ip_address(source))


def _fields(event: LogEvent, door: Door, **more: object) -> dict[str, object]:
    ports = tuple(map(str, door.opening.opened_ports())) or None
    return event_fields(event, address=door.address, sequence=door.access, ports=ports, **more)
