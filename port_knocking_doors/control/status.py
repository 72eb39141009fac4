"""What the daemon is doing right now, as a value: read from JSON and written to it, shown to people and to Prometheus.

Never a step of a sequence is in it: only names, and how many steps somebody has done.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, TypeVar

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import FirewalldState

DOORS_SHOWN = 1000
"""Doors of a snapshot at the most; the counts are of all."""

KNOCKERS_SHOWN = 100
"""Knockers of a snapshot at the most."""

T = TypeVar("T")


class Standing(str, Enum):
    """How far a door is."""

    OPEN = "open"  # firewalld confirmed it, or its start command has ended
    WAITING = "waiting"  # for firewalld's confirmation, or for the end of the start command


@dataclass(frozen=True)
class DoorStatus:
    """One open door."""

    address: str
    sequence: str
    opens: tuple[str, ...]
    """Its ports, such as `22/tcp`; empty where a command was run."""
    interface: str
    """What the knock came in by; empty where that is not known."""
    zones: tuple[str, ...]
    """Where its rules stand."""
    standing: Standing
    seconds_left: float | None
    """None where its time does not run yet."""


@dataclass(frozen=True)
class KnockerStatus:
    """One knocker."""

    address: str
    progress: tuple[tuple[str, int], ...]
    """For each sequence that was begun, its name and how many steps are done."""
    ignored_seconds: float
    """For how long it is still ignored; 0 for not."""
    heard_seconds: float
    """How long ago it was heard last."""


@dataclass(frozen=True)
class Counts:
    """What happened since the daemon started."""

    opened: int = 0
    closed: int = 0
    prolonged: int = 0
    refused: int = 0
    """Doors that were not opened because of `max_open_doors`."""
    wrong: int = 0
    """Wrong knocks, each of which made its knocker ignored."""
    complete: int = 0
    """Sequences completed."""


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment. Times are in seconds."""

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
    """Marked rules that stand, as far as is known."""
    rules_refused: int
    """Rules that firewalld refused to add or to remove when they were tried last."""
    doors_open: int
    """Open ones, and those that wait."""
    doors_waiting: int
    doors_limit: int
    doors: tuple[DoorStatus, ...]
    """Those that close first."""
    knockers_known: int
    knockers_ignored: int
    knockers_limit: int
    knockers: tuple[KnockerStatus, ...]
    """Those who are furthest, then those who are ignored, each with the one heard last first."""
    counts: Counts


def to_data(snapshot: Snapshot) -> dict[str, Any]:
    """What JSON can hold."""
    return asdict(snapshot)


def door_data(door: DoorStatus) -> dict[str, Any]:
    """What JSON can hold of one door."""
    return asdict(door)


def doors_from_data(data: object) -> list[DoorStatus]:
    """The doors in what JSON held. Raises `DoorsError`."""
    try:
        if isinstance(data, list):
            return [_door(door) for door in data]
    except (KeyError, TypeError, ValueError):
        pass
    raise DoorsError("the daemon's answer cannot be understood; it may be of another version: restart it")


def from_data(data: object) -> Snapshot:
    """The snapshot in what JSON held. Raises `DoorsError` where there is none: the daemon is of another version."""
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
        raise DoorsError("the daemon's status cannot be understood; it may be of another version: restart it") from None


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
        standing=Standing(read["standing"]),
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


# For people. ---------------------------------------------------------------------------------------------------------


def table(snapshot: Snapshot) -> list[str]:
    """The lines of what people read. Only printable characters are in them."""
    return [_printable(line) for line in _table(snapshot)]


def _table(now: Snapshot) -> Iterator[str]:
    yield (
        f"port-knocking-doors {now.version}, process {now.pid}, up {_time(now.uptime)}, "
        f"{now.configuration or 'built-in defaults'}"
    )
    refused = f", {now.rules_refused} refused: see the log" if now.rules_refused else ""
    rules = f", {_counted(now.rules, 'rule')} of ours{refused}" if now.firewalld is not FirewalldState.UNUSED else ""
    yield f"Firewalld: {now.firewalld.value}{rules}"
    ears = _counted(now.listeners, "UDP port")
    if now.sniffing:
        ears += f"; the sniffer saw {_counted(now.sniffer_seen, 'packet')}, the kernel dropped {now.sniffer_dropped}"
    yield f"Listening: {ears}"
    yield f"Sequences: {', '.join(now.sequences)}"
    counts = now.counts
    yield (
        f"Since start: {counts.complete} sequences complete, {counts.wrong} wrong knocks, "
        f"{counts.opened} doors opened, {counts.prolonged} prolonged, {counts.closed} closed, {counts.refused} refused"
    )
    yield ""
    yield f"Doors: {now.doors_open} of {now.doors_limit}"
    if now.doors:
        yield from _columns(("ADDRESS", "SEQUENCE", "OPENS", "ZONE", "STATE", "LEFT"), map(_door_row, now.doors))
    if (more := now.doors_open - len(now.doors)) > 0:
        yield f"  and {more} more"
    yield ""
    yield f"Knockers: {now.knockers_known} of {now.knockers_limit}, {now.knockers_ignored} ignored"
    if now.knockers:
        yield from _columns(("ADDRESS", "HEARD", "DONE", "IGNORED FOR"), map(_knocker_row, now.knockers))
    if (more := now.knockers_known - len(now.knockers)) > 0:
        yield f"  and {more} more"


