"""A real scanner, and a scan by hand: no door."""

from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, doors
from tests.helpers.sniffed import sniffing, whole_sequence

SORTED = [f"tcp:{port}" for port in (1700, 1800, 1900)]
SCAN = ["nmap", "-n", "-Pn", "--max-retries", "0", "-T5", "--min-rate", "3000", "--host-timeout", "60s", "-p", "1-6000"]
SCANS = {
    "SYN, in rising order": ["-sS", "-r"],
    "SYN, in nmap's own order": ["-sS"],
    "UDP, in rising order": ["-sU", "-r"],
}


@pytest.mark.parametrize("options", SCANS.values(), ids=SCANS)
def test_a_real_scanner_opens_no_door(box: Sandbox, client: ClientHost, tmp_path: Path, options: list[str]) -> None:
    steps = [step.replace("tcp", "udp") for step in SORTED] if "-sU" in options else SORTED
    usual: dict[str, object] = {
        "name": "other",
        "steps": ["udp:21501", "udp:21503", "udp:21502"],
        "open": [GUARDED + 1],
    }
    daemon = sniffing(
        box,
        tmp_path,
        {"steps": steps, "timeout": 600, "traps": 512},
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


def test_without_traps_the_same_scan_opens_it(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """So the tests above can fail."""
    daemon = sniffing(box, tmp_path, {"steps": SORTED, "timeout": 600, "traps": 0})
    client.run([*SCAN, "-sS", "-r", str(client.server4)], timeout=90)
    daemon.wait_for(f"{client.address4}: opened")


def test_ordinary_connections_to_served_ports_cost_nothing(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
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
