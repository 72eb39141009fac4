"""`knock` as one of the commands; `knock_parser` reads its command line."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from port_knocking_doors.cli import knock_parser
from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import Source, reject_options_before

if TYPE_CHECKING:
    from port_knocking_doors.config.loader import Loaded


@declare(
    "knock",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def knock(context: typer.Context) -> None:
    """Knock at a host, wait for its door, connect through it. See `knock --help`."""
    reject_options_before(context, "knock", "conf", "magic_seq")

    def load(conf: Path | None) -> "Loaded":
        return Source(conf, None, None, None, None).over(context.obj).load(served=tuple)

    knock_parser.run(context.args, load, configured=context.obj != Source(None, None, None, None, None))
