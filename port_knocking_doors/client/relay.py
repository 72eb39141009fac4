"""Standard input and output ↔ a connection, at full speed, each direction to its own end.

For ssh's ProxyCommand: only payload passes, and the end of one direction does not end the other. Each direction has a
thread that waits in the kernel; the descriptors stay blocking, because other processes may share them.

Bytes are copied and not spliced: while splice(2) waits for one end, it keeps the pipe at the other end locked, and ssh,
which serves both directions in one loop, stops. (Measured: half the CPU time, and a standstill at the first large
transfer in both directions.)
"""

import contextlib
import os
import socket
import threading

CHUNK = 1 << 18
"""Bytes read at once."""
QUIET = 2.0
"""Seconds without input after which the relay ends, once the peer has ended."""


def relay(connection: socket.socket, source: int = 0, sink: int = 1) -> None:
    """Copy `source` to the connection, and the connection to `sink`, until both ends are done.

    At the end of `source` the sending half of the connection is shut down, and reading goes on until the peer ends.
    Then `sink` is ended, and input from `source` is sent until it is quiet: a terminal, or a program that waits for
    this one, would never end it.

    Raises `BrokenPipeError` if the reader of `sink` ended, and another `OSError` if the connection broke.
    """
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each end collects by itself
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # to notice a peer that vanished
    sending = _Sending(connection, source)
    sending.start()
    _receive(connection, sink)
    _end(sink)
    sending.wait_until_quiet()


class _Sending(threading.Thread):
    def __init__(self, connection: socket.socket, source: int) -> None:
        super().__init__(name="to the peer", daemon=True)  # it may still wait for a terminal at the end
        self._connection = connection
        self._source = source
        self._chunks = 0
        self._underway = False

    def run(self) -> None:
        # No input, or the peer takes no more. A broken connection is reported by the other direction.
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
    """End the output for its reader. The number stays in use: no other file may become standard output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sink)
    os.close(nowhere)
