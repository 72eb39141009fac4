"""Arrays of strings out of a D-Bus message, beside the library's own decoding."""

from io import BytesIO

import pytest
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.bus import _PackingUnmarshaller
from port_knocking_doors.firewall.packed_strings import PackedStrings

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def received(signature: str, *body: object) -> list[object]:
    message = Message(
        message_type=MessageType.METHOD_RETURN, reply_serial=7, signature=signature, body=list(body), serial=1
    )
    unmarshaller = _PackingUnmarshaller(BytesIO(message._marshall()))  # type: ignore[no-untyped-call]
    found: list[object] = unmarshaller.unmarshall().body  # type: ignore[no-untyped-call]
    return found


@given(st.lists(TEXT), TEXT)
def test_strings_are_those_that_were_sent(texts: list[str], behind: str) -> None:
    packed, last = received("ass", texts, behind)
    assert isinstance(packed, PackedStrings)
    assert (list(packed), list(packed), last) == (texts, texts, behind)


def test_strings_in_variants_structures_and_dictionaries_stay_packed() -> None:
    (settings,) = received("a{sv}", {"sources": Variant("as", ["a", "b"]), "short": Variant("s", "x")})
    assert isinstance(settings, dict)
    assert (settings["sources"].signature, list(settings["sources"].value)) == ("as", ["a", "b"])
    assert (settings["short"].signature, settings["short"].value) == ("s", "x")
    (structure,) = received("(sa{ss}as)", ["hash:ip", {"family": "inet"}, ["10.0.0.1"]])
    assert isinstance(structure, list)
    assert (*structure[:2], list(structure[2])) == ("hash:ip", {"family": "inet"}, ["10.0.0.1"])


@pytest.mark.parametrize(
    "data",
    [b"\x01", b"\xff\xff\xff\xff", b"\x05\0\0\0abc\0", b"\x01\0\0\0\xff\0\0\0"],
    ids=["cut off in the length", "an endless string", "cut off in the text", "no UTF-8"],
)
def test_malformed_strings_are_an_error(data: bytes) -> None:
    with pytest.raises(FirewallError, match="malformed"):
        list(PackedStrings(data))


def test_variant_of_two_types_is_an_error() -> None:
    unmarshaller = _PackingUnmarshaller(BytesIO())  # type: ignore[no-untyped-call]
    unmarshaller.buf = bytearray(b"\x02ss\0")
    with pytest.raises(FirewallError, match=r"^a variant in its answer is malformed$"):
        unmarshaller.read_variant()
