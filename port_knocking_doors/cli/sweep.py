"""`sweep`: ExecStopPost of the unit."""

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
        help="How long to wait for firewalld. Without it: 30.",
    ),
    forget: bool = typer.Option(
        False, "--forget", help="Drop the stop commands that failed, without another try. Closes nothing."
    ),
    log_json: bool = typer.Option(False, "--log-json", help="Log one JSON object for each event, for programs."),
) -> None:
    """Close doors that a killed daemon left open, and run its pending stop commands. ExecStopPost of the unit.

    Reads the notes in the runtime directories of daemons, not the configuration, which may have changed. Run it as
    root, or as the daemon's user; root runs another user's stop commands as that user. A running daemon and its doors
    are not touched. A stop command that fails is kept, and run again by each start and each sweep. Exit status 0 if
    there is nothing to close, 1 if something could not be closed.
    """
    reject_options_before(context, "sweep")
    seconds = 30.0 if patience is None else usage.seconds("--patience", patience, 1, 3600)
    log.set_up(verbose=False, as_json=log_json)
    directories = (*instance.usable_directories(), *instance.foreign_directories())
    if not directories:
        instance.runtime_directory()  # its error says what to do
    if not any(instance.unreleased_marks(directory) for directory in directories):
        return
    from port_knocking_doors.daemon import sweep as closer  # D-Bus takes most of the time

    if forget:
        closer.forget_failed()
        return
    closer.close_all(seconds)