def _door_row(door: DoorStatus) -> tuple[str, ...]:
    left = "-" if door.seconds_left is None else _time(door.seconds_left)
    opens = ", ".join(door.opens) or "command"
    return door.address, door.sequence, opens, ", ".join(door.zones) or "-", door.standing.value, left


def _knocker_row(knocker: KnockerStatus) -> tuple[str, ...]:
    done = ", ".join(f"{name}: {_counted(steps, 'step')}" for name, steps in knocker.progress) or "-"
    ignored = _time(knocker.ignored_seconds) if knocker.ignored_seconds > 0 else "-"
    return knocker.address, f"{_time(knocker.heard_seconds)} ago", done, ignored


def _columns(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)


# For Prometheus. -----------------------------------------------------------------------------------------------------

_PREFIX = "port_knocking_doors"


@dataclass(frozen=True)
class _Metric:
    name: str
    kind: str
    text: str
    samples: Callable[[Snapshot], Iterable[tuple[Mapping[str, str], float]]]


def _one(value: Callable[[Snapshot], float]) -> Callable[[Snapshot], Iterable[tuple[Mapping[str, str], float]]]:
    return lambda now: [({}, value(now))]


def _doors_by_standing(now: Snapshot) -> Iterable[tuple[Mapping[str, str], float]]:
    return [({"state": "open"}, now.doors_open - now.doors_waiting), ({"state": "waiting"}, now.doors_waiting)]


_METRICS = (
    _Metric("info", "gauge", "Version of the daemon.", lambda now: [({"version": now.version}, 1)]),
    _Metric("uptime_seconds", "gauge", "Seconds since the daemon started.", _one(lambda now: now.uptime)),
    _Metric("listening_ports", "gauge", "UDP knock ports that are listened on.", _one(lambda now: now.listeners)),
    _Metric("sniffing", "gauge", "Whether packets are sniffed.", _one(lambda now: now.sniffing)),
    _Metric(
        "sniffer_packets_total",
        "counter",
        "Packets that passed the filter.",
        _one(lambda now: now.sniffer_seen),
    ),
    _Metric(
        "sniffer_dropped_total", "counter", "Of those, dropped for want of room.", _one(lambda now: now.sniffer_dropped)
    ),
    _Metric(
        "firewalld_state",
        "gauge",
        "How firewalld does: 1 for the state that it is in.",
        lambda now: [({"state": state.value}, state is now.firewalld) for state in FirewalldState],
    ),
    _Metric("rules", "gauge", "Rules of ours that stand in firewalld.", _one(lambda now: now.rules)),
    _Metric("rules_refused", "gauge", "Rules that firewalld refused last.", _one(lambda now: now.rules_refused)),
    _Metric("doors", "gauge", "Doors that are open, or wait to be.", _doors_by_standing),
    _Metric("doors_limit", "gauge", "Doors that may be open at the most.", _one(lambda now: now.doors_limit)),
    _Metric("knockers", "gauge", "Knockers that are remembered.", _one(lambda now: now.knockers_known)),
    _Metric("knockers_ignored", "gauge", "Knockers that are ignored now.", _one(lambda now: now.knockers_ignored)),
    _Metric("knockers_limit", "gauge", "Knockers remembered at the most.", _one(lambda now: now.knockers_limit)),
    _Metric("sequences_complete_total", "counter", "Sequences completed.", _one(lambda now: now.counts.complete)),
    _Metric("wrong_knocks_total", "counter", "Wrong knocks.", _one(lambda now: now.counts.wrong)),
    _Metric("doors_opened_total", "counter", "Doors opened.", _one(lambda now: now.counts.opened)),
    _Metric("doors_prolonged_total", "counter", "Doors prolonged.", _one(lambda now: now.counts.prolonged)),
    _Metric("doors_closed_total", "counter", "Doors closed.", _one(lambda now: now.counts.closed)),
    _Metric("doors_refused_total", "counter", "Doors refused for want of room.", _one(lambda now: now.counts.refused)),
)


def prometheus(snapshot: Snapshot | None) -> str:
    """The text exposition format (prometheus.io, "Exposition formats"); None for a daemon that is not there."""
    lines = list(_exposed("up", "gauge", "Whether the daemon answers.", [({}, snapshot is not None)]))
    if snapshot is not None:
        for metric in _METRICS:
            lines += _exposed(metric.name, metric.kind, metric.text, metric.samples(snapshot))
    return "\n".join(lines) + "\n"


def _exposed(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {text}"
    yield f"# TYPE {_PREFIX}_{name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(content)}"' for label, content in labels.items())
        yield f"{_PREFIX}_{name}{{{inside}}} {_number(value)}" if inside else f"{_PREFIX}_{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
