"""What knockd does, in words of an obvious model: with its own fault, to foretell it, and without, to foretell us."""

from collections.abc import Iterable
from dataclasses import dataclass, field

TCP, UDP = 6, 17  # IPPROTO_, netinet/in.h


@dataclass(frozen=True)
class Packet:
    """What arrives. `flags`: the byte of TCP."""

    source: str
    protocol: int
    port: int
    flags: int = 0


@dataclass(frozen=True)
class Door:
    """A door of the file. `mask` and `value` are its TCPFlags."""

    name: str
    steps: tuple[tuple[int, int], ...]
    """Protocol and port."""
    mask: int = 0
    value: int = 0

    def matches(self, packet: Packet) -> bool:
        return packet.protocol != TCP or packet.flags & self.mask == self.value

    def names(self, packet: Packet) -> bool:
        return (packet.protocol, packet.port) in self.steps and self.matches(packet)


@dataclass
class _Attempt:
    source: str
    door: Door
    stage: int = 0
    over: bool = False


@dataclass
class Knockd:
    """Returns for each packet what knockd writes into its log. Time stands still: time-outs are not this model's."""

    doors: tuple[Door, ...]
    faulty: bool
    """When the first attempt of the list is cleared, all others are forgotten with it."""
    _attempts: list[_Attempt] = field(default_factory=list)

    def receive(self, packet: Packet) -> list[str]:
        if not any(door.names(packet) for door in self.doors):
            return []
        self._clear()
        said: list[str] = []
        mine = [attempt for attempt in self._attempts if attempt.source == packet.source]
        if not mine:
            for door in self.doors:
                if door.steps[0] == (packet.protocol, packet.port) and door.matches(packet):
                    attempt = _Attempt(packet.source, door)
                    self._attempts.append(attempt)
                    said += self._advance(attempt)
            return said
        for attempt in mine:
            if not attempt.door.matches(packet):
                continue
            if attempt.door.steps[attempt.stage] == (packet.protocol, packet.port):
                said += self._advance(attempt)
            else:
                attempt.over = True
        return said

    def _advance(self, attempt: _Attempt) -> list[str]:
        attempt.stage += 1
        said = [f"{attempt.source}: {attempt.door.name}: Stage {attempt.stage}"]
        if attempt.stage == len(attempt.door.steps):
            attempt.over = True
            said.append(f"{attempt.source}: {attempt.door.name}: OPEN SESAME")
        return said

    def _clear(self) -> None:
        if self.faulty and self._attempts and self._attempts[0].over:
            self._attempts.clear()
        self._attempts = [attempt for attempt in self._attempts if not attempt.over]


def expected_log(doors: Iterable[Door], packets: Iterable[Packet], *, faulty: bool) -> list[list[str]]:
    """For each packet, what is written of it."""
    knockd = Knockd(tuple(doors), faulty)
    return [knockd.receive(packet) for packet in packets]
