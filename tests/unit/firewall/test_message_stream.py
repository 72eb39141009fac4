"""Which messages of a bus are kept, in whatever pieces their octets arrive."""

import struct
import tracemalloc

import pytest
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.firewall.message_stream import ERROR, HEADER_MAX, Header, MessageError, MessageStream
from tests.helpers.fake_bus import encoded

OWNER = ":1.7"


def signal(sender: str, member: str = "Reloaded", signature: str = "", *body: object) -> bytes:
    return octets(
        Message(
            path="/a", interface="b.c", member=member, message_type=MessageType.SIGNAL, sender=sender,
            signature=signature, body=list(body), serial=9,
        )
    )  # fmt: skip


def reply(sender: str, serial: int, text: str = "") -> bytes:
    return octets(
        Message(
            message_type=MessageType.METHOD_RETURN, sender=sender, reply_serial=serial, signature="s", body=[text],
            serial=9,
        )
    )  # fmt: skip


def octets(message: Message) -> bytes:
    return encoded(message)


def of_owner(header: Header) -> bool:
    return header.sender == OWNER


def read(data: bytes, size: int) -> list[bytes]:
    stream = MessageStream(of_owner)
    return [message for at in range(0, len(data), size) for message in stream.feed(data[at : at + size])]


WANTED = (signal(OWNER), reply(OWNER, 3, "text"), signal(OWNER, "Added", "a{sv}", {"a": Variant("as", ["b", "c"])}))
UNWANTED = (
    signal(":1.8"),
    signal(""),
    signal(":1.8", "Large", "as", 200 * ["0123456789"]),
    reply(":1.70", 3, 5000 * "x"),
    octets(Message(destination=OWNER, path="/a", interface="b.c", member="d", sender=":1.9", serial=4)),
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 16, 64, 4096, 1 << 20])
def test_wanted_messages_are_kept_in_pieces_of_any_size(size: int) -> None:
    data = b"".join((UNWANTED[0], *WANTED, *UNWANTED, WANTED[1], UNWANTED[2], WANTED[0]))
    assert read(data, size) == [*WANTED, WANTED[1], WANTED[0]]


@given(st.lists(st.sampled_from(WANTED + UNWANTED), max_size=12), st.integers(1, 300))
def test_messages_in_any_order_yield_the_wanted_ones(messages: list[bytes], size: int) -> None:
    assert read(b"".join(messages), size) == [message for message in messages if message in WANTED]


def test_header_names_type_sender_and_the_call_replied_to() -> None:
    headers: list[Header] = []
    error = Message(
        message_type=MessageType.ERROR, error_name="a.B", sender=OWNER, reply_serial=77, destination=":1.3", serial=5
    )

    def wants(header: Header) -> bool:
        headers.append(header)
        return False

    list(MessageStream(wants).feed(octets(error) + signal(":1.8")))
    assert headers == [Header(ERROR, OWNER, 77), Header(4, ":1.8", 0)]


def test_large_message_of_another_sender_is_not_kept_in_memory() -> None:
    stream = MessageStream(of_owner)
    large = signal(":1.8", "Large", "ay", bytes(8_000_000))
    tracemalloc.start()
    for at in range(0, len(large), 65536):
        assert not list(stream.feed(large[at : at + 65536]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000
    assert list(stream.feed(WANTED[0])) == [WANTED[0]]


def test_wanted_sender_with_oversized_header_or_body_is_read_past() -> None:
    long_header = octets(
        Message(path="/" + HEADER_MAX * "a", interface="b.c", member="d", message_type=MessageType.SIGNAL, sender=OWNER)
    )
    assert read(long_header + WANTED[0], 1000) == [WANTED[0]]
    body = 1 << 26
    fixed = signal(OWNER, "Large", "ay", b"")
    head = fixed[:4] + struct.pack("<I", body + 8) + fixed[8:-4]
    stream = MessageStream(of_owner)
    assert not list(stream.feed(head))
    piece = bytes(1 << 22)
    for _ in range(16):
        assert not list(stream.feed(piece))
    assert list(stream.feed(bytes(8) + WANTED[1])) == [WANTED[1]]


@pytest.mark.parametrize(
    "data",
    [
        b"x" + WANTED[0][1:],
        WANTED[0][:3] + b"\x02" + WANTED[0][4:],
        WANTED[0][:4] + b"\xff\xff\xff\x7f" + WANTED[0][8:],
        WANTED[0][:12] + struct.pack("<I", 21) + WANTED[0][16:],
    ],
    ids=["byte order", "version", "length", "cut off"],
)
def test_octets_that_are_no_message_are_an_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        list(MessageStream(of_owner).feed(data + bytes(64)))
