"""What `doctor` and the daemon's start read from firewalld, with answers that the real one cannot give."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from dbus_next.signature import Variant

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import error_codes, firewalld
from port_knocking_doors.firewall.firewalld import Firewalld
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings
from tests.helpers.fake_bus import NAME, FakeBus

T = TypeVar("T")
ZONE = {
    "target": Variant("s", "ACCEPT"),
    "services": Variant("as", ["ssh"]),
    "ports": Variant("a(ss)", [["22", "tcp"]]),
    "source_ports": Variant("a(ss)", [["53", "udp"]]),
    "protocols": Variant("as", ["esp"]),
    "rules_str": Variant("as", ['rule service name="http" accept']),
    "forward": Variant("b", True),
}
SERVICE = {"ports": Variant("a(ss)", [["22", "tcp"]]), "destination": Variant("a{ss}", {"ipv4": "224.0.0.251"})}
POLICY = {"target": Variant("s", "CONTINUE"), "rich_rules": Variant("as", ["rule accept"])}


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[FakeBus, Firewalld], Awaitable[T]]) -> T:
    async def main() -> T:
        async with FakeBus(folder) as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
            bus.replies |= {
                "getZoneSettings2": ("a{sv}", [ZONE]),
                "getServiceSettings2": ("a{sv}", [SERVICE]),
                "getActivePolicies": (
                    "a{sa{sas}}",
                    [
                        {
                            "in": {"ingress_zones": ["ANY"], "egress_zones": ["HOST"]},
                            "through": {"ingress_zones": ["ANY"], "egress_zones": ["ANY"]},
                            "others": {"ingress_zones": ["dmz"], "egress_zones": ["HOST"]},
                        }
                    ],
                ),
                "getPolicySettings": ("a{sv}", [POLICY]),
            }
            async with firewalld.connected() as client:
                return await ask(bus, client)

    return asyncio.run(main())


def test_zones_policies_and_services_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules, services = asked(tmp_path, monkeypatch, lambda _, client: client.firewall(["public"]))
    assert rules == [
        ZoneSettings(
            "public",
            target="ACCEPT",
            services=("ssh",),
            ports=(("22", "tcp"),),
            source_ports=(("53", "udp"),),
            protocols=("esp",),
            rich_rules=('rule service name="http" accept',),
        ),
        ZoneSettings("in", target="CONTINUE", rich_rules=("rule accept",), is_policy=True),
    ]
    assert services == dict.fromkeys(("ssh", "http"), ServiceSettings(ports=(("22", "tcp"),), limited=True))


def test_missing_policies_and_services_are_read_as_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(bus: FakeBus, client: Firewalld) -> tuple[list[ZoneSettings], dict[str, ServiceSettings]]:
        bus.errors["getActivePolicies"] = ("org.freedesktop.DBus.Error.UnknownMethod", "what?")
        bus.errors["getServiceSettings2"] = (f"{NAME}.Exception", "INVALID_SERVICE: ssh")
        return await client.firewall(["public"])

    rules, services = asked(tmp_path, monkeypatch, ask)
    assert [one.name for one in rules] == ["public"]
    assert services == {"ssh": ServiceSettings(), "http": ServiceSettings()}


def test_firewalld_that_leaves_during_its_policies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(bus: FakeBus, client: Firewalld) -> Awaitable[object]:
        bus.errors["getActivePolicies"] = ("org.freedesktop.DBus.Error.ServiceUnknown", "gone")
        return client.firewall(["public"])

    with pytest.raises(FirewallError) as raised:
        asked(tmp_path, monkeypatch, ask)
    assert raised.value.code == error_codes.UNREACHABLE


@pytest.mark.parametrize(
    ("member", "reply"),
    [
        ("getZoneSettings2", ("as", [["ssh"]])),
        ("getZoneSettings2", ("a{sv}", [{"services": Variant("s", "ssh")}])),
        ("getZoneSettings2", ("a{sv}", [{"ports": Variant("as", ["22"])}])),
        ("getZoneSettings2", ("a{sv}", [{"target": Variant("i", 1)}])),
        ("getServiceSettings2", ("a{sv}", [{"destination": Variant("s", "all")}])),
    ],
)
def test_settings_of_the_wrong_type_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, reply: tuple[str, list[object]]
) -> None:
    def ask(bus: FakeBus, client: Firewalld) -> Awaitable[object]:
        bus.replies[member] = reply
        return client.firewall(["public"])

    with pytest.raises(FirewallError, match="wrong type"):
        asked(tmp_path, monkeypatch, ask)


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        (f"{NAME}.Exception", "INVALID_RULE: no element, no action", None),
        (f"{NAME}.NotAuthorizedException", "Not Authorized", error_codes.NOT_AUTHORIZED),
        (f"{NAME}.Exception", "ACCESS_DENIED: lockdown is on", "ACCESS_DENIED"),
    ],
)
def test_authorization_is_checked_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, code: str | None
) -> None:
    async def ask(bus: FakeBus, client: Firewalld) -> list[object]:
        bus.errors["removeRichRule"] = (name, text)
        if code is None:
            await client.check_authorization()
        else:
            with pytest.raises(FirewallError) as caught:
                await client.check_authorization()
            assert caught.value.code == code
        return [(call.member, call.body) for call in bus.calls]

    assert asked(tmp_path, monkeypatch, ask) == [("removeRichRule", ["", "rule"])]


def test_missing_bus_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nothing")

    async def main() -> None:
        async with firewalld.connected():
            pass

    with pytest.raises(FirewallError) as caught:
        asyncio.run(main())
    assert caught.value.code == error_codes.UNREACHABLE
