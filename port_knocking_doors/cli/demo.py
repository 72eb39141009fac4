"""`demo`: the whole story in a sandbox."""

import typer

from port_knocking_doors.cli.options import app, number, reject_options_before


@app.command(short_help="Show the whole story on throw-away hosts.")
def demo(
    context: typer.Context,
    pause: float = typer.Option(
        0.3,
        min=0.0,
        max=10.0,
        callback=number,
        metavar="SECONDS",
        help="Pause between the knocks, for people to follow.",
    ),
) -> None:
    """Show the whole story on throw-away hosts with a real firewalld of their own; nothing of this machine is touched.

    Needs no root where ordinary users may make namespaces, and sudo elsewhere.
    """
    reject_options_before(context, "demo")
    from port_knocking_doors.sandbox import demo as story

    story.tell(pause)
