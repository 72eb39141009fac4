"""Arrays of strings in a D-Bus message, decoded as they are iterated over.

dbus-next decodes an array of 100,000 strings in over a second, in which the event loop stands still. A `PackedStrings`
is the array as it was received (D-Bus specification, "Marshalling (wire format)"): each string is a length of four
bytes, its UTF-8 text, a zero byte, and padding to the next multiple of four.
"""

from collections.abc import Iterator
from struct import Struct, error

from port_knocking_doors.errors import FirewallError

_LENGTH = {True: Struct("<I"), False: Struct(">I")}


class PackedStrings:
    """The strings of an array. To iterate raises `FirewallError` where they are malformed."""

    def __init__(self, data: bytes, *, is_little_endian: bool = True) -> None:
        self._data = data
        self._length = _LENGTH[is_little_endian]

    def __iter__(self) -> Iterator[str]:
        data, length_at, offset, end = self._data, self._length.unpack_from, 0, len(self._data)
        try:
            while offset < end:
                start = offset + 4
                (length,) = length_at(data, offset)
                stop = start + length
                if stop >= end:
                    raise FirewallError("an array of strings in its answer is malformed")
                yield data[start:stop].decode()
                offset = (stop + 4) & -4  # behind the zero byte, and the padding
        except (error, UnicodeDecodeError):
            raise FirewallError("an array of strings in its answer is malformed") from None
