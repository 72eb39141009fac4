# ruff: noqa: ARG002 a default may have no use for its arguments
"""What can prove who knocks: the interface, and the values that pass through it.

`table.KnockerTable` is one: a source proves itself by its sequence of knocks. The daemon knows authenticators only by
this interface, and makes them from one table (`daemon.active.AUTHENTICATORS`, a line for each).

A packet reaches an authenticator as its source, its code (`code`) and an id: all that a knock has, and what every
receiver can provide for a few hundred nanoseconds. An authenticator of packets that carry a payload asks for it by a
field of its own in `Capture`, which a receiver of its own serves (`capture.receiver.RECEIVERS`): that one alone keeps
payloads, and calls a method of its own with them, which answers with an `Outcome` like `on_knock`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, Protocol

from port_knocking_doors.model import Access, Dialect, Scope, Sequence


class Verdict(Enum):
    """What a packet was judged to be."""

    NOT_A_KNOCK = auto()  # a step of no sequence
    IGNORED = auto()  # its source made a wrong knock a moment ago
    REPEATED = auto()  # a packet that was accepted, once more
    FORGIVEN = auto()  # the next step of no sequence, which was not too often so far
    WRONG = auto()  # the next step of no sequence, too often: the source is ignored from now on
    ADVANCED = auto()
    COMPLETE = auto()


class Grant(NamedTuple):
    """An access that was proven, and is not yet allowed."""

    access: Access
    sequence: Sequence | None = None
    """The sequence that was completed; a one-time sequence is used up before the access is given. None for another
    proof."""


@dataclass(frozen=True)
class Outcome:
    """What a packet was judged to be, and what that leads to."""

    verdict: Verdict
    sequences: tuple[Sequence, ...] = ()
    """The sequences that the verdict is about."""
    stage: int = 0
    """For `ADVANCED` and `COMPLETE` the number of steps done."""
    stages: tuple[tuple[Sequence, int], ...] = field(default=(), compare=False)
    """Every sequence that the knock moved, with the number of steps done."""
    grants: tuple[Grant, ...] = field(default=(), compare=False)
    """For `COMPLETE`, what was proven."""
    logged: int = field(default=0, compare=False)
    """How many of `stages` are of knockd's sequences, of which each is logged."""
    needs_action: bool = field(default=False, compare=False)
    """Whether the receiver hands it on, or forgets it at once. A field, and set by `of`: it is read for each packet."""

    @classmethod
    def of(
        cls,
        verdict: Verdict,
        sequences: tuple[Sequence, ...] = (),
        stage: int = 0,
        stages: tuple[tuple[Sequence, int], ...] = (),
        grants: tuple[Grant, ...] = (),
    ) -> "Outcome":
        """It needs action if it opens or is wrong, or moves a sequence of knockd's, which logs each stage."""
        logged = sum(sequence.dialect is Dialect.KNOCKD for sequence, _ in stages)
        needs_action = logged > 0 or verdict in (Verdict.FORGIVEN, Verdict.WRONG, Verdict.COMPLETE)
        return cls(verdict, sequences, stage, stages, grants, logged, needs_action)


def merged(one: Outcome, other: Outcome) -> Outcome:
    """The outcome of one packet that was judged twice: what is complete matters most, then what is further."""
    stages = one.stages + other.stages
    if one.verdict is other.verdict is Verdict.COMPLETE:
        sequences, grants = one.sequences + other.sequences, one.grants + other.grants
        return Outcome.of(Verdict.COMPLETE, sequences, max(one.stage, other.stage), stages, grants)
    first = max(one, other, key=lambda outcome: (outcome.verdict is Verdict.COMPLETE, outcome.stage))
    return Outcome.of(first.verdict, first.sequences, first.stage, stages, first.grants)


NOT_A_KNOCK = Outcome.of(Verdict.NOT_A_KNOCK)
IGNORED = Outcome.of(Verdict.IGNORED)
REPEATED = Outcome.of(Verdict.REPEATED)
FORGIVEN = Outcome.of(Verdict.FORGIVEN)
WRONG = Outcome.of(Verdict.WRONG)

Judge = Callable[[bytes, int, int, float], Outcome]
"""`Authenticator.on_knock`, or what wraps it: source, code, packet id and time of a packet → its outcome."""

