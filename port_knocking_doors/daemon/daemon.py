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
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from port_knocking_doors.capture.receiver import KnockReceiver
from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.config.readers import RESERVED_NAME
from port_knocking_doors.control.server import CloseResult, Control
from port_knocking_doors.control.status import DoorStatus, Snapshot
from port_knocking_doors.daemon import sweep
from port_knocking_doors.daemon.active import ActiveConfig, interfaces, sequences_of
from port_knocking_doors.daemon.event_log import EventLog, ready_line
from port_knocking_doors.daemon.observer import Observer
from port_knocking_doors.daemon.status_collector import StatusCollector
from port_knocking_doors.doors.commands import CommandRunner, pending_directory, run_pending
from port_knocking_doors.doors.table import Answer, DoorTable
from port_knocking_doors.errors import ConfigError, DoorsError, FirewallError, LineGoneError
from port_knocking_doors.firewall import exposure, rich_rule
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.knocks.authenticator import Judge, Outcome, Verdict
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.knocks.timeouts import AttemptTimeouts
from port_knocking_doors.model import (
    Address,
    CommandOpening,
    Dialect,
    Door,
    Port,
    PortOpening,
    Protocol,
    Sequence,
    Settings,
)
from port_knocking_doors.system import firewalld_service, one_time_file
from port_knocking_doors.system.clock import now, wait_at_most
from port_knocking_doors.system.crash_guard import CrashGuard
from port_knocking_doors.system.instance import has_rules, instance_lock
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.sd_notify import Watchdog, notify, reloading

FAREWELL = 10.0
"""Seconds that firewalld gets to close the doors at the end; the guardian takes over what is left."""

FIRST_ANSWER = 1.0
"""Seconds without firewalld after which the start says what it waits for."""

ANSWER = 3.0
"""Seconds that who asks for a door waits for firewalld's confirmation."""

_KNOCK_PORTS = "knock ports"
Reload = Callable[[], Loaded]
"""Reads the configuration again; raises `DoorsError` where it is wrong."""


