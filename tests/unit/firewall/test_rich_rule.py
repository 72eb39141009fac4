"""The texts of rules, and the mark that distinguishes ours."""

from ipaddress import ip_address

import pytest

from port_knocking_doors.firewall.rich_rule import door_rules, is_marked, knock_port_rule
from port_knocking_doors.model import Door, Port, PortOpening, Protocol

PORTS = (Port(22), Port(1194, Protocol.UDP))


def test_door_has_one_rule_for_each_port_and_its_address_alone() -> None:
    assert door_rules(Door(ip_address("10.0.0.2"), "eth0", "main", PortOpening(PORTS)), 31313) == (
        'rule priority="31313" family="ipv4" source address="10.0.0.2" port port="22" protocol="tcp" accept',
        'rule priority="31313" family="ipv4" source address="10.0.0.2" port port="1194" protocol="udp" accept',
    )


def test_ipv6_address_is_written_in_its_canonical_form() -> None:
    (rule,) = door_rules(Door(ip_address("FD00:0::0:2"), "eth0", "main", PortOpening(PORTS[:1])), 7)
    assert rule == 'rule priority="7" family="ipv6" source address="fd00::2" port port="22" protocol="tcp" accept'


def test_knock_port_rule_accepts_every_source() -> None:
    assert knock_port_rule(Port(1, Protocol.UDP), 7) == 'rule priority="7" port port="1" protocol="udp" accept'


@pytest.mark.parametrize(
    ("rule", "marked"),
    [
        ('rule priority="31313" port port="1" protocol="udp" accept', True),
        ('rule priority="31313" family="ipv4" source address="10.0.0.2" service name="ssh" reject', True),
        ("rule priority=31313 service name=ssh accept", True),
        ('rule priority="313130" port port="1" protocol="udp" accept', False),
        ('rule priority="3131" port port="1" protocol="udp" accept', False),
        ('rule priority="-31313" port port="1" protocol="udp" accept', False),
        ('rule family="ipv4" source address="10.0.0.2" port port="31313" protocol="tcp" accept', False),
        ('rule service name="ssh" log prefix="priority=31313" accept', False),
        ("", False),
    ],
)
def test_rule_is_ours_by_its_priority_alone(rule: str, marked: bool) -> None:
    assert is_marked(rule, 31313) is marked
