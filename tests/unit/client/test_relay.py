"""The relay: every byte in both directions, and the end of each direction."""

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from port_knocking_doors.client.relay import QUIET, relay

ONCE = 10.0
"""Seconds within which every wait ends."""
MUCH = 3_000_000
"""More bytes than all buffers on the way hold."""


class Line:
    """A relay at work: `peer` is the far end of its connection; one writes to `keys` and reads from `screen`."""

    def __init__(self, *, pipes: bool) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.connection = socket.create_connection(server.getsockname())
            self.peer, _ = server.accept()
        self.peer.settimeout(ONCE)
        source, self.keys = os.pipe() if pipes else (end.detach() for end in socket.socketpair())
        self.screen, sink = os.pipe() if pipes else (end.detach() for end in socket.socketpair())
        self.ends = (source, sink)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            relay(self.connection, *self.ends)
        except OSError as error:
            self.error = error
        self.connection.close()

    def ended(self) -> BaseException | None:
        self.thread.join(ONCE)
        assert not self.thread.is_alive()
        return self.error

    def hang_up(self) -> None:
        """End the input."""
        os.close(self.keys)
        self.keys = -1

    def received(self) -> bytes:
        """All that the peer receives, until the end."""
        data = bytearray()
        while piece := self.peer.recv(65536):
            data += piece
        return bytes(data)

    def shown(self) -> bytes:
        """All that the user receives, until the end."""
        data = bytearray()
        while piece := os.read(self.screen, 65536):
            data += piece
        return bytes(data)

    def close(self) -> None:
        self.peer.close()
        for descriptor in (self.keys, self.screen):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.thread.join(ONCE)
        for descriptor in self.ends:
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture(params=[True, False], ids=["pipes", "sockets"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    line = Line(pipes=request.param)
    yield line
    line.close()


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def test_relay_copies_both_directions_and_ends_each_alone(line: Line) -> None:
    up, down = (random.Random(seed).randbytes(MUCH) for seed in (1, 2))

    def type_all() -> None:
        write_all(line.keys, up)
        line.hang_up()

    def answer_all() -> None:
        line.peer.sendall(down)
        line.peer.shutdown(socket.SHUT_WR)

    workers = [threading.Thread(target=work) for work in (type_all, answer_all)]
    got: list[bytes] = []
    workers.append(threading.Thread(target=lambda: got.append(line.received())))
    for worker in workers:
        worker.start()
    assert line.shown() == down
    for worker in workers:
        worker.join(ONCE)
    assert got == [up]
    assert line.ended() is None


def test_relay_passes_answer_after_end_of_input(line: Line) -> None:
    write_all(line.keys, b"question")
    line.hang_up()
    assert line.received() == b"question"
    answer = bytes(MUCH)

    def answer_all() -> None:
        line.peer.sendall(answer)
        line.peer.shutdown(socket.SHUT_WR)

    threading.Thread(target=answer_all).start()
    assert line.shown() == answer
    assert line.ended() is None


def test_relay_sends_input_after_end_of_peer(line: Line) -> None:
    line.peer.shutdown(socket.SHUT_WR)
    assert line.shown() == b""
    data = random.Random(3).randbytes(MUCH)

    def type_all() -> None:
        write_all(line.keys, data)
        line.hang_up()

    threading.Thread(target=type_all).start()
    assert line.received() == data
    assert line.ended() is None


def test_relay_ends_after_peer_if_input_is_quiet(line: Line) -> None:
    began = time.monotonic()
    line.peer.close()
    assert line.shown() == b""
    assert line.ended() is None
    assert time.monotonic() - began >= QUIET


def test_relay_ends_if_output_is_closed(line: Line) -> None:
    os.close(line.screen)
    line.peer.sendall(b"unread")
    assert isinstance(line.ended(), BrokenPipeError)


def test_relay_raises_error_of_broken_connection(line: Line) -> None:
    line.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.peer.close()
    assert isinstance(line.ended(), ConnectionResetError)


def test_relay_passes_single_key_at_once(line: Line) -> None:
    for key in (b"l", b"s", b"\n"):
        write_all(line.keys, key)
        assert line.peer.recv(10) == key
        line.peer.sendall(key)
        assert os.read(line.screen, 10) == key
