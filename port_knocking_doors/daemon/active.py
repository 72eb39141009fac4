"""From settings to authenticators: the table of knockers with its traps, and the active one-time sequences."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from random import SystemRandom

from port_knocking_doors.config import knockd
from port_knocking_doors.config.readers import RESERVED_NAME
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.knocks.authenticator import Authenticator, KnockerView, SourceCounts
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.knocks.traps import choose_traps, move_traps
from port_knocking_doors.model import Access, Payload, Port, Protocol, Sequence, Settings, Step
from port_knocking_doors.system import one_time_file
from port_knocking_doors.system.listening_ports import ephemeral_ports, listening_ports

Build = Callable[[Settings, tuple[Sequence, ...]], Authenticator | None]
"""Makes an authenticator for some settings, or None where they have no use for it. The sequences are the active ones:
the opening sequence, those of the settings with the steps that they have at the moment, and those that close doors."""

KNOCKERS = "knockers"


@dataclass(frozen=True)
class OneTimeSequences:
    """The sequences whose steps are a line of a file, as of now."""

    active: dict[Sequence, Sequence]
    """For each of the settings' sequences the one with its steps; without any where no line is left, or none counts."""
    lines: dict[Sequence, one_time_file.OneTimeLine]
    """For each active one its line, until it is used."""
    shut: tuple[tuple[Sequence, str], ...]
    """Those whose file has no line for them, and why."""

    @classmethod
    def read(cls, settings: Settings, disabled: Collection[str]) -> "OneTimeSequences":
        """A file that cannot be read shuts the doors of its sequences, and no other one."""
        found = cls({}, {}, ())
        shut: list[tuple[Sequence, str]] = []
        for sequence in settings.sequences:
            if not sequence.one_time:
                continue
            scoped = replace(_scoped(sequence, settings), steps=())
            if sequence.one_time not in disabled:
                try:
                    read = partial(knockd.one_time_steps, flags=sequence.flags)
                    line = one_time_file.current_line(sequence.one_time, read)
                except DoorsError as error:
                    shut.append((sequence, str(error)))
                else:
                    if line is None:
                        shut.append((sequence, f"no sequence is left in {sequence.one_time}"))
                    else:
                        scoped = replace(scoped, steps=line.steps)
                        found.lines[scoped] = line
            found.active[sequence] = scoped
        return replace(found, shut=tuple(shut))


@dataclass(frozen=True)
class ActiveConfig:
    """The authenticators for some settings, and the active one-time sequences."""

    authenticators: dict[str, Authenticator]
    """By their names in `AUTHENTICATORS`."""
    one_time: OneTimeSequences
    disabled: set[str]
    """Files whose lines could not be marked as used: none of them counts any more."""

    @classmethod
    def of(cls, settings: Settings) -> "ActiveConfig":
        """Without the progress of any knocker."""
        one_time = OneTimeSequences.read(settings, ())
        sequences = _with_closing(sequences_of(replace(settings, sequences=_sniffed(settings, one_time))))
        made = {name: build(settings, sequences) for name, build in AUTHENTICATORS.items()}
        return cls({name: one for name, one in made.items() if one is not None}, one_time, set())

    @property
    def knockers(self) -> KnockerTable:
        """The table of knockers."""
        table = self.authenticators[KNOCKERS]
        assert isinstance(table, KnockerTable)
        return table

    @property
    def lines(self) -> dict[Sequence, one_time_file.OneTimeLine]:
        """For each active one-time sequence its line, until it is used."""
        return self.one_time.lines

    @property
    def shut(self) -> tuple[tuple[Sequence, str], ...]:
        """The one-time sequences whose file has no line for them, and why."""
        return self.one_time.shut

    def adopt(self, other: "ActiveConfig") -> None:
        """Take over the progress that is worth something with these settings, too."""
        for name, authenticator in self.authenticators.items():
            if name in other.authenticators:
                authenticator.adopt(other.authenticators[name])

    def renewed(self, settings: Settings) -> "ActiveConfig":
        """With the next lines of the one-time files: the table of knockers has their steps at once, and keeps all traps
        and all progress that these do not concern."""
        one_time = OneTimeSequences.read(settings, self.disabled)
        active = self.one_time.active
        replaced = {active[one]: new for one, new in one_time.active.items() if new.steps != active[one].steps}
        if replaced:
            table = self.knockers
            traps = table.traps
            if any(sequence.traps for sequence in table.sequences):
                sniffed = [one for one in _with_closing(_sniffed(settings, one_time)) if one.steps]
                traps = move_traps(traps, replaced, sniffed, _served(settings), ephemeral_ports(), SystemRandom())
            table.replace_steps(replaced, traps)
        return replace(self, one_time=one_time)

    # All authenticators as one. --------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Drop what does not matter any more."""
        for authenticator in self.authenticators.values():
            authenticator.expire(now)

    def counts(self, now: float) -> SourceCounts:
        """How many sources are known, and how many are ignored."""
        every = [authenticator.counts(now) for authenticator in self.authenticators.values()]
        return SourceCounts(sum(one.known for one in every), sum(one.ignored for one in every))

    def view(self, now: float, limit: int) -> list[KnockerView]:
        """At most `limit` of the sources that matter."""
        return [view for one in self.authenticators.values() for view in one.view(now, limit)][:limit]

    def forget(self, source: bytes) -> bool:
        """Forget one source; whether it was known."""
        return sum(authenticator.forget(source) for authenticator in self.authenticators.values()) > 0


