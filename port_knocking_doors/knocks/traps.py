"""Ports that give a scan away: no step names them and no service listens on them, and a knocker that hits one is wrong.

A scan that goes up or down through the ports meets a trap right beside each step. One in random order opens a sequence
of k steps only if it meets them all in order with none of the T traps in between: of the (T + k)! orders of steps and
traps, (T + 1)! are like that, which for three steps and 512 traps is 1 in 264,710.

Ordinary traffic does not meet them: a TCP trap counts bare SYNs only, and UDP traps keep out of the range that this
host's own outgoing datagrams are answered in.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from random import Random

from port_knocking_doors.knocks.code import connection_code, port_of, protocol_of
from port_knocking_doors.model import PORT_MAX, Port, Protocol, Sequence


def choose_traps(
    sequences: Iterable[Sequence], served: Collection[Port], outgoing: range, random: Random
) -> dict[int, frozenset[Sequence]]:
    """Choose the traps; by the code of what hits one (`code`), the sequences that it is a trap for.

    `served`: ports with a service, or that a door opens. `outgoing`: ports of this host's own outgoing datagrams
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
            ports = sorted({step.port for step in sequence.steps if step.protocol is protocol})
            for port in _with_neighbours(free, ports, spread[sequence.traps], sequence.traps):
                trapped_by.setdefault(connection_code(protocol, port), []).append(place)
    alike = {of: frozenset(every[place] for place in of) for of in set(map(tuple, trapped_by.values()))}
    return {code: alike[tuple(of)] for code, of in trapped_by.items()}


def move_traps(
    traps: Mapping[int, frozenset[Sequence]],
    replaced: Mapping[Sequence, Sequence],
    sequences: Iterable[Sequence],
    served: Collection[Port],
    outgoing: range,
    random: Random,
) -> dict[int, frozenset[Sequence]]:
    """The traps once some sequences have other steps; `replaced`: the sequence before → the one with the other steps.

    Traps stay where they are, but for those that a new step is on. A sequence with new steps gets traps beside each of
    them in exchange for some of its own. `sequences`: all of them, as of now; the rest as for `choose_traps`.
    """
    every = tuple(sequences)
    steps = {(step.protocol, step.port) for one in every for step in one.steps}
    stay = {code: of for code, of in traps.items() if (protocol_of(code), port_of(code)) not in steps}
    gone = frozenset(replaced)
    # Differences of sets and not their members one by one: to hash a sequence takes long.
    moved = {code: of - gone for code, of in stay.items()}
    for old, new in replaced.items():
        own = {code for code, of in stay.items() if old in of}
        for protocol in Protocol:
            ports = sorted({step.port for step in new.steps if step.protocol is protocol})
            if not new.traps or not ports:
                continue
            free = _free_ports(protocol, every, served, outgoing)
            drawn = [port_of(code) for code in own if protocol_of(code) is protocol]
            for port in _with_neighbours(free, ports, drawn or _spread(free, new.traps, random), new.traps):
                code = connection_code(protocol, port)
                moved[code] = moved.get(code, frozenset()) | {new}
    alike: dict[frozenset[Sequence], frozenset[Sequence]] = {}
    return {code: alike.setdefault(of, of) for code, of in moved.items() if of}


def _with_neighbours(free: list[int], steps: list[int], spread: Iterable[int], count: int) -> list[int]:
    """`count` ports: those beside the steps, and as many of the others as it takes."""
    own = _beside(free, steps)
    return (own + [port for port in spread if port not in own])[:count]


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
