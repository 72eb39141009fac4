"""Messages of netlink, and a socket that receives them in place of the kernel's."""

import struct


def message(kind: int, body: bytes) -> bytes:
    """A message with its header (struct nlmsghdr)."""
    return struct.pack("@IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute with its header (struct nlattr)."""
    return struct.pack("@HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


class Kernel:
    """A socket: what it receives in turn, and then nothing in time."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = iter(parts)

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None: ...

    def settimeout(self, seconds: float) -> None:
        """Every answer has a time limit."""
        assert seconds > 0

    def bind(self, address: tuple[int, int]) -> None:
        """To a port that the kernel chooses."""
        assert address == (0, 0)

    def send(self, request: bytes) -> int:
        """One whole request."""
        assert struct.unpack_from("@I", request) == (len(request),)
        return len(request)

    def recv(self, _: int) -> bytes:
        """The next part. Raises `TimeoutError` after the last one."""
        part = next(self._parts, None)
        if part is None:
            raise TimeoutError
        return part
