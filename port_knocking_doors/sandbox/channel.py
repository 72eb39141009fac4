"""JSON objects over a stream socket, one in each line, with file descriptors."""

import json
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

AgentMessage = dict[str, Any]

_CHUNK = 65536
_MOST_DESCRIPTORS = 8


class Channel:
    """One end of a connection. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = Lock()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()

    def send(self, message: AgentMessage, descriptors: Sequence[int] = ()) -> None:
        """Send one object; the descriptors stay open on this side."""
        line = json.dumps({**message, "descriptors": len(descriptors)}).encode() + b"\n"
        with self._sending:
            sent = socket.send_fds(self._socket, [line], list(descriptors)) if descriptors else 0
            self._socket.sendall(line[sent:])

    def receive(self) -> tuple[AgentMessage, list[int]] | None:
        """The next object and its descriptors, which the caller must close; None once the other end is closed."""
        while (end := self._received.find(b"\n")) < 0:
            if not self._read():
                return None
        message: AgentMessage = json.loads(self._received[:end])
        del self._received[: end + 1]
        return message, [self._descriptors.popleft() for _ in range(message.pop("descriptors"))]

    def _read(self) -> bool:
        try:
            chunk, descriptors, _flags, _address = socket.recv_fds(
                self._socket, _CHUNK, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return False
        self._received += chunk
        self._descriptors += descriptors
        return bool(chunk)

    def shut_down(self) -> None:
        """End the connection for both sides; a thread that waits in `receive` gets None."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()
