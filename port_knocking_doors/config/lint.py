"""Warnings about sequences that are allowed and still unwise: public, short, in order, or on ports in use."""

from collections.abc import Collection, Iterator

from port_knocking_doors.config.schema import EXAMPLE_STEPS
from port_knocking_doors.model import DEFAULT_SEQUENCE, Port, Protocol, Sequence, Settings

SHORT = 3
"""Steps under which a sniffed sequence is found by chance too soon."""
PUBLIC = frozenset(
    {
        DEFAULT_SEQUENCE,
        tuple(step.port for step in EXAMPLE_STEPS),
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
"""Ports of sequences that everybody can look up, whatever their protocols and flags."""


def foreign_warnings(sequences: tuple[Sequence, ...], served: Collection[Port]) -> tuple[str, ...]:
    """What is unwise about sequences of other daemons' files, by their names and files."""
    return tuple(sniffed_warnings(Settings(guarded_ports=(), opening_sequence=(), sequences=sequences), "", served))


def opening_warnings(settings: Settings, source: str) -> Iterator[str]:
    """What is allowed and still unwise. `source`: where the sequence comes from, empty for the built-in one."""
    at = f"{source}: " if source else ""
    if settings.opening_sequence == DEFAULT_SEQUENCE:
        why = "the sequence is the documentation's example" if source else "no configuration file, built-in sequence"
        yield (
            f"{at}PUBLIC SEQUENCE: {why}, everybody can look it up and open the doors; "
            "choose your own, or let --set-configuration-file-in-home choose one"
        )
    elif is_sorted(settings.opening_sequence):
        yield f"{at}the ports of the sequence are in rising or falling order, which is easily guessed; mix them"
    guarded = {port.number for port in settings.guarded_ports if port.protocol is Protocol.UDP}
    both = len(guarded.intersection(settings.opening_sequence))
    if both:
        yield f"{at}{both} guarded UDP port(s) are also in the sequence, so no service can have them; choose others"


def sniffed_warnings(settings: Settings, file: str, served: Collection[Port]) -> Iterator[str]:
    """What is unwise about the sniffed sequences, by their names."""
    opened = {*settings.guarded_ports, *(port for sequence in settings.sequences for port in sequence.access.ports)}
    # The daemon itself serves the knock ports of the opening sequence; it may be running now.
    own = {Port(port, Protocol.UDP) for port in settings.opening_sequence}
    busy = {*served} - opened - own
    for sequence in settings.sequences:
        if sequence.one_time:
            continue
        at = f"{sequence.group or file}: sequence {sequence.name}:"
        ports = tuple(step.port for step in sequence.steps)
        if ports in PUBLIC:
            yield f"{at} PUBLIC SEQUENCE: its ports are a documentation's example, which everybody can look up"
        elif len(ports) < SHORT:
            steps = f"{len(ports)} steps, which are" if len(ports) > 1 else "1 step, which is"
            yield f"{at} it has {steps} soon found by chance; give it {SHORT} or more"
        elif is_sorted(ports) and not _differs_in_flags_alone(sequence):
            yield f"{at} its ports are in rising or falling order, which is easily guessed; mix them"
        stepped_on = {Port(step.port, step.protocol) for step in sequence.steps}
        for those, why in (
            (opened, "are guarded, so those who use what is behind them knock, too"),
            (busy, "are served by a program of this machine, so those who use it knock, too"),
        ):
            if both := len(stepped_on & those):
                yield f"{at} {both} port(s) of its steps {why}; choose others"


def _differs_in_flags_alone(sequence: Sequence) -> bool:
    return len({step.port for step in sequence.steps}) == 1 < len(set(sequence.steps))


def is_sorted(ports: tuple[int, ...]) -> bool:
    rising = sorted(ports)
    return list(ports) in (rising, rising[::-1])
