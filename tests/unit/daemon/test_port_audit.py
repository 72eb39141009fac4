"""Which guarded ports the daemon reports as open without a knock, with a firewalld that only answers."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from port_knocking_doors.daemon import port_audit
from port_knocking_doors.daemon.port_audit import audit
from port_knocking_doors.errors import FirewallError
from port_knocking_doors.events import EventStream, PortExposed
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Access, Port, Protocol, Sequence, Settings, Step

SSH, WEB = Port(22), Port(80)
SERVICES = {"ssh": ServiceSettings(ports=(("22", "tcp"),))}
PUBLIC = ZoneSettings("public", services=("ssh",), protocols=("tcp",))
SOME = ZoneSettings("public", rich_rules=("rule source address=10.0.0.1 accept",))
SNIFFED = Sequence("web", (Step(Protocol.TCP, 7005, 2),), Access.of("web", (WEB,)))
SETTINGS = Settings(zone="dmz", opening_sequence=(7001, 7002), sequences=(SNIFFED,))


class Answers:
    """A reconciler and its firewalld."""

    def __init__(self, *rules: ZoneSettings, error: FirewallError | None = None) -> None:
        self.zones: Zones | None = Zones("public", {"eth1": "work"}, {"10.0.0.0/8": "home"})
        self.firewalld = self
        self.rules, self.error = list(rules), error
        self.asked: list[str] = []

    async def firewall(self, zones: Iterable[str]) -> tuple[list[ZoneSettings], dict[str, ServiceSettings]]:
        self.asked += zones
        if self.error is not None:
            raise self.error
        return self.rules, SERVICES


def audited(answers: Answers) -> list[PortExposed]:
    """What is published."""
    events, found = EventStream(), list[PortExposed]()
    events.add({PortExposed: found.append})
    asyncio.run(audit(SETTINGS, cast(Any, answers), events))
    return found


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> list[Port]:
    """The ports that services listen on, among them steps of the sequences."""
    ports = [SSH, Port(443), Port(7001, Protocol.UDP), Port(7005)]
    monkeypatch.setattr(port_audit, "served_ports", lambda: ports)
    return ports


def test_exposed_port_is_published_with_advice_that_names_no_step() -> None:
    answers = Answers(PUBLIC)
    found = audited(answers)
    assert answers.asked == ["dmz", "public", "work"]
    assert [(one.port, one.zone, one.reason) for one in found] == [
        (SSH, "public", "service ssh"),
        (SSH, "public", "protocol tcp"),
        (WEB, "public", "protocol tcp"),
    ]
    command = "firewall-cmd --zone=public --add-port=443/tcp && firewall-cmd --zone=public --remove-protocol=tcp"
    assert found[2].text == (
        f"zone public: port 80/tcp is OPEN WITHOUT A KNOCK: protocol tcp lets it through; {command}, and the same with "
        "--permanent"
    )


def test_nothing_is_published_of_what_is_closed_or_open_to_some(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Port]:
        raise AssertionError("not needed")

    monkeypatch.setattr(port_audit, "served_ports", fail)
    assert audited(Answers(SOME)) == []
    assert audited(Answers(PUBLIC, error=FirewallError("no answer"))) == []
    unknown = Answers(PUBLIC)
    unknown.zones = None
    assert audited(unknown) == []
    assert unknown.asked == []
