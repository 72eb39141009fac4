"""Links appear and vanish, addresses change: the next knock works, and the process never ends."""

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers import tun
from tests.helpers.frames import TCP, UDP, Frame
from tests.helpers.raw_knock import LETTERS
from tests.helpers.running import GUARDED, doors, wait_open, wait_shut
from tests.helpers.sniffed import RIGHT, UDP_STEP, sniffing, whole_sequence


def plug_in(box: Sandbox, client: ClientHost, name: str, number: int) -> None:
    """A second cable between the client and the server, with a subnet of its own."""
    pid = client.run(["sh", "-c", "echo $$; exec sleep 0"]).stdout
    assert pid
    peer = f"{name}-peer"
    box.server.run(["ip", "link", "add", name, "type", "veth", "peer", "name", peer])
    box.server.run(["ip", "link", "set", peer, "netns", netns_of(client)])
    box.server.run(["ip", "address", "add", f"10.9.{number}.1/24", "dev", name])
    box.server.run(["ip", "link", "set", name, "up"])
    client.run(["ip", "address", "add", f"10.9.{number}.2/24", "dev", peer])
    client.run(["ip", "link", "set", peer, "up"])


def netns_of(client: ClientHost) -> str:
    """A process of the client's, by its number on the server, which shares the processes' numbers."""
    return str(client.popen(["sleep", "60"]).inner_pid)


def test_missing_interface_is_captured_each_time_it_appears(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 0.5}, options=("-i", "ppp*", "-i", "late0"))
    daemon.wait_for("interface late0 does not exist")
    with box.server.listen(GUARDED):
        for _again in range(2):
            plug_in(box, client, "late0", 1)
            whole_sequence(client, "10.9.1.1")  # type: ignore[arg-type]
            wait_open(client, "10.9.1.1")  # type: ignore[arg-type]
            box.server.run(["ip", "link", "delete", "late0"])
            daemon.wait_for("interface late0 is gone")
    assert daemon.poll() is None


@pytest.mark.skipif(not tun.can_be_had(), reason=f"{tun.DEVICE} is not there for this user: no link without a header")
def test_link_without_ethernet_header_is_captured_once_it_matches(box: Sandbox, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, options=("-i", "ppp*"))
    daemon.wait_for(r"interface ppp\* does not exist: listening on it once it appears")
    for name, server, knocker in (("vpn0", "10.9.2.1", "10.9.2.2"), ("ppp0", "10.9.3.1", "10.9.3.2")):
        tun.make(box.server, name, f"{server}/24")
        steps = [Frame(protocol=UDP, port=UDP_STEP, payload=3)]
        steps += [Frame(protocol=TCP, port=port, flags=sum(LETTERS[one] for one in flags)) for port, flags in RIGHT]
        if name.startswith("ppp"):
            daemon.wait_for("interface ppp0 exists: listening on it")
        by, to = ip_address(knocker), ip_address(server)
        tun.arrive(box.server, name, [replace(step, source=by, destination=to).packet() for step in steps])
    daemon.wait_for("10.9.3.2: opened")
    assert any("10.9.3.2" in rule for rule in doors(box))
    assert "10.9.2.2" not in daemon.stderr.text, "the one that no pattern names is captured"
    box.server.run(["ip", "link", "delete", "ppp0"])
    daemon.wait_for("interface ppp0 is gone")


def test_named_interfaces_alone_are_captured(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, options=("-i", "to-str*"))
    stranger = box.hosts["stranger"]
    whole_sequence(client, client.server4)
    with box.server.listen(GUARDED):
        whole_sequence(stranger, stranger.server4)
        wait_open(stranger, stranger.server4)
        assert client.connect(client.server4, GUARDED) == "prohibited"
    assert str(client.address4) not in daemon.stderr.text


@pytest.mark.parametrize("options", [(), ("-i", "to-client")], ids=["every interface", "one by name"])
def test_interface_down_and_up_is_captured_again(
    box: Sandbox, client: ClientHost, tmp_path: Path, options: tuple[str, ...]
) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 1}, options=options)
    with box.server.listen(GUARDED):
        for _again in range(2):
            box.server.run(["ip", "link", "set", client.server_interface, "down"])
            box.server.run(["ip", "link", "set", client.server_interface, "up"])
            client.await_link(client.interface, client.address6)
            whole_sequence(client, client.server4)
            wait_open(client, client.server4)
            wait_shut(client, client.server4)
    assert daemon.poll() is None


def test_new_address_counts_at_once_and_removed_one_no_more(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path)
    interface = client.server_interface
    box.server.run(["ip", "address", "add", "10.0.1.77/24", "dev", interface])
    with box.server.listen(GUARDED):
        whole_sequence(client, "10.0.1.77")  # type: ignore[arg-type]
        wait_open(client, "10.0.1.77")  # type: ignore[arg-type]
        wait_shut(client, client.server4)
        box.server.run(["ip", "address", "delete", "10.0.1.77/24", "dev", interface])
        # The link's neighbour is still known, so the packets go on arriving.
        lladdr = json.loads(box.server.run(["ip", "-json", "link", "show", interface]).stdout)[0]["address"]
        client.run(["ip", "neighbour", "replace", "10.0.1.77", "lladdr", lladdr, "dev", client.interface])
        whole_sequence(client, "10.0.1.77")  # type: ignore[arg-type]
        stranger = box.hosts["stranger"]
        whole_sequence(stranger, stranger.server4)
        wait_open(stranger, stranger.server4)
        assert not any(str(client.address4) in rule for rule in doors(box))
    assert daemon.stderr.text.count(f"{client.address4}: opened") == 1


def test_packet_on_bridge_counts_once_and_opens_in_zone_of_bridge(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    interface = client.server_interface
    box.server.run(["ip", "link", "add", "br0", "type", "bridge"])
    box.server.run(["ip", "address", "flush", "dev", interface])
    box.server.run(["ip", "link", "set", interface, "master", "br0"])
    box.server.run(["ip", "address", "add", f"{client.server4}/24", "dev", "br0"])
    box.server.run(["ip", "link", "set", "br0", "up"])
    box.firewall_cmd("--zone=external", "--change-interface=br0")
    daemon = sniffing(box, tmp_path)
    with box.server.listen(GUARDED):
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
    assert len(doors(box, "external")) == 1
    assert "wrong knock" not in daemon.stderr.text
