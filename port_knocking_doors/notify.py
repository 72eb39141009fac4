"""What systemd is told, as sd_notify(3) has it."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send `state` (such as `READY=1`) to whoever supervises us, if anybody does."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    if path.startswith("@"):  # an abstract socket
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, suppress(OSError):
        sock.connect(path)
        sock.sendall(state.encode())
