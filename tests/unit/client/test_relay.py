"""The relay: every byte, in both directions, and each direction's own end."""

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
"""Seconds in which whatever ought to happen has happened."""
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
        """The user has no more to say."""
        os.close(self.keys)
        self.keys = -1

    def heard(self) -> bytes:
        """All that the peer gets, until there is no more."""
        data = bytearray()
        while piece := self.peer.recv(65536):
            data += piece
        return bytes(data)

    def shown(self) -> bytes:
        """All that the user gets, until there is no more."""
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


def test_both_directions_at_once_and_each_end_by_itself(line: Line) -> None:
    up, down = (random.Random(seed).randbytes(MUCH) for seed in (1, 2))

    def type_all() -> None:
        write_all(line.keys, up)
        line.hang_up()

    def answer_all() -> None:
        line.peer.sendall(down)
        line.peer.shutdown(socket.SHUT_WR)

    workers = [threading.Thread(target=work) for work in (type_all, answer_all)]
    got: list[bytes] = []
    workers.append(threading.Thread(target=lambda: got.append(line.heard())))
    for worker in workers:
        worker.start()
    assert line.shown() == down
    for worker in workers:
        worker.join(ONCE)
    assert got == [up]
    assert line.ended() is None


def test_after_the_end_of_input_the_answer_still_comes(line: Line) -> None:
    write_all(line.keys, b"question")
    line.hang_up()
    assert line.heard() == b"question"
    answer = bytes(MUCH)

    def answer_all() -> None:
        line.peer.sendall(answer)
        line.peer.shutdown(socket.SHUT_WR)

    threading.Thread(target=answer_all).start()
    assert line.shown() == answer
    assert line.ended() is None


def test_after_the_peer_has_ended_it_still_gets_what_is_being_sent(line: Line) -> None:
    line.peer.shutdown(socket.SHUT_WR)
    assert line.shown() == b""
    data = random.Random(3).randbytes(MUCH)

    def type_all() -> None:
        write_all(line.keys, data)
        line.hang_up()

    threading.Thread(target=type_all).start()
    assert line.heard() == data
    assert line.ended() is None


def test_a_peer_that_has_ended_is_not_waited_for_while_nobody_types(line: Line) -> None:
    began = time.monotonic()
    line.peer.close()
    assert line.shown() == b""
    assert line.ended() is None
    assert time.monotonic() - began >= QUIET


def test_nobody_who_reads_ends_it(line: Line) -> None:
    os.close(line.screen)
    line.peer.sendall(b"to nobody")
    assert isinstance(line.ended(), BrokenPipeError)


def test_a_connection_that_breaks_is_an_error_and_no_end(line: Line) -> None:
    line.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.peer.close()
    assert isinstance(line.ended(), ConnectionResetError)


def test_a_single_key_is_passed_on_at_once(line: Line) -> None:
    for key in (b"l", b"s", b"\n"):
        write_all(line.keys, key)
        assert line.peer.recv(10) == key
        line.peer.sendall(key)
        assert os.read(line.screen, 10) == key
