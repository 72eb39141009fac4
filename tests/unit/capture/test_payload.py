"""What is wrong with a payload, in words; the filter itself is tried on real sockets (`test_udp`)."""

import pytest

from port_knocking_doors.capture.payload import hint
from port_knocking_doors.model import PAYLOAD

HINTS = {
    "nothing": (b"", "it is empty"),
    "a zero byte": (b"\0", "one zero byte, as knockd's client and netcat's -z send it"),
    "zero bytes": (bytes(4), "zero bytes"),
    "without the newline": (b"knock", "the newline is missing"),
    "CR LF": (b"knock\r\n", "it ends with CR LF instead of a newline"),
    "CR": (b"knock\r", "it ends with CR instead of a newline"),
    "an escape that no shell read": (rb"knock\n", "it ends with a backslash and an n instead of a newline"),
    "a zero byte for the newline": (b"knock\0", "it ends with a zero byte instead of a newline"),
    "two newlines": (b"knock\n\n", "it has two newlines"),
    "a string of C": (b"knock\n\0", "a zero byte follows the newline"),
    "capitals": (b"Knock\n", "the letters must be small"),
    "a newline": (b"\n", "a newline alone"),
    "one letter": (b"X", ""),
    "eight letters": (b"knockers", ""),
}


@pytest.mark.parametrize(("sent", "words"), HINTS.values(), ids=HINTS)
def test_payload_has_a_hint_where_its_mistake_is_known(sent: bytes, words: str) -> None:
    assert hint(len(sent), sent) == words


@pytest.mark.parametrize("sent", [PAYLOAD.ljust(1400, b"\n"), bytes(1400)], ids=["newlines", "zero bytes"])
def test_payload_of_which_the_beginning_is_known_has_no_hint(sent: bytes) -> None:
    assert hint(len(sent), sent[:8]) == ""
