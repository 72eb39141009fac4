"""A question to the kernel about a set; real sets are asked for in the system tests."""

import errno
import socket
import struct
from ipaddress import ip_address

import pytest

from port_knocking_doors.system.nft_set import set_contains, set_size
from port_knocking_doors.system.rtnetlink import NetlinkType
from tests.helpers.netlink_answers import Kernel, attribute, message

NEWSETELEM, NEWTABLE = 10 << 8 | 12, 10 << 8
INTERVAL_END = attribute(3, struct.pack(">I", 1))
DONE = message(NetlinkType.DONE, bytes(4))
OTHER = message(NEWTABLE, bytes(4))


def test_set_that_does_not_exist_contains_nothing() -> None:
    """False with CAP_NET_ADMIN, and None without."""
    assert not set_contains("no-such-table", "no-such-set", ip_address("10.0.0.2"))
    assert not set_contains("no-such-table", "no-such-set", ip_address("fd00::2"))


def test_set_that_does_not_exist_has_no_size() -> None:
    assert set_size("no-such-table", "no-such-set") is None


def error(number: int) -> bytes:
    return message(NetlinkType.ERROR, struct.pack("@i", -number))


def elements(*found: bytes) -> bytes:
    return message(NEWSETELEM, bytes(4) + attribute(3, b"".join(attribute(1, one) for one in found)))


MEMBERSHIPS = {
    "in the set": ([elements(b"")], True),
    "behind a message of another kind": ([OTHER + elements(b"")], True),
    "not in it": ([error(errno.ENOENT)], False),
    "not permitted": ([error(errno.EPERM)], None),
    "of another type": ([error(errno.EINVAL)], None),
    "no answer": ([OTHER], None),
}


@pytest.mark.parametrize(("parts", "is_in"), MEMBERSHIPS.values(), ids=MEMBERSHIPS)
def test_answer_of_the_kernel_says_whether_the_address_is_in(
    parts: list[bytes], is_in: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel(parts))
    assert set_contains("t", "s", ip_address("192.0.2.1")) is is_in


SIZES = {
    "empty": ([DONE], 0),
    "a message without elements": ([message(NEWSETELEM, bytes(4)), DONE], 0),
    "in several parts": ([elements(b"", b""), elements(b"") + DONE], 3),
    "intervals": ([elements(b"", INTERVAL_END, attribute(3, bytes(4)), INTERVAL_END), DONE], 2),
    "not permitted": ([error(errno.EPERM)], None),
    "no end in time": ([elements(b"")], None),
}


@pytest.mark.parametrize(("parts", "size"), SIZES.values(), ids=SIZES)
def test_size_counts_elements_and_intervals_once(
    parts: list[bytes], size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel(parts))
    assert set_size("t", "s") == size
