"""Warnings about valid but unwise sequences: public, short, in order, or on ports in use."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator
from itertools import pairwise

from port_knocking_doors.config import readers
from port_knocking_doors.config.reserve import at_risk
from port_knocking_doors.config.schema import EXAMPLE_CLOSE_STEPS, EXAMPLE_STEPS
from port_knocking_doors.knocks.prefix_tree import rules_of
from port_knocking_doors.model import (
    DEFAULT_SEQUENCE,
    Dialect,
    EphemeralPorts,
    Port,
    Protocol,
    Sequence,
    Settings,
    Step,
)

SHORT = 3
"""A sniffed sequence of fewer steps is soon found by chance."""
RULES_MANY = 16
"""Sequences with one first step under so many different rules: a packet to it costs as much as to so many sequences."""
PUBLIC = frozenset(
    {
        DEFAULT_SEQUENCE,
        tuple(step.port for step in EXAMPLE_STEPS),
        tuple(step.port for step in EXAMPLE_CLOSE_STEPS),
        # knockd's manual and its example of a configuration
        (7000, 8000, 9000),
        (9000, 8000, 7000),
        (700, 800, 900),
        (900, 800, 700),
        (2222, 3333, 4444),
        # tportknockd's page
        (1234, 543, 543, 123, 434, 2345),
        (12430, 2711, 123, 8375, 1155),
        (110, 110, 110, 110, 110),
    }
)
"""Ports of published sequences, whatever their protocols and flags."""


def foreign_warnings(sequences: tuple[Sequence, ...], served: Collection[Port]) -> tuple[str, ...]:
    """Warnings about the sequences of other daemons' files. `served`: ports with a listening program."""
    return tuple(sniffed_warnings(Settings(guarded_ports=(), opening_sequence=(), sequences=sequences), "", served))


def opening_warnings(settings: Settings, source: str) -> Iterator[str]:
    """Warnings about the opening sequence. `source`: its file, option or variable; empty for the built-in one."""
    at = f"{source}: " if source else ""
    if settings.opening_sequence == DEFAULT_SEQUENCE and source:
        yield (
            f"{at}PUBLIC SEQUENCE: the sequence is the example of the documentation, so anyone can open a door; "
            "choose another one, or let --set-configuration-file-in-home choose one"
        )
    elif settings.opening_sequence == DEFAULT_SEQUENCE:
        yield (
            "PUBLIC SEQUENCE: there is no configuration file, so the built-in sequence is used, which is public, and "
            "anyone can open a door; write a file: port-knocking-doors --set-configuration-file-in-home"
        )
    elif settings.opening_sequence in PUBLIC:
        yield f"{at}PUBLIC SEQUENCE: its ports are a published example; choose others"
    elif len(settings.opening_sequence) < readers.SEQUENCE_SHORT:
        few = len(settings.opening_sequence)
        yield f"{at}{few} ports are soon found by chance; use {readers.SEQUENCE_SHORT} or more"
    elif is_sorted(settings.opening_sequence):
        yield f"{at}the ports of the sequence are in rising or falling order, which is easy to guess; mix them"
    guarded = {port.number for port in settings.guarded_ports if port.protocol is Protocol.UDP}
    if both := len(guarded.intersection(settings.opening_sequence)):
        yield f"{at}{both} guarded UDP port(s) are in the sequence, so no service can listen on them; choose others"


def ephemeral_warnings(settings: Settings, source: str, outgoing: EphemeralPorts) -> Iterator[str]:
    """Warnings about listened ports that an outgoing socket may have when the daemon starts. To sniffed ones, a socket
    makes no difference."""
    if exposed := len(at_risk(settings.opening_sequence, outgoing)):
        which = f"{exposed} ports of the sequence are" if exposed > 1 else "1 port of the sequence is"
        low, high = outgoing.range[0], outgoing.range[-1]
        yield (
            f"{source or 'opening_sequence'}: {which} in the range that the kernel gives to outgoing sockets ({low} to "
            f"{high}, net.ipv4.ip_local_port_range), so that another program may have one when the daemon starts; "
            "choose other ports, or reserve them: `port-knocking-doors check` shows the commands"
        )


def sniffed_warnings(settings: Settings, file: str, served: Collection[Port]) -> Iterator[str]:
    """Warnings about the sniffed sequences, by their names. `served`: ports with a listening program."""
    opened = {*settings.guarded_ports, *(port for sequence in settings.sequences for port in sequence.access.ports)}
    # A running daemon listens on the knock ports of the opening sequence.
    own = {Port(port, Protocol.UDP) for port in settings.opening_sequence}
    busy = {*served} - opened - own
    yield from _costly_warnings(settings, file)
    for sequence in (either for one in settings.sequences for either in (one, *one.closing())):
        if sequence.one_time:
            continue
        which = f"close_steps of {sequence.access.name}" if sequence.access.closes else f"sequence {sequence.name}"
        at = f"{sequence.group or file}: {which}:"
        ports = tuple(step.port for step in sequence.steps)
        if ports in PUBLIC:
            yield f"{at} PUBLIC SEQUENCE: its ports are a published example; choose others"
        elif len(ports) < SHORT:
            steps = f"{len(ports)} steps are" if len(ports) > 1 else "1 step is"
            yield f"{at} {steps} soon found by chance; use {SHORT} or more"
        elif is_sorted(ports) and not _differs_in_flags_alone(sequence):
            yield f"{at} its ports are in rising or falling order, which is easy to guess; mix them"
        if (
            sequence.dialect is not Dialect.NATIVE
            and not _differs_in_flags_alone(sequence)
            and any(one == other for one, other in pairwise(sequence.steps))
        ):
            yield f"{at} a step comes twice in a row, and one packet may count for both if it is sent again; mix them"
        stepped_on = {Port(step.port, step.protocol) for step in sequence.steps}
        for those, why in (
            (opened, "are guarded, so every client of the services behind them knocks"),
            (busy, "have a program listening, so every client of it knocks"),
        ):
            if both := len(stepped_on & those):
                yield f"{at} {both} port(s) of its steps {why}; choose others"


def _costly_warnings(settings: Settings, file: str) -> Iterator[str]:
    """Sequences that share first steps cost no more than one, if nothing but their steps and doors differs."""
    rules: dict[Step, set[Hashable]] = defaultdict(set)
    for sequence in settings.sequences:
        if sequence.steps:
            rules[sequence.steps[0]].add(rules_of(sequence))
    most = max(map(len, rules.values()), default=0)
    if most > RULES_MANY:
        yield (
            f"{file or 'sequences'}: sequences with the same first step have {most} different time limits, interfaces, "
            f"targets, flags or files, so a packet to it costs {most} times as much; give them the same ones, or other "
            "first steps"
        )


def _differs_in_flags_alone(sequence: Sequence) -> bool:
    return len({step.port for step in sequence.steps}) == 1 < len(set(sequence.steps))


def is_sorted(ports: tuple[int, ...]) -> bool:
    rising = sorted(ports)
    return list(ports) in (rising, rising[::-1])
