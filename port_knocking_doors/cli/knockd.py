"""`knockd`: the options and the file of that daemon."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Optional

import typer

from port_knocking_doors import __version__
from port_knocking_doors.cli.command import declare
from port_knocking_doors.cli.options import PROGRAM, reject_options_before
from port_knocking_doors.config import knockd, loader
from port_knocking_doors.config.knockd_service import CONFIG
from port_knocking_doors.daemon.knockd_log import KnockdLog
from port_knocking_doors.system import clock, daemonize, instance, log
from port_knocking_doors.system.terminal import show

COMMAND = "knockd"
PID_FILE = Path("/var/run/knockd.pid")

_CONFIG = typer.Option(
    None, "--config", "-c", metavar="FILE", readable=False, help=f"The file to read. Without it: {CONFIG}."
)
_PID_FILE = typer.Option(
    None, "--pidfile", "-p", metavar="FILE", help=f"Where -d writes its process number. Without it: {PID_FILE}."
)


@declare(COMMAND)
def run(
    context: typer.Context,
    interface: Optional[str] = typer.Option(
        None,
        "--interface",
        "-i",
        metavar="NAME",
        help="Interface to listen on, or a pattern such as 'ppp*'. Without it: the file's Interface, else "
        f"{loader.KNOCKD_INTERFACE}. One that does not exist yet is used once it appears.",
    ),
    background: bool = typer.Option(
        False,
        "--daemon",
        "-d",
        help="Run in the background, and return once it listens. Needs the library python-daemon.",
    ),
    config: Optional[Path] = _CONFIG,
    debug: bool = typer.Option(False, "--debug", "-D", help="Log every knock (never its port)."),
    lookup: bool = typer.Option(
        False,
        "--lookup",
        "-l",
        help="Look up the names of hosts for the log. A security risk: an observer of the queries to the name server "
        "learns that a first knock was made, and which one it was; and the queries reveal a host that should seem "
        "absent. Only the log waits for the answers.",
    ),
    pid_file: Optional[Path] = _PID_FILE,
    log_file: Optional[str] = typer.Option(
        None, "--logfile", "-g", metavar="FILE", help="The log file. Without it: that of the configuration."
    ),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Write the log also to standard output."),
    ipv4_only: bool = typer.Option(False, "--only-ip-v4", "-4", help="Use IPv4 only."),
    version: bool = typer.Option(False, "--version", "-V", help="Show the version, and end."),
) -> None:
    """Run with the options and the file of knockd, unchanged.

    Each door of the file has a Sequence, or a file of One_Time_Sequences, and a Start_Command that runs after the
    sequence was knocked; %IP% in it is the knocker's address. The Stop_Command runs Cmd_Timeout seconds later. No port
    needs to be open, or looks open. `port-knocking-doors check --knockd FILE` shows the content of a file.

    Runs in the foreground without -d. SIGTERM and Ctrl-C run the stop commands that are due and end the daemon; SIGHUP
    reads the file again and reopens the log file.

    Exit status: 0 done, 2 wrong usage or configuration, 1 any other failure.
    """
    reject_options_before(context, COMMAND)
    if version:
        show(f"{PROGRAM} {__version__}, in place of knockd 0.8")
        return
    log.set_up(debug)
    here = _folder()
    path = here / (config or CONFIG)
    loaded = _load(path, interface, here, ipv4_only=ipv4_only)
    if background:
        daemonize.require_library()

    def log_path(options: knockd.Options) -> str:
        file = options.log_file if log_file is None else log_file
        return str(here / file) if file else ""

    knockd_log = KnockdLog(
        log_path(loaded.options),
        config=str(path),
        syslog=loaded.options.use_syslog,
        verbose=verbose,
        lookup=lookup,
    )

    def read_again() -> loader.Loaded:
        again = _load(path, interface, here, ipv4_only=ipv4_only)
        # Also with another Interface the mark stays: its lock is held, and pending commands are filed under it.
        return replace(again, settings=replace(again.settings, rule_priority=loaded.settings.rule_priority))

    def verify_log(again: loader.Loaded) -> Callable[[], None]:
        assert isinstance(again, loader.LoadedKnockd)
        options = again.options
        return lambda: knockd_log.use(log_path(options), syslog=options.use_syslog)

    def serve() -> None:
        from port_knocking_doors.daemon.daemon import Daemon  # D-Bus takes a third of the start

        if background:
            log.to_syslog(COMMAND)
        with knockd_log:
            clock.run(Daemon(loaded, read_again, [knockd_log], [verify_log]).run())

    if not background:
        serve()
        return
    named = pid_file or (Path(loaded.options.pid_file) if loaded.options.pid_file else PID_FILE)
    daemonize.run(serve, here / named)


def _folder() -> Path:
    """The folder that relative paths start from: a background process changes it."""
    try:
        return Path.cwd()
    except FileNotFoundError:  # removed
        return Path("/")


def _load(path: Path, interface: str | None, folder: Path, *, ipv4_only: bool) -> loader.LoadedKnockd:
    loaded = loader.load_knockd(path, interface, ipv4_only, folder)
    for warning in loaded.warnings:
        log.logger.warning("%s", warning)
    mark = instance.command_mark(COMMAND, str(path), loaded.options.interface)
    return replace(loaded, settings=replace(loaded.settings, rule_priority=mark))
