"""What is received in batches is what `socket.recvmsg` would have told, on real sockets."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from port_knocking_doors.capture.recvmmsg import (
    BATCH,
    IP_PKTINFO,
    SO_TIMESTAMPNS,
    Datagram,
    OtherDatagram,
    ReceiveBatch,
)

PAYLOAD = b"knock\n"
LOOPBACK = socket.if_nametoindex("lo")
IPV4, IPV6 = socket.AF_INET, socket.AF_INET6

WAYS = {
    "IPv4": (IPV4, IPV4, "127.0.0.1"),
    "IPv6": (IPV6, IPV6, "::1"),
    "IPv4 mapped into IPv6": (IPV6, IPV4, "127.0.0.1"),
}
every_way = pytest.mark.parametrize(("family", "of_sender", "address"), WAYS.values(), ids=WAYS)


@contextmanager
def ear(family: socket.AddressFamily) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind(("", 0))
        yield sock


@contextmanager
def mouth(family: socket.AddressFamily, address: str, to: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.connect((address, to.getsockname()[1]))
        yield sock


@every_way
def test_datagram_is_read_with_time_source_port_and_interface(
    family: socket.AddressFamily, of_sender: socket.AddressFamily, address: str
) -> None:
    heard: list[Datagram] = []
    before = time.time_ns()
    with ear(family) as sock, mouth(of_sender, address, sock) as sender:
        sender.send(PAYLOAD)
        assert not ReceiveBatch(family, PAYLOAD).take(sock.fileno(), 4711, heard)
        ((stamp, source, code, port, interface),) = heard
        assert (source, code) == (socket.inet_pton(of_sender, address), 4711)
        assert (port, interface) == (sender.getsockname()[1], LOOPBACK)
        assert before <= stamp <= time.time_ns()


@every_way
def test_full_batch_is_read_and_reported_as_full(
    family: socket.AddressFamily, of_sender: socket.AddressFamily, address: str
) -> None:
    heard: list[Datagram] = []
    batch = ReceiveBatch(family, PAYLOAD)
    with ear(family) as sock, mouth(of_sender, address, sock) as sender:
        for _ in range(BATCH + 3):
            sender.send(PAYLOAD)
        assert batch.take(sock.fileno(), 1, heard)
        assert len(heard) == BATCH
        assert not batch.take(sock.fileno(), 1, heard)
        assert len(heard) == BATCH + 3
        assert not batch.take(sock.fileno(), 1, heard), "nothing waits"
    assert len(heard) == BATCH + 3
    assert [one[0] for one in heard] == sorted(one[0] for one in heard)
    assert len({one[1:] for one in heard}) == 1


@pytest.mark.parametrize(
    "payload", [b"", b"k", b"knock", b"knock\n\n", b"knock\nknock\nknock\n", b"KNOCK\n", bytes(65000)]
)
def test_wrong_payload_is_dropped_without_disturbing_others(payload: bytes) -> None:
    heard: list[Datagram] = []
    batch = ReceiveBatch(IPV6, PAYLOAD)
    with ear(IPV6) as sock, mouth(IPV4, "127.0.0.1", sock) as sender:
        for sent in ((PAYLOAD, PAYLOAD), (PAYLOAD, payload), (payload, PAYLOAD)):
            for one in sent:
                sender.send(one)
            batch.take(sock.fileno(), 1, heard)
    assert len(heard) == 4


@pytest.mark.parametrize("payload", [b"", b"\0", b"knock", b"knock\n\n", b"KNOCK\n", bytes(65000)])
def test_other_payload_is_kept_with_its_length_where_it_is_asked_for(payload: bytes) -> None:
    heard: list[Datagram] = []
    others: list[OtherDatagram] = []
    with ear(IPV6) as sock, mouth(IPV4, "127.0.0.1", sock) as sender:
        for one in (payload, PAYLOAD, payload):
            sender.send(one)
        ReceiveBatch(IPV6, PAYLOAD).take(sock.fileno(), 1, heard, others)
    assert len(heard) == 1
    assert others == [(socket.inet_aton("127.0.0.1"), len(payload), payload[:8])] * 2


@every_way
@pytest.mark.parametrize("payload", [b"", b"\0", PAYLOAD, bytes(65000)], ids=len)
def test_any_payload_is_received_where_any_counts(
    family: socket.AddressFamily, of_sender: socket.AddressFamily, address: str, payload: bytes
) -> None:
    heard: list[Datagram] = []
    others: list[OtherDatagram] = []
    with ear(family) as sock, mouth(of_sender, address, sock) as sender:
        sender.send(payload)
        ReceiveBatch(family, None).take(sock.fileno(), 7, heard, others)
        ((_, source, code, port, interface),) = heard
        assert (source, code) == (socket.inet_pton(of_sender, address), 7)
        assert (port, interface) == (sender.getsockname()[1], LOOPBACK)
    assert others == []


def test_system_error_is_raised_with_its_number() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        ReceiveBatch(IPV6, PAYLOAD).take(-1, 1, [])
