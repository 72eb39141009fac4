"""The daemon: wires the ears, the two tables and the firewall, and wakes at their deadlines.

One knock, from wire to door: a listener hands it over → `knockers` judges it → at "complete" `doors` answers open or
prolong → `doorkeeper` gets the rules to stand → the loop sleeps until the nearest deadline → `doors` says what is due →
`doorkeeper` gets the rules to go.
"""

import asyncio
import ipaddress
import logging
import math
import signal
import socket
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from random import SystemRandom

from . import rich_rule, traps
from .clock import now, within
from .commands import Commands, pending_directory, run_pending
from .config.loader import Loaded
from .config.values import RESERVED_NAME
from .doorkeeper import Doorkeeper, Placed
from .doors import Answer, Doors
from .ears import Ears
from .errors import ConfigError, DoorsError, FirewallError
from .guardian import Guardian
from .knockers import Judge, Knockers, Outcome, Verdict
from .log import logger
from .model import Door, Port, Protocol, Sequence, Settings, Step
from .notify import Watchdog, notify, reloading
from .runtime import hold_mark
from .served import outgoing_ports, served_ports
from .throttle import Throttle
from .zones import Zones

FAREWELL = 10.0
"""Seconds that firewalld gets to close the doors at the end; the guardian takes over what is left."""

FIRST_ANSWER = 1.0
"""Seconds without firewalld after which the start says what it waits for."""

_KNOCK_PORTS = "knock ports"
Reload = Callable[[], Loaded]
"""Reads the configuration again; raises `DoorsError` where it is wrong."""


