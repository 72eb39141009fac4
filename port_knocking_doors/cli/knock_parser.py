"""The command line of `knock`, which is read without the option library of the other commands.

It runs before every connection that ssh makes through it, and that library, which newer releases build on pydantic,
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
from port_knocking_doors.model import Protocol, Step
from port_knocking_doors.system.terminal import show

if TYPE_CHECKING:
    from port_knocking_doors.client.knock import KnockPlan, Report
    from port_knocking_doors.config.loader import Loaded
    from port_knocking_doors.model import Settings

    Load = Callable[[Path | None], Loaded]
    """Loads the configuration, given the value of `--conf`."""

TRIES = 3
PAUSE = 6.0
"""Seconds between two tries without a configuration: the server ignores an address for 5 s after a wrong knock."""
MARGIN = 1.0
"""Seconds that the pause is longer than the server ignores an address."""
DELAY = 200
"""Milliseconds."""
DELAY_MAX = 60_000
TRIES_MAX = 1000

_ABOUT = """\
Knock at HOST.

A UDP knock is the datagram "knock\\n". A TCP knock is one SYN, the first packet of
any connection, and needs no privilege. FLAGS are the letters of the flags that are
set instead: f FIN, s SYN, r RST, p PSH, a ACK, u URG, or alone x for all and n for
none; such a packet needs root or CAP_NET_RAW. Other users of this machine can see
the STEPs that you type: a configuration file keeps them secret.
"""
_MORE = """\
All knocks go to one address: the first of HOST that has a route. With --wait and
--connect, a try that failed is followed by one at HOST's next address, if it has
several. The pause between two tries is longer than the time for which the server
ignores an address after a wrong knock (ignoring_period_after_knock_error of the
configuration; 5 seconds where STEPs are given).

With --connect, a port that is open already is used at once, without a knock. In
~/.ssh/config:

  ProxyCommand port-knocking-doors knock %h --connect %p

With --close, the door of the address that the knocks come from is closed, whatever
time it has left, and no other one: knock from the machine, and with the option -4 or
-6, that opened it. Established connections continue.

Exit status: 0 the port is open (without --wait or --connect: the knocks were sent),
3 the port is not open, 4 HOST was not found, 5 permission denied for such knocks,
2 wrong usage or configuration, 1 any other failure.
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
        # The library's own ignores an output that cannot be written.
        show(*self.format_help().rstrip("\n").split("\n"), stream=file)


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
    add("--wait", metavar="PORT", help="then try this guarded TCP port until it answers, and report whether it is open")
    add(
        "--connect",
        metavar="PORT",
        help="like --wait, and then connect standard input and output to the port: for ssh's ProxyCommand",
    )
    add("--tries", metavar="N", help=f"with --wait or --connect: knock at most so many times ({TRIES})")
    add("-s", "--sequence", metavar="NAME", help="knock the sniffed sequence of this name in the configuration")
    add(
        "--close",
        action="store_true",
        help="knock to close: send the close_steps of the configuration's sequence, so that the server closes the door "
        "of this machine ahead of time; --sequence names the sequence where several have close_steps",
    )
    add(
        "-c",
        "--conf",
        type=Path,
        metavar="FILE",
        help="configuration file; without it ~/.port_knocker.toml, else /etc/port_knocker.toml, else built-in defaults "
        "with a public sequence",
    )
    add("-v", "--verbose", action="store_true", help="report every knock (never its port)")
    return parser


def _load(conf: Path | None) -> "Loaded":
    from port_knocking_doors.config import files, loader

    return loader.load(conf, magic_seq=None, ports=None, environ=os.environ, home=files.find_home(), served=tuple)


