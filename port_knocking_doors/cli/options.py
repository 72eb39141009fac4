"""What commands have in common: the program's name, the application, and the options that name a configuration."""

import os
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from port_knocking_doors.cli import PROGRAM, usage
from port_knocking_doors.errors import ConfigError

if TYPE_CHECKING:  # no command waits for what it does not use
    from collections.abc import Callable, Collection

    from port_knocking_doors.config import loader
    from port_knocking_doors.model import Port

__all__ = ["PROGRAM", "Source"]

CONF = typer.Option(
    None,
    "--conf",
    "-c",
    metavar="FILE",
    readable=False,  # the loader says it better
    help="Configuration file (TOML). Without it: ~/.port_knocker.toml, else /etc/port_knocker.toml, else built-in "
    "defaults whose sequence everybody knows.",
)
SEQUENCE = typer.Option(
    None,
    "--magic-seq",
    "-m",
    metavar="SEQ",
    help='The opening sequence, 5 to 20 UDP ports: "PORT,PORT,PORT,PORT,PORT". Beats KNOCKER_SEQ, which beats the '
    "file. Other users of this machine can see the options of a process: a file keeps the secret better.",
)
PORTS = typer.Option(
    None,
    "--ports",
    "-p",
    metavar="PORTS",
    help='The ports to guard, TCP unless said otherwise: "22" or "22,80,1194/udp". Beats KNOCKER_PORTS, which beats '
    "the file.",
)
ZONE = typer.Option(
    None,
    "--zone",
    metavar="NAME",
    help="firewalld zone of the doors. Without it: the zone that the knocker's packets fall into.",
)
INTERFACES = typer.Option(
    None,
    "--interface",
    "-i",
    metavar="NAME",
    help="Interface that sniffed sequences are heard on, or a pattern such as 'ppp*'. May be given several times. "
    "Without it: every interface.",
)

PRIORITY = typer.Option(
    None,
    "--priority",
    metavar="N",
    help="Which daemon is meant, by its mark: its rule_priority. Without it: the one in the configuration.",
)


_MARK_MAX = 10**10 - 1
"""Ten digits: the mark of a daemon without rules is beyond firewalld's priorities (`instance.command_mark`)."""


@dataclass(frozen=True)
class Source:
    """What the options say of where the configuration comes from."""

    conf: Path | None
    magic_seq: str | None
    ports: str | None
    zone: str | None
    interfaces: list[str] | None

    def over(self, other: "Source") -> "Source":
        """These options, and where one was not given the other's."""
        mine, others = astuple(self), astuple(other)
        return Source(*(own if own is not None else its for own, its in zip(mine, others, strict=True)))

    def load(self, served: "Callable[[], Collection[Port]] | None" = None) -> "loader.Loaded":
        """The configuration in force. `served` stands for a look at the ports that this machine's programs serve."""
        from port_knocking_doors.config import files, loader
        from port_knocking_doors.system.listening_ports import listening_ports

        return loader.load(
            self.conf,
            magic_seq=self.magic_seq,
            ports=self.ports,
            zone=self.zone,
            interfaces=self.interfaces or (),
            environ=os.environ,
            home=files.find_home(),
            served=served or listening_ports,
        )


_NAMES = {
    "conf": "--conf",
    "magic_seq": "--magic-seq",
    "ports": "--ports",
    "zone": "--zone",
    "interfaces": "--interface",
}


def reject_options_before(context: typer.Context, command: str, *used: str) -> None:
    """Options ahead of the command are the daemon's own; the command makes use of those for these fields of `Source`.

    Raises `ConfigError` where there are others, which would change nothing.
    """
    given = context.obj or Source(None, None, None, None, None)
    for field, option in _NAMES.items():
        if field not in used and getattr(given, field) is not None:
            what = f"this option stands ahead of {command} and would change nothing"
            raise ConfigError(f"{what}, expected the options of {command} behind it", option)


def mark_in(priority: str | None) -> int | None:
    """The mark that `--priority` names, if it is given. Raises `ConfigError`."""
    if priority is None:
        return None
    return usage.whole_number("--priority", priority, -_MARK_MAX, _MARK_MAX, "a whole number such as 31313")


def mark_of(context: typer.Context, conf: Path | None, priority: str | None) -> int:
    """The mark of the daemon that a command is for. Raises `ConfigError` where the configuration tells none."""
    reject_options_before(context, context.info_name or "the command", "conf")
    mark = mark_in(priority)
    if mark is not None:
        return mark
    try:
        return Source(conf, None, None, None, None).over(context.obj).load().settings.rule_priority
    except ConfigError as error:
        hint = "a daemon that runs can be named by its mark, too: --priority N"
        raise ConfigError(f"{error.problem}; {hint}", error.where, error.field) from error
