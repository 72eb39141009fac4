"""The order of datagrams from several sockets, where the wall clock was set between two of them.

Within a socket the order is that of arrival. Across sockets only the kernel's stamps tell, and these are of the wall
clock (`system.wall_clock`): a step back between two knocks gives the later one the earlier stamp.
"""

from collections.abc import Iterable

from port_knocking_doors.capture.recvmmsg import Datagram

SLACK = 100_000
"""Nanoseconds by which a stamp may seem to be in the future, since clocks are not read at the same instant."""


def restamped(received: Iterable[Datagram], now: int, step: int) -> list[Datagram]:
    """The datagrams with stamps of the wall clock as it is since the step.

    `received`: those of each socket in the order of their arrival. `now`: the wall clock, in nanoseconds. `step`: by
    how many it was set forward, negative for back, at some moment since the first of them may have arrived.

    A stamp is of before the step or of after it: the one of both that lies less far back, but not in the future, since
    a datagram seldom waits longer than a step is wide. No datagram is put ahead of one that its socket got earlier.
    """
    whole = list(received)
    latest = now + SLACK
    bounds: dict[int, int] = {}  # by the code, which is one for each socket
    for place in reversed(range(len(whole))):
        stamp, source, code, port, interface = whole[place]
        possible = [one for one in (stamp, stamp + step) if one <= latest]
        stamp = min(max(possible, default=latest), bounds.get(code, latest))
        bounds[code] = stamp
        whole[place] = (stamp, source, code, port, interface)
    return whole
