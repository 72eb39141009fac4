"""The application: the daemon's own options, and a table of commands, each loaded when it is used.

A daemon loads no other command, which saves a tenth of its memory.
"""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from port_knocking_doors.cli import run, usage
from port_knocking_doors.cli.command import PlainHelp, declared, plain_application
from port_knocking_doors.errors import ConfigError


class _Listed(NamedTuple):
    module: str
    about: str
    """One sentence of at most 55 characters, so that the list of commands has a line for each."""


COMMANDS = {
    "check": _Listed("check", "Show the configuration, or report its errors."),
    "doctor": _Listed("doctor", "Find out why a knock opens nothing."),
    "demo": _Listed("demo", "Show everything on throw-away hosts."),
    "status": _Listed("status", "Show the state of the running daemon."),
    "open": _Listed("control", "Open a door for an address, as if it had knocked."),
    "close": _Listed("control", "Close doors before their deadline."),
    "forget": _Listed("control", "Forget a knocker, so that it is no longer ignored."),
    "reload": _Listed("control", "Make the daemon reload its configuration."),
    "sweep": _Listed("sweep", "Close doors that a killed daemon left open."),
    "knock": _Listed("knock", "Knock at a host: the client."),
    "client-config": _Listed("client_config", "Print how to knock from other machines."),
    "knockd": _Listed("knockd", "Run with knockd's own options and file."),
    "tportknockd": _Listed("tportknockd", "Run with tportknockd's own options and file."),
}
"""In the order of the help: set up, inspect and control a daemon, the client, the other daemons' command lines."""


class LazyGroup(PlainHelp, TyperGroup):
    """The group of all commands, loaded lazily (click's documentation, "Lazily Loading Subcommands")."""

    def list_commands(self, _: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            import_module(f"port_knocking_doors.cli.{COMMANDS[cmd_name].module}")
            self.commands[cmd_name] = typer.main.get_command(declared[cmd_name])
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            raise ConfigError(f"{usage.unknown('command', args[0], COMMANDS)}; see `{ctx.command_path} --help`")
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, _: Any) -> list[str]:
        return ["[OPTIONS]", "[COMMAND [ARGS]...]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.about) for name, command in COMMANDS.items()])


app = plain_application(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
app.callback(invoke_without_command=True)(run.run)
