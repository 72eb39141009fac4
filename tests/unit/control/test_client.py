"""The commands' end of the control socket: which daemon is found, and answers that are no answers."""

import asyncio
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.control import client, protocol
from port_knocking_doors.errors import DoorsError, NoDaemonError
from port_knocking_doors.system import instance
from tests.unit.control.test_server import PRIORITY, RecordingHandler, run
from tests.unit.control.test_status import SNAPSHOT


def test_client_finds_daemon_in_directory_of_its_unit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Path(__file__).parents[3] / "packaging" / "systemd" / "port-knocking-doors-commands.service"
    (named,) = [line for line in unit.read_text().splitlines() if line.startswith("RuntimeDirectory=")]
    assert named == "RuntimeDirectory=port-knocking-doors-commands"
    given = folder.with_name(f"{folder.name}-commands")
    given.mkdir(mode=0o700)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(given))

    async def story(_: RecordingHandler, path: Path) -> None:
        assert path.parent == given
        monkeypatch.delenv("RUNTIME_DIRECTORY")
        assert await asyncio.to_thread(client.snapshot, PRIORITY) == SNAPSHOT

    run(story)


def test_unknown_mark_is_reported_with_running_ones() -> None:
    async def story(_: RecordingHandler, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path.with_name(protocol.socket_name(5))))
        with pytest.raises(NoDaemonError, match=r"mark rule_priority = 6 .*; start one, or name .*: --priority 77$"):
            await asyncio.to_thread(client.snapshot, 6)

    run(story)


def test_missing_daemon_is_reported_with_tried_paths() -> None:
    with pytest.raises(NoDaemonError, match=r"pkd/control-77\.sock.*--priority") as caught:
        client.snapshot(PRIORITY)
    assert not caught.value.forbidden


def test_forbidden_socket_is_reported_as_permission_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(socket.socket):
        def connect(self, _: Any) -> None:
            raise PermissionError

    monkeypatch.setattr(socket, "socket", Forbidden)
    with pytest.raises(NoDaemonError, match=r"^permission denied: .*/control-77\.sock \(run as root: sudo") as caught:
        client.snapshot(PRIORITY)
    assert caught.value.forbidden


@pytest.mark.parametrize("says", [b"", b"what?\n", b'{"ok":true}\n', b"x" * (protocol.REPLY_MAX + 2)])
def test_client_rejects_invalid_answer(says: bytes) -> None:
    path = instance.runtime_directory() / protocol.socket_name(PRIORITY)

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            with suppress(BrokenPipeError):
                connection.sendall(says)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        strange = threading.Thread(target=answer, args=(listener,))
        strange.start()
        with pytest.raises(DoorsError, match=r"another version|too long"):
            client.snapshot(PRIORITY)
        strange.join()


def test_client_gives_up_on_hung_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.05)
    path = instance.runtime_directory() / protocol.socket_name(PRIORITY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(DoorsError, match="does not answer"):
            client.snapshot(PRIORITY)


def test_daemon_with_full_backlog_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.05)
    path = instance.runtime_directory() / protocol.socket_name(PRIORITY)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with pytest.raises(DoorsError, match=r"^the daemon does not answer$"):
            client.snapshot(PRIORITY)


def test_lines_end_with_a_broken_connection() -> None:
    class Broken(socket.socket):
        def recv(self, *_: Any) -> bytes:
            raise ConnectionResetError

    with Broken(socket.AF_UNIX) as connection:
        assert list(client._lines(connection, 1.0)) == []


def test_invalid_event_of_a_watch_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(protocol.write_result(None) + b'no event\n{"event":"ready"}\n')
        theirs.shutdown(socket.SHUT_WR)
        monkeypatch.setattr(client, "_connect", lambda _: ours)
        assert list(client.watch(PRIORITY, 1.0)) == [{"event": "ready"}]
