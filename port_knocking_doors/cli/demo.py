"""`demo`: the whole story in a sandbox."""

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
        help="Pause between the knocks, for people to follow. Without it: 0.3.",
    ),
) -> None:
    """Show the whole story on throw-away hosts with a real firewalld of their own; nothing of this machine is touched.

    Needs no root where ordinary users may make namespaces, and sudo elsewhere.
    """
    reject_options_before(context, "demo")
    seconds = 0.3 if pause is None else usage.seconds("--pause", pause, 0, 10)
    from port_knocking_doors.sandbox import demo as story

    story.run(seconds)
