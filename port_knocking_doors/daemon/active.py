"""What is in force: settings → the table of knockers, with its traps laid and the one-time sequences of the moment."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from random import SystemRandom

from port_knocking_doors.config import knockd
from port_knocking_doors.config.readers import RESERVED_NAME
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.knocks import traps
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import Access, Port, Protocol, Sequence, Settings, Step
from port_knocking_doors.system import one_time_file
from port_knocking_doors.system.listening_ports import ephemeral_ports, listening_ports


@dataclass(frozen=True)
class ActiveConfig:
    """The table of knockers for some settings, and what belongs to it."""

    knockers: KnockerTable
    lines: dict[Sequence, one_time_file.OneTimeLine]
    """For each one-time sequence of the table, where it stands."""
    shut: tuple[tuple[Sequence, str], ...]
    """Those whose file has no line for them, and why."""
    disabled: set[str]
    """Files whose lines could not be marked as used: none of them counts any more."""

    @classmethod
    def of(cls, settings: Settings, disabled: Iterable[str] = ()) -> "ActiveConfig":
        """A file of one-time sequences that cannot be read shuts its doors, and no other one."""
        passed_over = set(disabled)
        sniffed: list[Sequence] = []
        lines: dict[Sequence, one_time_file.OneTimeLine] = {}
        shut: list[tuple[Sequence, str]] = []
        for sequence in settings.sequences:
            scoped = _scoped(sequence, settings)
            if not sequence.one_time:
                sniffed.append(scoped)
            elif sequence.one_time not in passed_over:
                read = partial(knockd.one_time_steps, flags=sequence.flags)
                try:
                    line = one_time_file.current_line(sequence.one_time, read)
                except DoorsError as error:
                    shut.append((sequence, str(error)))
                    continue
                if line is None:
                    shut.append((sequence, f"no sequence is left in {sequence.one_time}"))
                else:
                    sniffed.append(replace(scoped, steps=line.steps))
                    lines[sniffed[-1]] = line
        return cls(_knockers(settings, tuple(sniffed)), lines, tuple(shut), passed_over)


def interfaces(settings: Settings) -> list[str]:
    """Names and patterns of the interfaces that sequences are heard on; empty where that is all of them."""
    named = (_scoped(sequence, settings).scope.interfaces for sequence in settings.sequences)
    return list(dict.fromkeys(chain.from_iterable(named)))


def _scoped(sequence: Sequence, settings: Settings) -> Sequence:
    """The sequence, heard on the interfaces that the options name where it names none itself."""
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
    )
    return (main, *settings.sequences)


def _knockers(settings: Settings, sniffed: tuple[Sequence, ...]) -> KnockerTable:
    sequences = sequences_of(replace(settings, sequences=sniffed))
    laid = {}
    if any(sequence.traps for sequence in sniffed):
        listened = {Port(port, Protocol.UDP) for port in settings.opening_sequence}
        opened = {port for one in sequences for port in one.access.ports}
        laid = traps.choose_traps(sniffed, listened | opened | listening_ports(), ephemeral_ports(), SystemRandom())
    return KnockerTable(sequences, settings.ignoring_period, settings.max_knockers, laid)
