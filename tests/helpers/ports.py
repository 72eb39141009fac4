"""Free UDP ports."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> tuple[int, ...]:
    """`number` different ones. They are not reserved: another process may take them."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) for _ in range(count)]
        for sock in socks:
            sock.bind(("::", 0))
        return tuple(sock.getsockname()[1] for sock in socks)
