"""Doors open in the zone that the knocker's packets fall into, whatever an administrator does with zones."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import (
    GUARDED,
    SEQUENCE,
    await_time,
    begin_daemon,
    door_rule,
    doors,
    knock,
    knock_port_rules,
    start_daemon,
    wait_open,
    wait_shut,
    write_configuration,
)
from tests.helpers.waiting import wait_until

CLIENTS_NETWORKS = ("10.0.1.0/24", "fd00:0:0:1::/64")


@pytest.fixture
def box(box: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, with a service on the guarded port."""
    with box.server.listen(GUARDED):
        yield box


@pytest.fixture
def stranger(box: Sandbox) -> ClientHost:
    return box.hosts["stranger"]


def put_into(box: Sandbox, zone: str, host: ClientHost) -> None:
    box.firewall_cmd(f"--zone={zone}", f"--change-interface={host.server_interface}")


def every_rule(box: Sandbox) -> dict[str, list[str]]:
    """The rich rules of every zone that has any."""
    standing = {zone: box.rules(zone) for zone in box.firewalld.ask("zone", "getZones")}
    return {zone: rules for zone, rules in standing.items() if rules}


def zones_of(box: Sandbox, rule: str) -> list[str]:
    return sorted(zone for zone, rules in every_rule(box).items() if rule in rules)


def await_zones(box: Sandbox, rule: str, *zones: str) -> None:
    wait_until(lambda: zones_of(box, rule) == sorted(zones), 5, lambda: f"{rule} in {zones}: {every_rule(box)}")


def await_knock_ports(box: Sandbox, *zones: str) -> None:
    for rule in knock_port_rules():
        await_zones(box, rule, *zones)


# --- the zone of the interface


