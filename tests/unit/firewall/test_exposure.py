"""What accepts a port without a knock, by a zone's settings. `tests/system/test_doctor.py` asks a real firewalld."""

import pytest

from port_knocking_doors.firewall import exposure
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.model import Port, Protocol

PORT = Port(2222)
MARK = 31313
SERVICES = {
    "ssh": ServiceSettings(ports=(("22", "tcp"),)),
    "many": ServiceSettings(ports=(("2000-3000", "tcp"),)),
    "other": ServiceSettings(ports=(("2222", "udp"),)),
    "outer": ServiceSettings(includes=("ssh", "many")),
    "circle": ServiceSettings(includes=("circle", "missing")),
    "somewhere": ServiceSettings(ports=(("2222", "tcp"),), limited=True),
    "all-of-tcp": ServiceSettings(protocols=("tcp",)),
    "from-port": ServiceSettings(source_ports=(("53", "tcp"),)),
}


def zone(**settings: object) -> ZoneSettings:
    return ZoneSettings("public", **settings)  # type: ignore[arg-type]


def found(rules: ZoneSettings, port: Port = PORT, mark: int | None = MARK) -> list[str]:
    return [
        way.what + (" (some)" if way.limited else "") for way in exposure.find(port, rules, SERVICES, mark).exposures
    ]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, []),
        ({"target": "DROP"}, []),
        ({"target": "ACCEPT"}, ["the target ACCEPT"]),
        ({"services": ("ssh", "other")}, []),
        ({"services": ("many",)}, ["service many"]),
        ({"services": ("outer",)}, ["service outer"]),
        ({"services": ("circle", "unknown")}, []),
        ({"services": ("somewhere",)}, ["service somewhere (some)"]),
        ({"services": ("all-of-tcp",)}, ["service all-of-tcp"]),
        ({"services": ("from-port",)}, ["service from-port"]),
        ({"ports": (("2222", "tcp"),)}, ["port 2222/tcp"]),
        ({"ports": (("2222", "udp"), ("2223", "tcp"), ("22", "tcp"))}, []),
        ({"ports": (("2222-2222", "tcp"), ("1-2221", "tcp"))}, ["port 2222-2222/tcp"]),
        ({"ports": (("", "tcp"),)}, ["port /tcp"]),
        ({"ports": (("ssh", "tcp"), ("2-x", "tcp"))}, []),
        ({"protocols": ("tcp", "udp")}, ["protocol tcp"]),
        ({"source_ports": (("1-65535", "tcp"), ("1", "udp"))}, ["source port 1-65535/tcp"]),
    ],
)
def test_setting_that_accepts_the_port_is_an_exposure(settings: dict[str, object], what: list[str]) -> None:
    assert found(zone(**settings)) == what


YES, SOME, NO = "yes", "some", "no"


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ('rule port port="2222" protocol="tcp" accept', YES),
        ('rule port port="2000-3000" protocol="tcp" accept limit value="1/m"', YES),
        ('rule port port="2222" protocol="tcp" log prefix="reject drop" level="info" limit value="1/m" accept', YES),
        ('rule family="ipv4" port port="2222" protocol="tcp" audit accept', YES),
        ('rule port port="2222" protocol="udp" accept', NO),
        ('rule port port="2222" protocol="tcp" reject type="icmp-port-unreachable"', NO),
        ('rule port port="2222" protocol="tcp" drop', NO),
        ('rule port port="2222" protocol="tcp" mark set="0x1"', NO),
        ('rule port port="2222" protocol="tcp" log', NO),
        ('rule family="ipv4" source address="10.0.0.0/8" port port="2222" protocol="tcp" accept', SOME),
        ('rule family="ipv4" source NOT address="10.0.0.0/8" accept', SOME),
        ('rule source ipset="admins" accept', SOME),
        ('rule family="ipv4" destination address="10.0.0.1" port port="2222" protocol="tcp" accept', SOME),
        ('rule service name="many" accept', YES),
        ('rule service name="outer" accept', YES),
        ('rule service name="ssh" accept', NO),
        ('rule protocol value="tcp" accept', YES),
        ('rule protocol value="esp" accept', NO),
        ('rule source-port port="53" protocol="tcp" accept', YES),
        ('rule icmp-type name="echo-request" accept', NO),
        ('rule family="ipv4" forward-port port="2222" protocol="tcp" to-port="22"', NO),
        ("rule masquerade", NO),
        ('rule priority="-5" port port="2222" protocol="tcp" accept', YES),
        ('rule priority="many" port port="2222" protocol="tcp" accept', YES),
        ('rule priority="31313" port port="2222" protocol="tcp" accept', NO),
        ("nonsense", NO),
        ("", NO),
    ],
)
def test_rich_rule_that_accepts_the_port_is_an_exposure(rule: str, answer: str) -> None:
    expected = {YES: [f"rich rule `{rule}`"], SOME: [f"rich rule `{rule}` (some)"], NO: []}[answer]
    assert found(zone(rich_rules=(rule,))) == expected


