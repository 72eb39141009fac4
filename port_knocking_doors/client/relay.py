"""Standard input and output ↔ a connection, at full speed, each direction to its own end.

What ssh's ProxyCommand does: nothing but payload passes, and the end of one direction does not end the other. Each
direction has a thread that waits in the kernel; the descriptors stay blocking, for others may share them.

Bytes are copied, and not spliced: while splice(2) waits for one end, it keeps the pipe at the other locked, and ssh,
which serves both directions in one loop, stops with it. (It was tried: half the CPU time, and a standstill at the first
large transfer both ways.)
"""

import contextlib
import os
import socket
import threading

CHUNK = 1 << 18
"""Bytes read at once."""
QUIET = 2.0
"""Seconds without input after which nothing more is waited for, once the peer has ended."""


def relay(connection: socket.socket, source: int = 0, sink: int = 1) -> None:
    """Copy `source` to the connection, and the connection to `sink`, until both ends are done.

    At the end of `source` the connection is told that no more comes, and reading goes on until the peer ends. Then
    whoever reads `sink` sees its end, and what still comes from `source` is sent, until it is quiet: a terminal, or a
    program that only waits for ours, would never end it.

    Raises `BrokenPipeError` if nobody reads `sink` any more, and another `OSError` if the connection broke.
    """
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each end does its own gathering
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that vanished is noticed in the end
    sending = _Sending(connection, source)
    sending.start()
    _receive(connection, sink)
    _end(sink)
    sending.wait_until_quiet()


class _Sending(threading.Thread):
    def __init__(self, connection: socket.socket, source: int) -> None:
        super().__init__(name="to the peer", daemon=True)  # it may wait for a terminal's next line, and we end
        self._connection = connection
        self._source = source
        self._chunks = 0
        self._underway = False

    def run(self) -> None:
        # Either there is no input, or the peer takes no more. If the connection broke, the other direction says so.
        with contextlib.suppress(OSError):
            while data := os.read(self._source, CHUNK):
                self._underway = True
                self._connection.sendall(data)
                self._chunks += 1
                self._underway = False
        self._underway = False
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def wait_until_quiet(self) -> None:
        seen = -1
        while self.is_alive() and (self._underway or self._chunks != seen):
            seen = self._chunks
            self.join(QUIET)


def _receive(connection: socket.socket, sink: int) -> None:
    buffer = memoryview(bytearray(CHUNK))
    while count := connection.recv_into(buffer):
        rest = buffer[:count]
        while rest:
            rest = rest[os.write(sink, rest) :]


def _end(sink: int) -> None:
    """Let whoever reads it see the end. The number stays taken: it is standard output's, and no other file's."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sink)
    os.close(nowhere)
