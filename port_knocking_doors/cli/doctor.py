"""`doctor`: why nothing happens when somebody knocks."""

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
        help="Afterwards show each knock that the running daemon hears, and what it was judged.",
    ),
    conf: Optional[Path] = CONF,
    priority: Optional[str] = PRIORITY,
) -> None:
    """Look for what keeps knocks from opening doors, and say what to do about it. Nothing is changed.

    Exit status: 0 if no problem was found (a warning is none), 1 otherwise.
    """
    from port_knocking_doors.doctor.examine import examine

    period = None if listen is None else usage.seconds("--listen", listen, 0.1, 3600)
    source = Source(conf, None, None, None, None).over(context.obj)
    raise typer.Exit(examine(source.load, mark_in(priority), period))
