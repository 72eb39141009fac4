"""Which authenticator judges which packet: the one place that every receiver asks.

The receivers read `judges` again for each batch of packets, and call what they find there with nothing in between.
"""

from collections.abc import Callable, Iterable, Mapping

from port_knocking_doors.knocks.authenticator import NOT_A_KNOCK, Act, Authenticator, Capture, Judge, Outcome, merged
from port_knocking_doors.knocks.code import SCOPE_SHIFT, listened_code
from port_knocking_doors.model import Scope

Wrap = Callable[[Judge], Judge]
"""Puts something around a judge, such as a log of each knock; or returns it as it is."""

OnOther = Callable[[bytes, int, bytes, float], None]
"""Called with source, length and first bytes of a datagram with another payload, and the time, while these are
watched."""


class Dispatch:
    """For each code the judge of its packets, and what handles an outcome that needs action."""

    def __init__(self, act: Act, wrap: Wrap = lambda judge: judge) -> None:
        self.act = act
        self.judges: Mapping[int, Judge] = {}
        """By the code of a packet, without scopes. No authenticator asked for a packet whose code is not in here."""
        self.on_other: OnOther = lambda *_: None
        self._wrap = wrap
        self._authenticators: tuple[Authenticator, ...] = ()
        self._scopes: frozenset[Scope] = frozenset()
        self._numbers: dict[frozenset[Scope], int] = {}

    @property
    def scopes(self) -> frozenset[Scope]:
        """All scopes of all authenticators."""
        return self._scopes

    def use(self, authenticators: Iterable[Authenticator]) -> None:
        """Let these authenticators judge from now on."""
        self._authenticators = tuple(authenticators)
        self._scopes = Capture.of(one.capture for one in self._authenticators).scopes
        self._numbers = {}
        self._connect()

    def wrap(self, wrap: Wrap) -> None:
        """Put this around every judge from now on, instead of what was around it."""
        self._wrap = wrap
        self._connect()

    def _connect(self) -> None:
        judges: dict[int, Judge] = {}
        for authenticator in self._authenticators:
            capture, judge = authenticator.capture, self._wrap(authenticator.on_knock)
            codes = {*map(listened_code, capture.ports), *capture.codes}
            shared = {code: _in_turn(judges[code], judge) for code in codes & judges.keys()}
            judges |= dict.fromkeys(codes, judge)
            judges |= shared
        self.judges = judges

    def scope_bits(self, scopes: frozenset[Scope]) -> int | None:
        """What to add to the codes of packets that are within these of `scopes`, and no other ones; None for none."""
        if not scopes:
            return None
        if scopes == self._scopes:
            return 0
        number = self._numbers.get(scopes)
        if number is None:
            number = self._numbers[scopes] = len(self._numbers) + 1
            for authenticator in self._authenticators:
                authenticator.add_scopes(number, scopes)
        return number << SCOPE_SHIFT


def _in_turn(first: Judge, second: Judge) -> Judge:
    """Packets that two authenticators asked for are judged by both."""

    def judge(source: bytes, code: int, packet_id: int, now: float) -> Outcome:
        one, other = first(source, code, packet_id, now), second(source, code, packet_id, now)
        return one if other is NOT_A_KNOCK else merged(one, other)

    return judge
