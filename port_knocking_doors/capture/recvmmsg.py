"""Many datagrams by one system call: recvmmsg(2), which Python's socket module does not have.

This is the hot path of a flood of datagrams, hence the memory that is laid out once and received into again and again.
Measured: 1.5 µs a datagram, its address and ancillary data read, where `socket.recvmsg` takes 4.1 µs, which makes a
text of each address and a list of each message's ancillary data.
"""

import ctypes
import errno
import os
import socket
import struct

BATCH = 64
"""Datagrams that are received by one call."""

SO_TIMESTAMPNS = 64  # asm-generic/socket.h, SO_TIMESTAMPNS_NEW: 64 bits on every machine
IP_PKTINFO = 8  # linux/in.h

Datagram = tuple[int, bytes, int, int, int]
"""The kernel's time of arrival (nanoseconds of the wall clock: good for comparing and for nothing else), the canonical
address it came from, the code that was given, source port, index of the interface."""

OtherDatagram = tuple[bytes, int, bytes]
"""Of a datagram with another payload: the canonical address it came from, its length, and its first bytes."""

_MAPPED = bytes(10) + b"\xff\xff"
_PAYLOAD = 8
"""Bytes of a slot for the payload; of a longer one it has the beginning."""
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_TRUNC  # with the latter, the length is that of the whole datagram
_SIZE_T = "Q" if ctypes.sizeof(ctypes.c_size_t) == 8 else "I"
_TIMESPEC = "qq"  # struct __kernel_timespec (linux/time_types.h): seconds, nanoseconds


class _IoVec(ctypes.Structure):  # struct iovec (linux/uio.h)
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):  # struct msghdr as recvmsg(2) has it, within struct mmsghdr of recvmmsg(2)
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("parts", ctypes.c_void_p),
        ("parts_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _MessageHeader), ("received", ctypes.c_uint))


_WORDS = ctypes.sizeof(_Message) // 4
_receive = ctypes.CDLL(None, use_errno=True).recvmmsg
_receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)


def _control(data: str) -> str:
    """A control message (cmsg(3)) of which the type and the data are read."""
    size = struct.calcsize(f"={data}")
    return f"{_SIZE_T.replace('Q', '8x').replace('I', '4x')}4xi{data}{socket.CMSG_SPACE(size) - socket.CMSG_LEN(size)}x"


class ReceiveBatch:
    """Memory for datagrams from sockets of one family with SO_TIMESTAMPNS and packet info switched on.

    `family`: AF_INET6, whose sockets receive IPv4, too, or AF_INET. `payload`: the only one that counts, up to 7 bytes;
    None if any counts.
    """

    def __init__(self, family: socket.AddressFamily, payload: bytes | None) -> None:
        if family == socket.AF_INET6:
            name, name_size = "2xH4x16s4x4x", 28  # struct sockaddr_in6 (linux/in6.h)
            info, self._info = "16xi", socket.IPV6_PKTINFO  # struct in6_pktinfo (linux/ipv6.h)
        else:
            name, name_size = "2xH4s8x", 16  # struct sockaddr_in (linux/in.h)
            info, self._info = "i8x", IP_PKTINFO  # struct in_pktinfo (linux/in.h)
        # The kernel writes the time stamp first.
        controls = _control(_TIMESPEC) + _control(info)
        self._takes_any, self._payload = payload is None, payload or b""
        beginning = f"{len(self._payload)}s{_PAYLOAD - len(self._payload)}x{name}"
        self._slot = struct.Struct(f"={beginning}{controls}")
        self._room = ctypes.create_string_buffer(BATCH * self._slot.size)
        self._view = memoryview(self._room)
        self._parts = (_IoVec * BATCH)()
        self._messages = (_Message * BATCH)()
        for place, (part, message) in enumerate(zip(self._parts, self._messages, strict=True)):
            slot = ctypes.addressof(self._room) + place * self._slot.size
            part.base, part.length = slot, _PAYLOAD
            header = message.header
            header.name, header.name_length = slot + _PAYLOAD, name_size
            header.parts, header.parts_count = ctypes.addressof(part), 1
            header.control = slot + struct.calcsize(f"={beginning}")
            header.control_length = struct.calcsize(f"={controls}")
        self._lengths = memoryview(self._messages).cast("B").cast("I")[_Message.received.offset // 4 :: _WORDS]
        self._at = ctypes.addressof(self._messages)
        self._fresh = bytes(self._messages)
        """The headers, of which the kernel changes the lengths."""

    def take(
        self, descriptor: int, code: int, received: list[Datagram], others: list[OtherDatagram] | None = None
    ) -> bool:
        """Put what waits in a socket behind what was received, `BATCH` at most; whether there may be more.

        Datagrams with another payload go to `others`, or are dropped. Raises `OSError` as recvmsg(2) does.
        """
        ctypes.memmove(self._at, self._fresh, len(self._fresh))
        count = _receive(descriptor, self._at, BATCH, _FLAGS, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return False
            raise OSError(number, os.strerror(number))
        slots = self._slot.iter_unpack(self._view[: count * self._slot.size])
        right, length, takes_any = self._payload, len(self._payload), self._takes_any
        for size, (payload, port, source, stamped, seconds, nanoseconds, informed, interface) in zip(
            self._lengths[:count].tolist(), slots, strict=True
        ):
            if payload == right and (size == length or takes_any):
                is_read = stamped == SO_TIMESTAMPNS and informed == self._info
                received.append(
                    (
                        seconds * 1_000_000_000 + nanoseconds if is_read else 0,
                        source[12:] if source[:12] == _MAPPED else source,
                        code,
                        socket.ntohs(port),
                        interface if is_read else 0,
                    )
                )
        if others is not None and not takes_any:
            self._add_others(count, others)
        return bool(count == BATCH)

    def _add_others(self, count: int, others: list[OtherDatagram]) -> None:
        """Once more through the slots, so that nothing of it costs time while others are dropped."""
        for place, size in enumerate(self._lengths[:count].tolist()):
            at = place * self._slot.size
            beginning = bytes(self._view[at : at + min(size, _PAYLOAD)])
            if beginning != self._payload:
                source = self._slot.unpack_from(self._view, at)[2]
                others.append((source[12:] if source[:12] == _MAPPED else source, size, beginning))
