"""`status`: what a running daemon is doing."""

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

_HIDE, _SHOW = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen without a cursor, and back (xterm)
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


@declare("status")
def status(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="As one JSON object on one line, for programs."),
    prometheus: bool = typer.Option(
        False,
        "--prometheus",
        help="In Prometheus' text format, for a textfile collector. Write it beside the collector's file and rename "
        "it, so that it is never read half-written. A daemon that does not answer is told as such, too.",
    ),
    watch: bool = typer.Option(False, "--watch", "-w", help="Show it anew all the time, until Ctrl-C."),
    every: Optional[str] = typer.Option(
        None, "--every", metavar="SECONDS", help="With --watch: the time from one look to the next. Without it: 1."
    ),
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Show what the running daemon is doing: doors, knockers, listeners, sniffer, firewalld. No sequence is shown."""
    if prometheus and (as_json or watch):
        raise ConfigError("--prometheus goes with neither --json nor --watch")
    period = 1.0 if every is None else usage.seconds("--every", every, 0.1, 3600)
    mark = mark_of(context, conf, priority)

    def look() -> Snapshot:
        from port_knocking_doors.control import client

        return client.snapshot(mark)

    if prometheus:
        _print_metrics(look)
    elif watch:
        _watch(look, period, as_json)
    else:
        print("\n".join(_lines(look(), as_json)))


def _lines(snapshot: Snapshot, as_json: bool) -> list[str]:
    return [json.dumps(to_data(snapshot))] if as_json else text.table(snapshot)


def _print_metrics(look: Callable[[], Snapshot]) -> None:
    try:
        exposed = metrics.prometheus(look())
    except DoorsError:  # one that hangs does not answer either
        print(metrics.prometheus(None), end="")
        raise
    print(exposed, end="")


def _watch(look: Callable[[], Snapshot], every: float, as_json: bool) -> None:
    """Show it again and again. A daemon that is restarted meanwhile is waited for."""
    on_screen = sys.stdout.isatty() and not as_json
    _lines(look(), as_json)  # where there is none from the start, that is an error as without --watch
    try:
        with _screen() if on_screen else _plain() as show:
            while True:
                try:
                    lines = _lines(look(), as_json)
                except NoDaemonError as error:
                    lines = [] if as_json else [str(error)]
                except DoorsError as error:
                    if as_json:
                        raise
                    lines = [str(error)]
                show(lines)
                time.sleep(every)
    except KeyboardInterrupt:
        return


@contextmanager
def _plain() -> Iterator[Callable[[list[str]], None]]:
    def show(lines: list[str]) -> None:
        if lines:
            print("\n".join(lines), flush=True)

    yield show


@contextmanager
def _screen() -> Iterator[Callable[[list[str]], None]]:
    """Draws over what is there in one write, so that nothing flickers; leaves the terminal as it was."""

    def show(lines: list[str]) -> None:
        width, height = _size()
        room = max(height - 2, 0)
        shown = lines if len(lines) < height else [*lines[:room], f"… and {len(lines) - room} more lines"]
        drawn = "\r\n".join(line[:width] + _REST_OF_LINE for line in shown)
        _write(_HOME + drawn + _REST_OF_SCREEN)

    before = signal.signal(signal.SIGTERM, _end)
    try:
        _write(_HIDE)
        yield show
    finally:
        _write(_SHOW)
        signal.signal(signal.SIGTERM, before)


def _size() -> tuple[int, int]:
    """Columns and lines of the terminal as it is now, whatever the environment says that it once was."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    return width or 80, height or 24  # one that does not know


def _end(signal_number: int, _frame: object) -> None:
    raise SystemExit(128 + signal_number)


def _write(text: str) -> None:
    sys.stdout.flush()
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]
