"""The daemon's end of the control socket.

The socket is in the runtime directory. Its mode and the peer's credentials admit only root and the daemon's own user.
One connection carries one request (see `protocol`); its bytes, its time and the number of connections are limited, so
that no peer can take more from the daemon.
"""

import asyncio
import errno
import os
import socket
import stat
import struct
from asyncio import AbstractEventLoop
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from port_knocking_doors.control import protocol, status
from port_knocking_doors.control.protocol import Request, Verb
from port_knocking_doors.control.status import DoorStatus, Snapshot
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import Address
from port_knocking_doors.system import instance
from port_knocking_doors.system.clock import readable, wait_at_most
from port_knocking_doors.system.log import LogEvent, event_fields, logger, mirrored

CONNECTIONS = 16
"""Connections at the same time; more are rejected."""

WATCHERS = 4
"""Of those, watching ones at most."""

REQUEST_TIME = 5.0
"""Seconds for a request to arrive, and for the answer to be sent."""

EVENTS_WAITING = 1000
"""Events queued for one watching connection; the number of dropped ones is sent with the next."""

_UCRED = struct.Struct("@iII")  # struct ucred (linux/socket.h): pid, uid, gid
_BACKLOG = 16
_PAUSE = 0.1  # seconds, when the process is out of descriptors


class CloseResult(NamedTuple):
    """The result of a request to close."""

    closed: int
    """Doors that were open."""
    waiting: int
    """Of those, doors whose rules firewalld has not removed yet."""


class Handler(Protocol):
    """Carries out requests. Each method may raise `DoorsError`, which is the answer then."""

    def snapshot(self) -> Snapshot:
        """The state at this moment."""

    async def open(self, address: Address, name: str) -> list[DoorStatus]:
        """Open what the sequence of this name opens (empty: the opening sequence); returns the doors of it."""

    async def close(self, address: Address | None) -> CloseResult:
        """Close the doors of this address, or all."""

    def forget(self, address: Address) -> bool:
        """Forget a knocker; returns whether it was known."""

    def reload(self) -> None:
        """Reload the configuration."""

    def watch(self, is_watched: bool) -> None:
        """Start or stop logging every knock: a connection watches, or none does any more."""


