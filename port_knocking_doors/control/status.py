"""The state of the daemon as a value, read from JSON and written to it.

It holds no step of a sequence: only names, and numbers of completed steps.
"""

from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, TypeVar

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import FirewalldState

DOORS_SHOWN = 1000
"""Doors in a snapshot at most; the counts are of all."""

KNOCKERS_SHOWN = 100
"""Knockers in a snapshot at most."""

T = TypeVar("T")


class DoorState(str, Enum):
    """Whether a door is open."""

    OPEN = "open"  # firewalld confirmed it, or its start command has ended
    WAITING = "waiting"  # for firewalld's confirmation, or the end of the start command
    CLOSING = "closing"  # its time is over, and firewalld has not confirmed that it is closed


@dataclass(frozen=True)
class DoorStatus:
    """One open door."""

    address: str
    sequence: str
    opens: tuple[str, ...]
    """Its ports, such as `22/tcp`; empty for a command."""
    interface: str
    """The interface that the knock arrived on; empty if it is not known."""
    zones: tuple[str, ...]
    """The zones of its rules."""
    standing: DoorState
    seconds_left: float | None
    """None before its time starts."""


@dataclass(frozen=True)
class KnockerStatus:
    """One knocker."""

    address: str
    progress: tuple[tuple[str, int], ...]
    """For each started sequence, its name and the number of completed steps."""
    ignored_seconds: float
    """Seconds for which it is still ignored; 0 for not."""
    heard_seconds: float
    """Seconds since its last knock."""


@dataclass(frozen=True)
class Counts:
    """Events since the daemon started."""

    opened: int = 0
    closed: int = 0
    closed_by_knock: int = 0
    """Of those, the doors that their own knocker closed ahead of time."""
    prolonged: int = 0
    refused: int = 0
    """Doors that were not opened because of `max_open_doors`."""
    wrong: int = 0
    """Wrong knocks, after each of which the address was ignored."""
    complete: int = 0
    """Sequences completed."""


@dataclass(frozen=True)
class Snapshot:
    """The state at one moment. Times are in seconds."""

    version: str
    pid: int
    uptime: float
    configuration: str
    """Path of the file; empty for the built-in defaults."""
    rule_priority: int
    sequences: tuple[str, ...]
    listeners: int
    """Ports that sockets listen on."""
    sniffing: bool
    sniffer_seen: int
    sniffer_dropped: int
    firewalld: FirewalldState
    rules: int
    """Marked rules that are active, as far as is known."""
    rules_pending: int
    """Rules that wait to be added or removed, one after the other: after a reload of firewalld, mostly."""
    rules_refused: int
    """Rules that firewalld refused to add or to remove at the last try."""
    doors_open: int
    """Open doors, and those that wait for firewalld or a command."""
    doors_waiting: int
    doors_limit: int
    doors: tuple[DoorStatus, ...]
    """Those that close first."""
    knockers_known: int
    knockers_ignored: int
    knockers_limit: int
    knockers: tuple[KnockerStatus, ...]
    """The furthest ones, then ignored ones; in each group the latest knock first."""
    counts: Counts
    doors_closing: int = 0
    """Doors whose time is over, and that are not confirmed closed."""


def to_data(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as JSON values."""
    return asdict(snapshot)


def door_data(door: DoorStatus) -> dict[str, Any]:
    """The door as JSON values."""
    return asdict(door)


def doors_from_data(data: object) -> list[DoorStatus]:
    """The doors in JSON values. Raises `DoorsError`."""
    try:
        if isinstance(data, list):
            return [_door(door) for door in data]
    except (KeyError, TypeError, ValueError):
        pass
    raise DoorsError("the daemon's answer is invalid; it may be of another version: restart it")


def from_data(data: object) -> Snapshot:
    """The snapshot in JSON values. Raises `DoorsError` for others: the daemon is of another version."""
    try:
        read = _known(Snapshot, data)
        read["firewalld"] = FirewalldState(read["firewalld"])
        read["sequences"] = tuple(map(str, read["sequences"]))
        read["doors"] = tuple(map(_door, read["doors"]))
        read["knockers"] = tuple(map(_knocker, read["knockers"]))
        read["counts"] = Counts(**{name: int(count) for name, count in _known(Counts, read["counts"]).items()})
        for name in ("version", "configuration"):
            read[name] = str(read[name])
        for name in _WHOLE:
            read[name] = int(read[name])
        read["uptime"] = float(read["uptime"])
        read["sniffing"] = bool(read["sniffing"])
        return Snapshot(**read)
    except (KeyError, OverflowError, TypeError, ValueError):
        raise DoorsError("the daemon's status is invalid; it may be of another version: restart it") from None


_WHOLE = tuple(field.name for field in fields(Snapshot) if field.type is int)


def _known(kind: type, data: Any) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind)}


def _door(data: object) -> DoorStatus:
    read = _known(DoorStatus, data)
    left = read["seconds_left"]
    return DoorStatus(
        address=str(read["address"]),
        sequence=str(read["sequence"]),
        opens=tuple(map(str, read["opens"])),
        interface=str(read["interface"]),
        zones=tuple(map(str, read["zones"])),
        standing=DoorState(read["standing"]),
        seconds_left=None if left is None else float(left),
    )


def _knocker(data: object) -> KnockerStatus:
    read = _known(KnockerStatus, data)
    return KnockerStatus(
        address=str(read["address"]),
        progress=tuple((str(name), int(done)) for name, done in read["progress"]),
        ignored_seconds=float(read["ignored_seconds"]),
        heard_seconds=float(read["heard_seconds"]),
    )
