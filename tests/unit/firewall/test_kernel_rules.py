"""firewalld's rules as the kernel sends them, in bytes; and which of them firewalld does not know."""

import asyncio
import ipaddress
import struct

import pytest

from port_knocking_doors.firewall import kernel_rules
from port_knocking_doors.firewall.kernel_rules import (
    Accept,
    KernelRules,
    read_base_rules,
    read_kernel_rules,
    read_kernel_rules_in_parts,
)
from port_knocking_doors.firewall.leftovers import is_door, unknown_to_firewalld
from port_knocking_doors.firewall.zone_rules import ZoneRule
from port_knocking_doors.model import Port, Protocol
from port_knocking_doors.system.nfnetlink import NftRule

IPV4, IPV6 = 2, 10
TCP, UDP = 6, 17
CHAIN = "filter_IN_public_post"


def attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("@HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def numbers(**values: int) -> bytes:
    return b"".join(attribute(int(kind[1:]), struct.pack(">I", value)) for kind, value in values.items())


def expression(name: str, data: bytes) -> bytes:
    return attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, data))


def meta(key: int) -> bytes:
    return expression("meta", numbers(_1=1, _2=key))


def payload(base: int, offset: int, length: int) -> bytes:
    return expression("payload", numbers(_1=1, _2=base, _3=offset, _4=length))


def equal(value: bytes, op: int = 0) -> bytes:
    return expression("cmp", numbers(_1=1, _2=op) + attribute(3, attribute(1, value)))


def verdict(code: int = 1) -> bytes:
    return expression("immediate", numbers(_1=0) + attribute(2, attribute(2, numbers(_1=code))))