Act = Callable[[bytes, int, Outcome, float], None]
"""Called with source, index of the interface (0: not known), outcome and time, where the outcome needs action."""


class PortOrigin(NamedTuple):
    """Where a listened port comes from, for an error that must not show the port."""

    key: str
    """The key of the configuration; empty for no key."""
    place: int
    """Its place among the ports of that key, from 1."""


@dataclass(frozen=True)
class Capture:
    """What must be captured for an authenticator. Each kind of receiver reads the fields that it serves."""

    ports: tuple[int, ...] = ()
    """UDP ports that sockets listen on, for datagrams with exactly `model.PAYLOAD`."""
    ports_key: str = ""
    """The configuration's key that has these ports, for errors, which never show a port."""
    any_payload: frozenset[int] = frozenset()
    """Those of `ports` on which datagrams count whatever their payload."""
    others: bool = False
    """Whether datagrams with another payload are received, too, to be shown (`capture.dispatch.OnOther`)."""
    codes: frozenset[int] = frozenset()
    """Codes of the packets that the sniffer captures."""
    scopes: frozenset[Scope] = frozenset()
    """What those packets are addressed to, and arrive on."""
    origins: tuple["PortOrigin", ...] = field(default=(), compare=False)
    """Where each of `ports` comes from, if they come from several keys."""

    def origin(self, place: int) -> "PortOrigin":
        """Where the port at this place of `ports`, from 0, comes from."""
        return self.origins[place] if self.origins else PortOrigin(self.ports_key, place + 1)

    @classmethod
    def of(cls, captures: Iterable["Capture"]) -> "Capture":
        """What must be captured for all of these."""
        every = tuple(captures)
        origins: dict[int, PortOrigin] = {}
        for one in every:
            for place, port in enumerate(one.ports):
                origins.setdefault(port, one.origin(place))
        return cls(
            tuple(origins),
            any_payload=frozenset().union(*(one.any_payload for one in every)),
            others=any(one.others for one in every),
            codes=frozenset().union(*(one.codes for one in every)),
            scopes=frozenset().union(*(one.scopes for one in every)),
            origins=tuple(origins.values()),
        )


class KnockerView(NamedTuple):
    """What is known of one source, for `status`."""

    source: bytes
    done: tuple[tuple[Sequence, int], ...]
    """The sequences that it has begun, and how many steps of each are done."""
    ignored: float
    """Seconds for which it is still ignored; 0 for not."""
    last_seen: float
    """Seconds since its last knock."""


class SourceCounts(NamedTuple):
    """How many sources are known, and how many of them are ignored."""

    known: int
    ignored: int


class Authenticator(Protocol):
    """What can prove who knocks. Pure: it reads no clock and no socket, and writes no log.

    Times are seconds of any clock that never goes back, and never less than the one before. What is not overridden
    remembers no source.
    """

    @property
    def capture(self) -> Capture:
        """What must be captured for it. Only `adopt` and what its owner calls on it may change that."""
        ...

    def on_knock(self, source: bytes, code: int, packet_id: int, now: float) -> Outcome:
        """Judge one packet.

        `source`: the canonical address, packed (4 or 16 bytes). `code`: see `knocks.code`. `packet_id`: differs from
        that of a later packet with the same code: the source port, and for TCP the sequence number.

        The receivers call this bound method for each packet, with nothing in between.
        """
        ...

    def add_scopes(self, number: int, scopes: frozenset[Scope]) -> None:
        """From now on codes that carry this number, 1 or more, are of packets within these scopes and no other ones.

        Number 0 is for packets within all scopes. An authenticator with one scope has nothing to do here.
        """
        return

    def adopt(self, other: "Authenticator") -> None:
        """Take over, right after it was made, the progress of the one that it replaces."""
        return

    def expire(self, now: float) -> int:
        """Drop what does not matter any more; how many sources those were. Only memory depends on it."""
        return 0

    def next_deadline(self) -> float | None:
        """When `expire` next finds something to drop, or None where it has nothing."""
        return None

    def counts(self, now: float) -> SourceCounts:
        """How many sources are known, and how many are ignored."""
        return SourceCounts(0, 0)

    def view(self, now: float, limit: int) -> list[KnockerView]:
        """At most `limit` of the sources that matter, the most important first."""
        return []

    def forget(self, source: bytes) -> bool:
        """Forget one source; whether it was known."""
        return False
