"""A reload of firewalld that drops runtime settings: those of others come back, ours do not."""

import asyncio
from typing import Any

import pytest
from dbus_next.signature import Variant

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.error_codes import NOT_AUTHORIZED, UNREACHABLE
from port_knocking_doors.firewall.runtime_settings import reload_sparing_others

OURS, OTHERS, PERMANENT = "rule ours", "rule others", "rule permanent"


def zone(rules: list[str], *, masquerade: bool = False, **more: Variant) -> dict[str, Variant]:
    return {
        "rules_str": Variant("as", rules),
        "masquerade": Variant("b", masquerade),
        "target": Variant("s", "x"),
        **more,
    }


class Firewalld:
    """Keeps runtime settings, and on a reload those of the permanent configuration take their place."""

    def __init__(self) -> None:
        self.zones = {
            "public": zone([OURS, OTHERS, PERMANENT], masquerade=True, ports=Variant("a(ss)", [["1", "tcp"]]))
        }
        self.zones["home"] = zone([PERMANENT])
        self.entries = {"set": ["10.0.0.1", "10.0.0.2"]}
        self.passthroughs: list[list[Any]] = [["ipv4", ["-N", "x"]]]
        self.kept: list[list[Any]] = []
        self.gone: set[str] = set()
        """Direct rules that a reload keeps, and zones that it drops."""
        self.written: list[tuple[Any, ...]] = []
        self.errors: dict[str, FirewallError] = {}

    async def call(self, _: str, member: str, signature: str = "", *arguments: Any, patient: bool = False) -> Any:
        assert patient is (member == "reload"), "a reload takes long"
        if member in self.errors:
            raise self.errors[member]
        if member.startswith(("set", "add")):
            self.written.append((member, *arguments))
            assert signature
        return getattr(self, f"_{member}", lambda *_: [])(*arguments)

    def _reload(self) -> None:
        self.zones["public"] = zone([PERMANENT, "rule added meanwhile", OURS])
        self.entries["set"] = ["10.0.0.1"]
        self.passthroughs = self.kept
        for name in self.gone:
            del self.zones[name]

    def _getZones(self) -> list[str]:  # noqa: N802 firewalld's name
        return sorted(self.zones)

    def _getZoneSettings2(self, name: str) -> dict[str, Variant]:  # noqa: N802
        return self.zones[name]

    def _getIPSets(self) -> list[str]:  # noqa: N802
        return sorted(self.entries)

    def _getEntries(self, name: str) -> list[str]:  # noqa: N802
        return self.entries[name]

    def _getAllPassthroughs(self) -> list[list[Any]]:  # noqa: N802
        return self.passthroughs


def reload(firewalld: Firewalld) -> None:
    asyncio.run(reload_sparing_others(firewalld.call, lambda rule: rule == OURS))


def test_reload_puts_back_what_others_had_and_keeps_what_they_add() -> None:
    firewalld = Firewalld()
    reload(firewalld)
    (_, name, public), entries, passthrough = firewalld.written
    assert (name, public["rules_str"].value) == ("public", [PERMANENT, "rule added meanwhile", OTHERS])
    assert public["masquerade"].value is True
    assert public["ports"].value == [["1", "tcp"]]
    assert "target" not in public, "firewalld takes no text there"
    assert entries == ("setEntries", "set", ["10.0.0.1", "10.0.0.2"])
    assert passthrough == ("addPassthrough", "ipv4", ["-N", "x"])


def test_reload_that_drops_nothing_writes_nothing() -> None:
    firewalld = Firewalld()
    firewalld.zones["public"] = zone([PERMANENT, OURS])
    firewalld.entries, firewalld.passthroughs = {"set": ["10.0.0.1"]}, []
    reload(firewalld)
    assert firewalld.written == []


def test_zone_that_is_gone_after_the_reload_is_not_written() -> None:
    firewalld = Firewalld()
    firewalld.zones["temporary"] = zone([OTHERS])
    firewalld.gone.add("temporary")
    reload(firewalld)
    assert [written[:2] for written in firewalld.written[:2]] == [("setZoneSettings2", "public"), ("setEntries", "set")]


def test_zone_that_cannot_be_read_is_left_out() -> None:
    firewalld = Firewalld()
    firewalld.errors["getZoneSettings2"] = FirewallError("INVALID_ZONE: public", "INVALID_ZONE")
    reload(firewalld)
    assert [written[0] for written in firewalld.written] == ["setEntries", "addPassthrough"]


def test_zone_without_rules_gets_its_other_settings_back() -> None:
    firewalld = Firewalld()
    firewalld.zones["public"] = {"masquerade": Variant("b", True)}
    reload(firewalld)
    (_, _, public), *_ = firewalld.written
    assert public["masquerade"].value is True


def test_direct_rule_that_the_reload_keeps_is_not_added_again() -> None:
    firewalld = Firewalld()
    firewalld.kept = [["ipv4", ["-N", "y"]]]
    firewalld.passthroughs += firewalld.kept
    reload(firewalld)
    assert [written for written in firewalld.written if written[0] == "addPassthrough"] == [
        ("addPassthrough", "ipv4", ["-N", "x"])
    ]


def test_release_without_policies_and_direct_rules_is_reloaded() -> None:
    firewalld = Firewalld()
    for member in ("getPolicies", "getAllChains", "getAllRules", "getAllPassthroughs"):
        firewalld.errors[member] = FirewallError("no such method")
    reload(firewalld)
    assert [written[0] for written in firewalld.written] == ["setZoneSettings2", "setEntries"]


def test_settings_that_firewalld_refuses_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    firewalld = Firewalld()
    firewalld.errors["setZoneSettings2"] = FirewallError("INVALID_SETTING", "INVALID_SETTING")
    reload(firewalld)
    assert "setZoneSettings2 failed after the reload: INVALID_SETTING" in caplog.text


def test_direct_rules_that_are_denied_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    firewalld = Firewalld()
    for member in ("getAllChains", "getAllRules", "getAllPassthroughs"):
        firewalld.errors[member] = FirewallError("Not Authorized", NOT_AUTHORIZED)
    reload(firewalld)
    assert caplog.text.count("direct rules are denied to this user") == 1
    assert [written[0] for written in firewalld.written] == ["setZoneSettings2", "setEntries"]


@pytest.mark.parametrize("member", ["getZones", "reload", "setEntries"])
def test_firewalld_that_goes_away_ends_it(member: str) -> None:
    firewalld = Firewalld()
    firewalld.errors[member] = FirewallError("gone", UNREACHABLE)
    with pytest.raises(FirewallError, match="gone"):
        reload(firewalld)
