"""`check`: the configuration with its warnings, or its errors."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import CONF, INTERFACES, PORTS, PROGRAM, SEQUENCE, ZONE, Source
from port_knocking_doors.config import (
    knockd_service,
    knockd_to_toml,
    lint,
    loader,
    render,
    reserve,
    service_files,
    zone_files,
)
from port_knocking_doors.config.describe import in_words
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Sequence
from port_knocking_doors.system.listening_ports import listening_ports, outgoing_ports
from port_knocking_doors.system.terminal import show

_KNOCKD = typer.Option(None, "--knockd", metavar="FILE", readable=False, help="Check this file of knockd instead.")
_TPORTKNOCKD = typer.Option(
    None, "--tportknockd", metavar="FILE", readable=False, help="Check this file of tportknockd instead."
)


@declare("check")
def check(
    context: typer.Context,
    conf: Optional[Path] = CONF,
    magic_seq: Optional[str] = SEQUENCE,
    ports: Optional[str] = PORTS,
    zone: Optional[str] = ZONE,
    interfaces: Optional[list[str]] = INTERFACES,
    knockd: Optional[Path] = _KNOCKD,
    tportknockd: Optional[Path] = _TPORTKNOCKD,
    as_toml: bool = typer.Option(
        False, "--as-toml", help="With --knockd: print the same as [[sequence]] tables for the program's own file."
    ),
) -> None:
    """Read the configuration as the daemon does, show it with its warnings, or report what is wrong.

    Shows the sequences: mind who reads your screen. Opens nothing.
    """
    own = Source(conf, magic_seq, ports, zone, interfaces or None).over(context.obj)
    if as_toml and knockd is None:
        raise ConfigError("is for a file of knockd, expected --knockd FILE as well", "--as-toml")
    if knockd is None and tportknockd is None:
        _check_own(own)
        return
    option = "--tportknockd" if knockd is None else "--knockd"
    if own != Source(None, None, None, None, None) or (knockd is not None and tportknockd is not None):
        raise ConfigError("another configuration is given as well, expected only one", option)
    if knockd is not None:
        _check_knockd(knockd, as_toml)
    elif tportknockd is not None:
        _check_tportknockd(tportknockd)


def _check_own(source: Source) -> None:
    loaded = source.load()
    show(f"Configuration: {loaded.path or 'none found, built-in defaults'}")
    show(*render.summary(loaded.settings).split("\n"))
    if loaded.settings.sequences:
        show(f"Sniffed on: {', '.join(loaded.settings.interfaces) or 'every interface'}")
    place = loaded.places.get("zone", "zone")
    unknown = zone_files.unknown_zone_warning(loaded.settings.zone, place, zone_files.FOLDERS)
    _conclude((*loaded.warnings, *unknown), _reserving(loaded.settings.opening_sequence))


def _reserving(ports: tuple[int, ...]) -> list[str]:
    """How to keep outgoing sockets off the knock ports, if they may have one."""
    outgoing = outgoing_ports()
    if not reserve.at_risk(ports, outgoing):
        return []
    commands = [f"  {command}" for command in reserve.commands(ports, outgoing)]
    return ["To keep outgoing sockets off the ports of the sequence, as root, now and at each boot:", *commands]


def _check_knockd(path: Path, as_toml: bool) -> None:
    service = knockd_service.interface_of(path)
    override = service.interface if service.overrides else None
    loaded = loader.load_knockd(path, override, False, unnamed=service.interface or "")
    options = loaded.options
    source = service.source if service.interface == options.interface else ""
    if as_toml:
        made = knockd_to_toml.as_toml(loaded.settings.sequences, service_files.of_system(), source)
        show(*made.rstrip("\n").split("\n"))
        return
    show(f"Configuration: {path} (of knockd)")
    named_by = f" ({source})" if source else ""
    show(f"Interface: {f'{options.interface}{named_by}' if options.interface else knockd_service.UNNAMED}")
    logs = [*filter(None, [options.log_file]), *(["syslog"] if options.use_syslog else [])]
    show(f"Log: {' and '.join(logs) or '-'}")
    show(f"Pid file: {options.pid_file or '-'}")
    _show(loaded.settings.sequences)
    _conclude(loaded.warnings)


def _check_tportknockd(path: Path) -> None:
    found = loader.read_tportknockd(path)
    show(f"Configuration: {path} (of tportknockd)")
    _show(found.sequences)
    warnings = (*found.warnings, *lint.foreign_warnings(found.sequences, listening_ports()))
    if not found.errors:
        _conclude(warnings)
        return
    _warn(warnings)
    for error in found.errors[:-1]:
        show(f"{PROGRAM}: {error}", stream=sys.stderr)
    for error in found.errors[-1:]:
        raise error


def _show(sequences: tuple[Sequence, ...]) -> None:
    for sequence in sequences:
        show(*in_words(sequence).split("\n"))


def _conclude(warnings: tuple[str, ...], remedies: Iterable[str] = ()) -> None:
    """The warnings of a valid configuration, what to do about them, and the verdict."""
    _warn(warnings)
    for line in remedies:
        show(line)
    count = f", {len(warnings)} warning{'s' if len(warnings) > 1 else ''}" if warnings else ""
    show(f"Configuration is valid{count}")


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        show(f"Warning: {warning}")
