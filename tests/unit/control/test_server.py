"""The daemon's end of the control socket: requests, limits, peers that hang, watching."""

import asyncio
import gc
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from port_knocking_doors.control import client, protocol, server
from port_knocking_doors.control.protocol import Request, Verb
from port_knocking_doors.control.server import CloseResult, ControlServer
from port_knocking_doors.control.status import DoorStatus, Snapshot
from port_knocking_doors.errors import ConfigError, DoorsError, NoDaemonError, NotDoneError
from port_knocking_doors.model import Address
from port_knocking_doors.system import instance, log
from tests.helpers.fake_bus import open_descriptors
from tests.unit.control.test_status import AHEAD, DOOR, SNAPSHOT

PRIORITY = 77
ADDRESS = protocol.read_address("10.0.0.2")
T = TypeVar("T")


class RecordingHandler:
    """A handler that records its requests."""

    def __init__(self) -> None:
        self.requests: list[object] = []
        self.failure: Exception | None = None

    def snapshot(self) -> Snapshot:
        return SNAPSHOT

    async def open(self, address: Address, name: str) -> list[DoorStatus]:
        self._note("open", address, name)
        return [DOOR]

    async def close(self, address: Address | None) -> CloseResult:
        self._note("close", address)
        return CloseResult(3, 1)

    def forget(self, address: Address) -> bool:
        self._note("forget", address)
        return True

    def reload(self) -> None:
        self._note("reload")

    def watch(self, is_watched: bool) -> None:
        self._note("watch", is_watched)

    def _note(self, *what: object) -> None:
        self.requests.append(what)
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def serving(handler: RecordingHandler) -> AsyncIterator[Path]:
    with ControlServer(PRIORITY, handler) as control_:
        work = asyncio.create_task(control_.run())
        try:
            yield instance.runtime_directory() / protocol.socket_name(PRIORITY)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def run(story: Callable[[RecordingHandler, Path], Awaitable[T]]) -> T:
    async def main() -> T:
        handler = RecordingHandler()
        async with serving(handler) as path:
            return await story(handler, path)

    return asyncio.run(asyncio.wait_for(main(), 30))


async def ask(request: Request) -> Any:
    """As a command does, from a thread, since the daemon has this one."""
    return await asyncio.to_thread(client.ask, PRIORITY, request)


