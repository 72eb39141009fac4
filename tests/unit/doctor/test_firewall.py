"""What the examination says of firewalld where it does not run, and of its zones."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from port_knocking_doors.doctor import firewall
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import error_codes
from port_knocking_doors.firewall.firewalld import Firewalld
from port_knocking_doors.firewall.zone_settings import ZoneSettings
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Settings
from port_knocking_doors.system import firewalld_service

UNREACHABLE, UNANSWERED = error_codes.UNREACHABLE, error_codes.UNANSWERED
START = "systemctl enable --now firewalld (first see what its zones let in: firewall-offline-cmd --list-all-zones)"
FAILURES = {
    "not installed, no bus": (
        FirewallError("there is no D-Bus system bus", UNREACHABLE),
        False,
        "firewalld is not installed: apt install firewalld",
    ),
    "no bus": (
        FirewallError("there is no D-Bus system bus", UNREACHABLE),
        True,
        f"firewalld: there is no D-Bus system bus: {START}",
    ),
    "not running": (
        FirewallError("firewalld is not running", UNREACHABLE),
        True,
        f"firewalld is not running: {START}",
    ),
    "hung": (
        FirewallError("firewalld has not answered for 5 s", UNANSWERED),
        True,
        "firewalld has not answered for 5 s: systemctl restart firewalld",
    ),
    "denied": (
        FirewallError("Not Authorized", error_codes.NOT_AUTHORIZED),
        True,
        "firewalld: permission denied (Not Authorized): run as root: sudo port-knocking-doors doctor",
    ),
    "another error": (FirewallError("odd", "ODD"), True, "firewalld: odd: see its log: journalctl -u firewalld"),
}


@pytest.mark.parametrize(("error", "installed", "text"), FAILURES.values(), ids=FAILURES)
def test_unreachable_firewalld_is_a_problem_with_a_remedy(
    error: FirewallError, installed: bool, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def fail() -> AsyncIterator[None]:
        raise error
        yield

    monkeypatch.setattr("port_knocking_doors.firewall.firewalld.connected", fail)
    monkeypatch.setattr(firewalld_service, "is_installed", lambda: installed)
    monkeypatch.setattr(firewalld_service, "_program", lambda name: name == "apt")
    assert asyncio.run(firewall.about_firewalld(Settings(), 31313, None)).findings == [problem(text)]


KNOWN = frozenset({"public", "home", "work"})
ZONES: dict[str, tuple[Zones, str, list[Finding]]] = {
    "default zone without interfaces of its own": (
        Zones(default="public", known=KNOWN),
        "",
        [ok("zone public: the default zone (eth0, eth1)")],
    ),
    "one interface in another zone": (
        Zones(default="public", interfaces={"eth1": "home"}, known=KNOWN),
        "",
        [ok("zone home: interfaces eth1"), ok("zone public: the default zone (eth0)")],
    ),
    "every interface in a zone": (
        Zones(default="public", interfaces={"eth0": "public", "eth1": "public"}, known=KNOWN),
        "",
        [ok("zone public: interfaces eth0, eth1; the default zone")],
    ),
    "a source": (
        Zones(default="public", sources={"10.0.0.0/8": "work"}, known=KNOWN),
        "work",
        [ok("zone public: the default zone (eth0, eth1)"), ok("zone work: sources 10.0.0.0/8")],
    ),
    "unknown zone": (
        Zones(default="public", known=KNOWN),
        "pubic",
        [
            ok("zone public: the default zone (eth0, eth1)"),
            problem("zone pubic: not found in firewalld; set zone to one of: home, public, work"),
        ],
    ),
}


@pytest.mark.parametrize(("zones", "zone", "findings"), ZONES.values(), ids=ZONES)
def test_zone_is_shown_with_its_interfaces_and_sources(zones: Zones, zone: str, findings: list[Finding]) -> None:
    found = firewall.about_zones(Settings(zone=zone), zones, ["eth0", "eth1"])
    assert sorted(found, key=lambda finding: finding.text) == sorted(findings, key=lambda finding: finding.text)


def test_source_that_a_knock_does_not_show_is_warned_of() -> None:
    sources = {"52:54:00:12:34:56": "work", "52:54:00:12:34:57": "drop"}
    zones = Zones("public", sources=sources, known=KNOWN, targets={"drop": "DROP"})
    reason = "(a hardware address cannot be known from a knock)"
    assert list(firewall.about_doubts(zones)) == [
        warning(
            f"zone work: an address may be in zone work, by its source 52:54:00:12:34:56 {reason}: "
            'if its door lets nothing in, set zone = "work"'
        ),
        ok(
            f"zone drop: an address may be in zone drop, by its source 52:54:00:12:34:57 {reason}: "
            "in that zone it is banned, and its door lets nothing in"
        ),
    ]
    named = firewall.about_zones(Settings(zone="work"), zones, [])
    assert [finding for finding in named if "may be in" in finding.text] == []


SHUT = {
    # settings, the zones with how many knock ports each does not open
    "every zone of knocks": (Settings(opening_sequence=(7, 8, 9, 8)), {"public": 1, "home": 3}),
    "the configured zone, whose rules the daemon adds": (
        Settings(opening_sequence=(7, 8, 9), zone="work"),
        {"work": 3},
    ),
    "the configured zone among all": (
        Settings(opening_sequence=(7, 8, 9), zone="work", open_knock_ports=False),
        {"public": 1, "home": 3, "work": 3},
    ),
}


@pytest.mark.parametrize(("settings", "shut"), SHUT.values(), ids=SHUT)
def test_zones_of_knocks_are_counted_with_the_ports_they_shut(settings: Settings, shut: dict[str, int]) -> None:
    zones = Zones("public", interfaces={"eth1": "home"}, known=KNOWN)
    rules = [
        ZoneSettings("public", ports=(("7-8", "udp"),)),
        ZoneSettings("home", ports=(("7", "tcp"),)),
        ZoneSettings("work"),
    ]
    assert firewall.shut_knock_ports(settings, zones, rules, {}) == shut


class Denying:
    """A connection to firewalld on which the look for rights fails."""

    def __init__(self, code: str) -> None:
        self.code = code

    async def check_authorization(self) -> None:
        raise FirewallError("it failed", self.code)


@pytest.mark.parametrize(
    ("code", "is_denied"),
    [
        (error_codes.NOT_AUTHORIZED, True),
        ("org.freedesktop.DBus.Error.ACCESS_DENIED", True),
        (error_codes.UNREACHABLE, False),
    ],
)
def test_error_of_another_kind_is_not_taken_for_denied_rights(code: str, is_denied: bool) -> None:
    client = cast("Firewalld", Denying(code))
    if is_denied:
        (found,) = asyncio.run(firewall._about_rights(client, None))
        assert found.text.startswith("firewalld: permission denied to change it")
    else:
        with pytest.raises(FirewallError, match="it failed"):
            asyncio.run(firewall._about_rights(client, None))
