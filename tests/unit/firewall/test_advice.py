"""What to do about a port that is open or denied. `tests/system/test_doctor_advice.py` runs the commands."""

from dataclasses import replace
from typing import Any

import pytest

from port_knocking_doors.firewall import exposure
from port_knocking_doors.firewall.advice import HostFacts, denial_remedy, host_of, warning_line
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.model import Access, Port, Protocol, Sequence, Settings, Step

PORT, SSH, WEB, DNS = Port(2222), Port(22), Port(80), Port(53, Protocol.UDP)
SERVICES = {
    "ssh": ServiceSettings(ports=(("22", "tcp"),)),
    "mine": ServiceSettings(ports=(("2222", "tcp"),)),
    "many": ServiceSettings(ports=(("2000-3000", "tcp"), ("80", "tcp"), ("9-10", "udp"))),
    "outer": ServiceSettings(ports=(("2222", "tcp"),), includes=("ssh",)),
    "named": ServiceSettings(ports=(("2222", "tcp"), ("ssh", "tcp"))),
    "wide": ServiceSettings(ports=(("2222", "tcp"),), protocols=("gre",)),
    "local": ServiceSettings(ports=(("80", "tcp"),), limited=True),
    "mixed": ServiceSettings(ports=(("2222", "tcp"),), includes=("local",)),
}
PUBLIC = ZoneSettings("public", services=("ssh",))
HOST = HostFacts((PORT,), (SSH, WEB), SERVICES, PUBLIC)
BOTH = ", and the same with --permanent"
IN = "firewall-cmd --zone=dmz"
MAYBE = "a VPN or containers may need that; if strangers come this way"
NEEDED = "as a VPN or containers need it; if a knock is to be needed there, too, give them another zone"


def zone(name: str = "dmz", **settings: Any) -> ZoneSettings:
    return ZoneSettings(name, **settings)


def advice(settings: ZoneSettings, host: HostFacts = HOST) -> list[str]:
    """The advice about each exposure of the port, without the beginning of the line."""
    found = exposure.find(PORT, settings, SERVICES, 31313).exposures
    lines = [warning_line(PORT, settings, one, host) for one in found]
    beginning = f"{settings}: port 2222/tcp is OPEN WITHOUT A KNOCK: "
    assert all(line.startswith(beginning) for line in lines)
    return [line.removeprefix(beginning) for line in lines]