def test_door_opens_in_zone_of_interface_not_in_default_zone(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    put_into(box, "external", client)
    daemon = start_daemon(box, tmp_path)
    assert client.connect(client.server4, GUARDED) == "prohibited"
    for server, own in ((client.server4, client.address4), (client.server6, client.address6)):
        knock(client, server)
        wait_open(client, server)
        assert zones_of(box, door_rule(own)) == ["external"]
        daemon.wait_for(f"{own}: opened .* in zone external")
    assert stranger.connect(stranger.server4, GUARDED) == "prohibited"
    assert doors(box, "public") == []


def test_knock_ports_are_open_in_every_active_zone(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    put_into(box, "external", client)
    daemon = start_daemon(box, tmp_path)
    await_knock_ports(box, "external", "public")
    put_into(box, "internal", stranger)
    await_knock_ports(box, "external", "internal", "public")
    for host, zone in ((client, "external"), (stranger, "internal")):
        knock(host, host.server4)
        wait_open(host, host.server4)
        assert zones_of(box, door_rule(host.address4)) == [zone]
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert every_rule(box) == {}
    for host in (client, stranger):
        assert host.connect(host.server4, GUARDED) == "prohibited"
        assert host.connect(host.server4, SEQUENCE[0], protocol="udp") == "prohibited"


# --- the zone of the source


@pytest.mark.parametrize("sources", [CLIENTS_NETWORKS, ("10.0.1.2", "fd00:0:0:1::2")], ids=["networks", "addresses"])
def test_zone_of_source_overrides_zone_of_interface(
    box: Sandbox, client: ClientHost, tmp_path: Path, sources: tuple[str, str]
) -> None:
    put_into(box, "external", client)
    for source in sources:
        box.firewall_cmd("--zone=work", f"--add-source={source}")
    start_daemon(box, tmp_path)
    for server, own in ((client.server4, client.address4), (client.server6, client.address6)):
        assert client.connect(server, GUARDED) == "prohibited"
        knock(client, server)
        wait_open(client, server)
        assert zones_of(box, door_rule(own)) == ["work"]


@pytest.mark.parametrize(
    ("wide", "narrow"), [("internal", "work"), ("work", "internal")], ids=["wide name first", "narrow name first"]
)
def test_door_opens_in_zone_that_firewalld_prefers_of_two_sources(
    box: Sandbox, client: ClientHost, tmp_path: Path, wide: str, narrow: str
) -> None:
    box.firewall_cmd(f"--zone={wide}", "--add-source=10.0.0.0/16")
    box.firewall_cmd(f"--zone={narrow}", "--add-source=10.0.1.2")
    start_daemon(box, tmp_path)
    knock(client, client.server4)
    wait_open(client, client.server4)


def test_source_may_be_an_ipset(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    box.firewall_cmd("--permanent", "--new-ipset=friends", "--type=hash:ip")
    box.firewall_cmd("--permanent", "--ipset=friends", f"--add-entry={client.address4}")
    box.firewall_cmd("--permanent", "--zone=work", "--add-source=ipset:friends")
    box.firewall_cmd("--reload")
    start_daemon(box, tmp_path)
    knock(client, client.server4)
    wait_open(client, client.server4)
    assert zones_of(box, door_rule(client.address4)) == ["work"]


def test_set_that_another_program_fills_is_warned_of(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    box.firewall_cmd("--permanent", "--new-ipset=friends", "--type=hash:net")
    box.firewall_cmd("--permanent", "--ipset=friends", "--add-entry=192.0.2.0/24")
    box.firewall_cmd("--permanent", "--zone=work", "--add-source=ipset:friends")
    box.firewall_cmd("--reload")
    daemon = start_daemon(box, tmp_path)
    addition = ["nft", "add", "element", "inet", "firewalld", "friends", "{ 10.0.1.0/24 }"]
    is_filled = box.server.run(addition, check=False).returncode == 0  # from 2.2 on only firewalld itself can
    knock(client, client.server4)
    if is_filled:
        daemon.wait_for('10.0.1.2: may be in zone work, by its source ipset:friends .* set zone = "work"')
        assert client.connect(client.server4, GUARDED) == "prohibited"
        doctor = box.server.run(
            [sys.executable, "-m", "port_knocking_doors", "doctor", "--conf", str(tmp_path / "port_knocker.toml")],
            check=False,
        )
        assert (
            "may be in zone work, by its source ipset:friends (the kernel has 2 entries and firewalld 1"
            in doctor.stdout
        )
    else:
        wait_open(client, client.server4)
        assert "may be in zone" not in daemon.stderr.text


def test_door_opens_in_zone_of_a_pattern_of_interfaces(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    box.firewall_cmd("--zone=work", "--add-interface=to-c+")
    box.firewall_cmd("--zone=home", "--add-interface=to-s+")
    start_daemon(box, tmp_path)
    knock(client, client.server4)
    wait_open(client, client.server4)
    assert zones_of(box, door_rule(client.address4)) == ["work"]


# --- a zone by name


@pytest.mark.parametrize(
    ("options", "keys"),
    [([], {"zone": "external"}), (["--zone", "external"], {}), (["--zone", "external"], {"zone": "work"})],
    ids=["in the file", "as an option", "the option beats the file"],
)
def test_configured_zone_holds_all_rules(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path, options: list[str], keys: dict[str, str]
) -> None:
    put_into(box, "external", client)
    start_daemon(box, tmp_path, *options, **keys)
    assert every_rule(box).keys() == {"external"}
    assert set(box.rules("external")) == knock_port_rules()
    wait_until(
        lambda: stranger.connect(stranger.server4, SEQUENCE[0], protocol="udp") == "prohibited",
        10,
        "a stranger refused",
    )
    knock(client, client.server4)
    wait_open(client, client.server4)
    assert every_rule(box).keys() == {"external"}
    assert doors(box, "external") == [door_rule(client.address4)]


@pytest.mark.parametrize("place", ["the file", "--zone"])
def test_unknown_zone_is_one_line_and_opens_nothing(
    box: Sandbox, client: ClientHost, tmp_path: Path, place: str
) -> None:
    before = box.nft()
    conf = write_configuration(tmp_path, **({"zone": "nosuch"} if place == "the file" else {}))
    daemon = begin_daemon(box, conf, *(["--zone", "nosuch"] if place == "--zone" else []))
    assert daemon.wait(10) == 2
    (line,) = daemon.stderr.lines
    assert "'nosuch'" in line
    assert "public" in line, "it says which ones there are"
    assert (str(conf) if place == "the file" else "--zone") in line
    assert every_rule(box) == {}
    assert box.nft() == before
    assert client.connect(client.server4, SEQUENCE[0], protocol="udp") == "prohibited"


# --- zones that change while the daemon runs


def test_door_follows_its_interface_into_another_zone(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=3)
    knock(client, client.server4)
    wait_open(client, client.server4)
    put_into(box, "external", client)
    wait_open(client, client.server4, within=1)
    await_zones(box, door_rule(client.address4), "external")
    knock(client, client.server4)
    daemon.wait_for(f"{client.address4}: prolonged")
    wait_shut(client, client.server4)
    assert zones_of(box, door_rule(client.address4)) == []


def test_door_follows_its_source_into_another_zone_and_back(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path, max_opened_door_duration=30)
    knock(client, client.server4)
    wait_open(client, client.server4)
    box.firewall_cmd("--zone=work", "--add-source=10.0.1.0/24")
    wait_open(client, client.server4, within=1)
    await_zones(box, door_rule(client.address4), "work")
    box.firewall_cmd("--zone=work", "--remove-source=10.0.1.0/24")
    wait_open(client, client.server4, within=1)
    await_zones(box, door_rule(client.address4), "public")
    await_knock_ports(box, "public")


def test_doors_and_knock_ports_follow_default_zone(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    start_daemon(box, tmp_path, max_opened_door_duration=30)
    knock(client, client.server4)
    wait_open(client, client.server4)
    box.firewall_cmd("--set-default-zone=work")
    wait_open(client, client.server4, within=1)
    await_zones(box, door_rule(client.address4), "work")
    await_knock_ports(box, "work")
    knock(stranger, stranger.server4)
    wait_open(stranger, stranger.server4)
    assert zones_of(box, door_rule(stranger.address4)) == ["work"]


def test_deleted_configured_zone_is_one_line_and_daemon_runs_on(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    box.firewall_cmd("--permanent", "--new-zone=attic")
    box.firewall_cmd("--permanent", "--zone=attic", f"--add-interface={client.server_interface}")
    box.firewall_cmd("--reload")
    daemon = start_daemon(
        box, tmp_path, zone="attic", firewall_rules_check_periode_seconds=0.2, max_opened_door_duration=30
    )
    knock(client, client.server4)
    wait_open(client, client.server4)
    box.firewall_cmd("--permanent", "--delete-zone=attic")
    box.firewall_cmd("--reload")
    daemon.wait_for("ERROR .*zone attic")
    await_time(time.monotonic() + 0.7)  # some checks go by, each of which finds the same
    assert sum("attic" in line and "ERROR" in line for line in daemon.stderr.lines) == 1
    assert client.connect(client.server4, GUARDED) == "prohibited"

    box.firewall_cmd("--permanent", "--new-zone=attic")
    box.firewall_cmd("--permanent", "--zone=attic", f"--add-interface={client.server_interface}")
    box.firewall_cmd("--reload")
    wait_open(client, client.server4)
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert every_rule(box) == {}


def test_door_of_deleted_zone_moves_to_next_zone(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    box.firewall_cmd("--permanent", "--new-zone=attic")
    box.firewall_cmd("--permanent", "--zone=attic", f"--add-interface={client.server_interface}")
    box.firewall_cmd("--reload")
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=30)
    knock(client, client.server4)
    wait_open(client, client.server4)
    assert zones_of(box, door_rule(client.address4)) == ["attic"]
    box.firewall_cmd("--permanent", "--delete-zone=attic")
    box.firewall_cmd("--reload")
    wait_open(client, client.server4)
    await_zones(box, door_rule(client.address4), "public")
    assert not any("ERROR" in line for line in daemon.stderr.lines)


# --- the administrator's word is the last


@pytest.mark.parametrize("verdict", ["reject", "drop"])
@pytest.mark.parametrize("scope", ["", f'port port="{GUARDED}" protocol="tcp" '], ids=["everything", "the port"])
def test_administrators_denial_overrides_door(
    box: Sandbox, client: ClientHost, tmp_path: Path, verdict: str, scope: str
) -> None:
    denial = f'rule family="ipv4" source address="{client.address4}" {scope}{verdict}'
    start_daemon(box, tmp_path)
    knock(client, client.server4)
    wait_open(client, client.server4)
    box.firewall_cmd(f"--add-rich-rule={denial}")
    assert client.connect(client.server4, GUARDED, timeout=0.3) in ("refused", "timeout")
    assert doors(box) == [door_rule(client.address4)]
    box.firewall_cmd(f"--remove-rich-rule={denial}")
    assert client.connect(client.server4, GUARDED) == "open"
