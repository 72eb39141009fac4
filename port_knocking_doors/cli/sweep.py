"""`sweep`: what ExecStopPost runs."""

from typing import Optional

import typer

from port_knocking_doors.cli import usage
from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import reject_options_before
from port_knocking_doors.system import instance, log


@declare("sweep")
def sweep(
    context: typer.Context,
    patience: Optional[str] = typer.Option(
        None,
        metavar="SECONDS",
        help="How long to wait for a firewalld that does not answer. Without it: 30.",
    ),
    log_json: bool = typer.Option(False, "--log-json", help="Log one JSON object an event, for programs."),
) -> None:
    """Close what a daemon left open that was killed, and run the stop commands that it owes. The unit's ExecStopPost.

    Goes by what the daemon noted in its runtime directory, not by the configuration, which may have changed: run it as
    the daemon's user. A daemon that is running is left alone, and so are its doors. Nothing to close is no failure.
    """
    reject_options_before(context, "sweep")
    seconds = 30.0 if patience is None else usage.seconds("--patience", patience, 1, 3600)
    log.set_up(verbose=False, as_json=log_json)
    if not instance.unreleased_marks():
        return
    from port_knocking_doors.daemon import sweep as closer  # with D-Bus, most of the time that this takes

    closer.close_all(seconds)
