"""The client's own command line, which is read without the option library of the other commands.

It runs ahead of every connection that ssh makes through it, and that library, which newer releases build on pydantic,
takes longer than all the rest (measured: 0.27 s of CPU time to the end of one knock, and 0.10 s like this).
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from port_knocking_doors.cli import PROGRAM, usage
from port_knocking_doors.errors import ConfigError, DoorsError

if TYPE_CHECKING:
    from port_knocking_doors.client.knock import KnockPlan, Report
    from port_knocking_doors.config.loader import Loaded
    from port_knocking_doors.model import Settings, Step

    Load = Callable[[Path | None], Loaded]
    """Puts the configuration together, given what `--conf` says."""

TRIES = 3
PAUSE = 6.0
"""Seconds between two tries, where no configuration tells for how long a server does not hear who knocked wrongly: by
default that is 5."""
MARGIN = 1.0
"""Seconds that the pause is longer than the server's."""
DELAY = 200
DELAY_MAX = 60_000
TRIES_MAX = 1000

_ABOUT = """\
Knock at HOST.

A UDP knock is the datagram "knock\\n". A TCP knock is one SYN, as any attempt to
connect begins with one, and needs no privilege. FLAGS are the letters of what is
set in the packet instead, f FIN, s SYN, r RST, p PSH, a ACK, u URG, or alone x for
all and n for none; such a packet needs root or CAP_NET_RAW. Other users of this
machine can see the STEPs that you type: a configuration file keeps them better.
"""
_MORE = """\
All knocks go to one address: the first of HOST that there is a route to. With
--wait and --connect, a try that failed is followed by one at HOST's next address,
if it has several. Between two tries the pause is longer than the time for which
the server does not hear who knocked wrongly (ignoring_period_after_knock_error of
the configuration in use; 5 seconds where STEPs are given).

With --connect, a port that is open already is used at once, without a knock. In
~/.ssh/config:

  ProxyCommand port-knocking-doors knock %h --connect %p

Exit status: 0 the port is open (without --wait or --connect: the knocks were sent,
and nobody knows more), 3 it is not, 4 HOST is unknown, 5 this user may not send
such knocks, 2 wrong usage or configuration, 1 any other failure.
"""


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as the other commands do, and quotes no value."""

    def error(self, message: str) -> NoReturn:
        if not message.endswith("expected one argument") and " are required: " not in message:
            message = "an option that takes no value has one"  # the library's own message quotes it
        raise ConfigError(f"{message.removeprefix('argument ')}; see `{self.prog} --help`")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options and arguments. Raises `ConfigError`."""
        options, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            raise ConfigError(f"{usage.unknown('option', unknown[0], known)}; see `{self.prog} --help`")
        return options

    def print_help(self, file: Any = None) -> None:
        # The library's own says nothing of an output that cannot be written.
        print(self.format_help(), end="", file=file)


