"""Socket options, against the real kernel."""

import socket
import struct
from collections.abc import Iterator

import pytest

from port_knocking_doors.system.sockets import attach_filter, detach_filter, enlarge_receive_buffer

SO_RCVBUFFORCE = 33  # asm-generic/socket.h
RET = 0x06  # BPF_RET | BPF_K, linux/bpf_common.h
REJECT_ALL, ACCEPT_ALL = (
    struct.pack("@HBBI", RET, 0, 0, bytes_kept) for bytes_kept in (0, 0xFFFF)
)  # struct sock_filter


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def arrives(receiver: socket.socket) -> bool:
    """Whether a datagram gets through; over loopback it is there when `sendto` returns."""
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", receiver.getsockname())
    try:
        return receiver.recv(10) == b"x"
    except BlockingIOError:
        return False


def test_attached_filter_drops_packets_until_it_is_replaced_or_detached(receiver: socket.socket) -> None:
    assert attach_filter(receiver, REJECT_ALL)
    assert not arrives(receiver)
    assert attach_filter(receiver, ACCEPT_ALL)
    assert arrives(receiver)
    assert attach_filter(receiver, REJECT_ALL)
    detach_filter(receiver)
    assert arrives(receiver)


def test_detaching_without_filter_is_harmless(receiver: socket.socket) -> None:
    detach_filter(receiver)
    assert arrives(receiver)


def test_invalid_filter_is_an_error_and_changes_nothing(receiver: socket.socket) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        attach_filter(receiver, struct.pack("@HBBI", 0xFFFF, 0, 0, 0))
    assert arrives(receiver)


class Unprivileged(socket.socket):
    """A socket of a process without CAP_NET_ADMIN."""

    def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
        if option == SO_RCVBUFFORCE:
            raise PermissionError(1, "Operation not permitted")
        super().setsockopt(level, option, value)


@pytest.mark.parametrize("kind", [socket.socket, Unprivileged])
def test_receive_buffer_is_enlarged(kind: type[socket.socket]) -> None:
    with kind(type=socket.SOCK_DGRAM) as sock:
        enlarge_receive_buffer(sock, 65536)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 65536, "the kernel doubles it"
