"""What the log says of knocks and doors: of what strangers can cause at will so much in a period, and then a sum."""

import ipaddress
import logging
from collections.abc import Callable, Iterable

from port_knocking_doors.knocks.authenticator import Outcome, Verdict
from port_knocking_doors.model import Door, Port, Settings
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.rate_limit import RateLimit

PERIOD = 10.0
"""Seconds that a bound holds for, and after which the rest is summed up."""


class _Bounded:
    """One kind of line, so many of it in each period."""

    def __init__(self, lines: int, level: int, event: LogEvent, rest: str, more: Callable[[], None]) -> None:
        self.throttle = RateLimit(lines, PERIOD)
        self._level = level
        self._event = event
        self._rest = rest
        self._more = more

    def admits(self, when: float) -> bool:
        admitted = self.throttle.admits(when)
        if self.throttle.withheld == 1:
            self._more()
        return admitted

    def say(self, text: str, *arguments: object, extra: dict[str, object]) -> None:
        logger.log(self._level, text, *arguments, extra=extra)

    def sum_up(self, when: float) -> None:
        if more := self.throttle.summary(when):
            extra = event_fields(LogEvent.MORE, of=self._event.value, count=more)
            logger.log(self._level, self._rest, more, extra=extra)


class EventLog:
    """All times are `clock.now`'s; `more` is called when `next_deadline` is no longer what it was."""

    def __init__(self, more: Callable[[], None]) -> None:
        self._knocks = _Bounded(200, logging.DEBUG, LogEvent.KNOCK, "%d more knocks", more)
        self._stages = _Bounded(1000, logging.WARNING, LogEvent.KNOCK, "%d more steps of sequences", more)
        self._wrong = _Bounded(
            20, logging.WARNING, LogEvent.WRONG_KNOCK, f"%d more wrong knocks in the last {PERIOD:g} s", more
        )
        self._refused = _Bounded(5, logging.ERROR, LogEvent.REFUSED, "%d more doors not opened (max_open_doors)", more)
        self._prolonged = _Bounded(20, logging.INFO, LogEvent.PROLONGED, "%d more doors prolonged", more)
        self._all = (self._stages, self._wrong, self._refused, self._knocks, self._prolonged)

    def next_deadline(self) -> float | None:
        """When the next summary is due."""
        return min(
            (due for bounded in self._all if (due := bounded.throttle.next_deadline()) is not None), default=None
        )

    def sum_up(self, when: float) -> None:
        """Say what is due by now."""
        for bounded in self._all:
            bounded.sum_up(when)

    # Knocks. ---------------------------------------------------------------------------------------------------------

    def on_knock(self, source: bytes, outcome: Outcome, when: float) -> None:
        """A knock, whatever it was judged: for those who watch."""
        if self._knocks.admits(when):
            judged = outcome.verdict.name.lower()
            self._knocks.say(
                "%s: knock %s%s",
                _text(source),
                judged,
                f" to step {outcome.stage}" if outcome.verdict is Verdict.ADVANCED else "",
                extra=event_fields(
                    LogEvent.KNOCK,
                    address=_text(source),
                    sequence=", ".join(sequence.name for sequence in outcome.sequences) or None,
                    stage=outcome.stage or None,
                    reason=judged,
                ),
            )

    def on_wrong_knock(self, source: bytes, period: float, when: float) -> None:
        """A knock was wrong, and its source is ignored for so many seconds."""
        if self._wrong.admits(when):
            extra = event_fields(LogEvent.WRONG_KNOCK, address=_text(source), seconds=period)
            self._wrong.say("%s: wrong knock, address ignored for %g s", _text(source), period, extra=extra)

    def admits_stage(self, when: float) -> bool:
        """Whether a step of one of knockd's sequences gets a line in knockd's log."""
        return self._stages.admits(when)

    # Doors. ----------------------------------------------------------------------------------------------------------

    def on_waiting(self, door: Door) -> None:
        """Its sequence is complete, and firewalld is not there."""
        extra = _about(LogEvent.COMPLETE, door, reason="firewalld is not there")
        text = "%s: sequence complete; its door opens when firewalld is back"
        logger.warning(text, door.address, extra=extra)

    def on_opened(self, door: Door, zones: tuple[str, ...], left: float) -> None:
        """firewalld has its rules in these zones, for so many seconds."""
        where = ", ".join(zones)
        extra = _about(LogEvent.OPENED, door, zone=where, seconds=round(left, 3))
        text = "%s: opened %s in zone %s for %.3g s"
        logger.info(text, door.address, door, where, left, extra=extra)

    def on_prolonged(self, door: Door, duration: float | None, when: float) -> None:
        """It is open already, and stays so for so many seconds (None: nobody knows yet)."""
        if self._prolonged.admits(when):
            extra = _about(LogEvent.PROLONGED, door, seconds=None if duration is None else round(duration, 3))
            self._prolonged.say("%s: prolonged %s", door.address, door, extra=extra)

    def on_refused(self, door: Door, doors: int, when: float) -> None:
        """It is not opened, as so many are open."""
        if self._refused.admits(when):
            extra = _about(LogEvent.REFUSED, door, reason="max_open_doors")
            text = "%s: not opened, %d doors are open already (max_open_doors)"
            self._refused.say(text, door.address, doors, extra=extra)

    def on_closed(self, door: Door) -> None:
        """firewalld has removed its rules."""
        logger.info("%s: closed %s", door.address, door, extra=_about(LogEvent.CLOSED, door))

    def on_never_opened(self, door: Door) -> None:
        """Its time is over, and firewalld never had its rules."""
        extra = _about(LogEvent.NEVER_OPENED, door, reason="firewalld had not answered")
        text = "%s: never opened: its time ran out before firewalld had answered"
        logger.warning(text, door.address, extra=extra)


def ready_line(settings: Settings) -> str:
    """What is heard from now on, and what it opens."""
    ears = []
    if settings.opening_sequence:
        ears.append(f"listening on {len(set(settings.opening_sequence))} UDP ports")
    if settings.sequences:
        ears.append(f"sniffing for {', '.join(sequence.name for sequence in settings.sequences)}")
    if not settings.opening_sequence:
        return f"ready: {', '.join(ears) or 'no sequence is to be heard'}"
    where = f"zone {settings.zone}" if settings.zone else "the zone that each knock came by"
    return (
        f"ready: {', '.join(ears)}; the opening sequence opens {ports_text(settings.guarded_ports)} "
        f"for {settings.door_duration:g} s in {where}"
    )


def ports_text(ports: Iterable[Port]) -> str:
    return ", ".join(map(str, ports))


def _text(source: bytes) -> str:
    return str(ipaddress.ip_address(source))


def _about(event: LogEvent, door: Door, **more: object) -> dict[str, object]:
    ports = tuple(map(str, door.opening.opened_ports())) or None
    return event_fields(event, address=door.address, sequence=door.access, ports=ports, **more)
