"""Ports that give a scan away: no step names them and nobody serves them, and a knocker that hits one is wrong.

A scan that goes up or down through the ports meets a trap right beside each step. One in random order opens a sequence
of k steps only if it meets them all in order with none of the T traps in between: of the (T + k)! orders of steps and
traps, (T + 1)! are like that, which for three steps and 512 traps is 1 in 264,710.

Ordinary traffic does not meet them: a TCP trap hears bare SYNs alone, and UDP traps keep out of the range that this
host's own outgoing datagrams are answered in.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from itertools import pairwise
from random import Random

from port_knocking_doors.knocks.code import connection_code
from port_knocking_doors.model import PORT_MAX, Port, Protocol, Sequence


def choose_traps(
    sequences: Iterable[Sequence], served: Collection[Port], outgoing: range, random: Random
) -> dict[int, frozenset[Sequence]]:
    """Choose the traps; by the code of what hits one (`code`), the sequences that it is a trap for.

    `served`: ports that somebody serves or a door opens. `outgoing`: ports of this host's own outgoing datagrams
    (net.ipv4.ip_local_port_range). Each sequence gets its `traps` for each protocol that it uses, as far as there are
    free ports. Sequences with as many traps share those that are spread, so that hundreds of them fit into one filter.
    """
    every = tuple(sequences)
    # By their places: to hash a sequence for each trap took two seconds where there are hundreds.
    trapped_by: dict[int, list[int]] = {}
    for protocol in Protocol:
        trapped = [
            (place, one)
            for place, one in enumerate(every)
            if one.traps and any(step.protocol is protocol for step in one.steps)
        ]
        free = _free_ports(protocol, every, served, outgoing)
        spread = {count: _spread(free, count, random) for count in sorted({one.traps for _, one in trapped})}
        for place, sequence in trapped:
            own = _beside(free, sorted({step.port for step in sequence.steps if step.protocol is protocol}))
            for port in (own + [port for port in spread[sequence.traps] if port not in own])[: sequence.traps]:
                trapped_by.setdefault(connection_code(protocol, port), []).append(place)
    alike = {of: frozenset(every[place] for place in of) for of in set(map(tuple, trapped_by.values()))}
    return {code: alike[tuple(of)] for code, of in trapped_by.items()}


def _free_ports(
    protocol: Protocol, sequences: Iterable[Sequence], served: Collection[Port], outgoing: range
) -> list[int]:
    taken = {step.port for sequence in sequences for step in sequence.steps if step.protocol is protocol}
    taken.update(port.number for port in served if port.protocol is protocol)
    if protocol is Protocol.UDP:
        taken.update(outgoing)
    return [port for port in range(1, PORT_MAX + 1) if port not in taken]


def _beside(free: list[int], steps: list[int]) -> list[int]:
    """The free ports next to each step, and the middle of each gap between two."""
    beside: dict[int, None] = {}
    for step in steps:
        place = bisect_left(free, step)
        for neighbour in free[max(0, place - 1) : place + 1]:
            beside[neighbour] = None
    for low, high in pairwise(steps):
        between = free[bisect_left(free, low) : bisect_left(free, high)]
        if between:
            beside[between[len(between) // 2]] = None
    return list(beside)


def _spread(free: list[int], count: int, random: Random) -> list[int]:
    """A random port of each of `count` equal parts of the free ones, in random order."""
    count = min(count, len(free))
    ports = [random.choice(free[part * len(free) // count : (part + 1) * len(free) // count]) for part in range(count)]
    random.shuffle(ports)
    return ports
