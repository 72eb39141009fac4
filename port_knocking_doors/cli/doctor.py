"""`doctor`: why a knock opens nothing."""

from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors.cli import usage
from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import CONF, PRIORITY, Source, mark_in


@declare("doctor")
def doctor(
    context: typer.Context,
    listen: Optional[str] = typer.Option(
        None,
        "--listen",
        "-l",
        metavar="SECONDS",
        help="Afterwards show each knock that the running daemon receives, with its result, and each datagram with "
        "another payload.",
    ),
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Find out why a knock opens no door, and what to do. Nothing is changed.

    Exit status: 0 if no problem was found (a warning is none), 1 otherwise.
    """
    from port_knocking_doors.doctor.examine import examine

    period = None if listen is None else usage.seconds("--listen", listen, 0.1, 3600)
    source = Source(conf, None, None, None, None).over(context.obj)
    raise typer.Exit(examine(source.load, mark_in(priority), period))
