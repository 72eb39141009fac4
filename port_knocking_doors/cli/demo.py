"""`demo`: every feature on throw-away hosts."""

from typing import Optional

import typer

from port_knocking_doors.cli import usage
from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import reject_options_before


@declare("demo")
def demo(
    context: typer.Context,
    pause: Optional[str] = typer.Option(
        None,
        metavar="SECONDS",
        help="Pause between the knocks. Without it: 0.3.",
    ),
) -> None:
    """Show every feature on throw-away hosts with their own firewalld; this machine is not changed.

    Needs no root where users may create namespaces, and sudo elsewhere.
    """
    reject_options_before(context, "demo")
    seconds = 0.3 if pause is None else usage.seconds("--pause", pause, 0, 10)
    from port_knocking_doors.sandbox import demo as story

    story.run(seconds)