REMEDIES: dict[str, tuple[ZoneSettings, str]] = {
    "port": (
        zone(ports=(("2222", "tcp"),)),
        f"port 2222/tcp lets it through; {IN} --remove-port=2222/tcp{BOTH}",
    ),
    "range": (
        zone(ports=(("2000-3000", "tcp"),)),
        f"port 2000-3000/tcp lets it through; {IN} --remove-port=2222/tcp{BOTH}",
    ),
    "range of a policy": (
        ZoneSettings("in", ports=(("2000-3000", "tcp"),), is_policy=True),
        (
            "port 2000-3000/tcp lets it through; replace it by ranges without port 2222 (firewall-cmd --info-policy=in "
            "shows it)"
        ),
    ),
    "port of a policy": (
        ZoneSettings("in", ports=(("2222", "tcp"),), is_policy=True),
        f"port 2222/tcp lets it through; firewall-cmd --policy=in --remove-port=2222/tcp{BOTH}",
    ),
    "service": (
        zone(services=("mine",)),
        f"service mine lets it through; {IN} --remove-service=mine{BOTH}",
    ),
    "service with other ports": (
        zone(services=("many",)),
        (
            f"service many lets it through; for its other ports: {IN} --add-port=2000-2221/tcp "
            f"--add-port=2223-3000/tcp --add-port=80/tcp --add-port=9-10/udp && {IN} --remove-service=many{BOTH}"
        ),
    ),
    "service that includes ssh": (
        zone(services=("outer",)),
        (
            f"service outer lets it through; for its other ports: {IN} --add-port=22/tcp && {IN} "
            f"--remove-service=outer{BOTH}"
        ),
    ),
    "service that includes ssh, which is open anyhow": (
        zone(services=("outer", "ssh")),
        f"service outer lets it through; {IN} --remove-service=outer{BOTH}",
    ),
    "service with a port by name": (
        zone(services=("named",)),
        (
            f"service named lets it through; for its other ports: {IN} --add-port=ssh/tcp && {IN} "
            f"--remove-service=named{BOTH}"
        ),
    ),
    "service with a protocol": (
        zone(services=("wide",)),
        (
            "service wide lets it through; replace the service by the ports that must stay open (firewall-cmd "
            "--info-zone=dmz shows it)"
        ),
    ),
    "service that includes one for some addresses": (
        zone(services=("mixed",)),
        (
            "service mixed lets it through; replace the service by the ports that must stay open (firewall-cmd "
            "--info-zone=dmz shows it)"
        ),
    ),
    "protocol": (
        zone(protocols=("tcp",)),
        f"protocol tcp lets it through; {IN} --add-port=22/tcp --add-port=80/tcp && {IN} --remove-protocol=tcp{BOTH}",
    ),
    "protocol beside a service": (
        zone(protocols=("tcp",), services=("ssh",)),
        f"protocol tcp lets it through; {IN} --add-port=80/tcp && {IN} --remove-protocol=tcp{BOTH}",
    ),
    "source port": (
        zone(source_ports=(("1-65535", "tcp"),), ports=(("80", "tcp"), ("22", "tcp"))),
        f"source port 1-65535/tcp lets it through; {IN} --remove-source-port=1-65535/tcp{BOTH}",
    ),
    "rich rule": (
        zone(rich_rules=("rule port port=2222 protocol=tcp accept",)),
        (
            "rich rule `rule port port=2222 protocol=tcp accept` lets it through; "
            f"{IN} '--remove-rich-rule=rule port port=2222 protocol=tcp accept'{BOTH}"
        ),
    ),
    "rich rule with a quote": (
        zone(rich_rules=('rule port port=2222 protocol=tcp log prefix="it\'s $(id)" accept',)),
        (
            'rich rule `rule port port=2222 protocol=tcp log prefix="it\'s $(id)" accept` lets it through; '
            f"{IN} '--remove-rich-rule=rule port port=2222 protocol=tcp log prefix=\"it'\"'\"'s $(id)\" accept'{BOTH}"
        ),
    ),
    "rich rule for everything": (
        zone(rich_rules=("rule accept",), services=("ssh",)),
        (
            f"rich rule `rule accept` lets it through; {IN} --add-port=80/tcp && {IN} '--remove-rich-rule=rule "
            f"accept'{BOTH}"
        ),
    ),
    "rich rule for everything of a family": (
        zone(rich_rules=('rule family="ipv4" accept',)),
        (
            'rich rule `rule family="ipv4" accept` lets it through; replace it by what must stay open (firewall-cmd '
            "--info-zone=dmz shows it)"
        ),
    ),
    "target of an interface": (
        zone(target="ACCEPT", interfaces=("eth1", "wg0"), services=("ssh",)),
        (
            f"the target ACCEPT lets every packet through; all from eth1, wg0 passes: {MAYBE}, move eth1 to another "
            "zone, which must let in what is served there: zone public would close 80/tcp"
        ),
    ),
    "target of a VPN": (
        zone("trusted", target="ACCEPT", interfaces=("wg0", "tun+"), sources=("10.8.0.0/24",)),
        f"the target ACCEPT lets every packet through; all from wg0, tun+, 10.8.0.0/24 passes, {NEEDED}",
    ),
    "target of containers": (
        zone("docker", target="ACCEPT", interfaces=("docker0", "mine0")),
        f"the target ACCEPT lets every packet through; all from docker0, mine0 passes, {NEEDED}",
    ),
    "target of a source": (
        zone(target="ACCEPT", sources=("10.8.0.0/24",)),
        f"the target ACCEPT lets every packet through; all from 10.8.0.0/24 passes, {NEEDED}",
    ),
    "target of the default zone": (
        replace(PUBLIC, target="ACCEPT"),
        (
            f"the target ACCEPT lets every packet through; all from every interface without a zone passes: {MAYBE}, "
            "make another zone the default one (firewall-cmd --set-default-zone)"
        ),
    ),
    "target of a policy": (
        ZoneSettings("in", target="ACCEPT", is_policy=True),
        (
            "the target ACCEPT lets every packet through; if it should not, give it the target CONTINUE, and the "
            "services that must stay open (firewall-cmd --info-policy=in shows it)"
        ),
    ),
}