def run(arguments: Sequence[str], load: "Load" = _load, *, configured: bool = False) -> None:
    """Run `knock` with these words. Raises `DoorsError`, and `SystemExit` after the help.

    `configured`: whether options before `knock` name what `load` is to read.
    """
    options = _parser().read(arguments)

    from port_knocking_doors.client import knock
    from port_knocking_doors.config import step_syntax

    _reject_contradictions(options)
    expected = f"whole milliseconds from 0 to {DELAY_MAX}, such as {DELAY}"
    delay = usage.whole_number("--delay", options.delay, 0, DELAY_MAX, expected) / 1000
    tries = TRIES
    if options.tries is not None:
        tries = usage.whole_number("--tries", options.tries, 1, TRIES_MAX, f"a whole number from 1 to {TRIES_MAX}")
    port = _tried_port(options)
    host = step_syntax.host(options.host)
    if options.steps:
        steps = step_syntax.read(options.steps, Protocol.UDP if options.udp else Protocol.TCP)
        pause, guarded = PAUSE, None
        if configured or options.conf is not None:
            raise ConfigError("--conf: has no effect beside steps, expected one of them")
    else:
        settings = settings_of(load(options.conf))
        guarded = guarded_port(settings, options.sequence)
        steps = (close_steps if options.close else sequence_steps)(settings, options.sequence)
        pause = settings.ignoring_period + MARGIN

    targets = knock.resolve(host, 4 if options.ipv4 else 6 if options.ipv6 else None)
    detail = _report if options.verbose else knock.no_report
    if port is None:
        knock.knock(targets[0], steps, delay, detail)
        if sys.stdout is not None and sys.stdout.isatty():
            count = "1 knock" if len(steps) == 1 else f"{len(steps)} knocks"
            hint = f"use --wait {guarded or 'PORT'} to see whether the port opens"
            if options.close:
                hint = "the server closes this machine's door; established connections continue"
            show(f"{count} sent to {host}; {hint}")
        return
    plan = knock.KnockPlan(host, targets, steps, delay, port, tries, pause)
    if options.connect is None:
        connection, target = plan.connect(try_first=False, report=_report, detail=detail)
        connection.close()
        show(f"{knock.with_addresses(host, target)}: port {port} is open")
    else:
        _connect(plan, detail)


def _reject_contradictions(options: argparse.Namespace) -> None:
    if options.ipv4 and options.ipv6:
        raise ConfigError("-4 and -6 exclude each other, expected one of them")
    if options.wait is not None and options.connect is not None:
        raise ConfigError("--wait and --connect exclude each other, expected one of them")
    if options.tries is not None and options.wait is None and options.connect is None:
        raise ConfigError("--tries has no effect without --wait or --connect, expected one of them, too")
    if options.steps and options.sequence is not None:
        raise ConfigError("steps and --sequence exclude each other, expected one of them")
    if options.close and options.steps:
        raise ConfigError("--close has no effect beside steps: knock the steps that close, or leave the steps out")
    if options.close and (options.wait is not None or options.connect is not None):
        raise ConfigError("--close excludes --wait and --connect, expected it alone")


def _tried_port(options: argparse.Namespace) -> int | None:
    from port_knocking_doors.config import step_syntax

    for option, text in (("--wait", options.wait), ("--connect", options.connect)):
        if text is not None:
            try:
                return step_syntax.tried_port(text)
            except ConfigError as wrong:
                raise wrong.at(option) from None
    return None


def settings_of(loaded: "Loaded") -> "Settings":
    """The configuration to knock by. Its warnings are for the daemon, except that of a public sequence."""
    if loaded.path is None:
        for warning in loaded.warnings:
            _report(warning)
    return loaded.settings


def sequence_steps(settings: "Settings", name: str | None) -> tuple[Step, ...]:
    """The steps of the opening sequence, or of the sniffed one of this name. Raises `ConfigError`."""
    from port_knocking_doors.config.readers import RESERVED_NAME

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


def close_steps(settings: "Settings", name: str | None) -> tuple[Step, ...]:
    """The steps that close the door of the sequence of this name, or of the only one that has such steps.

    Raises `ConfigError`.
    """
    closed = {sequence.name: sequence.close_steps for sequence in settings.sequences if sequence.close_steps}
    if name is None and len(set(closed.values())) == 1:
        return next(iter(closed.values()))
    if name in closed:
        return closed[name]
    if not closed:
        raise ConfigError("--close: no sequence of the configuration has close_steps, expected them in a [[sequence]]")
    known = ", ".join(closed)
    if name is None:
        raise ConfigError(f"--close: several sequences have close_steps, expected --sequence with one of: {known}")
    raise ConfigError(f"--close: the sequence of this name has no close_steps, expected one of: {known}")


def guarded_port(settings: "Settings", name: str | None) -> int | None:
    """The first TCP port that the sequence opens, if it opens any."""
    opened = [one.access.ports for one in settings.sequences if one.name == name] or [settings.guarded_ports]
    return next((port.number for port in opened[0] if port.protocol is Protocol.TCP), None)


def _connect(plan: "KnockPlan", detail: "Report") -> None:
    from port_knocking_doors.client.relay import relay

    # Where one of the three standard streams is closed, a socket would get its number.
    while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(unused)
    connection, _ = plan.connect(try_first=True, report=_report, detail=detail)
    with connection:
        try:
            relay(connection)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DoorsError(f"{plan.host}: connection lost ({error.strerror})") from None


def _report(text: str) -> None:
    if sys.stderr is not None:  # else it would get among the payload
        show(f"{PROGRAM}: {text}", stream=sys.stderr, flush=True)
