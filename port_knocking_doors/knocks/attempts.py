"""Attempts at sequences, and what a packet does to them: the rules of the dialects (the design's table).

* A knock that is the next step of a sequence advances it; the last step completes it, and the next knock begins again.
* A packet that an attempt has accepted is no knock if it arrives once more: TCP sent it again, or the network doubled
  it. Of TCP it has the same source port and sequence number. Datagrams have a source port only, which a client may
  keep.
* native: that is so where the next step is equal, too, but for datagrams after `DOUBLED_WITHIN`. The other programs
  take any packet for the next step that looks like it, and so do their dialects.
* native: a second SYN to the port just accepted is no knock either, since browsers make two connections, and other
  clients retry. A scan gains nothing by it: without these SYNs, the rest of the scan does the same.
* native and tportknockd: any other knock takes an attempt back to its start, and counts as first step if it is one.
* knockd: any other knock ends the attempt and begins none; as long as a source is on its way through any door of a file
  it begins no other of it.
* After a sequence's time limit, from the first knock or from the last, nothing of an attempt counts.

What a wrong knock costs beyond that: `wrong_knocks`.
"""

from collections.abc import Iterator, Mapping
from enum import Enum, auto

from port_knocking_doors.knocks.authenticator import Outcome
from port_knocking_doors.knocks.code import is_bare_syn, is_tcp
from port_knocking_doors.knocks.prefix_tree import PACKET_BITS, PORT_BITS, Concern, Prefix, StepTree
from port_knocking_doors.model import Dialect

DOUBLED_WITHIN = 0.05
"""Seconds within which a datagram with the same ports is the same one, doubled by the network."""

_PACKET = (1 << PACKET_BITS) - 1
_PORT = (1 << PORT_BITS) - 1
_TIME = (1 << (PACKET_BITS - PORT_BITS)) - 1
_TICKS = 10_000  # in a second


class Repeated(Enum):
    """Whether a packet is one that was accepted already."""

    NO = auto()
    PERHAPS = auto()  # a datagram like one some time ago
    SURELY = auto()


class Attempt:
    """The first steps of some sequences that a source has done, and the packets that it did them with.

    `packets` has `Prefix.packet_bits` for each packet, the latest one lowest: its packet id, and if `Prefix.is_timed`
    the time of a datagram above its source port. In one number, since a tuple for each source of a flood takes twice
    the memory.
    """

    __slots__ = ("last_seen", "members", "packets", "prefix", "started")

    def __init__(self, prefix: Prefix, members: int, packets: int, started: float, last_seen: float) -> None:
        self.prefix = prefix
        self.members = members
        """The sequences that this is an attempt at: a part of the prefix's `mask`."""
        self.packets = packets
        self.started = started
        self.last_seen = last_seen

    def is_over(self, now: float) -> bool:
        """Whether its time is over."""
        return now - self.last_seen >= self.prefix.lifetime or now - self.started >= self.prefix.timeout

    def is_on_its_way(self, now: float) -> bool:
        """Whether there are steps behind it and steps ahead, and time left."""
        return self.prefix.depth > 0 and not self.is_over(now)

    def without(self, gone: int) -> tuple["Attempt", ...]:
        """It without these of its sequences; empty if no other is left."""
        if not gone & self.members:
            return (self,)
        members = self.members & ~gone
        return (Attempt(self.prefix, members, self.packets, self.started, self.last_seen),) if members else ()

    def repeats(self, code: int, packet_id: int, now: float) -> Repeated:
        """Whether it has accepted this packet."""
        packets, bits = self.packets, self.prefix.packet_bits
        mask = (1 << bits) - 1
        for place, accepts in enumerate(self.prefix.accepted):
            packet = packets & mask
            packets >>= bits
            if code not in accepts:
                continue
            if is_tcp(code):
                if packet == packet_id:
                    return Repeated.SURELY
            elif packet & _PORT == packet_id:
                if place and not self.prefix.depth:
                    break  # it is complete: a client that keeps its source port may begin again at once
                if stamp := packet >> PORT_BITS:
                    is_just_now = (_ticks(now) - stamp) & _TIME < DOUBLED_WITHIN * _TICKS
                else:
                    is_just_now = not place and now - self.last_seen < DOUBLED_WITHIN
                return Repeated.SURELY if is_just_now else Repeated.PERHAPS
        return Repeated.NO

    def tcp_packets(self) -> Iterator[int]:
        """`packet_key` of each packet of TCP that it has accepted, the latest one first."""
        packets = self.packets
        for accepts in self.prefix.accepted:
            code = next(iter(accepts))
            if len(accepts) == 1 and is_tcp(code):
                yield packet_key(code, packets & _PACKET)
            packets >>= self.prefix.packet_bits


def packet_key(code: int, packet_id: int) -> int:
    """A number that no other packet of the source has."""
    return code << PACKET_BITS | packet_id


