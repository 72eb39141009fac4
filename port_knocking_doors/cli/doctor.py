"""`doctor`: why nothing happens when somebody knocks."""

from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors.cli.options import CONF, PRIORITY, Source, app, number


@app.command(short_help="Find out why a knock opens nothing.")
def doctor(
    context: typer.Context,
    listen: Optional[float] = typer.Option(
        None,
        "--listen",
        "-l",
        min=0.1,
        max=3600.0,
        callback=number,
        metavar="SECONDS",
        help="Afterwards show each knock that the running daemon hears, and what it was judged.",
    ),
    conf: Optional[Path] = CONF,
    priority: Optional[int] = PRIORITY,
) -> None:
    """Look for what keeps knocks from opening doors, and say what to do about it. Nothing is changed.

    Exit status: 0 if no problem was found (a warning is none), 1 otherwise.
    """
    from port_knocking_doors.doctor.examine import examine

    source = Source(conf, None, None, None, None).over(context.obj)
    raise typer.Exit(examine(source.load, priority, listen))
