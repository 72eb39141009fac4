"""What a copy of the kernel's tables keeps of them, by their text."""

from ipaddress import ip_address

import pytest

from port_knocking_doors.doctor.ruleset import copy_of, tables
from port_knocking_doors.model import Address

ADDRESSES: list[Address] = [ip_address("192.0.2.77"), ip_address("2001:db8::77")]


def table(*lines: str, family: str = "inet") -> str:
    return f"table {family} t {{ # progname firewalld\n" + "".join(f"{line}\n" for line in lines) + "}\n"


def set_of(kind: str, elements: str, *more: str) -> tuple[str, ...]:
    return ("\tset s {", f"\t\t{kind}", *more, f"\t\telements = {{ {elements} }}", "\t}")


COPIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rule": (("\t\ttcp dport 22 accept",), ("\t\ttcp dport 22 accept",)),
    "owner": (("\tflags owner",), ()),
    "owner that persists, dormant": (("\tflags owner, persist, dormant",), ("\tflags dormant",)),
    "offload": (("\tflowtable f {", "\t\tflags offload", "\t}"), ("\tflowtable f {", "\t}")),
    "limit": (("\t\ttcp dport 22 limit rate 3/minute burst 5 packets accept",), ("\t\ttcp dport 22 accept",)),
    "limit of bytes": (("\t\tlimit rate 10 mbytes/second burst 4 mbytes accept",), ("\t\taccept",)),
    "limit that is exceeded": (("\t\tct state new limit rate over 10/second drop",), ()),
    "limit for each address": (
        ("\t\tadd @s { ip saddr limit rate 3/hour burst 5 packets } accept",),
        ("\t\tadd @s { ip saddr } accept",),
    ),
    "set without the addresses": (
        set_of("type ipv4_addr", "10.0.0.1, 10.0.0.2"),
        ("\tset s {", "\t\ttype ipv4_addr", "\t}"),
    ),
    "address": (set_of("type ipv4_addr", "10.0.0.1, 192.0.2.77"), set_of("type ipv4_addr", "192.0.2.77")),
    "network": (
        set_of("type ipv4_addr", "192.0.2.0/24, 192.0.3.0/24", "\t\tflags interval"),
        set_of("type ipv4_addr", "192.0.2.0/24", "\t\tflags interval"),
    ),
    "range": (
        set_of("type ipv4_addr", "10.0.0.1-10.0.0.9, 192.0.0.0-192.1.0.0"),
        set_of("type ipv4_addr", "192.0.0.0-192.1.0.0"),
    ),
    "address of version 6": (
        set_of("typeof ip6 saddr", "fd00::1, 2001:db8::/32, fe80::1-fe80::5"),
        set_of("typeof ip6 saddr", "2001:db8::/32"),
    ),
    "map": (
        set_of("type ipv4_addr : verdict", "10.0.0.1 : drop, 192.0.2.77 : accept"),
        set_of("type ipv4_addr : verdict", "192.0.2.77 : accept"),
    ),
    "entries with comments and times": (
        set_of("type ipv4_addr", '192.0.2.77 timeout 1h expires 5m comment "a, b } c", 10.0.0.1 comment "192.0.2.77"'),
        set_of("type ipv4_addr", '192.0.2.77 timeout 1h expires 5m comment "a, b } c"'),
    ),
    "unknown entry": (set_of("type ipv4_addr", "*, 10.0.0.1"), set_of("type ipv4_addr", "*")),
    "ports": (set_of("type inet_service", "1, 2-3"), set_of("type inet_service", "1, 2-3")),
    "addresses with ports": (
        set_of("type ipv4_addr . inet_service", "10.0.0.1 . 22"),
        set_of("type ipv4_addr . inet_service", "10.0.0.1 . 22"),
    ),
    "second set": (
        (*set_of("type ipv4_addr", "10.0.0.1"), *set_of("type inet_service", "22")),
        ("\tset s {", "\t\ttype ipv4_addr", "\t}", *set_of("type inet_service", "22")),
    ),
    "entries on many lines": (
        (
            "\tset s {",
            "\t\ttype ipv4_addr",
            "\t\telements = { 10.0.0.1,",
            "\t\t\t     192.0.2.77,",
            "\t\t\t     1.1.1.1 }",
            "\t}",
        ),
        set_of("type ipv4_addr", "192.0.2.77"),
    ),
}


@pytest.mark.parametrize(("lines", "copied"), COPIES.values(), ids=COPIES)
def test_copy_keeps_what_decides_over_a_first_packet(lines: tuple[str, ...], copied: tuple[str, ...]) -> None:
    (found,) = tables(table(*lines))
    assert copy_of(found, ADDRESSES) == table(*copied)


def test_tables_that_see_no_ip_packet_from_a_link_are_left_out() -> None:
    families = ("inet", "ip", "bridge", "ip6", "arp", "netdev")
    found = tables("# a comment\n" + "".join(table("\t\taccept", family=family) for family in families))
    assert [str(one) for one in found] == ["inet t", "ip t", "ip6 t", "netdev t"]


RULES = {
    "plain": ("\t\ttcp dport 22 accept", False, False),
    "match of iptables": ('\t\tudp dport 5 xt match "recent" drop', True, False),
    "target of iptables": ("\t\txt target DNAT", True, False),
    "queue of a program": ("\t\ttcp dport 22 queue flags bypass to 1", False, True),
    "queue by number": ("\t\tqueue num 0", False, True),
    "comment": ('\t\taccept comment "queue"', False, False),
}


@pytest.mark.parametrize(("rule", "is_compat", "queues"), RULES.values(), ids=RULES)
def test_table_that_cannot_be_copied_is_recognized(rule: str, is_compat: bool, queues: bool) -> None:
    (found,) = tables(table(rule))
    assert (found.is_compat, found.queues) == (is_compat, queues)
