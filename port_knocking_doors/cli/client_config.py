"""`client-config`: how to knock from other machines."""

from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.knock_parser import guarded_port, sequence_steps, settings_of
from port_knocking_doors.cli.options import CONF, SEQUENCE, Source, reject_options_before
from port_knocking_doors.model import Payload
from port_knocking_doors.system.terminal import show


@declare("client-config")
def client_config(
    context: typer.Context,
    host: Optional[str] = typer.Argument(
        None, metavar="[HOST]", help="The server's name or address. Without it: the word HOST."
    ),
    name: Optional[str] = typer.Option(
        None, "--sequence", "-s", metavar="NAME", help="Name of a sniffed sequence. Without it: the opening sequence."
    ),
    conf: Optional[Path] = CONF,
    magic_seq: Optional[str] = SEQUENCE,
) -> None:
    """Print how to knock from other machines: for ssh, a shell without this program, PowerShell and a phone app.

    The output shows the active sequence, which is a secret. On a machine that many people use, copy the configuration
    file there (mode 0600) and leave the steps out of the command lines: other users can see the arguments of a process.
    """
    reject_options_before(context, "client-config", "conf", "magic_seq", "ports")
    from port_knocking_doors.client import snippets
    from port_knocking_doors.config import step_syntax

    settings = settings_of(Source(conf, magic_seq, None, None, None).over(context.obj).load(served=tuple))
    known = snippets.HOST if host is None else step_syntax.host(host)
    sniffed = next((one for one in settings.sequences if one.name == name), None)
    made = snippets.Snippets(
        sequence_steps(settings, name),
        known,
        guarded_port(settings, name),
        sniffed.close_steps if sniffed else (),
        any_payload=sniffed is not None or settings.payload is Payload.ANY,
    )
    show(*made.text().split("\n"))