async def raw(path: Path, data: bytes, *, end: bool = False) -> bytes:
    """Send these bytes, and read until the daemon hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    if end:
        writer.write_eof()
    answer = b""
    with suppress(ConnectionError):  # it hung up on what it had not read
        while chunk := await reader.read(1 << 16):
            answer += chunk
    writer.close()
    return answer


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_server_carries_out_requests_and_answers() -> None:
    async def story(handler: RecordingHandler, _: Path) -> None:
        assert await asyncio.to_thread(client.snapshot, PRIORITY) == SNAPSHOT
        assert (await ask(Request(Verb.OPEN, ADDRESS, "ssh")))[0]["address"] == DOOR.address
        assert await ask(Request(Verb.CLOSE)) == {"closed": 3, "waiting": 1}
        assert await ask(Request(Verb.FORGET, ADDRESS)) is True
        assert await ask(Request(Verb.RELOAD)) is None
        assert handler.requests == [("open", ADDRESS, "ssh"), ("close", None), ("forget", ADDRESS), ("reload",)]

    run(story)


@pytest.mark.parametrize(("user", "name"), [(0, "root"), (4321, "user 4321")])
def test_request_is_logged_with_its_user(
    user: int, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_peer_user", lambda _: user)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    caplog.set_level("INFO")

    async def story(_: RecordingHandler, __: Path) -> None:
        await ask(Request(Verb.FORGET, ADDRESS))

    run(story)
    assert f"asked by {name}: forget 10.0.0.2" in caplog.text


@pytest.mark.parametrize(
    ("failure", "text", "exit_status"),
    [
        (ConfigError("wrong", "FILE:1"), "FILE:1: wrong", 2),
        (DoorsError("no room"), "no room", 1),
        (ZeroDivisionError("secret"), "internal error of the daemon", 1),
    ],
)
def test_failed_request_is_answered_and_server_goes_on(failure: Exception, text: str, exit_status: int) -> None:
    async def story(handler: RecordingHandler, _: Path) -> None:
        handler.failure = failure
        with pytest.raises(NotDoneError, match=text) as caught:
            await ask(Request(Verb.RELOAD))
        assert caught.value.exit_status == exit_status
        assert "secret" not in str(caught.value)
        handler.failure = None
        await ask(Request(Verb.RELOAD))

    run(story)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\x00\n", "not a JSON object"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a JSON object"),
        (b'{"do":"open"}\n', "missing"),
        (b"x" * 5000, "too long"),
        (b"[" * 4000 + b"\n", "not a JSON object"),
        (b'{"do":"reload"}\0\n', "not a JSON object"),
        (b'{"do":"open","address":"10.0.0.2\\u0000"}\n', "not an address"),
        (b'{"do":"watch","seconds":' + b"9" * 4000 + b"}\n", "seconds"),
        (b'{"do":"open","address":"10.0.0.2","sequence":"' + b"s" * 4000 + b'"}\n', "a name of at most"),
        (b'{"do":"reload"' + b" " * (1 << 20) + b"}\n", "too long"),
    ],
)
def test_invalid_request_is_answered_with_reason(data: bytes, said: str) -> None:
    async def story(handler: RecordingHandler, path: Path) -> None:
        answer = json.loads(await raw(path, data))
        assert answer["ok"] is False
        assert said in answer["problem"]
        assert handler.requests == []

    run(story)


@pytest.mark.parametrize("data", [b"", b'{"do":"reload"'])
def test_incomplete_line_is_no_request(data: bytes) -> None:
    async def story(handler: RecordingHandler, path: Path) -> None:
        assert json.loads(await raw(path, data, end=True))["ok"] is False
        assert handler.requests == []

    run(story)


def test_line_in_single_bytes_is_request() -> None:
    async def story(handler: RecordingHandler, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        for byte in b'{"do":"reload"}\n':
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert json.loads(await reader.read())["ok"] is True
        assert handler.requests == [("reload",)]
        writer.close()

    run(story)


def test_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_TIME", 0.05)

    async def story(_: RecordingHandler, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"do":')
        assert await reader.read() == b""
        writer.close()
        await ask(Request(Verb.RELOAD))

    run(story)


def test_slow_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_TIME", 0.2)

    async def story(handler: RecordingHandler, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await ask(Request(Verb.RELOAD))
        assert handler.requests == [("reload",)]

    run(story)


def test_timeout_of_connection_is_not_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    # What Python 3.10 has, where it is neither the built-in one nor an OSError.
    monkeypatch.setattr(asyncio, "TimeoutError", type("TimeoutError", (Exception,), {}))
    monkeypatch.setattr(server, "REQUEST_TIME", 0.05)

    async def story(_: RecordingHandler, path: Path) -> None:
        assert await raw(path, b'{"do":') == b""

    run(story)
    assert caplog.text == ""


def test_connection_that_reads_no_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_TIME", 0.05)
    big = replace(SNAPSHOT, doors=tuple(replace(DOOR, sequence="s" * 500) for _ in range(1000)))
    monkeypatch.setattr(RecordingHandler, "snapshot", lambda _: big)

    async def story(_: RecordingHandler, path: Path) -> None:
        idle = len(asyncio.all_tasks())
        with socket.socket(socket.AF_UNIX) as lazy:
            lazy.connect(str(path))
            lazy.sendall(b'{"do":"status"}\n')
            await until(lambda: len(asyncio.all_tasks()) > idle)  # it is being served …
            await until(lambda: len(asyncio.all_tasks()) == idle)  # … and is not any more
        assert await asyncio.to_thread(client.snapshot, PRIORITY) == big

    run(story)


def test_connections_above_limit_are_rejected() -> None:
    async def story(_: RecordingHandler, path: Path) -> None:
        tasks = len(asyncio.all_tasks())
        with ExitStack() as stack:
            idle = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(server.CONNECTIONS)]
            for one in idle:
                one.setblocking(False)
                await asyncio.get_running_loop().sock_connect(one, str(path))
            with pytest.raises(NotDoneError, match="too many"):
                await ask(Request(Verb.RELOAD))
        await until(lambda: len(asyncio.all_tasks()) == tasks)
        await ask(Request(Verb.RELOAD))

    run(story)


def test_hundred_connections_leave_no_task_or_descriptor() -> None:
    async def story(_: RecordingHandler, path: Path) -> None:
        before, tasks = open_descriptors(), len(asyncio.all_tasks())
        answers = await asyncio.gather(*(raw(path, b'{"do":"status"}\n') for _ in range(100)), return_exceptions=True)
        answered = [json.loads(answer)["ok"] for answer in answers if isinstance(answer, bytes) and answer]
        assert answered.count(True) >= server.CONNECTIONS
        await until(lambda: len(asyncio.all_tasks()) == tasks and open_descriptors() == before)
        assert await asyncio.to_thread(client.snapshot, PRIORITY) == SNAPSHOT

    run(story)


def test_accept_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [BlockingIOError(), OSError(24, "Too many open files"), BlockingIOError()]
    real = socket.socket.accept

    def accept(listener: socket.socket) -> Any:
        if errors:
            raise errors.pop()
        return real(listener)

    async def story(_: RecordingHandler, path: Path) -> None:
        assert await asyncio.to_thread(client.snapshot, PRIORITY) == SNAPSHOT
        assert errors == []

    monkeypatch.setattr(server, "_PAUSE", 0.01)
    monkeypatch.setattr(socket.socket, "accept", accept)
    run(story)


def test_status_with_many_knockers_keeps_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REPLY_MAX", 20_000)
    knockers = tuple(replace(AHEAD, address=f"10.0.0.{number}") for number in range(250))
    answer = server._status(replace(SNAPSHOT, doors=(DOOR,), knockers=knockers))
    shown = json.loads(answer)["result"]
    assert len(answer) <= protocol.REPLY_MAX
    assert len(shown["doors"]) == 1
    addresses = [knocker["address"] for knocker in shown["knockers"]]
    assert 0 < len(addresses) < len(knockers)
    assert addresses == [knocker.address for knocker in knockers[: len(addresses)]]


def test_status_too_long_without_doors_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REPLY_MAX", 100)
    with pytest.raises(DoorsError, match=r"^the answer is too long$"):
        server._status(replace(SNAPSHOT, doors=(), knockers=()))


def test_status_too_long_for_answer_is_shortened() -> None:
    async def story(_: RecordingHandler, path: Path) -> None:
        seen = await asyncio.to_thread(client.snapshot, PRIORITY)
        assert 0 < len(seen.doors) < len(crowd.doors)
        assert seen == replace(crowd, doors=crowd.doors[: len(seen.doors)])
        assert len(await raw(path, b'{"do":"status"}\n')) <= protocol.REPLY_MAX

    ports = tuple(f"{port}/tcp" for port in range(10000, 10400))
    crowd = replace(SNAPSHOT, doors_open=300, doors=(replace(DOOR, opens=ports),) * 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordingHandler, "snapshot", lambda _: crowd)
        run(story)


def test_other_users_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_peer_user", lambda _: os.geteuid() + 4321)

    async def story(handler: RecordingHandler, _: Path) -> None:
        with pytest.raises(NotDoneError, match="only root"):
            await ask(Request(Verb.RELOAD))
        assert handler.requests == []

    run(story)


def test_peer_user_is_read_from_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert server._peer_user(ours) == os.geteuid()


def test_socket_is_private_from_first_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    listen = socket.socket.listen

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            seen.append(stat.S_IMODE(Path(address).stat().st_mode))

        def listen(self, *backlog: int) -> None:
            seen.append(stat.S_IMODE(Path(self.getsockname()).stat().st_mode))
            listen(self, *backlog)

    monkeypatch.setattr(socket, "socket", Watched)
    before = os.umask(0)
    try:
        with ControlServer(PRIORITY, RecordingHandler()):
            pass
    finally:
        os.umask(before)
    assert seen == [0o600, 0o600]


def test_socket_of_killed_daemon_is_replaced_own_is_removed(folder: Path) -> None:
    path = instance.runtime_directory() / protocol.socket_name(PRIORITY)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NoDaemonError, match="no daemon runs with the mark rule_priority = 77"):
        client.snapshot(PRIORITY)

    async def story(_: RecordingHandler, __: Path) -> None:
        await ask(Request(Verb.RELOAD))

    run(story)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("/etc/passwd")])
def test_other_file_in_place_of_socket_is_kept_with_warning(
    make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = instance.runtime_directory() / protocol.socket_name(PRIORITY)
    make(path)
    run(lambda _, __: asyncio.sleep(0))
    assert "control socket unavailable" in caplog.text
    assert path.lstat()


def test_link_in_place_of_socket_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("here")

    async def story(_: RecordingHandler, path: Path) -> None:
        path.unlink()
        path.symlink_to(precious)

    run(story)
    assert precious.read_text() == "here"


@pytest.mark.parametrize("rounds", range(8))
def test_connection_at_end_of_daemon_is_closed(rounds: int) -> None:
    """Whatever the daemon was doing with the connection just then: each round of its loop is a moment to end at."""

    async def story(_: RecordingHandler, path: Path) -> None:
        await asyncio.sleep(0)
        end = socket.socket(socket.AF_UNIX)
        end.connect(str(path))
        ends.append(end)
        for _round in range(rounds):
            await asyncio.sleep(0)

    ends: list[socket.socket] = []
    run(story)
    gc.collect()  # a socket that was merely forgotten would be a ResourceWarning, which pytest makes an error
    with ends[0] as end, suppress(ConnectionError):
        end.settimeout(5)
        assert end.recv(1) == b""


def test_too_long_path_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = tmp_path / ("d" * 120)
    long.mkdir()
    monkeypatch.setattr(instance, "SYSTEM_DIRECTORY", long / "pkd")
    run(lambda _, __: asyncio.sleep(0))
    assert "control socket unavailable" in caplog.text


# Watching. -----------------------------------------------------------------------------------------------------------


def test_watch_sends_log_with_every_knock() -> None:
    log.logger.setLevel("INFO")

    async def story(handler: RecordingHandler, _: Path) -> None:
        watched = asyncio.create_task(asyncio.to_thread(lambda: list(client.watch(PRIORITY, 0.5))))
        await until(lambda: handler.requests)
        log.logger.debug(
            "%s: knock", "10.0.0.2", extra=log.event_fields(log.LogEvent.KNOCK, address="10.0.0.2", stage=2)
        )
        log.logger.info("something else")
        events = await watched
        assert [(event["event"], event["message"]) for event in events] == [
            ("knock", "10.0.0.2: knock"),
            ("message", "something else"),
        ]
        assert events[0]["stage"] == 2
        await until(lambda: len(handler.requests) == 2)
        assert handler.requests == [("watch", True), ("watch", False)]

    try:
        run(story)
        assert log.logger.level == 20
    finally:
        log.logger.setLevel("NOTSET")


def test_watch_ends_with_its_connection() -> None:
    async def story(handler: RecordingHandler, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"do":"watch","seconds":3600}\n')
        assert json.loads(await reader.readline())["ok"] is True
        writer.close()
        await until(lambda: len(handler.requests) == 2)
        assert handler.requests == [("watch", True), ("watch", False)]

    run(story)


def test_slow_watch_gets_number_of_dropped_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "EVENTS_WAITING", 3)

    async def story(_: RecordingHandler, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"do":"watch","seconds":0.3}\n')
        assert json.loads(await reader.readline())["ok"] is True
        await asyncio.sleep(0)  # it waits for events now
        for number in range(10):
            log.logger.warning("event %d", number)
        events = [json.loads(line) for line in (await reader.read()).splitlines()]
        assert len(events) < 10
        assert len(events) + sum(event.get("missed", 0) for event in events) == 10
        writer.close()

    run(story)


def test_watches_above_limit_are_rejected() -> None:
    async def story(handler: RecordingHandler, path: Path) -> None:
        connections = [await asyncio.open_unix_connection(str(path)) for _ in range(server.WATCHERS)]
        for reader, writer in connections:
            writer.write(b'{"do":"watch","seconds":3600}\n')
            assert json.loads(await reader.readline())["ok"] is True
        with pytest.raises(NotDoneError, match="too many connections watch"):
            await asyncio.to_thread(lambda: list(client.watch(PRIORITY, 1)))
        assert await asyncio.to_thread(client.snapshot, PRIORITY) == SNAPSHOT
        for _, writer in connections:
            writer.close()
        await until(lambda: handler.requests[-1] == ("watch", False))

    run(story)


def test_end_of_daemon_ends_watch_and_restores_log() -> None:
    async def main() -> None:
        handler = RecordingHandler()
        with ThreadPoolExecutor() as threads:
            async with serving(handler):
                watched = threads.submit(lambda: list(client.watch(PRIORITY, 3600)))
                await until(lambda: handler.requests)
            assert await asyncio.wrap_future(watched) == []
        assert handler.requests == [("watch", True), ("watch", False)]

    asyncio.run(asyncio.wait_for(main(), 30))