class ControlServer:
    """A context manager for the socket; `run` serves it.

    Requires the mark's lock (`instance.instance_lock`). Without a socket the daemon serves all the same, with a
    warning in the log.
    """

    def __init__(self, priority: int, handler: Handler) -> None:
        self._priority = priority
        self._handler = handler
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._watchers = 0

    def __enter__(self) -> "ControlServer":
        try:
            path = instance.runtime_directory() / protocol.socket_name(self._priority)
            self._socket = _listen(path)
            self._path = path
        except (OSError, DoorsError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            logger.warning("control socket unavailable (%s): status, open, close, forget, reload will not work", why)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            self._path = None

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._socket is None:
            return
        try:
            while True:
                await readable(self._socket.fileno())
                try:
                    connection, _ = self._socket.accept()
                except BlockingIOError:  # the peer closed it already
                    continue
                except OSError:  # out of descriptors
                    await asyncio.sleep(_PAUSE)
                    continue
                connection.setblocking(False)
                if len(self._open) >= CONNECTIONS:
                    _reject(connection, "too many connections; try again")
                elif _peer_user(connection) not in (0, os.geteuid()):
                    _reject(connection, "permission denied: only root and the daemon's own user may connect")
                else:
                    self._start(connection)
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _start(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._serve(loop, connection))

        def end(_: "asyncio.Task[None]") -> None:  # a task cancelled before its start runs nothing
            self._open.discard(task)
            connection.close()

        self._open.add(task)
        task.add_done_callback(end)

    async def _serve(self, loop: AbstractEventLoop, connection: socket.socket) -> None:
        with suppress(OSError, asyncio.TimeoutError):  # the peer closed the connection or is too slow
            line = await wait_at_most(REQUEST_TIME, _read_line(loop, connection))
            try:
                request = protocol.read_request(line)
            except DoorsError as error:
                answer = protocol.write_failure(error)
            else:
                if request.verb is Verb.WATCH and self._watchers < WATCHERS:
                    await self._watch(loop, connection, request.seconds)
                    return
                answer = await self._answer(request, _peer_user(connection))
            await wait_at_most(REQUEST_TIME, loop.sock_sendall(connection, answer))

    async def _answer(self, request: Request, user: int) -> bytes:
        try:
            if request.verb is Verb.STATUS:
                return _status(self._handler.snapshot())
            return protocol.write_result(await self._carry_out(request, user))
        except DoorsError as error:
            return protocol.write_failure(error)
        except Exception:  # a bug must not end the daemon: its doors would close
            logger.exception("internal error: request over the control socket failed")
            return protocol.write_failure(DoorsError("internal error of the daemon; see its log"))

    async def _carry_out(self, request: Request, user: int) -> object:
        handler = self._handler
        if request.verb is Verb.WATCH:
            raise DoorsError("too many connections watch; try again")
        what = request.verb.value
        if request.verb is not Verb.RELOAD:
            what += f" {request.address or 'all'}"
        extra = event_fields(LogEvent.ASKED, address=request.address, sequence=request.sequence or None, reason=what)
        logger.info("asked by %s: %s", "root" if user == 0 else f"user {user}", what, extra=extra)
        if request.verb is Verb.OPEN:
            assert request.address is not None
            return [status.door_data(door) for door in await handler.open(request.address, request.sequence)]
        if request.verb is Verb.CLOSE:
            return (await handler.close(request.address))._asdict()
        if request.verb is Verb.FORGET:
            assert request.address is not None
            return handler.forget(request.address)
        handler.reload()
        return None

    async def _watch(self, loop: AbstractEventLoop, connection: socket.socket, seconds: float) -> None:
        """Send what is logged, until the time is over or the peer closes the connection."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(EVENTS_WAITING)
        missed = 0

        def enqueue(event: dict[str, Any]) -> None:
            nonlocal missed
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                missed += 1

        self._watchers += 1
        closed = asyncio.create_task(loop.sock_recv(connection, 1))
        try:
            with mirrored(enqueue):
                self._handler.watch(True)
                await wait_at_most(REQUEST_TIME, loop.sock_sendall(connection, protocol.write_result(None)))
                end = loop.time() + seconds
                while (left := end - loop.time()) > 0 and not closed.done():
                    next_event = asyncio.create_task(queue.get())
                    try:
                        await asyncio.wait({next_event, closed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                        if not next_event.done():
                            continue
                        event = next_event.result()
                    finally:
                        next_event.cancel()
                    if missed:
                        event, missed = {**event, "missed": missed}, 0
                    await wait_at_most(REQUEST_TIME, loop.sock_sendall(connection, protocol.write_line(event)))
        finally:
            closed.cancel()
            await asyncio.gather(closed, return_exceptions=True)
            self._watchers -= 1
            if not self._watchers:
                self._handler.watch(False)


def _status(snapshot: Snapshot) -> bytes:
    """The answer; if it is too long, with fewer doors and knockers. Their counts stay."""
    while (answer := protocol.fitting_result(status.to_data(snapshot))) is None:
        doors, knockers = snapshot.doors, snapshot.knockers
        if not doors and not knockers:
            raise DoorsError("the answer is too long")
        if len(doors) >= len(knockers):
            snapshot = replace(snapshot, doors=doors[: len(doors) // 2])
        else:
            snapshot = replace(snapshot, knockers=knockers[: len(knockers) // 2])
    return answer


def _listen(path: Path) -> socket.socket:
    """A socket of this name, at no moment open to other users; that of a killed daemon is replaced."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, f"{path} exists and is no socket")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # Before bind(2), which gives the name the socket's own mode: at no moment it has another one.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _peer_user(connection: socket.socket) -> int:
    """The user that connected (SO_PEERCRED, unix(7))."""
    _, user, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(user)


def _reject(connection: socket.socket, why: str) -> None:
    with closing(connection), suppress(OSError):
        connection.send(protocol.write_failure(DoorsError(why)))


async def _read_line(loop: AbstractEventLoop, connection: socket.socket) -> bytes:
    """The first line; the part that arrived, if the peer ended or it is too long."""
    line = b""
    while b"\n" not in line and len(line) <= protocol.REQUEST_MAX:
        chunk = await loop.sock_recv(connection, protocol.REQUEST_MAX)
        if not chunk:
            break
        line += chunk
    return line.partition(b"\n")[0]
