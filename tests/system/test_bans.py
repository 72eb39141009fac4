"""Who is banned in firewalld is not let in by a knock, unless the configuration says so."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, wait_open, wait_shut
from tests.helpers.sniffed import sniffing, whole_sequence
from tests.helpers.waiting import wait_until

SOURCE = 'rule family="ipv4" source address="10.0.1.2"'

POLICY = """<?xml version="1.0"?>
<policy target="CONTINUE"><ingress-zone name="ANY"/><egress-zone name="HOST"/></policy>
"""


class Ban(NamedTuple):
    """What firewalld gets, and what the log says of it; whether a door wins over it with `doors_for_banned`."""

    zone: str
    source: str
    reason: str
    door_wins: bool = True


BANS = {
    "an address in zone drop": Ban("drop", "10.0.1.2", "address is in zone drop, whose target is DROP"),
    "a network in zone block": Ban("block", "10.0.1.0/24", "address is in zone block, whose target is REJECT"),
    "a set in zone drop": Ban("drop", "ipset:bad", "address is in zone drop, whose target is DROP"),
    "a rule": Ban("public", f"{SOURCE} reject", "of zone public denies the address", door_wins=False),
    "a rule for the port": Ban(
        "public", f'{SOURCE} port port="{GUARDED}" protocol="tcp" drop', "of zone public denies", door_wins=False
    ),
    "a rule for a network": Ban(
        "public", 'rule family="ipv4" source address="10.0.0.0/16" drop', "of zone public denies", door_wins=False
    ),
    "a rule for a set": Ban("public", 'rule source ipset="bad" drop', "of zone public denies", door_wins=False),
    "a rule of a policy": Ban("policy strict", f"{SOURCE} drop", "of policy strict denies", door_wins=False),
    "a rule behind the door": Ban(
        "public", f"{SOURCE} reject".replace("rule", 'rule priority="32000"'), "of zone public"
    ),
}
NO_BANS = {
    "an interface in zone drop": ("drop", "to-client"),
    "a rule for another address": ("public", SOURCE.replace("10.0.1.2", "10.0.2.2") + " drop"),
    "a rule for another port": ("public", f'{SOURCE} port port="9" protocol="tcp" drop'),
}


@pytest.fixture
def box(box: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, with a set of banned addresses, a policy and a service on the guarded port."""
    box.firewall_cmd("--permanent", "--new-ipset=bad", "--type=hash:net")
    box.firewall_cmd("--permanent", "--ipset=bad", "--add-entry=10.0.1.0/24")
    box.server.run(["tee", "/etc/firewalld/policies/strict.xml"], text=POLICY)
    box.firewall_cmd("--reload")
    with box.server.listen(GUARDED):
        yield box


def change(box: Sandbox, member: str, zone: str, what: str) -> None:
    """`add` or `remove` a source, an interface or a rich rule."""
    if zone.startswith("policy"):
        box.firewall_cmd(f"--{zone.replace(' ', '=')}", f"--{member}-rich-rule={what}")
    elif what.startswith("rule"):
        box.firewalld.ask("zone", f"{member}RichRule", zone, what, *([0] if member == "add" else []))
    else:
        kind = "Source" if what.startswith(("10.", "ipset:")) else "Interface"
        box.firewalld.ask("zone", f"{member}{kind}", zone, what)


def test_banned_address_is_not_let_in_and_the_log_says_why(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 1})
    for name, (zone, source, reason, _) in BANS.items():
        change(box, "add", zone, source)
        before = len(daemon.stderr.lines)
        whole_sequence(client, client.server4)
        line = daemon.stderr.wait_for("not opened", 5, start=before)
        for text in ("10.0.1.2: not opened: ", reason, "set doors_for_banned = true"):
            assert text in line, name
        assert client.connect(client.server4, GUARDED, timeout=0.2) != "open", name
        change(box, "remove", zone, source)
        wait_until(lambda: client.connect(client.server4, GUARDED) == "prohibited", 5, "the ban is gone")
    for zone, what in NO_BANS.values():
        change(box, "add", zone, what)
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
        change(box, "remove", zone, what)
        wait_shut(client, client.server4)


def test_open_door_closes_once_its_address_is_in_zone_drop(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 60})
    whole_sequence(client, client.server4)
    wait_open(client, client.server4)
    change(box, "add", "drop", "10.0.1.0/24")
    daemon.wait_for("10.0.1.2: not opened: address is in zone drop")
    daemon.wait_for("10.0.1.2: closed")
    assert client.connect(client.server4, GUARDED, timeout=0.2) == "timeout"
    assert [zone for zone in ("public", "drop") for rule in box.rules(zone) if "source address" in rule] == []


def test_banned_address_is_let_in_where_the_configuration_says_so(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    sniffing(box, tmp_path, {"duration": 1}, doors_for_banned=True)
    for name, (zone, source, _, door_wins) in BANS.items():
        change(box, "add", zone, source)
        whole_sequence(client, client.server4)
        if door_wins:
            wait_open(client, client.server4)
        else:
            assert client.connect(client.server4, GUARDED, timeout=0.3) != "open", name
        change(box, "remove", zone, source)
        wait_shut(client, client.server4)