def packet_entry(prefix: Prefix, packet_id: int, now: float) -> int:
    """What `Attempt.packets` has of the packet that leads to this prefix."""
    return _ticks(now) << PORT_BITS | packet_id if prefix.is_timed else packet_id


def _ticks(now: float) -> int:
    """A time as it has space above a port; never 0."""
    return int(now * _TICKS) & _TIME | 1


class Judgement:
    """What one packet does to the attempts of a source. `left`: the attempts after it."""

    __slots__ = (
        "_busy",
        "_kept",
        "_lost",
        "_packet",
        "is_repeated",
        "is_right",
        "is_second_syn",
        "left",
        "outcomes",
        "restarted",
    )

    def __init__(
        self,
        attempts: tuple[Attempt, ...],
        concerns: Mapping[StepTree, Concern],
        code: int,
        packet_id: int,
        now: float,
    ) -> None:
        """`concerns`: for each tree with a sequence that the packet is a knock for, which ones those are."""
        self._packet = code, packet_id, now
        self._busy = {
            attempt.prefix.tree.group
            for attempt in attempts
            if attempt.prefix.tree.dialect is Dialect.KNOCKD and attempt.is_on_its_way(now)
        }
        """knockd's files with a door that the source is on its way through."""
        self._kept = dict.fromkeys(concerns, 0)
        """Sequences that do not begin with the packet."""
        self._lost = dict.fromkeys(concerns, 0)
        """Native sequences that are back at their start."""
        self.left: list[Attempt] = []
        self.outcomes: list[Outcome] = []
        """Of what advances and begins."""
        self.is_right = False
        """Whether the packet advanced a sequence, or began one that was not on its way."""
        self.is_repeated = False
        """Whether the packet is not a knock, since it came before."""
        self.is_second_syn = False
        """Whether that is so since it is a second SYN to the port just accepted."""
        self.restarted: list[Attempt] = []
        """Those of `left` that the packet took back to the start, and counts as first step of; only if not right."""
        for attempt in attempts:
            concern = concerns.get(attempt.prefix.tree)
            if concern is None:
                self.left.append(attempt)
            elif not attempt.is_over(now):
                self._continue(attempt, concern)
        self._begin(concerns)
        if self.is_repeated and not self.is_right:
            self.left, self.outcomes, self.restarted = list(attempts), [], []

    def _continue(self, attempt: Attempt, concern: Concern) -> None:
        code, packet_id, now = self._packet
        prefix, members = attempt.prefix, attempt.members
        tree, subject = prefix.tree, members & concern.mask
        if not subject:
            self._keep(attempt)
            return
        repeated = attempt.repeats(code, packet_id, now)
        if repeated is Repeated.SURELY and tree.dialect is Dialect.NATIVE:
            self.is_repeated = True
            self._keep(attempt)
            return
        gone = 0
        for following in prefix.next.get(code, ()):
            if advanced := subject & following.mask:
                gone |= advanced
                self._go(following, advanced, attempt.started, attempt.packets)
        if not prefix.depth and tree.group not in self._busy:
            gone |= subject & concern.first_mask  # once complete, the next knock begins again
        if rest := subject & ~gone:
            is_second_syn = tree.dialect is Dialect.NATIVE and code in prefix.last and is_bare_syn(code)
            if repeated is not Repeated.NO or is_second_syn:
                self.is_repeated = True
                self.is_second_syn |= is_second_syn and repeated is Repeated.NO
            else:
                gone |= rest
                if prefix.depth and tree.dialect is Dialect.NATIVE:
                    self._lost[tree] |= rest
        for kept in attempt.without(gone):
            self._keep(kept)

    def _begin(self, concerns: Mapping[StepTree, Concern]) -> None:
        _, _, now = self._packet
        begun = []
        for tree, concern in concerns.items():
            if tree.group not in self._busy:
                for first in concern.firsts:
                    members = first.mask & ~self._kept[tree]
                    if members:
                        begun.append((first, members))
                        self.is_right |= members & ~self._lost[tree] != 0
        was_right, known = self.is_right, len(self.left)
        for first, members in begun:
            self._go(first, members, now, 0)
        if not was_right:
            self.restarted = self.left[known:]
            self.is_right = False

    def _keep(self, attempt: Attempt) -> None:
        self._kept[attempt.prefix.tree] |= attempt.members
        self.left.append(attempt)

    def _go(self, prefix: Prefix, members: int, started: float, packets: int) -> None:
        _, packet_id, now = self._packet
        self.is_right = True
        self._kept[prefix.tree] |= members
        packets = packets << prefix.packet_bits | packet_entry(prefix, packet_id, now)
        for reached, those in ((prefix.ended, members & prefix.terminal), (prefix, members & ~prefix.terminal)):
            if those and reached is not None:
                self.left.append(Attempt(reached, those, packets, started, now))
        self.outcomes.append(prefix.outcome_of(members))
