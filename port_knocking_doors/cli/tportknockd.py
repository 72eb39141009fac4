"""`tportknockd`: the options and the file of that daemon."""

import ipaddress
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import PROGRAM, reject_options_before
from port_knocking_doors.config import lint, loader, readers
from port_knocking_doors.config.describe import in_words
from port_knocking_doors.config.reader_types import Whole
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Scope, Settings
from port_knocking_doors.system import clock, daemonize, instance, interfaces, log
from port_knocking_doors.system.listening_ports import listening_ports
from port_knocking_doors.system.terminal import show

COMMAND = "tportknockd"
_PERIOD = Whole(1, 10**6, "number of seconds")
_HEADINGS = ("INTERFACE", "STATE", "ADDRESSES")

_CONF = typer.Option(
    None, "-c", metavar="FILE", readable=False, help="File with the knock sequences: run the daemon with it."
)
_CHECKED = typer.Option(
    None,
    "-C",
    metavar="FILE",
    readable=False,
    help="Check this file: show every sequence in words, and every error. The sequences are secret. Exit status 2 if "
    "there is an error.",
)


@declare(COMMAND)
def run(
    context: typer.Context,
    conf: Optional[Path] = _CONF,
    checked: Optional[Path] = _CHECKED,
    device: Optional[str] = typer.Option(
        None,
        "-i",
        metavar="DEVICE",
        help="Interface to watch, or a pattern such as 'ppp*'. Without it: every interface.",
    ),
    refresh: Optional[str] = typer.Option(
        None,
        "-r",
        metavar="SEC",
        help="Accepted without effect: changes of interfaces and addresses are noticed at once.",
    ),
    listed: bool = typer.Option(False, "-l", help="List the interfaces with their state and addresses, and end."),
    debug: bool = typer.Option(False, "-d", help="Log every knock (never its port or flags); in the foreground only."),
    background: bool = typer.Option(
        False,
        "-D",
        help="Daemon mode: run in the background, and return once it is ready. The log goes to syslog, and the number "
        "of the process to tportknockd.pid in /run/port-knocking-doors, with -i to tportknockd-DEVICE.pid. Needs the "
        "library python-daemon.",
    ),
) -> None:
    """Run with the options and the file of tportknockd, unchanged.

    Each block <NAME> … </NAME> of the file has a sequence of frames (tcp or udp:PORT:FLAGS), a timeout, and a
    start_command that runs after the sequence was knocked; %IP% in it is the knocker's address. The stop_command runs
    command_delay seconds later (default: 30). No port needs to be open, or looks open.

    Runs in the foreground without -D. SIGTERM and Ctrl-C run the stop commands that are due and end the daemon; SIGHUP
    reads the file again.

    Exit status: 0 done, 2 wrong usage or configuration, 1 any other failure.
    """
    reject_options_before(context, COMMAND)
    if refresh is not None:
        _read_option("-r", lambda: _PERIOD.from_text(refresh))
    if device is not None:
        _read_option("-i", lambda: readers.interface_name(device))
    if listed:
        show(*_table().split("\n"))
    elif checked is not None:
        _check(checked)
    elif conf is None:
        raise ConfigError("the file with the sequences is missing, expected -c FILE", COMMAND)
    elif debug and background:
        raise ConfigError("-d is for the foreground and -D for the background, expected one of -d -D", "-D")
    else:
        _run_daemon(conf.absolute() if background else conf, device, debug=debug, background=background)


def load(path: Path, device: str | None) -> loader.Loaded:
    """The settings of tportknockd's file. Raises `ConfigError` for its first error."""
    found = loader.read_tportknockd(path)
    if errors := found.errors:
        more = f" (and {len(errors) - 1} more; see {COMMAND} -C)" if len(errors) > 1 else ""
        raise ConfigError(f"{errors[0].problem}{more}", errors[0].where)
    scope = Scope(interfaces=(device,) if device is not None else ())
    settings = Settings(
        guarded_ports=(),
        opening_sequence=(),
        open_knock_ports=False,
        sequences=tuple(replace(sequence, scope=scope) for sequence in found.sequences),
        rule_priority=instance.command_mark(COMMAND, str(path.absolute()), device or ""),
    )
    return loader.Loaded(settings, path, _warnings(found), {})


def _warnings(found: loader.Foreign) -> tuple[str, ...]:
    return (*found.warnings, *lint.foreign_warnings(found.sequences, listening_ports()))


def _check(path: Path) -> None:
    found = loader.read_tportknockd(path)
    for sequence in found.sequences:
        show(*in_words(sequence).split("\n"))
    for warning in _warnings(found):
        show(f"Warning: {warning}")
    sys.stdout.flush()
    for error in found.errors:
        show(f"{PROGRAM}: {error}", stream=sys.stderr)
    if found.errors:
        raise typer.Exit(ConfigError.exit_status)


def _run_daemon(path: Path, device: str | None, *, debug: bool, background: bool) -> None:
    def read() -> loader.Loaded:
        loaded = load(path, device)
        for warning in loaded.warnings:
            log.logger.warning("%s", warning)
        return loaded

    log.set_up(debug)
    loaded = read()

    if background:
        daemonize.require_library()

    from port_knocking_doors.daemon.daemon import Daemon  # D-Bus takes a third of the start

    if not background:
        clock.run(Daemon(loaded, read).run())
        return

    def serve() -> None:
        log.to_syslog(COMMAND)
        clock.run(Daemon(loaded, read).run())

    name = COMMAND if device is None else f"{COMMAND}-{device}"
    daemonize.run(serve, instance.runtime_directory() / f"{name}.pid")


def _table() -> str:
    """The interfaces, each with its state and addresses."""
    with interfaces.InterfaceMonitor() as known:
        rows = [_HEADINGS]
        for _, link in sorted(known.links.items()):
            # IPv4 first: its packed addresses are the shorter ones.
            packed = sorted(link.addresses, key=lambda address: (len(address), address))
            name = ", ".join(link.names)
            addresses = [str(ipaddress.ip_address(address)) for address in packed] or ["none"]
            rows.append((name, "up" if link.up else "down", addresses[0]))
            rows += [("", "", address) for address in addresses[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {state:{widths[1]}}  {address}" for name, state, address in rows)


def _read_option(where: str, read: Callable[[], object]) -> None:
    try:
        read()
    except ConfigError as wrong:
        raise wrong.at(where) from None
