"""The options that commands share: those that name a configuration or a daemon."""

import os
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from port_knocking_doors.cli import PROGRAM, usage
from port_knocking_doors.errors import ConfigError

if TYPE_CHECKING:  # a command imports only what it uses
    from collections.abc import Callable, Collection

    from port_knocking_doors.config import loader
    from port_knocking_doors.model import Port

__all__ = ["PROGRAM", "Source"]

CONF = typer.Option(
    None,
    "--conf",
    "-c",
    metavar="FILE",
    readable=False,  # the loader reports it
    help="Configuration file (TOML). Without it: ~/.port_knocker.toml, else /etc/port_knocker.toml, else built-in "
    "defaults with a public sequence.",
)
SEQUENCE = typer.Option(
    None,
    "--magic-seq",
    "-m",
    metavar="SEQ",
    help='The opening sequence, 5 to 21 UDP ports: "PORT,PORT,PORT,PORT,PORT". Beats KNOCKER_SEQ, which beats the '
    "file. Other users of this machine can see the options of a process: a file keeps them secret.",
)
PORTS = typer.Option(
    None,
    "--ports",
    "-p",
    metavar="PORTS",
    help='The ports to guard, TCP by default: "22" or "22,80,1194/udp". Beats KNOCKER_PORTS, which beats the file.',
)
ZONE = typer.Option(
    None,
    "--zone",
    metavar="NAME",
    help="firewalld zone of the doors. Without it: the zone of the knocker's packets.",
)
INTERFACES = typer.Option(
    None,
    "--interface",
    "-i",
    metavar="NAME",
    help="Interface to sniff on, or a pattern such as 'ppp*'. Repeatable. Without it: every interface.",
)

PRIORITY = typer.Option(
    None,
    "--priority",
    metavar="N",
    help="The daemon to ask, by its mark: its rule_priority. Without it: that of the configuration.",
)


_MARK_MAX = 10**10 - 1
"""Ten digits: the mark of a daemon without rules is beyond firewalld's priorities (`instance.command_mark`)."""


@dataclass(frozen=True)
class Source:
    """The options that name a configuration or override it."""

    conf: Path | None
    magic_seq: str | None
    ports: str | None
    zone: str | None
    interfaces: list[str] | None

    def over(self, other: "Source") -> "Source":
        """These options; where one is not given, that of `other`."""
        mine, others = astuple(self), astuple(other)
        return Source(*(own if own is not None else its for own, its in zip(mine, others, strict=True)))

    def load(self, served: "Callable[[], Collection[Port]] | None" = None) -> "loader.Loaded":
        """The active configuration. `served` replaces the search for ports that programs of this machine serve."""
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
    """Raise `ConfigError` if an option before `command` has no effect on it; those of the fields `used` have one."""
    given = context.obj or Source(None, None, None, None, None)
    for field, option in _NAMES.items():
        if field not in used and getattr(given, field) is not None:
            what = f"has no effect before `{command}`; put options of `{command}` after it"
            raise ConfigError(what, option)


def mark_in(priority: str | None) -> int | None:
    """The mark that `--priority` names, if it is given. Raises `ConfigError`."""
    if priority is None:
        return None
    return usage.whole_number("--priority", priority, -_MARK_MAX, _MARK_MAX, "a whole number such as 31313")


def mark_of(context: typer.Context, conf: Path | None, priority: str | None) -> int:
    """The mark of the daemon to ask. Raises `ConfigError` if the configuration has none."""
    reject_options_before(context, context.info_name or "the command", "conf")
    mark = mark_in(priority)
    if mark is not None:
        return mark
    try:
        return Source(conf, None, None, None, None).over(context.obj).load().settings.rule_priority
    except ConfigError as error:
        hint = "name a running daemon by its mark: --priority N"
        raise ConfigError(f"{error.problem}; {hint}", error.where, error.field) from error
