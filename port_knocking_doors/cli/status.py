"""`status`: the state of a running daemon."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors.cli import usage
from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import CONF, PRIORITY, mark_of
from port_knocking_doors.control import metrics, text
from port_knocking_doors.control.status import Snapshot, to_data
from port_knocking_doors.errors import ConfigError, DoorsError, NoDaemonError
from port_knocking_doors.system.printable import escaped
from port_knocking_doors.system.terminal import show

_HIDE, _SHOW = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen without a cursor, and back (xterm)
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


@declare("status")
def status(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object on one line, for programs."),
    prometheus: bool = typer.Option(
        False,
        "--prometheus",
        help="In Prometheus' text format, for a textfile collector. Write it beside the collector's file and rename "
        "it, so that it is never read half-written. If the daemon does not answer, the metric port_knocking_doors_up "
        "is 0.",
    ),
    watch: bool = typer.Option(False, "--watch", "-w", help="Refresh the display until Ctrl-C."),
    every: Optional[str] = typer.Option(
        None, "--every", metavar="SECONDS", help="With --watch: the time from one refresh to the next. Without it: 1."
    ),
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Show the state of the running daemon: doors, knockers, listeners, sniffer, firewalld. No sequence is shown."""
    if prometheus and (as_json or watch):
        raise ConfigError("--prometheus excludes --json and --watch, expected one of them")
    period = 1.0 if every is None else usage.seconds("--every", every, 0.1, 3600)
    mark = mark_of(context, conf, priority)

    def ask() -> Snapshot:
        from port_knocking_doors.control import client

        return client.snapshot(mark)

    if prometheus:
        _print_metrics(ask)
    elif watch:
        _watch(ask, period, as_json)
    else:
        show(*_lines(ask(), as_json))


def _lines(snapshot: Snapshot, as_json: bool) -> list[str]:
    return [json.dumps(to_data(snapshot))] if as_json else text.lines(snapshot)


def _print_metrics(ask: Callable[[], Snapshot]) -> None:
    try:
        exposed = metrics.prometheus(ask())
    except DoorsError:
        show(*metrics.prometheus(None).splitlines())
        raise
    show(*exposed.splitlines())


def _watch(ask: Callable[[], Snapshot], every: float, as_json: bool) -> None:
    """Print snapshot after snapshot. A daemon that restarts meanwhile is waited for."""
    on_screen = sys.stdout.isatty() and not as_json
    ask()  # no daemon at the start is an error, as without --watch
    try:
        with _screen() if on_screen else _plain() as draw:
            while True:
                try:
                    lines = _lines(ask(), as_json)
                except NoDaemonError as error:
                    lines = [] if as_json else [str(error)]
                except DoorsError as error:
                    if as_json:
                        raise
                    lines = [str(error)]
                draw(lines)
                time.sleep(every)
    except KeyboardInterrupt:
        return


@contextmanager
def _plain() -> Iterator[Callable[[list[str]], None]]:
    yield lambda lines: show(*lines, flush=True)


@contextmanager
def _screen() -> Iterator[Callable[[list[str]], None]]:
    """Overwrites the last frame in one write, so that nothing flickers; restores the terminal at the end."""

    def draw(lines: list[str]) -> None:
        width, height = _size()
        lines = text.wrapped(map(escaped, lines), width)
        fitting = max(height - 2, 0)
        shown = lines if len(lines) < height else [*lines[:fitting], f"… and {len(lines) - fitting} more lines"]
        drawn = "\r\n".join(line[:width] + _REST_OF_LINE for line in shown)
        _write(_HOME + drawn + _REST_OF_SCREEN)

    before = signal.signal(signal.SIGTERM, _end)
    try:
        _write(_HIDE)
        yield draw
    finally:
        _write(_SHOW)
        signal.signal(signal.SIGTERM, before)


def _size() -> tuple[int, int]:
    """Columns and lines of the terminal as it is now; COLUMNS and LINES may be out of date."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    return width or 80, height or 24  # 0: unknown


def _end(signal_number: int, _frame: object) -> None:
    raise SystemExit(128 + signal_number)


def _write(text: str) -> None:
    sys.stdout.flush()
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]
