"""Attributes of netlink messages (netlink(7)): bytes to types and values, and back."""

import struct
from collections.abc import Iterator

NLA_TYPE_MASK = 0x3FFF  # linux/netlink.h
_NLATTR = struct.Struct("@HH")  # struct nlattr: length, type


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Types and values of the attributes in `data`; a truncated one is left out."""
    while len(data) >= _NLATTR.size:
        length, kind = _NLATTR.unpack_from(data)
        if not _NLATTR.size <= length <= len(data):
            return
        yield kind & NLA_TYPE_MASK, data[_NLATTR.size : length]
        data = data[aligned(length) :]


def packed(kind: int, value: bytes) -> bytes:
    """One attribute, with the padding behind it. `kind` includes flags such as NLA_F_NESTED (linux/netlink.h)."""
    return _NLATTR.pack(_NLATTR.size + len(value), kind) + value + bytes(aligned(len(value)) - len(value))


def aligned(length: int) -> int:
    """A length with the padding behind it."""
    return length + 3 & ~3
