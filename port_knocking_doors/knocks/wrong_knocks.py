"""How often a source may be wrong in native sequences, before it is ignored.

A client that lost a packet is wrong up to k - 1 times in a sequence of k steps (without its first packet, each of the
others is wrong), and starts over. So k - 1 wrong knocks are forgiven: the attempt is back at its start, and nothing is
ignored. Each counts for `COST` ignoring periods, one after the other. A wrong knock above that makes the source ignored
for one period, and so does the next one after it, until the periods that count are over.

A scan gains nothing by it. If each wrong knock is followed by an ignored period, a scan tries one sequence in each.
Here it tries k - 1 more at its beginning, once. After that each wrong knock comes with an ignored period, so the rate
is the same: one in each. Or the scan waits until its wrong knocks are forgiven again. Each takes two periods, in which
it tried two sequences at most: an attempt ends with a wrong knock, and begins with a packet that is wrong itself in
half of the sequences that are still possible. `tests/unit/knocks/test_scans.py` goes through all scans of three known
ports: they have tried three of the six orders at once, and one more in each period.
"""

import math

NEVER = -math.inf

COST = 2
"""Periods for which a wrong knock counts that was forgiven."""

_TOLERANCE = 1e-6  # seconds: sums of periods are not exact


class WrongKnockLimit:
    """The limit for one table. `period`: the ignoring period in seconds. `longest`: steps of the longest sequence.

    What is remembered of a source is one time, until which it is ignored: in the past, for a source that is not. The
    wrong knocks of a source are over `leeway` seconds later.
    """

    def __init__(self, period: float, longest: int) -> None:
        self.period = period
        self._longest = 1
        self.leeway = 0.0
        self.grow(longest)

    def grow(self, longest: int) -> None:
        """Allow for sequences with so many steps, if they are longer than all before."""
        self._longest = max(self._longest, longest)
        self.leeway = self._allowance(self._longest)

    @property
    def memory(self) -> float:
        """Seconds after which no wrong knock matters."""
        return self.leeway + self.period

    def after_one(self, when: float) -> float:
        """Until when a source is ignored that was wrong once, then, and was forgiven."""
        return when + COST * self.period - self.leeway

    def after_another(self, ignored_until: float, steps: int, now: float) -> float:
        """Until when a source is ignored that is wrong now in a sequence with so many steps; `now` or earlier: not."""
        over = max(ignored_until + self.leeway, now) + COST * self.period
        return now + self.period if over - now > self._allowance(steps) + _TOLERANCE else over - self.leeway

    def _allowance(self, steps: int) -> float:
        return (steps - 1) * COST * self.period
