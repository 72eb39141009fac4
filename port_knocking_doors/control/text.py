"""A snapshot of the daemon, as the lines that `status` prints."""

import textwrap
from collections.abc import Iterable, Iterator

from port_knocking_doors.control.status import DoorState, DoorStatus, KnockerStatus, Snapshot
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system.printable import escaped


def lines(snapshot: Snapshot) -> list[str]:
    """The lines of `status`, of printable characters only."""
    return [escaped(line) for line in _lines(snapshot)]


def wrapped(lines: Iterable[str], width: int) -> list[str]:
    """The lines, each broken into as many of at most `width` columns as it needs."""
    indent = "    " if width > 20 else ""
    return [
        part
        for line in lines
        for part in textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [""]
    ]


def _lines(now: Snapshot) -> Iterator[str]:
    yield (
        f"port-knocking-doors {now.version}, process {now.pid}, up {_time(now.uptime)}, "
        f"{now.configuration or 'built-in defaults'}"
    )
    yield f"Firewalld: {_firewalld(now)}"
    listening = _counted(now.listeners, "UDP port")
    if now.sniffing:
        listening += f"; {_counted(now.sniffer_seen, 'packet')} sniffed, {now.sniffer_dropped} dropped by the kernel"
    yield f"Listening: {listening}"
    yield f"Sequences: {', '.join(now.sequences)}"
    counts = now.counts
    by_knock = f" ({counts.closed_by_knock} by a knock)" if counts.closed_by_knock else ""
    yield (
        f"Since start: {_counted(counts.complete, 'sequence')} complete, {_counted(counts.wrong, 'wrong knock')}, "
        f"{_counted(counts.opened, 'door')} opened, {counts.prolonged} prolonged, {counts.closed} closed{by_knock}, "
        f"{counts.refused} refused"
    )
    yield ""
    pending = f", {now.doors_waiting} pending" if now.doors_waiting else ""
    closing = f"; {now.doors_closing} more not confirmed closed" if now.doors_closing else ""
    yield f"Doors: {now.doors_open} of {now.doors_limit}{pending}{closing}"
    count = now.doors_open + now.doors_closing
    yield from _table(_DOOR_HEAD, [_door_row(door) for door in now.doors], count)
    yield ""
    yield f"Knockers: {now.knockers_known} of {now.knockers_limit}, {now.knockers_ignored} ignored"
    yield from _table(_KNOCKER_HEAD, [_knocker_row(knocker) for knocker in now.knockers], now.knockers_known)


def _firewalld(now: Snapshot) -> str:
    """Its state; rules are counted only where firewalld can have them."""
    if now.firewalld is FirewalldState.UNUSED:
        return str(now.firewalld.value)
    if now.firewalld is FirewalldState.ABSENT:
        return f"{now.firewalld.value}; doors stay pending until it runs"
    if now.firewalld in _NOT_ACTIVE:
        return f"{now.firewalld.value}: {_NOT_ACTIVE[now.firewalld]}"
    pending = f", {now.rules_pending} pending" if now.rules_pending else ""
    refused = f", {now.rules_refused} refused: see the log" if now.rules_refused else ""
    return f"{now.firewalld.value}, {_counted(now.rules, 'rule')} of this daemon{pending}{refused}"


_NOT_ACTIVE = {
    FirewalldState.FAILED: "its configuration is not active; see the log",
    FirewalldState.FLUSHED: "every port is open, its rules are gone from the kernel: systemctl restart firewalld",
}
_DOOR_HEAD = ("ADDRESS", "SEQUENCE", "OPENS", "ZONE", "STATE", "LEFT")
_KNOCKER_HEAD = ("ADDRESS", "LAST KNOCK", "DONE", "IGNORED FOR")
_STATES = {DoorState.OPEN: "open", DoorState.WAITING: "pending", DoorState.CLOSING: "not closed"}


def _door_row(door: DoorStatus) -> tuple[str, ...]:
    left = "-" if door.seconds_left is None else _time(door.seconds_left)
    opens = ", ".join(door.opens) or "command"
    return door.address, door.sequence, opens, ", ".join(door.zones) or "-", _STATES[door.standing], left


def _knocker_row(knocker: KnockerStatus) -> tuple[str, ...]:
    done = ", ".join(f"{name}: {_counted(steps, 'step')}" for name, steps in knocker.progress) or "-"
    ignored = _time(knocker.ignored_seconds) if knocker.ignored_seconds > 0 else "-"
    return knocker.address, f"{_time(knocker.heard_seconds)} ago", done, ignored


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], count: int) -> Iterator[str]:
    """The rows below their head, and how many of `count` are not among them; nothing where there is no row."""
    if not rows:
        return
    yield from _columns(head, rows)
    if count > len(rows):
        yield f"  and {count - len(rows)} more"


def _columns(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


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
