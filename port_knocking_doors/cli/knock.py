"""`knock`: the client."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from port_knocking_doors.errors import ConfigError, DoorsError

from .options import CONF, PROGRAM, Source, app

if TYPE_CHECKING:
    from port_knocking_doors.client import Tell, Visit
    from port_knocking_doors.model import Settings, Step

TRIES = 3
PAUSE = 6.0
"""Seconds between two tries, where no configuration tells for how long a server does not hear who knocked wrongly: by
default that is 5."""
MARGIN = 1.0
"""Seconds that the pause is longer than the server's."""
DELAY_MAX = 60_000
TRIES_MAX = 1000
STEPS = typer.Argument(
    None,
    metavar="STEP",
    help="PORT, PORT:udp, PORT:tcp, udp:PORT, tcp:PORT or tcp:PORT:FLAGS. Without any: the configuration's opening "
    "sequence, or the one that --sequence names.",
    show_default=False,
)


@app.command()
def knock(
    context: typer.Context,
    host: str = typer.Argument(..., metavar="HOST", help="Where to knock: a name or an address.", show_default=False),
    words: Optional[list[str]] = STEPS,
    udp: bool = typer.Option(False, "--udp", "-u", help="A bare PORT is UDP; without it, TCP."),
    delay: int = typer.Option(200, "--delay", "-d", metavar="MS", help="Milliseconds between two knocks."),
    ipv4: bool = typer.Option(False, "--ipv4", "-4", help="Use IPv4 only."),
    ipv6: bool = typer.Option(False, "--ipv6", "-6", help="Use IPv6 only."),
    wait: Optional[str] = typer.Option(
        None,
        "--wait",
        metavar="PORT",
        help="Then try this guarded TCP port until it answers, and say whether it is open.",
    ),
    connect: Optional[str] = typer.Option(
        None,
        "--connect",
        metavar="PORT",
        help="Like --wait, and then join standard input and output to the port: for ssh's ProxyCommand.",
    ),
    tries: Optional[int] = typer.Option(
        None,
        "--tries",
        metavar="N",
        help=f"With --wait or --connect: knock up to so many times, {TRIES} without it.",
        show_default=False,
    ),
    name: Optional[str] = typer.Option(
        None, "--sequence", "-s", metavar="NAME", help="Knock the sniffed sequence of this name in the configuration."
    ),
    conf: Optional[Path] = CONF,
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Tell of every knock (never of its port)."),
) -> None:
    """Knock at HOST.

    A UDP knock is the datagram "knock\\n". A TCP knock is one SYN, as any attempt to connect begins with one, and
    needs no privilege. FLAGS are the letters of what is set in the packet instead, f FIN, s SYN, r RST, p PSH, a ACK,
    u URG, or alone x for all and n for none; such a packet needs root or CAP_NET_RAW. Other users of this machine can
    see the STEPs that you type: a configuration file keeps them better.

    All knocks go to one address: the first of HOST that there is a route to. With --wait and --connect, a try that
    failed is followed by one at HOST's next address, if it has several. Between two tries the pause is longer than the
    time for which the server does not hear who knocked wrongly (ignoring_period_after_knock_error of the configuration
    in use; 5 seconds where STEPs are given).

    With --connect, a port that is open already is used at once, without a knock. In ~/.ssh/config:

      ProxyCommand port-knocking-doors knock %h --connect %p

    Exit status: 0 the port is open (without --wait or --connect: the knocks were sent, and nobody knows more), 3 it is
    not, 4 HOST is unknown, 5 this user may not send such knocks, 2 wrong usage or configuration, 1 any other failure.
    """
    from port_knocking_doors import client
    from port_knocking_doors.config import steps as spelling
    from port_knocking_doors.model import Protocol

    if ipv4 and ipv6:
        raise ConfigError("-4 and -6 exclude each other, expected one of them")
    if wait is not None and connect is not None:
        raise ConfigError("--wait and --connect exclude each other, expected one of them")
    if tries is not None and wait is None and connect is None:
        raise ConfigError("--tries means nothing without --wait or --connect, expected one of them, too")
    _check("--delay", "milliseconds", delay, 0, DELAY_MAX)
    _check("--tries", "tries", TRIES if tries is None else tries, 1, TRIES_MAX)
    port = None
    for option, text in (("--wait", wait), ("--connect", connect)):
        if text is not None:
            try:
                port = spelling.tried_port(text)
            except ConfigError as wrong:
                raise wrong.at(option) from None
    host = spelling.host(host)
    pause = PAUSE
    if words and name is not None:
        raise ConfigError("both steps and --sequence are given, expected one of them")
    if words:
        steps = spelling.read(words, Protocol.UDP if udp else Protocol.TCP)
    else:
        settings = in_force(Source(conf, None, None, None, None).over(context.obj))
        steps = steps_of(settings, name)
        pause = settings.ignoring_period + MARGIN

    places = client.find(host, 4 if ipv4 else 6 if ipv6 else None)
    detail = _say if verbose else client.nothing
    if port is None:
        client.knock(places[0], steps, delay / 1000, detail)
        return
    visit = client.Visit(host, places, steps, delay / 1000, port, TRIES if tries is None else tries, pause)
    if connect is None:
        connection, place = visit.enter(first_look=False, tell=_say, detail=detail)
        connection.close()
        print(f"{client.called(host, place)}: port {port} is open")
    else:
        _join(visit, detail)


def in_force(source: Source) -> "Settings":
    """The configuration to knock by. What it warns of is the daemon's business, but for a sequence that all know."""
    loaded = source.load(served=tuple)
    if loaded.path is None:
        for warning in loaded.warnings:
            _say(warning)
    return loaded.settings


def steps_of(settings: "Settings", name: str | None) -> "tuple[Step, ...]":
    """The steps of the opening sequence, or of the sniffed one of this name. Raises `ConfigError`."""
    from port_knocking_doors.config.values import RESERVED_NAME
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


def _check(option: str, noun: str, number: int, low: int, high: int) -> None:
    if not low <= number <= high:
        raise ConfigError(f"{option}: {number} {noun} are out of range, expected {low} to {high}")


def _join(visit: "Visit", detail: "Tell") -> None:
    from port_knocking_doors.relay import relay

    # What is closed among standard input and output, in their order: else a socket would get its number.
    while (unused := os.open(os.devnull, os.O_RDWR)) <= 1:
        pass
    os.close(unused)
    connection, _ = visit.enter(first_look=True, tell=_say, detail=detail)
    with connection:
        try:
            relay(connection)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DoorsError(f"{visit.host}: the connection broke ({error.strerror})") from None


def _say(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
