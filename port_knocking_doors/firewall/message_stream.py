"""A stream of D-Bus messages, cut into the few that are wanted; no other message is kept or decoded.

Every user of a machine may send a message of up to 128 MiB to a connection on the system bus. The library decodes a
message before the sender can be checked: 20 MB of variants block the event loop for 16 s and need 650 MB of memory.
This stream reads the header's fields alone, and reads past the body of an unwanted message without keeping it.

Layout and numbers: the D-Bus specification, section "Message Format".
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

FIXED_SIZE = 16
"""Octets ahead of the header's fields, the length of the fields included."""
MESSAGE_MAX = 1 << 27
"""Octets of the longest message that the specification allows."""
HEADER_MAX = 4096
"""Octets of fields that a wanted message has at most: four names of at most 255 octets, and a path."""
BODY_MAX = 1 << 26
"""Octets of the longest body that is kept. A set of 1,000,000 addresses takes a third of it."""

METHOD_RETURN, ERROR, SIGNAL = 2, 3, 4
"""Types of messages."""

_LITTLE, _BIG = ord("l"), ord("B")
_VERSION = 1
_REPLY_SERIAL, _SENDER = 5, 7


class Header(NamedTuple):
    """What decides about a message. `sender` is written by the bus; "" and 0 where a field is missing."""

    type: int
    sender: str
    reply_serial: int


class MessageError(ValueError):
    """What arrived is no message of D-Bus: a bus never sends that."""


class MessageStream:
    """`wants` is called with the header of each message once the header has arrived."""

    def __init__(self, wants: Callable[[Header], bool]) -> None:
        self._wants = wants
        self._pending = bytearray()
        self._size = 0  # octets of the message under way, once its header was read; 0 before
        self._to_skip = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Each wanted message that is complete, as octets. Read it to its end before more is fed.

        Raises `MessageError`: nothing can be read of this stream from then on.
        """
        if self._to_skip:
            skipped = min(self._to_skip, len(data))
            self._to_skip -= skipped
            data = data[skipped:]
        self._pending += data
        while not self._to_skip and (self._size or self._read_header()):
            if len(self._pending) < self._size:
                return
            message = bytes(self._pending[: self._size])
            del self._pending[: self._size]
            self._size = 0
            yield message

    def _read_header(self) -> bool:
        """Whether a wanted message begins here; what is unwanted is dropped, what has not arrived yet to be skipped."""
        pending = self._pending
        while len(pending) >= FIXED_SIZE:
            order = _order(pending)
            body, _, fields = struct.unpack_from(f"{order}III", pending, 4)
            end = FIXED_SIZE + fields
            size = end + -end % 8 + body
            if size > MESSAGE_MAX:
                raise MessageError(f"a message of {size} octets")
            is_wanted = fields <= HEADER_MAX and body <= BODY_MAX
            if is_wanted:
                if len(pending) < end:
                    return False
                is_wanted = self._wants(_header(bytes(pending[:end]), order))
            if is_wanted:
                self._size = size
                return True
            self._to_skip = max(0, size - len(pending))
            del pending[:size]
        return False


def _order(data: bytearray) -> str:
    order = {_LITTLE: "<", _BIG: ">"}.get(data[0])
    if order is None or data[3] != _VERSION:
        raise MessageError("a message of an unknown version")
    return order


def _header(data: bytes, order: str) -> Header:
    """The header of these octets, which end with its fields: an array of structs of a number and a variant."""
    sender, reply_serial = "", 0
    at = FIXED_SIZE
    try:
        while at < len(data):
            at += -at % 8
            field, signature = data[at], data[at + 2 : at + 2 + data[at + 1]]
            at += 3 + len(signature)
            if signature in (b"s", b"o"):
                at += -at % 4
                (length,) = struct.unpack_from(f"{order}I", data, at)
                value = data[at + 4 : at + 4 + length]
                at += 5 + length
                if field == _SENDER:
                    sender = value.decode()
            elif signature == b"u":
                at += -at % 4
                (number,) = struct.unpack_from(f"{order}I", data, at)
                at += 4
                if field == _REPLY_SERIAL:
                    reply_serial = number
            elif signature == b"g":
                at += 2 + data[at]
            else:
                break  # no field of the specification; the bus removes such fields
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise MessageError("a header that is cut off") from error
    return Header(data[1], sender, reply_serial)
