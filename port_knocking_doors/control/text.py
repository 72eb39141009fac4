"""What the daemon is doing right now, as the lines that `status` shows to people."""

from collections.abc import Iterable, Iterator

from port_knocking_doors.control.status import DoorStatus, KnockerStatus, Snapshot
from port_knocking_doors.model import FirewalldState


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