class Daemon:
    """Everything that runs; `run` is its whole life."""

    def __init__(self, loaded: Loaded, reload: Reload) -> None:
        settings = self._settings = loaded.settings
        self._loaded = loaded
        self._reload = reload
        self._knockers = _knockers(settings)
        self._doors = Doors(settings.max_open_doors)
        self._keeper = Doorkeeper(settings.rule_priority, self)
        self._commands: Commands | None = None
        self._verbose = logger.isEnabledFor(logging.DEBUG)
        self._ears = Ears(
            settings.opening_sequence,
            self._knockers.sniffed,
            settings.interfaces,
            self._judge(self._knockers),
            self._act,
        )
        self._confirmed: set[Hashable] = set()
        self._wrong = Throttle(burst=20, period=10.0)
        self._refused = Throttle(burst=5, period=10.0)
        self._prolonged = Throttle(burst=20, period=10.0)
        self._single = Throttle(burst=200, period=10.0)
        self._timer: asyncio.TimerHandle | None = None
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then close every door.

        Raises `DoorsError` where something is wrong from the start, with nothing opened, and where at the end doors
        could not be closed.
        """
        try:
            await self._run()
        except ConfigError as error:
            raise self._loaded.placed(error) from error

    async def _run(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(hold_mark(self._settings.rule_priority))
            stack.enter_context(Watchdog())
            pending = pending_directory(self._settings.rule_priority)
            run_pending(pending)
            self._commands = Commands(pending, self)
            stack.enter_context(self._ears)
            # From here on something may be open; what went wrong before needs no closer.
            guardian = stack.enter_context(Guardian(self._settings.rule_priority))
            end = self._ending.set
            stack.enter_context(_signals({signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: self._on_hangup}))
            worker = asyncio.create_task(self._keeper.run())
            others = [asyncio.create_task(self._start()), asyncio.create_task(self._check())]
            ending = asyncio.create_task(self._ending.wait())
            try:
                await _until(ending, worker, *others)
            finally:
                for task in (ending, *others):
                    task.cancel()
                await self._close_all(guardian)
                worker.cancel()
                await asyncio.gather(ending, worker, *others, return_exceptions=True)

    async def _start(self) -> None:
        """Wait for firewalld, let the knocks through, and say that all is ready."""
        try:
            await within(FIRST_ANSWER, self._keeper.surveyed())
        except asyncio.TimeoutError:
            logger.warning("firewalld %s: knocks are heard, doors wait until it obeys", self._keeper.obstacle)
            await self._keeper.surveyed()
        assert self._keeper.zones is not None
        _check_zone(self._settings, self._keeper.zones)
        if self._settings.open_knock_ports:
            self._keeper.want(_KNOCK_PORTS, self._knock_port_rules)
        await self._keeper.settled()
        logger.info("%s", _ready_line(self._settings))
        notify("READY=1")

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._settings.rule_check_period)
            self._keeper.check()
            self._knockers.expire(now())  # a matter of memory only

    async def _close_all(self, guardian: Guardian) -> None:
        """Close every door, and end the guardian's watch if that worked."""
        notify("STOPPING=1")
        self._ears.close()
        if self._timer is not None:
            self._timer.cancel()
        self._keeper.forget_all()
        unstopped = await self._commands.close(FAREWELL) if self._commands is not None else 0
        if self._keeper.present:
            try:
                await within(FAREWELL, self._keeper.settled())
            except asyncio.TimeoutError:
                raise FirewallError(
                    "doors are not closed: firewalld does not answer; a helper process waits for it and closes them"
                ) from None
            if self._keeper.standing:
                raise FirewallError(f"firewalld refused to remove {self._keeper.standing} rules; see above")
        if unstopped:
            raise DoorsError(f"{unstopped} stop commands have not ended; a helper process runs them again")
        guardian.dismiss()

    # Knocks. ---------------------------------------------------------------------------------------------------------

    def _judge(self, knockers: Knockers) -> Judge:
        """What the ears ask about each knock: the table itself, or one that tells of it."""

        def aloud(source: bytes, code: int, echo: int, when: float) -> Outcome:
            outcome = knockers.on_knock(source, code, echo, when)
            if outcome.matters:
                return outcome
            if self._single.admits(when):
                stage = f" to step {outcome.stage}" if outcome.verdict is Verdict.ADVANCED else ""
                logger.debug("%s: knock %s%s", _text(source), outcome.verdict.name.lower(), stage)
            elif self._single.withheld == 1:
                self._arm()
            return outcome

        return aloud if self._verbose else knockers.on_knock

    def _act(self, source: bytes, interface: int, outcome: Outcome, when: float) -> None:
        if outcome.verdict is Verdict.COMPLETE:
            for sequence in outcome.sequences:
                self._open(source, interface, sequence, when)
            self._arm()
        elif self._wrong.admits(when):
            logger.warning("%s: wrong knock, not heard for %g s", _text(source), self._settings.ignoring_period)
        elif self._wrong.withheld == 1:
            self._arm()

    def _open(self, source: bytes, interface: int, sequence: Sequence, when: float) -> None:
        address = ipaddress.ip_address(source)
        if sequence.opens:
            door = Door(address, _interface_name(interface), sequence.name, sequence.opens)
            if self._admit(door, when, sequence.duration):
                self._keeper.want(door, lambda zones: self._door_rules(door, zones))
                if not self._keeper.present:
                    logger.warning("%s: sequence complete; its door opens when firewalld is back", address)
        if sequence.command is not None:
            door = Door(address, "", sequence.name, command=sequence.command)
            # The delay counts from the end of the start command, which is not known yet.
            delay = sequence.command.delay if door in self._doors else math.inf
            # Without a stop command nothing is open afterwards: it runs each time.
            if self._commands and (not sequence.command.stop or self._admit(door, when, delay)):
                self._commands.start(door)

    def _admit(self, door: Door, when: float, duration: float) -> bool:
        """Whether the door is to be opened now; where it is open already, its deadline moves."""
        answer = self._doors.open(door, when + duration)
        if answer is Answer.PROLONG and self._prolonged.admits(when):
            logger.info("%s: prolonged %s", door.address, _what(door))
        elif answer is Answer.REFUSE and self._refused.admits(when):
            logger.error("%s: not opened, %d doors are open already (max_open_doors)", door.address, len(self._doors))
        return answer is Answer.OPEN

    def _door_rules(self, door: Door, zones: Zones) -> list[Placed]:
        zone = self._settings.zone or zones.zone_of(door.address, door.interface)
        return [Placed(zone, rule) for rule in rich_rule.door_rules(door, self._settings.rule_priority)]

    def _knock_port_rules(self, zones: Zones) -> list[Placed]:
        return [
            Placed(zone, rich_rule.knock_port_rule(Port(port, Protocol.UDP), self._settings.rule_priority))
            for zone in ([self._settings.zone] if self._settings.zone else zones.active())
            for port in dict.fromkeys(self._settings.opening_sequence)
        ]

    # What firewalld confirmed. ---------------------------------------------------------------------------------------

    def on_standing(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        """A door is open, or open again after firewalld forgot it."""
        if isinstance(owner, Door) and owner not in self._confirmed:
            self._confirmed.add(owner)
            left = (self._doors.until(owner) or now()) - now()
            logger.info(
                "%s: opened %s in zone %s for %.3g s", owner.address, _ports(owner.ports), ", ".join(zones), left
            )

    def on_gone(self, owner: Hashable) -> None:
        """A door is closed."""
        if isinstance(owner, Door) and owner in self._confirmed:
            self._confirmed.discard(owner)
            logger.info("%s: closed %s", owner.address, _ports(owner.ports))

    def on_started(self, door: Door) -> None:
        """Its start command has ended: now its time runs."""
        assert door.command is not None
        if self._doors.close(door):
            self._doors.open(door, now() + door.command.delay)
            self._arm()

    def on_refused(self, door: Door) -> None:
        """Nothing is open, and the next sequence may try again."""
        self._doors.close(door)

    # Deadlines. ------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Sleep until the nearest deadline of everything that has one."""
        deadlines = [
            self._doors.next_deadline(),
            *(throttle.next_deadline() for throttle in (self._wrong, self._refused, self._prolonged, self._single)),
        ]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        nearest = min((deadline for deadline in deadlines if deadline is not None), default=math.inf)
        if nearest < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, nearest - now()), self._on_deadline)

    def _on_deadline(self) -> None:
        when = now()
        for door in self._doors.due(when):
            if door.command is not None:
                if self._commands is not None:
                    self._commands.stop(door)
                continue
            if door not in self._confirmed:
                logger.warning("%s: never opened: its time ran out before firewalld had answered", door.address)
            self._keeper.forget(door)
        if more := self._wrong.summary(when):
            logger.warning("%d more wrong knocks in the last %g s", more, self._wrong.period)
        if more := self._refused.summary(when):
            logger.error("%d more doors not opened (max_open_doors)", more)
        if more := self._single.summary(when):
            logger.debug("%d more knocks", more)
        if more := self._prolonged.summary(when):
            logger.info("%d more doors prolonged", more)
        self._arm()

    # The configuration, again. ---------------------------------------------------------------------------------------

    @reloading
    def _on_hangup(self) -> None:
        """Read the configuration again, whole; then swap it in. Open doors and their deadlines stay as they are."""
        try:
            loaded = self._reload()
        except DoorsError as error:
            logger.error("the configuration was read again and nothing changed: %s", error)
            return
        settings = loaded.settings
        try:
            if settings.rule_priority != self._settings.rule_priority:
                raise ConfigError(
                    "rule_priority cannot change while the daemon runs, expected a restart", field="rule_priority"
                )
            if self._keeper.zones is not None:
                _check_zone(settings, self._keeper.zones)
            knockers = _knockers(settings)
            self._ears.replace(settings.opening_sequence, knockers.sniffed, self._judge(knockers))
        except DoorsError as error:
            placed = loaded.placed(error) if isinstance(error, ConfigError) else error
            logger.error("the configuration was read again and nothing changed: %s", placed)
            return
        self._loaded, self._settings, self._knockers = loaded, settings, knockers
        self._doors.limit = settings.max_open_doors
        if settings.open_knock_ports:
            self._keeper.want(_KNOCK_PORTS, self._knock_port_rules)
        else:
            self._keeper.forget(_KNOCK_PORTS)
        self._keeper.replace_all()
        logger.info("the configuration was read again and is in force")


