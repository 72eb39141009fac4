"""Which packets are a step of a sequence, and which are a knock for it at all, right or wrong: each dialect's answer.

Both are sets of codes, a number for each combination of protocol, port and TCP flags (`Step.code`), so that the table
of knockers asks no question about flags while packets come.
"""

import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from port_knocking_doors.model import ALL_FLAGS, LISTENED, Dialect, Flags, Protocol, Sequence, Step

Codes = frozenset[int]


def accepted(sequence: Sequence) -> tuple[Codes, ...]:
    """For each step in turn, what is that step."""
    return tuple(frozenset(_marked(_codes(step), sequence)) for step in sequence.steps)


def subscribed_codes(sequences: Iterable[Sequence]) -> Mapping[Sequence, Codes]:
    """For each of these sequences, all of which are in force, what is a knock for it.

    Doors of one of knockd's files share what they hear, if their flags are the same: there may be thousands.
    """
    groups: dict[str, set[int]] = defaultdict(set)
    every = tuple(sequences)
    for sequence in every:
        if sequence.dialect is Dialect.KNOCKD:
            groups[sequence.group].update(*map(_codes, sequence.steps))
    shared: dict[tuple[str, tuple[int, int], bool], Codes] = {}
    found: dict[Sequence, Codes] = {}
    for sequence in every:
        alike = (sequence.group, sequence.flags, sequence.listened)
        codes = shared.get(alike) if sequence.dialect is Dialect.KNOCKD else None
        if codes is None:
            codes = frozenset(_marked(_knocks_of(sequence, groups[sequence.group]), sequence))
        if sequence.dialect is Dialect.KNOCKD:
            shared[alike] = codes
        found[sequence] = codes
    return found


def _marked(codes: Iterable[int], sequence: Sequence) -> Iterator[int]:
    return (code | LISTENED if sequence.listened else code for code in codes)


def _codes(step: Step) -> Iterator[int]:
    if step.protocol is Protocol.UDP:
        yield step.code
    else:
        # Numbers, since to reckon with named flags takes ten times as long, and there may be thousands of doors.
        wanted, mask, bare = int(step.flags), int(step.mask), Step(step.protocol, step.port).code
        yield from (bare | flags << 24 for flags in range(ALL_FLAGS + 1) if (flags ^ wanted) & mask == 0)


def _knocks_of(sequence: Sequence, group: Iterable[int]) -> Iterator[int]:
    if sequence.dialect is Dialect.KNOCKD:
        # One filter serves all doors of the file, so what was meant for one of them is a knock for each.
        mask, value = map(int, sequence.flags)
        yield from (code for code in group if not _is_tcp(code) or (code >> 24 ^ value) & mask == 0)
        return
    for step in sequence.steps:
        if step.protocol is Protocol.UDP:
            yield step.code
            continue
        here = {other.flags for other in sequence.steps if (other.protocol, other.port) == (step.protocol, step.port)}
        # Where the steps on a port are bare SYNs only, what has ACK or RST set belongs to somebody's connection.
        bare = sequence.dialect is Dialect.NATIVE and here == {Flags.SYN}
        for flags in range(ALL_FLAGS + 1):
            if not (bare and flags & (Flags.ACK | Flags.RST)):
                yield Step(step.protocol, step.port, flags).code


def _is_tcp(code: int) -> bool:
    return code >> 16 & 0xFF == socket.IPPROTO_TCP