class Daemon:
    """Everything that runs; `run` is its whole life."""

    def __init__(self, loaded: Loaded, reload: Reload, herald: Observer | None = None) -> None:
        settings = self._settings = loaded.settings
        self._loaded = loaded
        self._reload = reload
        self._herald = herald or Observer()
        self._force = ActiveConfig.of(settings)
        self._knockers = self._force.knockers
        self._doors = DoorTable(settings.max_open_doors)
        self._keeper = RuleReconciler(settings.rule_priority, self)
        self._commands: CommandRunner | None = None
        self._verbose = logger.isEnabledFor(logging.DEBUG)
        self._watched = False
        self._counts: Counter[str] = Counter()
        self._ears = KnockReceiver(
            settings.opening_sequence,
            self._knockers,
            self._judge(self._knockers),
            self._act,
        )
        self._has_rules = has_rules(settings.rule_priority)
        """Whether it has anything to do with firewalld, and does not only run commands."""
        self._confirmed: dict[Door, tuple[str, ...]] = {}
        self._insight = StatusCollector(self._ears, self._doors, self._keeper, self._confirmed, self._counts)
        self._teller = EventLog(self._arm)
        self._lapses = AttemptTimeouts()
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = math.inf
        """What the timer is set to."""
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
            stack.enter_context(instance_lock(self._settings.rule_priority))
            stack.enter_context(Watchdog())
            pending = pending_directory(self._settings.rule_priority)
            run_pending(pending)
            self._commands = CommandRunner(pending, self)
            stack.enter_context(self._ears)
            # From here on something may be open; what went wrong before needs no closer.
            guardian = stack.enter_context(CrashGuard(sweep.command(self._settings.rule_priority)))
            end = self._ending.set
            stack.enter_context(_signals({signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: self._on_hangup}))
            control = stack.enter_context(Control(self._settings.rule_priority, self))
            worker = asyncio.create_task(self._keep())
            others = [asyncio.create_task(work) for work in (self._start(), self._check(), control.run())]
            ending = asyncio.create_task(self._ending.wait())
            try:
                await _until(ending, worker, *others)
            finally:
                for task in (ending, *others):
                    task.cancel()
                await self._close_all(guardian)
                worker.cancel()
                await asyncio.gather(ending, worker, *others, return_exceptions=True)

    async def _keep(self) -> None:
        if self._has_rules:
            await self._keeper.run()
        else:
            await asyncio.Event().wait()

    async def _start(self) -> None:
        """Wait for firewalld where there is a use for it, let the knocks through, and say that all is ready."""
        if self._has_rules:
            await self._meet_firewall()
        logger.info("%s", ready_line(self._settings), extra=event_fields(LogEvent.READY))
        self._herald.on_ready(", ".join(interfaces(self._settings)))
        self._tell_shut(self._force)
        notify("READY=1")
        if self._keeper.zones is not None:
            await self._look_for_ways(self._keeper.zones)

    async def _meet_firewall(self) -> None:
        try:
            await wait_at_most(FIRST_ANSWER, self._keeper.ready())
        except asyncio.TimeoutError:
            why = self._keeper.unavailable_reason
            extra = event_fields(LogEvent.FIREWALLD, reason=why)
            logger.warning("%s", firewalld_service.pending(why if self._keeper.present else ""), extra=extra)
            await self._keeper.ready()
        assert self._keeper.zones is not None
        _check_zone(self._settings, self._keeper.zones)
        if self._settings.open_knock_ports:
            self._keeper.set_desired(_KNOCK_PORTS, self._knock_port_rules)
        await self._keeper.settled()

    async def _look_for_ways(self, zones: Zones) -> None:
        """Say loudly which guarded ports firewalld lets through without a knock: the commonest mistake."""
        settings = self._settings
        guarded = dict.fromkeys(port for sequence in sequences_of(settings) for port in sequence.access.ports)
        looked_at = dict.fromkeys((*([settings.zone] if settings.zone else []), *zones.external()))
        with suppress(FirewallError):  # what is wrong with firewalld, the doorkeeper tells
            all_rules, services = await self._keeper.firewalld.firewall(looked_at)
            for rules in all_rules:
                for port in guarded:
                    for way in exposure.find(port, rules, services, settings.rule_priority).exposures:
                        if not way.limited:
                            extra = event_fields(
                                LogEvent.OPEN_WITHOUT_KNOCK, port=port, zone=rules.name, reason=way.what
                            )
                            logger.warning("%s", exposure.warning_line(port, rules, way), extra=extra)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._settings.rule_check_period)
            if self._has_rules:
                self._keeper.check()
            self._knockers.expire(now())  # a matter of memory only

    async def _close_all(self, guardian: CrashGuard) -> None:
        """Close every door, and end the guardian's watch if that worked."""
        notify("STOPPING=1")
        self._ending.set()  # whoever asks for a door now is too late
        self._ears.close()
        if self._timer is not None:
            self._timer.cancel()
        self._keeper.clear_all()
        unstopped = await self._commands.close(FAREWELL) if self._commands is not None else 0
        if self._keeper.present:
            try:
                await wait_at_most(FAREWELL, self._keeper.settled())
            except asyncio.TimeoutError:
                raise FirewallError(
                    "doors are not closed: firewalld does not answer; a helper process waits for it and closes them"
                ) from None
            if self._keeper.active_rules:
                raise FirewallError(f"firewalld refused to remove {self._keeper.active_rules} rules; see above")
        if unstopped:
            raise DoorsError(f"{unstopped} stop commands have not ended; a helper process runs them again")
        guardian.dismiss()
        self._herald.on_end()

    # Knocks. ---------------------------------------------------------------------------------------------------------

    def _judge(self, knockers: KnockerTable) -> Judge:
        """What the ears ask about each knock: the table itself, or one that tells of it."""

        def aloud(source: bytes, code: int, packet_id: int, when: float) -> Outcome:
            outcome = knockers.on_knock(source, code, packet_id, when)
            # Those that open or err have lines of their own; whoever watches sees each knock.
            has_line = outcome.verdict is Verdict.COMPLETE and not self._watched
            if outcome.verdict is Verdict.WRONG or has_line:
                return outcome
            self._teller.on_knock(source, outcome, when)
            return outcome

        return aloud if self._verbose or self._watched else knockers.on_knock

    def _act(self, source: bytes, interface: int, outcome: Outcome, when: float) -> None:
        if outcome.stages:
            self._tell_stages(source, outcome, when)
        if outcome.verdict is Verdict.COMPLETE:
            address, name = ipaddress.ip_address(source), _interface_name(interface)
            self._counts["complete"] += len(outcome.sequences)
            spent: set[tuple[str, int]] = set()
            for sequence in outcome.sequences:
                if not sequence.one_time or self._spend(sequence, spent):
                    self._open(address, name, sequence, when)
            self._arm()
        elif outcome.verdict is Verdict.WRONG:
            self._counts["wrong"] += 1
            self._teller.on_wrong_knock(source, self._settings.ignoring_period, when)

    def _tell_stages(self, source: bytes, outcome: Outcome, when: float) -> None:
        """knockd has a line for each step of its sequences."""
        for sequence, stage in outcome.stages:
            if sequence.dialect is not Dialect.KNOCKD:
                continue
            is_complete = stage == len(sequence.steps)
            if not is_complete and not self._teller.admits_stage(when):
                continue
            address = ipaddress.ip_address(source)
            self._herald.on_stage(address, sequence.name, stage)
            if is_complete:
                self._herald.on_complete(address, sequence.name)
            elif stage == 1:
                until = when + sequence.timeout
                self._lapses.watch(source, sequence, until)
                if until < self._alarm:
                    self._arm()

    def _spend(self, sequence: Sequence, spent: set[tuple[str, int]]) -> bool:
        """Whether the one-time sequence counts: it is marked as used, on the disk, before anything comes of it.

        `spent`: path and place of the lines that this very knock has used, for every door that names their file.
        """
        line = self._force.lines.pop(sequence, None)
        if line is None:  # the same line again, in the same moment
            return False
        if (line.path, line.offset) in spent:
            return True
        # The next one is in force once all that arrived with this knock was judged.
        asyncio.get_running_loop().call_soon(self._renew)
        try:
            one_time_file.consume(line)
        except LineGoneError as error:
            logger.warning("%s: %s: not opened, its next sequence is in force", sequence.name, error)
            return False
        except DoorsError as error:
            logger.error("%s: %s: the door is disabled until the configuration is read again", sequence.name, error)
            self._herald.on_unmarked(sequence.name)
            self._force.disabled.add(line.path)
            return False
        spent.add((line.path, line.offset))
        return True

    def _renew(self) -> None:
        """The next one-time sequences are in force; everybody goes on where he was."""
        if self._ending.is_set():
            return
        before = {sequence for sequence, _ in self._force.shut}
        force = ActiveConfig.of(self._settings, self._force.disabled)
        try:
            self._put_in_force(force, self._settings)
        except DoorsError as error:
            logger.error("no other one-time sequence is in force until the configuration is read again: %s", error)
        else:
            self._tell_shut(force, before)

    def _put_in_force(self, force: ActiveConfig, settings: Settings) -> None:
        """Raises `DoorsError` with nothing changed."""
        force.knockers.adopt(self._knockers)
        self._ears.replace(settings.opening_sequence, force.knockers, self._judge(force.knockers))
        self._force, self._knockers = force, force.knockers

    def _tell_shut(self, force: ActiveConfig, known: Collection[Sequence] = ()) -> None:
        for sequence, why in force.shut:
            if sequence not in known:
                logger.error("%s: %s: its door is disabled", sequence.name, why)
                self._herald.on_disabled(sequence.name)

    def _open(self, address: Address, interface: str, sequence: Sequence, when: float) -> None:
        access = sequence.access
        for opening in access.openings:
            if isinstance(opening, CommandOpening):
                door = Door(address, "", access.name, opening)
                # The delay counts from the end of the start command, which is not known yet.
                delay = opening.delay if door in self._doors else math.inf
                # Without a stop command nothing is open afterwards: it runs each time.
                if self._commands and (not opening.stop_for(address) or self._admit(door, when, delay)):
                    self._commands.start(door)
            else:
                self._open_ports(Door(address, interface, access.name, opening), when, access.duration)

    def _open_ports(self, door: Door, when: float, duration: float) -> None:
        if self._admit(door, when, duration):
            self._begin_anew(door)
            self._keeper.set_desired(door, lambda zones: self._door_rules(door, zones))
            if not self._keeper.present:
                self._teller.on_waiting(door)

    def _admit(self, door: Door, when: float, duration: float) -> bool:
        """Whether the door is to be opened now; where it is open already, its deadline moves."""
        answer = self._doors.open(door, when + duration)
        if answer is not Answer.OPEN:
            self._counts["prolonged" if answer is Answer.PROLONG else "refused"] += 1
        if answer is Answer.PROLONG:
            self._teller.on_prolonged(door, duration if duration < math.inf else None, when)
        elif answer is Answer.REFUSE:
            self._teller.on_refused(door, len(self._doors), when)
        return answer is Answer.OPEN

    def _begin_anew(self, door: Door) -> None:
        """Forget that it was open: its time was over, and firewalld had not yet confirmed that it is closed."""
        if self._confirmed.pop(door, None) is not None:
            self._counts["closed"] += 1

    def _door_rules(self, door: Door, zones: Zones) -> list[ZoneRule]:
        zone = self._settings.zone or zones.zone_of(door.address, door.interface)
        return [ZoneRule(zone, rule) for rule in rich_rule.door_rules(door, self._settings.rule_priority)]

    def _knock_port_rules(self, zones: Zones) -> list[ZoneRule]:
        return [
            ZoneRule(zone, rich_rule.knock_port_rule(Port(port, Protocol.UDP), self._settings.rule_priority))
            for zone in ([self._settings.zone] if self._settings.zone else zones.active())
            for port in dict.fromkeys(self._settings.opening_sequence)
        ]

    # What firewalld confirmed. ---------------------------------------------------------------------------------------

    def on_active(self, owner: Hashable, zones: tuple[str, ...]) -> None:
        """A door is open, or open again after firewalld forgot it."""
        if isinstance(owner, Door) and owner not in self._confirmed:
            self._confirmed[owner] = zones
            self._counts["opened"] += 1
            self._teller.on_opened(owner, zones, (self._doors.until(owner) or now()) - now())

    def on_removed(self, owner: Hashable) -> None:
        """A door is closed."""
        if isinstance(owner, Door) and owner in self._confirmed:
            del self._confirmed[owner]
            self._counts["closed"] += 1
            self._teller.on_closed(owner)

    def on_started(self, door: Door) -> None:
        """Its start command has ended: now its time runs."""
        assert isinstance(door.opening, CommandOpening)
        if self._doors.close(door):
            self._counts["opened"] += 1
            self._doors.open(door, now() + door.opening.delay)
            self._arm()

    def on_refused(self, door: Door) -> None:
        """Nothing is open, and the next sequence may try again."""
        self._doors.close(door)

    def on_command(self, door: Door, line: str) -> None:
        """A start or stop command begins."""
        self._herald.on_command(door.access, line)

    def on_status(self, door: Door, status: int) -> None:
        """A start or stop command has ended."""
        if status:
            self._herald.on_status(door.access, status)

    # Deadlines. ------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Sleep until the nearest deadline of everything that has one."""
        deadlines = (self._doors.next_deadline(), self._lapses.next_deadline(), self._teller.next_deadline())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        nearest = min((deadline for deadline in deadlines if deadline is not None), default=math.inf)
        self._alarm = nearest
        if nearest < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, nearest - now()), self._on_deadline)

    def _on_deadline(self) -> None:
        when = now()
        for door in self._doors.due(when):
            if isinstance(door.opening, PortOpening) and door not in self._confirmed:
                self._teller.on_never_opened(door)
            self._shut(door)
        for source, sequence in self._lapses.due(when):
            if stage := self._knockers.stage(source, sequence):
                self._herald.on_timeout(ipaddress.ip_address(source), sequence.name, stage)
        self._teller.sum_up(when)
        self._arm()

    def _shut(self, door: Door) -> None:
        """Undo what opened a door that is out of the table."""
        if isinstance(door.opening, PortOpening):
            self._keeper.clear(door)
        elif self._commands is not None:
            self._counts["closed"] += 1
            self._herald.on_stop(door.address, door.access)
            self._commands.stop(door)

    # The configuration, again. ---------------------------------------------------------------------------------------

    def _on_hangup(self) -> None:
        with reloading(), suppress(DoorsError):  # the log has the error
            self.reload()

    def reload(self) -> None:
        """Read the configuration again, whole; then swap it in. Open doors and their deadlines stay as they are.

        Raises `DoorsError` with nothing changed; the log has it, too.
        """
        if self._ending.is_set():
            raise DoorsError("the daemon is ending")
        try:
            loaded = self._reload()
            try:
                force = self._prepared(loaded.settings)
            except ConfigError as error:
                raise loaded.placed(error) from error
        except DoorsError as error:
            self._herald.on_reload()  # its log is opened anew all the same
            extra = event_fields(LogEvent.RELOAD_FAILED, reason=error)
            logger.error("the configuration was read again and nothing changed: %s", error, extra=extra)
            raise
        settings = loaded.settings
        self._loaded, self._settings = loaded, settings
        self._doors.limit = settings.max_open_doors
        if settings.open_knock_ports:
            self._keeper.set_desired(_KNOCK_PORTS, self._knock_port_rules)
        else:
            self._keeper.clear(_KNOCK_PORTS)
        self._keeper.replace_all()
        self._herald.on_reload()
        self._tell_shut(force)
        logger.info("the configuration was read again and is in force", extra=event_fields(LogEvent.RELOADED))
        if self._keeper.zones is not None:
            self._look = asyncio.create_task(self._look_for_ways(self._keeper.zones))

    def _prepared(self, settings: Settings) -> ActiveConfig:
        """What is in force with these settings, with the ears open for it already.

        Raises `DoorsError` with nothing changed.
        """
        if settings.rule_priority != self._settings.rule_priority:
            raise ConfigError(
                "rule_priority cannot change while the daemon runs, expected a restart", field="rule_priority"
            )
        if self._keeper.zones is not None:
            _check_zone(settings, self._keeper.zones)
        force = ActiveConfig.of(settings)
        self._put_in_force(force, settings)
        return force

    # What is asked over the control socket (`control.Host`). ---------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return self._insight.snapshot(self._loaded, self._knockers)

    async def open(self, address: Address, name: str) -> list[DoorStatus]:
        if self._ending.is_set():
            raise DoorsError("the daemon is ending")
        sequences = {sequence.name: sequence for sequence in reversed(sequences_of(self._settings))}
        sequence = sequences.get(name or RESERVED_NAME)
        if sequence is None:
            what = f"sequence {name!r}" if name else "opening sequence"
            raise ConfigError(f"there is no {what}, expected one of: {', '.join(sorted(sequences))}")
        # A door that is open from a knock is prolonged where it is, and none beside it opened in another zone.
        standing = (door.interface for door in self._doors_of(address, sequence) if door.interface)
        self._open(address, next(standing, ""), sequence, now())
        self._arm()
        await self._calm()
        opened = self._doors_of(address, sequence)
        if sequence.access.ports and not any(isinstance(door.opening, PortOpening) for door in opened):
            raise DoorsError("not opened: as many doors are open as may be (max_open_doors), or it is closed again")
        return [self._insight.of_door(door) for door in opened]

    def _doors_of(self, address: Address, sequence: Sequence) -> list[Door]:
        """Its rules, and its command: each is a door of its own."""
        return [door for door in self._doors if (door.address, door.access) == (address, sequence.name)]

    async def close(self, address: Address | None) -> CloseResult:
        doors = [door for door in self._doors if address in (None, door.address)]
        for door in doors:
            self._doors.close(door)
            self._shut(door)
        self._arm()
        settled = await self._calm()
        return CloseResult(
            len(doors),
            sum(door in self._confirmed or not (settled or isinstance(door.opening, CommandOpening)) for door in doors),
        )

    def forget(self, address: Address) -> bool:
        return self._knockers.forget(address.packed)

    def watch(self, is_watched: bool) -> None:
        self._watched = is_watched
        self._ears.judge_by(self._judge(self._knockers))

    async def _calm(self) -> bool:
        """Give firewalld a moment to do what was asked; whether it has."""
        try:
            await wait_at_most(ANSWER, self._keeper.settled())
        except asyncio.TimeoutError:
            return False
        return True


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


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # not known, or gone already
        return ""
