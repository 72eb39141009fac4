"""Options of sockets that Python's socket module does not name (asm-generic/socket.h)."""

import errno
import socket
import struct
from array import array
from contextlib import suppress

_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_RCVBUFFORCE = 33

INSTRUCTION_SIZE = 8
"""Bytes of a `struct sock_filter` (linux/filter.h)."""


def attach_filter(sock: socket.socket, program: bytes) -> bool:
    """Let the kernel drop what the classic BPF program rejects; whether the kernel had memory for the program.

    It replaces an attached filter between two packets. `program`: an array of `struct sock_filter`, one or more.
    Raises `OSError` where the kernel refuses it for another reason.
    """
    memory = array("B", program)
    address, size = memory.buffer_info()
    value = struct.pack("@HP", size // INSTRUCTION_SIZE, address)  # struct sock_fprog
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, value)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return False
        raise
    return True


def detach_filter(sock: socket.socket) -> None:
    """Let every packet through; harmless without a filter."""
    with suppress(FileNotFoundError):  # there is none
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def enlarge_receive_buffer(sock: socket.socket, size: int) -> None:
    """Ask for a receive buffer of `size` bytes; without CAP_NET_ADMIN the kernel grants up to net.core.rmem_max."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