def test_marked_rule_is_an_exposure_if_no_mark_is_given() -> None:
    rule = 'rule priority="31313" port port="2222" protocol="tcp" accept'
    assert found(zone(rich_rules=(rule,)), mark=None) == [f"rich rule `{rule}`"]


ACCEPT, REJECT = 'port port="2222" protocol="tcp" accept', 'port port="2222" protocol="tcp" reject'


@pytest.mark.parametrize(
    ("settings", "is_open", "is_denied"),
    [
        ({"ports": (("2222", "tcp"),), "rich_rules": (f"rule {REJECT}",)}, False, True),
        ({"ports": (("2222", "tcp"),), "rich_rules": ('rule priority="-1" protocol value="tcp" drop',)}, False, True),
        ({"ports": (("2222", "tcp"),), "rich_rules": (f'rule priority="5" {REJECT}',)}, True, True),
        ({"rich_rules": (f"rule {ACCEPT}", f"rule {REJECT}")}, False, True),
        ({"rich_rules": (f'rule priority="-2" {ACCEPT}', f'rule priority="-1" {REJECT}')}, True, True),
        ({"rich_rules": (f'rule priority="2" {ACCEPT}', f'rule priority="1" {REJECT}')}, False, True),
        ({"target": "ACCEPT", "rich_rules": ('rule priority="32767" reject',)}, False, False),
        ({"ports": (("2222", "tcp"),), "rich_rules": (f'rule family="ipv4" {REJECT}',)}, True, True),
        ({"target": "ACCEPT", "rich_rules": (f'rule family="ipv4" source address="10.0.0.9" {REJECT}',)}, True, False),
    ],
)
def test_denial_for_all_sources_disables_exposures_behind_it(
    settings: dict[str, object], is_open: bool, is_denied: bool
) -> None:
    seen = exposure.find(PORT, zone(**settings), SERVICES, MARK)
    assert (bool(seen.exposures), bool(seen.denials)) == (is_open, is_denied)


TCP, UDP = Protocol.TCP, Protocol.UDP


@pytest.mark.parametrize(
    ("line", "ports"),
    [
        ("tcp dport 8080 dnat to 172.17.0.2:80", [Port(8080)]),
        ("meta l4proto tcp tcp dport 8080 counter packets 0 bytes 0 dnat ip to 10.88.0.2:80", [Port(8080)]),
        (
            'iifname != "docker0" meta l4proto tcp tcp dport 8080 counter packets 3 bytes 9 dnat to 172.17.0.2:80',
            [Port(8080)],
        ),
        ('meta l4proto tcp tcp dport 8080 counter packets 0 bytes 0 xt target "DNAT"', [Port(8080)]),
        ("udp dport 53 redirect to :5353", [Port(53, UDP)]),
        ("tcp dport { 80, 8000-8100 } dnat ip to 10.0.0.2", [Port(8080), Port(80)]),
        ("th dport 8080 meta l4proto { tcp, udp } dnat to 10.0.0.2", [Port(8080), Port(8080, UDP)]),
        ("dnat ip to tcp dport map { 80 : 10.0.0.2, 8080 : 10.0.0.3 }", [Port(8080), Port(80)]),
        ("ip daddr 127.0.0.1 tcp dport 8080 dnat to 172.17.0.2:80", []),
        ("tcp dport 8080 accept", []),
        ("tcp dport != 8080 dnat to 10.0.0.2", []),
        ("tcp sport 8080 dnat to 10.0.0.2", []),
        ("ip daddr 192.0.2.1 dnat to 10.0.0.2", []),
    ],
)
def test_redirected_ports_are_found_in_the_ruleset(line: str, ports: list[Port]) -> None:
    guarded = [Port(8080), Port(80), Port(8080, UDP), Port(53, UDP), Port(53)]
    ruleset = f"table ip nat {{\n\tchain PREROUTING {{\n\t\t{line}\n\t}}\n}}\n"
    assert list(exposure.redirected(ruleset, guarded)) == sorted(ports, key=guarded.index)
