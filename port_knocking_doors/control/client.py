"""The commands' end of the control socket: sends a request to the daemon with a mark, reads the answer."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

from port_knocking_doors.control import protocol, status
from port_knocking_doors.control.protocol import Request, Verb, socket_name
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.errors import DoorsError, NoDaemonError
from port_knocking_doors.system import instance
from port_knocking_doors.system.clock import now

PATIENCE = 15.0
"""Seconds that a client waits for an answer."""

_CHUNK = 1 << 16


def ask(priority: int, request: Request) -> Any:
    """The answer of the daemon with this mark. Raises `NotDoneError`, `NoDaemonError` or another `DoorsError`."""
    with closing(_connect(priority)) as connection:
        return protocol.read_reply(next(_lines(_send(connection, request), PATIENCE), b""))


def snapshot(priority: int) -> Snapshot:
    """The state of the daemon with this mark. Raises as `ask`."""
    return status.from_data(ask(priority, Request(Verb.STATUS)))


def watch(priority: int, seconds: float) -> Iterator[dict[str, Any]]:
    """What the daemon logs from now on, as `log.as_data` makes it. Raises as `ask`."""
    with closing(_connect(priority)) as connection:
        lines = _lines(_send(connection, Request(Verb.WATCH, seconds=seconds)), seconds + PATIENCE)
        protocol.read_reply(next(lines, b""))
        for line in lines:
            event = protocol.read_event(line)
            if event is not None:
                yield event


def _send(connection: socket.socket, request: Request) -> socket.socket:
    with suppress(OSError):  # a daemon that rejects closes early; its answer can still be read
        connection.sendall(protocol.write_request(request))
    return connection


def _connect(priority: int) -> socket.socket:
    paths = [folder / socket_name(priority) for folder in instance.known_directories()]
    forbidden = None
    for path in paths:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(path))
            return connection
        except PermissionError:
            forbidden = path
        except BlockingIOError:  # its backlog is full
            connection.close()
            raise DoorsError("the daemon does not answer") from None
        except OSError:  # no socket, or no process serves it any more
            pass
        connection.close()
    if forbidden is not None:
        raise NoDaemonError(f"permission denied: {forbidden} (run as root: sudo port-knocking-doors …)", forbidden=True)
    marks = running_marks()
    running = " or ".join(map(str, marks))
    what = f"name one that runs: --priority {running}" if marks else "name another mark: --priority N"
    raise NoDaemonError(
        f"no daemon runs with the mark rule_priority = {priority} (no answer at {' or '.join(map(str, paths))}); "
        f"start one, or {what}"
    )


def running_marks() -> list[int]:
    """The marks of the daemons that answer."""
    found = set()
    for folder in instance.known_directories():
        for path in folder.glob(socket_name("*")):
            mark = re.fullmatch(socket_name(r"(-?\d{1,10})"), path.name)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, suppress(OSError):
                connection.settimeout(PATIENCE)
                connection.connect(str(path))
                found |= {int(mark[1])} if mark else set()
    return sorted(found)


def _lines(connection: socket.socket, patience: float) -> Iterator[bytes]:
    """The daemon's lines, until it closes the connection. Raises `DoorsError` after `patience` seconds."""
    deadline = now() + patience
    rest = b""
    while True:
        line, newline, after = rest.partition(b"\n")
        if newline:
            rest = after
            yield line
            continue
        if len(rest) > protocol.REPLY_MAX:
            raise DoorsError("the daemon's answer is too long")
        connection.settimeout(max(0.01, deadline - now()))
        try:
            chunk = connection.recv(_CHUNK)
        except TimeoutError:
            raise DoorsError("the daemon does not answer") from None
        except OSError:
            return
        if not chunk:
            return
        rest += chunk