def source(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    family, offset, length = (IPV4, 12, 4) if address.version == 4 else (IPV6, 8, 16)
    return meta(15) + equal(bytes([family])) + payload(1, offset, length) + equal(address.packed)


def port(number: int, protocol: int = TCP) -> bytes:
    return meta(16) + equal(bytes([protocol])) + payload(2, 2, 2) + equal(struct.pack(">H", number))


DOOR = source("10.0.0.2") + port(22) + verdict()
MASK = expression("bitwise", b"")
STATE = expression("ct", numbers(_1=1, _2=0))

RULES = {
    "door": (DOOR, Accept("public", ipaddress.ip_address("10.0.0.2"), Port(22))),
    "IPv6 door": (
        source("fd00::2") + port(22) + verdict(),
        Accept("public", ipaddress.ip_address("fd00::2"), Port(22)),
    ),
    "knock port": (port(7000, UDP) + verdict(), Accept("public", None, Port(7000, Protocol.UDP))),
    "with a counter": (
        port(7000, UDP) + expression("counter", b"") + verdict(),
        Accept("public", None, Port(7000, Protocol.UDP)),
    ),
    "new connections, as a set (firewalld 1.1)": (
        port(7000, UDP) + STATE + expression("lookup", b"") + verdict(),
        Accept("public", None, Port(7000, Protocol.UDP)),
    ),
    "new connections, as a mask": (
        STATE + MASK + equal(bytes(4), op=1) + port(7000, UDP) + verdict(),
        Accept("public", None, Port(7000, Protocol.UDP)),
    ),
    "a set of ports": (meta(16) + equal(bytes([TCP])) + payload(2, 2, 2) + expression("lookup", b"") + verdict(), None),
    "another property of the connection": (expression("ct", numbers(_1=1, _2=3)) + port(22) + verdict(), None),
    "drops": (source("10.0.0.2") + port(22) + verdict(0), None),
    "no verdict": (source("10.0.0.2") + port(22), None),
    "no port": (source("10.0.0.2") + verdict(), None),
    "not equal": (source("10.0.0.2") + meta(16) + equal(bytes([TCP]), op=1) + verdict(), None),
    "network": (payload(1, 12, 3) + equal(bytes([10, 0, 0])) + port(22) + verdict(), None),
    "masked": (payload(1, 12, 4) + MASK + equal(bytes(4)) + port(22) + verdict(), None),
    "source port": (meta(16) + equal(bytes([TCP])) + payload(2, 0, 2) + equal(b"\0\x16") + verdict(), None),
    "another protocol": (port(22, 132) + verdict(), None),
    "interface, too": (meta(6) + equal(b"eth0") + port(22) + verdict(), None),
    "nothing": (b"", None),
    "garbage": (b"\x08\0\x01\0\xff\xff\xff\xff\x05", None),
}


@pytest.mark.parametrize(("expressions", "expected"), RULES.values(), ids=RULES)
def test_kernel_rule_is_read_where_it_accepts_one_port(expressions: bytes, expected: Accept | None) -> None:
    found = kernel_rules.kernel_rules([NftRule(CHAIN, expressions)])
    assert found == KernelRules((), () if expected is None else (expected,))


@pytest.mark.parametrize(
    ("chain", "zones"),
    [
        (CHAIN, ["public"]),
        ("filter_IN_a_post_post", ["a_post"]),
        ("filter_IN_public_allow", []),
        ("filter_FWD_public_post", []),
        ("filter_INPUT", []),
    ],
)
def test_chain_says_the_zone_of_a_rule(chain: str, zones: list[str]) -> None:
    assert [accept.zone for accept in kernel_rules.kernel_rules([NftRule(chain, DOOR)]).accepts] == zones


@pytest.mark.parametrize(
    ("base", "exist", "doubled"),
    [((), False, False), ((b"a",), True, False), ((b"a", b"b"), True, False), ((b"a", b"b", b"a"), True, True)],
)
def test_base_chain_shows_lost_and_doubled_rules(base: tuple[bytes, ...], exist: bool, doubled: bool) -> None:
    kernel = kernel_rules.kernel_rules(NftRule("filter_INPUT", one) for one in base)
    assert (kernel.exist, kernel.are_doubled) == (exist, doubled)


@pytest.mark.parametrize("number", [1, 2, 22], ids=["EPERM", "ENOENT", "EINVAL"])
def test_kernel_that_does_not_answer_says_nothing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(kernel_rules, "read_rules", refuse)
    assert (read_kernel_rules(), read_base_rules()) == (None, None)
    assert asyncio.run(read_kernel_rules_in_parts()) is None


@pytest.mark.parametrize("number", [0, 1, 199, 200, 201, 1000])
def test_rules_that_are_read_in_parts_are_all_rules(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [NftRule("filter_INPUT", b"a"), *[NftRule("filter_IN_public_post", DOOR)] * number]
    monkeypatch.setattr(kernel_rules, "read_rules", lambda _: rules)
    assert asyncio.run(read_kernel_rules_in_parts()) == kernel_rules.kernel_rules(rules)


# What firewalld does not know. ---------------------------------------------------------------------------------------

OURS = 'rule priority="31313" family="ipv4" source address="10.0.0.2" port port="22" protocol="tcp" accept'
OTHERS = OURS.replace("31313", "5")
ACCEPT = Accept("public", ipaddress.ip_address("10.0.0.2"), Port(22))
TWICE, ONCE = (b"a", b"a"), (b"a", b"b")

LEFT: dict[str, tuple[tuple[bytes, ...], int, list[ZoneRule], bool]] = {
    # base chain, rules in the kernel, rules of firewalld, left
    "firewalld knows none": (TWICE, 1, [], True),
    "firewalld knows ours": (TWICE, 1, [ZoneRule("public", OURS)], False),
    "one of two": (TWICE, 2, [ZoneRule("public", OURS)], True),
    "it is another program's": (TWICE, 1, [ZoneRule("public", OTHERS)], False),
    "known in another zone": (TWICE, 1, [ZoneRule("home", OURS)], True),
    "firewalld's own account is right": (ONCE, 1, [], False),
    "none in the kernel": (TWICE, 0, [], False),
    "unusual rules beside it": (
        TWICE,
        1,
        [
            ZoneRule("public", 'rule priority="1" service name="ssh" accept'),
            ZoneRule(
                "public", 'rule priority="1" family="ipv4" source address="x" port port="1" protocol="tcp" accept'
            ),
        ],
        True,
    ),
}


@pytest.mark.parametrize(("base", "count", "known", "left"), LEFT.values(), ids=LEFT)
def test_rule_is_left_where_the_kernel_has_more_than_firewalld(
    base: tuple[bytes, ...], count: int, known: list[ZoneRule], left: bool
) -> None:
    found = unknown_to_firewalld(KernelRules(base, count * (ACCEPT,)), known, 31313)
    assert found == ({ZoneRule("public", OURS)} if left else set())


def test_rule_of_a_door_has_a_source() -> None:
    knock_port = 'rule priority="31313" port port="7000" protocol="udp" accept'
    assert [is_door(ZoneRule("public", rule)) for rule in (OURS, knock_port)] == [True, False]
