"""`open`, `close`, `forget`, `reload`: requests to a running daemon."""

from pathlib import Path
from typing import Any, Optional

import typer

from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import CONF, PRIORITY, mark_of
from port_knocking_doors.control.protocol import Request, Verb, read_address
from port_knocking_doors.control.status import DoorState, doors_from_data
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.system import clock
from port_knocking_doors.system.terminal import show

ADDRESS = typer.Argument(..., metavar="ADDRESS", help="An IPv4 or IPv6 address.")


@declare("open")
def open_(
    context: typer.Context,
    address: str = ADDRESS,
    sequence: Optional[str] = typer.Option(
        None,
        "--sequence",
        "-s",
        metavar="NAME",
        help="Sequence to open (default: the opening sequence).",
    ),
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Open a door of the running daemon for an address, as if it had knocked.

    Its zone is the configured one, else the zone of the address, else the default zone: only a knock shows the
    interface of an address. A door that is open from a knock is prolonged in its zone.
    """
    request = Request(Verb.OPEN, _read_address(address), sequence or "")
    doors = doors_from_data(_ask(context, conf, priority, request))
    if not doors:
        show(f"{request.address}: command started")
    for door in doors:
        what = f"{', '.join(door.opens) or 'a command'} by {door.sequence}"
        left = f" for {clock.rounded(door.seconds_left)} s" if door.seconds_left is not None else ""
        if door.standing is DoorState.OPEN:
            where = f" in zone {', '.join(door.zones)}" if door.zones else ""
            show(f"{door.address}: open: {what}{where}{left}")
        else:
            why = "firewalld has not confirmed it" if door.opens else "its start command has not ended"
            show(f"{door.address}: not open yet, {why}: {what}{left}; see `status` and the log")


@declare("close")
def close(
    context: typer.Context,
    address: Optional[str] = typer.Argument(None, metavar="[ADDRESS]", help="Address whose doors are closed."),
    every: bool = typer.Option(False, "--all", help="Close all doors."),
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Close the doors of an address, or all doors, before their deadline."""
    if (address is None) is not every:
        raise ConfigError("close: expected either an ADDRESS or --all")
    answer = _ask(context, conf, priority, Request(Verb.CLOSE, None if address is None else _read_address(address)))
    show(f"{answer['closed']} doors closed" if answer["closed"] != 1 else "1 door closed")
    if answer["waiting"]:
        show(f"Of these, {answer['waiting']} are still open: firewalld has not answered yet; see `status` and the log")


@declare("forget")
def forget(
    context: typer.Context,
    address: str = ADDRESS,
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Forget a knocker: it is no longer ignored, and starts each sequence from the first step."""
    request = Request(Verb.FORGET, _read_address(address))
    was_known = _ask(context, conf, priority, request)
    show(f"{request.address}: forgotten" if was_known else f"{request.address}: not found among the knockers")


@declare("reload")
def reload(context: typer.Context, conf: Optional[Path] = CONF, priority: Optional[str] = PRIORITY) -> None:
    """Make the running daemon reload its configuration, as SIGHUP does. Open doors stay open.

    If the configuration has an error, the daemon keeps the running one, and the exit status is 2.
    """
    _ask(context, conf, priority, Request(Verb.RELOAD))
    show("Configuration reloaded")


def _ask(context: typer.Context, conf: Path | None, priority: str | None, request: Request) -> Any:
    from port_knocking_doors.control import client

    return client.ask(mark_of(context, conf, priority), request)


def _read_address(text: str) -> Any:
    try:
        return read_address(text)
    except ConfigError as error:
        raise error.at("ADDRESS") from None
