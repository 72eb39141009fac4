"""The program without a command: the daemon in the foreground, and options about its configuration file."""

from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors import __version__
from port_knocking_doors.cli.options import CONF, INTERFACES, PORTS, PROGRAM, SEQUENCE, ZONE, Source
from port_knocking_doors.config import files, lint, loader
from port_knocking_doors.errors import ConfigError, DoorsError, in_words
from port_knocking_doors.model import Settings
from port_knocking_doors.system import log
from port_knocking_doors.system.listening_ports import outgoing_ports
from port_knocking_doors.system.terminal import show


def run(
    context: typer.Context,
    conf: Optional[Path] = CONF,
    magic_seq: Optional[str] = SEQUENCE,
    ports: Optional[str] = PORTS,
    zone: Optional[str] = ZONE,
    interfaces: Optional[list[str]] = INTERFACES,
    write_home: bool = typer.Option(
        False,
        "--set-configuration-file-in-home",
        help="Write ~/.port_knocker.toml with a random sequence, and end. An existing file is not overwritten.",
    ),
    show_help: bool = typer.Option(
        False, "--show-configuration-file-help", help="Explain every key of the configuration file, and end."
    ),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log every knock (never its port)."),
    log_json: bool = typer.Option(False, "--log-json", help="Log one JSON object for each event, for programs."),
    version: bool = typer.Option(False, "--version", "-V", help="Show the version, and end."),
) -> None:
    """Open ports of a firewalld server to an address that knocks, for a short time.

    Without a command, runs the daemon in the foreground. An address that sends the datagram "knock\\n" to the UDP
    ports of the opening sequence, in order, gets the guarded ports opened for some seconds; for all other addresses
    they stay closed. SIGTERM and Ctrl-C close every door and end the daemon; SIGHUP reloads the configuration.

    First steps: port-knocking-doors --set-configuration-file-in-home, then port-knocking-doors check, then
    port-knocking-doors. To see everything without changing this machine: port-knocking-doors demo.

    Exit status: 0 done, 2 wrong usage or configuration, 1 any other failure.
    """
    source = Source(conf, magic_seq, ports, zone, interfaces or None)
    alone = {
        "--set-configuration-file-in-home": write_home,
        "--show-configuration-file-help": show_help,
        "--verbose": verbose,
        "--log-json": log_json,
        "--version": version,
    }
    if context.invoked_subcommand is not None:
        for option, is_given in alone.items():
            if is_given:
                command = context.invoked_subcommand
                raise ConfigError(f"has no effect with a command, expected it without `{command}`", option)
        context.obj = source  # `--conf FILE check` is `check --conf FILE`
    elif version:
        show(f"{PROGRAM} {__version__}")
    elif show_help:
        from port_knocking_doors.config import render

        show(*render.help_text().split("\n"))
    elif write_home:
        if source != Source(None, None, None, None, None):
            raise ConfigError("excludes other options, expected it alone", "--set-configuration-file-in-home")
        _write_home_file()
    else:
        log.set_up(verbose, as_json=log_json)
        try:
            _run_daemon(source)
        except (DoorsError, OSError) as error:
            if not log_json:
                raise
            text = str(error) if isinstance(error, DoorsError) else f"the system refused: {in_words(error)}"
            log.logger.critical("%s", text, extra=log.event_fields(log.LogEvent.FAILED, reason=text))
            raise typer.Exit(getattr(error, "exit_status", DoorsError.exit_status)) from error


def _run_daemon(source: Source) -> None:
    from port_knocking_doors.daemon.daemon import Daemon  # D-Bus takes a third of the start
    from port_knocking_doors.system import clock

    def load() -> loader.Loaded:
        loaded = source.load()
        for warning in loaded.warnings:
            log.logger.warning("%s", warning)
        return loaded

    clock.run(Daemon(load(), load).run())


def _write_home_file() -> None:
    from port_knocking_doors.client import snippets

    written = files.write_home_file(files.find_home())
    show(f"Wrote {written.path}: a random sequence, and port 22 to guard.")
    outgoing = outgoing_ports()
    for warning in lint.ephemeral_warnings(Settings(opening_sequence=written.sequence), str(written.path), outgoing):
        show(f"Warning: {warning}")
    show(f"To knock from another machine, with HOST for this one, {snippets.shell_time(len(written.sequence))}:")
    show(f"  {snippets.shell_line(written.sequence)}")
