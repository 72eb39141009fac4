"""The rules in the kernel's answers, given in place of the kernel's; real ones are read in the system tests."""

import errno
import socket
import struct

import pytest

from port_knocking_doors.system.nfnetlink import NftRule, read_rules
from port_knocking_doors.system.rtnetlink import NetlinkType
from tests.helpers.netlink_answers import Kernel, attribute, message

NEWRULE, NEWTABLE = 10 << 8 | 6, 10 << 8
DONE = message(NetlinkType.DONE, bytes(4))


def rule(table: str, chain: str, expressions: bytes = b"") -> bytes:
    texts = attribute(1, table.encode() + b"\0") + attribute(2, chain.encode() + b"\0")
    return message(NEWRULE, bytes(4) + texts + (attribute(4, expressions) if expressions else b""))


ANSWERS: dict[str, tuple[list[bytes], str, list[NftRule]]] = {
    "none": ([DONE], "", []),
    "all chains, in several parts": (
        [rule("firewalld", "a", b"1234") + rule("firewalld", "b"), rule("firewalld", "a"), DONE],
        "",
        [NftRule("a", b"1234"), NftRule("b", b""), NftRule("a", b"")],
    ),
    "one chain, of a kernel that sends every table": (
        [rule("firewalld", "a") + rule("other", "b") + rule("firewalld", "b") + DONE],
        "b",
        [NftRule("b", b"")],
    ),
    "messages of another kind": (
        [message(NEWTABLE, bytes(4)) + rule("firewalld", "a") + DONE],
        "",
        [NftRule("a", b"")],
    ),
}


@pytest.mark.parametrize(("parts", "chain", "rules"), ANSWERS.values(), ids=ANSWERS)
def test_rules_are_those_of_the_table_and_chain(
    parts: list[bytes], chain: str, rules: list[NftRule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel(parts))
    assert read_rules("firewalld", chain) == rules


def test_error_of_the_kernel_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = message(NetlinkType.ERROR, struct.pack("@i", -errno.EPERM))
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel([answer]))
    with pytest.raises(PermissionError):
        read_rules("firewalld")