@pytest.mark.parametrize(("settings", "line"), REMEDIES.values(), ids=REMEDIES)
def test_advice_closes_the_port_and_nothing_else(settings: ZoneSettings, line: str) -> None:
    assert advice(settings) == [line]


def test_settings_that_are_both_removed_do_not_count_on_each_other() -> None:
    both = zone(protocols=("tcp",), source_ports=(("1-65535", "tcp"),), services=("ssh",))
    assert [line.partition("; ")[2] for line in advice(both)] == [
        f"{IN} --add-port=80/tcp && {IN} --remove-protocol=tcp{BOTH}",
        f"{IN} --add-port=80/tcp && {IN} --remove-source-port=1-65535/tcp{BOTH}",
    ]


def test_interface_moves_if_the_default_zone_lets_in_what_is_served() -> None:
    settings = zone(target="ACCEPT", interfaces=("eth1", "eth$1+"))
    (line,) = advice(settings, replace(HOST, serving=(SSH,)))
    move = "firewall-cmd --zone=public --change-interface=eth1"
    other = "firewall-cmd --zone=public '--change-interface=eth$1+'"
    said = f"all from eth1, eth$1+ passes: {MAYBE}, move eth1, eth$1+ to zone public: "
    assert line.endswith(f"{said}{move} && {other}{BOTH}")


def test_long_list_of_ports_is_left_to_the_administrator() -> None:
    host = replace(HOST, serving=tuple(map(Port, range(80, 90))))
    assert advice(zone(protocols=("tcp",)), host) == [
        "protocol tcp lets it through; replace it by what must stay open (firewall-cmd --info-zone=dmz shows it)"
    ]
    (line,) = advice(zone(target="ACCEPT", interfaces=("eth1",)), host)
    assert line.endswith("zone public would close 80/tcp, 81/tcp, 82/tcp, 83/tcp, 84/tcp, 85/tcp, 86/tcp, 87/tcp …")


DENY = "rule port port=2222 protocol=tcp reject"
DENIALS: dict[str, tuple[ZoneSettings, str]] = {
    "the port alone": (zone(rich_rules=(DENY,)), f"{IN} '--remove-rich-rule={DENY}'{BOTH}"),
    "the port, which is open behind": (
        zone(rich_rules=(DENY,), services=("mine",)),
        "without it, service mine opens the port to all: remove that first, then the rule",
    ),
    "everything": (
        zone(rich_rules=("rule drop",)),
        (
            "change it so that it leaves out port 2222/tcp (firewall-cmd --info-zone=dmz shows it): it may deny more "
            "than this"
        ),
    ),
    "a range": (
        zone(rich_rules=("rule port port=2000-3000 protocol=tcp drop",)),
        (
            "change it so that it leaves out port 2222/tcp (firewall-cmd --info-zone=dmz shows it): it may deny more "
            "than this"
        ),
    ),
}


@pytest.mark.parametrize(("settings", "text"), DENIALS.values(), ids=DENIALS)
def test_advice_about_a_denial_opens_nothing_to_all(settings: ZoneSettings, text: str) -> None:
    (denial,) = exposure.find(PORT, settings, SERVICES, 31313).denials
    assert denial_remedy(PORT, settings, denial, HOST) == text


def test_no_advice_names_a_port_of_a_sequence() -> None:
    steps = (Step(Protocol.TCP, 7001, 2), Step(Protocol.UDP, 7002))
    sequence = Sequence("s", steps, Access.of("s", (WEB,)), close_steps=(Step(Protocol.TCP, 7003, 2),))
    settings = Settings(opening_sequence=(7004,), guarded_ports=(PORT,), sequences=(sequence,))
    secret = [Port(7001), Port(7002, Protocol.UDP), Port(7003), Port(7004, Protocol.UDP)]
    policy = ZoneSettings("public", is_policy=True)
    found = host_of(settings, [*secret, SSH, WEB, DNS, PORT], SERVICES, [policy, PUBLIC], "public")
    assert found == HostFacts((PORT, WEB), (SSH, DNS), SERVICES, PUBLIC)
    assert host_of(settings, [], SERVICES, [], "public").default is None