def interfaces(settings: Settings) -> list[str]:
    """Names and patterns of the interfaces that sequences are limited to; empty for every interface."""
    named = (_scoped(sequence, settings).scope.interfaces for sequence in settings.sequences)
    return list(dict.fromkeys(chain.from_iterable(named)))


def _scoped(sequence: Sequence, settings: Settings) -> Sequence:
    """The sequence, limited to the interfaces of the options unless it names its own."""
    if sequence.scope.interfaces or not settings.interfaces:
        return sequence
    return replace(sequence, scope=replace(sequence.scope, interfaces=settings.interfaces))


def sequences_of(settings: Settings) -> tuple[Sequence, ...]:
    """All of them, the opening sequence first where there is one."""
    if not settings.opening_sequence:
        return settings.sequences
    main = Sequence(
        name=RESERVED_NAME,
        steps=tuple(Step(Protocol.UDP, port) for port in settings.opening_sequence),
        access=Access.of(RESERVED_NAME, settings.guarded_ports, settings.door_duration),
        lifetime=settings.knocker_lifetime,
        listened=True,
        any_payload=settings.payload is Payload.ANY,
    )
    return (main, *settings.sequences)


def _sniffed(settings: Settings, one_time: OneTimeSequences) -> tuple[Sequence, ...]:
    return tuple(one_time.active.get(sequence) or _scoped(sequence, settings) for sequence in settings.sequences)


def _with_closing(sequences: Iterable[Sequence]) -> tuple[Sequence, ...]:
    """The sequences, and behind them those that close their doors ahead of time."""
    every = tuple(sequences)
    return (*every, *chain.from_iterable(sequence.closing() for sequence in every))


def _served(settings: Settings) -> set[Port]:
    """Ports that a program listens on, that knocks are received on or that a door opens."""
    listened = {Port(port, Protocol.UDP) for port in settings.opening_sequence}
    opened = {port for one in sequences_of(settings) for port in one.access.ports}
    return listened | opened | listening_ports()


def _knocker_table(settings: Settings, sequences: tuple[Sequence, ...]) -> KnockerTable:
    sniffed = [sequence for sequence in sequences if not sequence.listened]
    traps = {}
    if any(sequence.traps for sequence in sniffed):
        traps = choose_traps(sniffed, _served(settings), ephemeral_ports(), SystemRandom())
    return KnockerTable(sequences, settings.ignoring_period, settings.max_knockers, traps)


AUTHENTICATORS: dict[str, Build] = {
    KNOCKERS: _knocker_table,
}
"""Every kind of authenticator, a line each."""
