"""`open`, `close`, `forget`, `reload`: what a running daemon is told to do."""

from pathlib import Path
from typing import Any, Optional

import typer

from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import CONF, PRIORITY, mark_of
from port_knocking_doors.control.protocol import Request, Verb, read_address
from port_knocking_doors.control.status import Standing, doors_from_data
from port_knocking_doors.errors import ConfigError

ADDRESS = typer.Argument(..., metavar="ADDRESS", help="An address, IPv4 or IPv6.")


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

    Its zone is the configured one, else the address's own, else the default zone: by what interface somebody comes is
    known from a knock only. A door that is open from a knock is prolonged where it is.
    """
    request = Request(Verb.OPEN, _read(address), sequence or "")
    doors = doors_from_data(_ask(context, conf, priority, request))
    if not doors:
        print(f"{request.address}: the command was started")
    for door in doors:
        what = f"{', '.join(door.opens) or 'a command'} by {door.sequence}"
        left = f" for {door.seconds_left:.3g} s" if door.seconds_left is not None else ""
        if door.standing is Standing.OPEN:
            where = f" in zone {', '.join(door.zones)}" if door.zones else ""
            print(f"{door.address}: open: {what}{where}{left}")
        else:
            why = "firewalld has not confirmed it" if door.opens else "its start command has not ended"
            print(f"{door.address}: not open yet, {why}: {what}{left}; see `status` and the log")


@declare("close")
def close(
    context: typer.Context,
    address: Optional[str] = typer.Argument(None, metavar="[ADDRESS]", help="Whose doors."),
    everybody: bool = typer.Option(False, "--all", help="Everybody's."),
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Close the doors of an address, or all doors, ahead of their time."""
    if (address is None) is not everybody:
        raise ConfigError("close: expected either an ADDRESS or --all")
    answer = _ask(context, conf, priority, Request(Verb.CLOSE, None if address is None else _read(address)))
    print(f"{answer['closed']} doors closed" if answer["closed"] != 1 else "1 door closed")
    if answer["waiting"]:
        print(f"Of these, {answer['waiting']} still stand: firewalld has not answered yet; see `status` and the log")


@declare("forget")
def forget(
    context: typer.Context,
    address: str = ADDRESS,
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Forget a knocker: it is no longer ignored, and starts each sequence anew."""
    request = Request(Verb.FORGET, _read(address))
    was_known = _ask(context, conf, priority, request)
    print(f"{request.address}: forgotten" if was_known else f"{request.address}: was not known as a knocker")


@declare("reload")
def reload(context: typer.Context, conf: Optional[Path] = CONF, priority: Optional[str] = PRIORITY) -> None:
    """Let the running daemon read its configuration again, as SIGHUP does. Open doors stay open.

    A wrong one changes nothing, and is told; the exit status is 2 then.
    """
    _ask(context, conf, priority, Request(Verb.RELOAD))
    print("Configuration reloaded")


def _ask(context: typer.Context, conf: Path | None, priority: str | None, request: Request) -> Any:
    from port_knocking_doors.control import client

    return client.ask(mark_of(context, conf, priority), request)


def _read(text: str) -> Any:
    try:
        return read_address(text)
    except ConfigError as error:
        raise error.at("ADDRESS") from None
