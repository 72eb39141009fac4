"""A real scanner and a scan by hand open no door."""

from itertools import permutations
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.doorstep import said
from tests.helpers.running import GUARDED, doors
from tests.helpers.sniffed import sniffing, whole_sequence

STEPS = (1700, 18000, 49000)
SCAN = [
    "nmap",
    "-n",
    "-Pn",
    "--max-retries",
    "0",
    "-T5",
    "--min-rate",
    "20000",
    "--host-timeout",
    "60s",
    "-p",
    "1-65535",
]
SCANS = {
    "SYN, in rising order": ["-sS", "-r"],
    "SYN, in nmap's own order": ["-sS"],
    "UDP, in rising order": ["-sU", "-r"],
}


def every_order(protocol: str, **keys: object) -> list[dict[str, object]]:
    """A sequence for each order of the steps: whatever a scan's order is, it has the steps of one of them in order."""
    return [
        {"name": f"s{number}", "steps": [f"{protocol}:{port}" for port in ports], "timeout": 600, **keys}
        for number, ports in enumerate(permutations(STEPS))
    ]


@pytest.mark.parametrize("options", SCANS.values(), ids=SCANS)
def test_real_scanner_opens_no_door(box: Sandbox, client: ClientHost, tmp_path: Path, options: list[str]) -> None:
    """All 65,535 ports. In random order the chance of a door is 6 in 16,797,702, by 4,096 traps."""
    usual: dict[str, object] = {
        "name": "other",
        "steps": ["udp:21501", "udp:21503", "udp:21502"],
        "open": [GUARDED + 1],
    }
    daemon = sniffing(
        box,
        tmp_path,
        *every_order("udp" if "-sU" in options else "tcp", traps=4096),
        usual,
        ignoring_period_after_knock_error=0.1,
    )
    client.run([*SCAN, *options, str(client.server4)], timeout=90)
    daemon.wait_for(f"{client.address4}: wrong knock")
    for port in (21501, 21503, 21502):
        stranger = box.hosts["stranger"]
        stranger.send([(stranger.server4, port, b"x")])
    daemon.wait_for(f"{stranger.address4}: opened")
    assert "opened" not in daemon.stderr.text.replace(f"{stranger.address4}: opened", "")
    assert not any(str(client.address4) in rule for rule in doors(box))


@pytest.mark.parametrize("options", [["-sS", "-r"], ["-sS"]], ids=["in rising order", "in nmap's own order"])
def test_same_scan_without_traps_opens_door(
    box: Sandbox, client: ClientHost, tmp_path: Path, options: list[str]
) -> None:
    """So the tests above can fail."""
    daemon = sniffing(box, tmp_path, *every_order("tcp", traps=0), ignoring_period_after_knock_error=0.1)
    for _ in range(5):  # on a busy machine a packet of a scan may be lost
        client.run([*SCAN, *options, str(client.server4)], timeout=90)
        if said(daemon, f"{client.address4}: opened"):
            break
    daemon.wait_for(f"{client.address4}: opened")


def test_ordinary_connections_to_served_ports_change_nothing(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    ports = range(18000, 18040)
    for port in ports:
        box.firewalld.ask("zone", "addPort", "", str(port), "tcp", 0)
    listeners = [box.server.listen(port) for port in ports]
    daemon = sniffing(box, tmp_path, {"traps": 4096})
    with box.server.listen(GUARDED):
        for port in ports:
            assert client.connect(client.server4, port) == "open"
        whole_sequence(client, client.server4)
        for port in ports:
            assert client.connect(client.server4, port) == "open"
        daemon.wait_for(f"{client.address4}: opened")
    assert "wrong knock" not in daemon.stderr.text
    for listener in listeners:
        listener.close()