def _parser() -> _Parser:
    parser = _Parser(
        prog=f"{PROGRAM} knock",
        usage="%(prog)s [OPTIONS] HOST [STEP]...",
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("host", metavar="HOST", help="where to knock: a name or an address")
    add(
        "steps",
        metavar="STEP",
        nargs="*",
        default=[],  # else argparse says that they are required
        help="PORT, PORT:udp, PORT:tcp, udp:PORT, tcp:PORT or tcp:PORT:FLAGS; without any, the opening sequence of the "
        "configuration, or the one that --sequence names",
    )
    add("-u", "--udp", action="store_true", help="a bare PORT is UDP; without it, TCP")
    add("-d", "--delay", default=str(DELAY), metavar="MS", help="milliseconds between two knocks (%(default)s)")
    add("-4", "--ipv4", action="store_true", help="use IPv4 only")
    add("-6", "--ipv6", action="store_true", help="use IPv6 only")
    add("--wait", metavar="PORT", help="then try this guarded TCP port until it answers, and say whether it is open")
    add(
        "--connect",
        metavar="PORT",
        help="like --wait, and then join standard input and output to the port: for ssh's ProxyCommand",
    )
    add("--tries", metavar="N", help=f"with --wait or --connect: knock up to so many times ({TRIES})")
    add("-s", "--sequence", metavar="NAME", help="knock the sniffed sequence of this name in the configuration")
    add(
        "-c",
        "--conf",
        type=Path,
        metavar="FILE",
        help="configuration file; without it ~/.port_knocker.toml, else /etc/port_knocker.toml, else built-in defaults "
        "whose sequence everybody knows",
    )
    add("-v", "--verbose", action="store_true", help="tell of every knock (never of its port)")
    return parser


def _load(conf: Path | None) -> "Loaded":
    from port_knocking_doors.config import files, loader

    return loader.load(conf, magic_seq=None, ports=None, environ=os.environ, home=files.find_home(), served=tuple)


def run(arguments: Sequence[str], load: "Load" = _load, *, configured: bool = False) -> None:
    """Do what the words behind `knock` say. Raises `DoorsError`, and `SystemExit` after the help.

    `configured`: whether options ahead of `knock` say what `load` is to read.
    """
    options = _parser().read(arguments)

    from port_knocking_doors.client import knock
    from port_knocking_doors.config import step_syntax as spelling
    from port_knocking_doors.model import Protocol

    if options.ipv4 and options.ipv6:
        raise ConfigError("-4 and -6 exclude each other, expected one of them")
    if options.wait is not None and options.connect is not None:
        raise ConfigError("--wait and --connect exclude each other, expected one of them")
    if options.tries is not None and options.wait is None and options.connect is None:
        raise ConfigError("--tries means nothing without --wait or --connect, expected one of them, too")
    expected = f"whole milliseconds from 0 to {DELAY_MAX}, such as {DELAY}"
    delay = usage.whole_number("--delay", options.delay, 0, DELAY_MAX, expected) / 1000
    tries = TRIES
    if options.tries is not None:
        tries = usage.whole_number("--tries", options.tries, 1, TRIES_MAX, f"a whole number from 1 to {TRIES_MAX}")
    port = None
    for option, text in (("--wait", options.wait), ("--connect", options.connect)):
        if text is not None:
            try:
                port = spelling.tried_port(text)
            except ConfigError as wrong:
                raise wrong.at(option) from None
    host = spelling.host(options.host)
    pause = PAUSE
    if options.steps and options.sequence is not None:
        raise ConfigError("both steps and --sequence are given, expected one of them")
    if options.steps:
        steps = spelling.read(options.steps, Protocol.UDP if options.udp else Protocol.TCP)
        if configured or options.conf is not None:
            raise ConfigError("--conf: steps are given, and a configuration would change nothing, expected one of them")
    else:
        settings = in_force(load(options.conf))
        steps = steps_of(settings, options.sequence)
        pause = settings.ignoring_period + MARGIN

    targets = knock.resolve(host, 4 if options.ipv4 else 6 if options.ipv6 else None)
    detail = _say if options.verbose else knock.no_report
    if port is None:
        knock.knock(targets[0], steps, delay, detail)
        return
    plan = knock.KnockPlan(host, targets, steps, delay, port, tries, pause)
    if options.connect is None:
        connection, target = plan.connect(try_first=False, report=_say, detail=detail)
        connection.close()
        print(f"{knock.with_addresses(host, target)}: port {port} is open")
    else:
        _join(plan, detail)


def in_force(loaded: "Loaded") -> "Settings":
    """The configuration to knock by. What it warns of is the daemon's business, but for a sequence that all know."""
    if loaded.path is None:
        for warning in loaded.warnings:
            _say(warning)
    return loaded.settings


def steps_of(settings: "Settings", name: str | None) -> "tuple[Step, ...]":
    """The steps of the opening sequence, or of the sniffed one of this name. Raises `ConfigError`."""
    from port_knocking_doors.config.readers import RESERVED_NAME
    from port_knocking_doors.model import Protocol, Step

    if name is None or name == RESERVED_NAME:
        return tuple(Step(Protocol.UDP, port) for port in settings.opening_sequence)
    for sequence in settings.sequences:
        if sequence.name == name:
            if not sequence.steps:
                raise ConfigError(f"--sequence: no one-time sequence is left in {sequence.one_time}, expected one")
            return sequence.steps
    names = ", ".join(sequence.name for sequence in settings.sequences)
    known = f"one of: {names}" if names else "a configuration with a [[sequence]]"
    raise ConfigError(f"--sequence: the configuration has no sequence of this name, expected {known}")


def _join(plan: "KnockPlan", detail: "Report") -> None:
    from port_knocking_doors.client.relay import relay

    # Whatever of the three standard streams is closed gets a descriptor here: else a socket would get its number.
    while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(unused)
    connection, _ = plan.connect(try_first=True, report=_say, detail=detail)
    with connection:
        try:
            relay(connection)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DoorsError(f"{plan.host}: the connection broke ({error.strerror})") from None


def _say(text: str) -> None:
    if sys.stderr is not None:  # else it would get among the payload
        print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
