"""Which packets are a step of a sequence, and which are a knock for it at all, right or wrong: each dialect's answer.

Both are sets of codes (`code`), one for each combination of protocol, port and TCP flags, so that the table of knockers
tests no flags while packets arrive.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from port_knocking_doors.knocks.code import LISTENED, codes_of_port, flags_of, is_tcp
from port_knocking_doors.model import Dialect, Flags, Protocol, Sequence, Step

Codes = frozenset[int]

_OF_A_CONNECTION = int(Flags.ACK | Flags.RST)


class Subscription(NamedTuple):
    """Sequences to which the same packets are knocks."""

    codes: Codes
    sequences: tuple[Sequence, ...]


def accepted(sequence: Sequence) -> tuple[Codes, ...]:
    """For each step in turn, the codes that match it."""
    return tuple(frozenset(_marked(_codes(step), sequence)) for step in sequence.steps)


def subscriptions(sequences: Iterable[Sequence]) -> tuple[Subscription, ...]:
    """For all active sequences, the codes of what is a knock for them.

    The sequences of one of knockd's files are together if their flags are the same: there may be thousands.
    """
    groups: dict[str, set[int]] = defaultdict(set)
    alike: dict[object, list[Sequence]] = defaultdict(list)
    for sequence in sequences:
        if sequence.dialect is Dialect.KNOCKD:
            groups[sequence.group].update(*map(_codes, sequence.steps))
            alike[sequence.group, sequence.flags, sequence.listened].append(sequence)
        else:
            alike[sequence].append(sequence)
    return tuple(
        Subscription(frozenset(_marked(_knocks_of(one[0], groups[one[0].group]), one[0])), tuple(one))
        for one in alike.values()
    )


def _marked(codes: Iterable[int], sequence: Sequence) -> Iterator[int]:
    return (code | LISTENED if sequence.listened else code for code in codes)


def _codes(step: Step) -> Iterator[int]:
    # Numbers, since arithmetic with named flags takes ten times as long, and there may be thousands of steps.
    wanted, mask = int(step.flags), int(step.mask)
    for code in codes_of_port(step.protocol, step.port):
        if step.protocol is Protocol.UDP or (flags_of(code) ^ wanted) & mask == 0:
            yield code


def _knocks_of(sequence: Sequence, group: Iterable[int]) -> Iterator[int]:
    if sequence.dialect is Dialect.KNOCKD:
        # knockd has one filter for all doors of a file, so a knock for one of them is a knock for each.
        mask, value = map(int, sequence.flags)
        yield from (code for code in group if not is_tcp(code) or (flags_of(code) ^ value) & mask == 0)
        return
    for protocol, port in {(step.protocol, step.port) for step in sequence.steps}:
        every = codes_of_port(protocol, port)
        flags = {step.flags for step in sequence.steps if (step.protocol, step.port) == (protocol, port)}
        # Where the steps on a port are bare SYNs only, packets with ACK or RST belong to a connection.
        if sequence.dialect is Dialect.NATIVE and protocol is Protocol.TCP and flags == {Flags.SYN}:
            every = [code for code in every if not flags_of(code) & _OF_A_CONNECTION]
        yield from every
