"""The control socket: a running daemon is looked into, and told what to do, by whoever may.

It is there under the runtime directory, for its own user and root alone: by its mode, and by who is at the other end.
One connection is one request (`requests`), and everything of it is bounded: its bytes, its time, how many there are.
Nothing that the other end does or leaves undone takes more from the daemon than that.
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
"""Connections at the same time; more are turned away."""

WATCHERS = 4
"""Of those, how many may watch."""

REQUEST_TIME = 5.0
"""Seconds for a request to arrive, and for an answer to be taken."""

EVENTS_WAITING = 1000
"""Events that wait for one who watches; of more, the number is told."""

_UCRED = struct.Struct("@iII")  # struct ucred (linux/socket.h): pid, uid, gid
_BACKLOG = 16
_PAUSE = 0.1  # seconds, where there is no descriptor for another connection


class CloseResult(NamedTuple):
    """What became of a request to close."""

    closed: int
    """Doors that were open."""
    waiting: int
    """Of those, whose rules firewalld has not removed yet."""


class Handler(Protocol):
    """Who does what is asked for. Every one of these may raise `DoorsError`, which is answered."""

    def snapshot(self) -> Snapshot:
        """Everything at this moment."""

    async def open(self, address: Address, name: str) -> list[DoorStatus]:
        """Open the door of the sequence with this name (empty: the opening sequence's); what is open then."""

    async def close(self, address: Address | None) -> CloseResult:
        """Close the doors of this address, or all."""

    def forget(self, address: Address) -> bool:
        """Forget a knocker; whether it was known."""

    def reload(self) -> None:
        """Read the configuration again."""

    def watch(self, is_watched: bool) -> None:
        """Log every single knock from now on, for somebody watches; or do not any more."""


class ControlServer:
    """The daemon's end: a context manager for the socket, and `run` serves it.

    Only who holds the mark's lock may enter. A socket that cannot be made is no reason for a daemon not to serve: the
    log says so.
    """

    def __init__(self, priority: int, host: Handler) -> None:
        self._priority = priority
        self._host = host
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
                except BlockingIOError:  # it hung up already
                    continue
                except OSError:  # no descriptor is left
                    await asyncio.sleep(_PAUSE)
                    continue
                connection.setblocking(False)
                if len(self._open) >= CONNECTIONS:
                    _turn_away(connection, "too many ask at the same time; try again")
                elif _peer(connection) not in (0, os.geteuid()):
                    _turn_away(connection, "only root and the daemon's own user may ask")
                else:
                    self._begin(connection)
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _begin(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._serve(loop, connection))

        def end(_: "asyncio.Task[None]") -> None:  # not in the task: who is cancelled before he begins closes nothing
            self._open.discard(task)
            connection.close()

        self._open.add(task)
        task.add_done_callback(end)

    async def _serve(self, loop: AbstractEventLoop, connection: socket.socket) -> None:
        with suppress(OSError, asyncio.TimeoutError):  # whoever hangs up or hangs misses something
            line = await wait_at_most(REQUEST_TIME, _line(loop, connection))
            try:
                request = protocol.read_request(line)
            except DoorsError as error:
                answer = protocol.write_failure(error)
            else:
                if request.verb is Verb.WATCH and self._watchers < WATCHERS:
                    await self._watch(loop, connection, request.seconds)
                    return
                answer = await self._answer(request, _peer(connection))
            await wait_at_most(REQUEST_TIME, loop.sock_sendall(connection, answer))

    async def _answer(self, request: Request, user: int) -> bytes:
        try:
            if request.verb is Verb.STATUS:
                return _status(self._host.snapshot())
            return protocol.write_result(await self._do(request, user))
        except DoorsError as error:
            return protocol.write_failure(error)
        except Exception:  # a bug must not end the daemon, whose doors would close
            logger.exception("a request over the control socket failed")
            return protocol.write_failure(DoorsError("this failed inside the daemon; its log has more"))

    async def _do(self, request: Request, user: int) -> object:
        host = self._host
        if request.verb is Verb.WATCH:
            raise DoorsError("too many watch already; try again")
        what = request.verb.value
        if request.verb is not Verb.RELOAD:
            what += f" {request.address or 'everybody'}"
        extra = event_fields(LogEvent.ASKED, address=request.address, sequence=request.sequence or None, reason=what)
        logger.info("asked by %s: %s", "root" if user == 0 else f"user {user}", what, extra=extra)
        if request.verb is Verb.OPEN:
            assert request.address is not None
            return [status.door_data(door) for door in await host.open(request.address, request.sequence)]
        if request.verb is Verb.CLOSE:
            return (await host.close(request.address))._asdict()
        if request.verb is Verb.FORGET:
            assert request.address is not None
            return host.forget(request.address)
        host.reload()
        return None

    async def _watch(self, loop: AbstractEventLoop, connection: socket.socket, seconds: float) -> None:
        """Pass on what is logged, until the time is over or the other end hangs up."""
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(EVENTS_WAITING)
        missed = 0

        def take(event: dict[str, Any]) -> None:
            nonlocal missed
            try:
                waiting.put_nowait(event)
            except asyncio.QueueFull:
                missed += 1

        self._watchers += 1
        hang_up = asyncio.create_task(loop.sock_recv(connection, 1))
        try:
            with mirrored(take):
                self._host.watch(True)
                await wait_at_most(REQUEST_TIME, loop.sock_sendall(connection, protocol.write_result(None)))
                end = loop.time() + seconds
                while (left := end - loop.time()) > 0 and not hang_up.done():
                    following = asyncio.create_task(waiting.get())
                    try:
                        await asyncio.wait({following, hang_up}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                        if not following.done():
                            continue
                        event = following.result()
                    finally:
                        following.cancel()
                    if missed:
                        event, missed = {**event, "missed": missed}, 0
                    await wait_at_most(REQUEST_TIME, loop.sock_sendall(connection, protocol.write_line(event)))
        finally:
            hang_up.cancel()
            await asyncio.gather(hang_up, return_exceptions=True)
            self._watchers -= 1
            if not self._watchers:
                self._host.watch(False)


def _status(snapshot: Snapshot) -> bytes:
    """The answer; where that would be too long, one with fewer doors and knockers. Their numbers are told anyway."""
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
    """A socket by this name that at no moment anybody else may connect to; what a killed daemon left is replaced."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, f"{path} is there and is no socket")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # Ahead of the name: bind(2) gives it the socket's own mode, so that there is no moment of another one.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _peer(connection: socket.socket) -> int:
    """The user at the other end, when it connected (SO_PEERCRED, unix(7))."""
    _, user, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(user)


def _turn_away(connection: socket.socket, why: str) -> None:
    with closing(connection), suppress(OSError):
        connection.send(protocol.write_failure(DoorsError(why)))


async def _line(loop: AbstractEventLoop, connection: socket.socket) -> bytes:
    """The first line, or what there is of it at the end or once it is too long."""
    line = b""
    while b"\n" not in line and len(line) <= protocol.REQUEST_MAX:
        chunk = await loop.sock_recv(connection, protocol.REQUEST_MAX)
        if not chunk:
            break
        line += chunk
    return line.partition(b"\n")[0]