def _knockers(settings: Settings) -> Knockers:
    main = Sequence(
        name=RESERVED_NAME,
        steps=tuple(Step(Protocol.UDP, port) for port in settings.opening_sequence),
        opens=settings.guarded_ports,
        duration=settings.door_duration,
        lifetime=settings.knocker_lifetime,
        listened=True,
    )
    sequences = (main, *settings.sequences)
    laid = {}
    if settings.sequences:
        own = {Port(step.port, step.protocol) for step in main.steps} | {
            port for one in sequences for port in one.opens
        }
        laid = traps.lay(settings.sequences, own | served_ports(), outgoing_ports(), SystemRandom())
    return Knockers(sequences, settings.ignoring_period, settings.max_knockers, laid)


def _ready_line(settings: Settings) -> str:
    listening = f"listening on {len(set(settings.opening_sequence))} UDP ports"
    if settings.sequences:
        listening += f", sniffing for {', '.join(sequence.name for sequence in settings.sequences)}"
    where = f"zone {settings.zone}" if settings.zone else "the zone that each knock came by"
    return (
        f"ready: {listening}; the opening sequence opens {_ports(settings.guarded_ports)} "
        f"for {settings.door_duration:g} s in {where}"
    )


def _check_zone(settings: Settings, zones: Zones) -> None:
    if settings.zone and settings.zone not in zones.known:
        raise ConfigError(
            f"zone {settings.zone!r} is not known to firewalld, expected one of: {', '.join(sorted(zones.known))}",
            field="zone",
        )


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


def _text(source: bytes) -> str:
    return str(ipaddress.ip_address(source))


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # not known, or gone already
        return ""


def _ports(ports: Iterable[Port]) -> str:
    return ", ".join(map(str, ports))


def _what(door: Door) -> str:
    return f"{door.sequence}'s command" if door.command is not None else _ports(door.ports)
