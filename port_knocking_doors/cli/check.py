"""`check`: what is in force, or what is wrong."""

from pathlib import Path
from typing import Optional

import typer

from .options import CONF, INTERFACES, PORTS, SEQUENCE, ZONE, Source, app


@app.command()
def check(
    context: typer.Context,
    conf: Optional[Path] = CONF,
    magic_seq: Optional[str] = SEQUENCE,
    ports: Optional[str] = PORTS,
    zone: Optional[str] = ZONE,
    interfaces: Optional[list[str]] = INTERFACES,
) -> None:
    """Read the configuration as the daemon would, show what is in force, or say what is wrong.

    Shows the sequences: mind who looks over your shoulder. Nothing is opened.
    """
    from port_knocking_doors.config import native

    loaded = Source(conf, magic_seq, ports, zone, interfaces or None).over(context.obj).load()
    print(f"Configuration: {loaded.path or 'none found, built-in defaults'}")
    print(native.summary(loaded.settings))
    if loaded.settings.sequences:
        print(f"Sniffed on: {', '.join(loaded.settings.interfaces) or 'every interface'}")
    for warning in loaded.warnings:
        print(f"Warning: {warning}")
