"""Steps of the wall clock, by which the kernel stamps what it receives.

Linux stamps a received datagram by CLOCK_REALTIME alone (net/core/dev.c: net_timestamp_set; SO_TIMESTAMPING's software
stamps and those of packet sockets are the same), which is set by NTP and by hand. CLOCK_BOOTTIME never jumps and counts
the time of a suspend as CLOCK_REALTIME does: their difference changes only when the wall clock is set.
"""

import time

PRECISION = 1_000_000
"""Nanoseconds; a smaller step is not told from a process that was interrupted between two readings."""

_QUICK = 20_000
_TRIES = 4


class WallClockWatch:
    """Notices that the wall clock was set since the last look."""

    def __init__(self) -> None:
        self._offset = _offset()

    def step(self) -> int:
        """Nanoseconds by which the wall clock was set forward since the last call, negative for back; 0 for not."""
        offset = _offset()
        step = offset - self._offset
        if -PRECISION < step < PRECISION:
            return 0
        self._offset = offset
        return step


def _offset() -> int:
    """CLOCK_REALTIME less CLOCK_BOOTTIME, from the readings that were closest together."""
    closest, offset = -1, 0
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.time_ns()
        gap = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before
        if closest < 0 or gap < closest:
            closest, offset = gap, wall - before - gap // 2
        if closest < _QUICK:
            break
    return offset
