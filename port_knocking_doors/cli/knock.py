"""`knock` among the other commands; `knocking` has its command line."""

import typer

from . import knocking
from .options import Source, app


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def knock(context: typer.Context) -> None:
    """Knock at a host, wait for its door, go through it: the client. Its own --help tells more."""
    knocking.run(context.args, lambda conf: Source(conf, None, None, None, None).over(context.obj).load(served=tuple))
