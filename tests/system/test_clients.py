"""Clients that try again: their repeated packets and second connections, in zones that reject and that drop."""

import sys
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED
from tests.helpers.sniffed import sniffing
from tests.helpers.waiting import wait_until

PORTS = (21500, 21553, 21507)

EACH = f"for port in {' '.join(map(str, PORTS))}; do {{}}; done"
PARALLEL = f"""
import socket, time
sockets = []
for port in {PORTS}:
    for _ in range(3):
        sock = socket.socket(); sock.setblocking(False); sock.connect_ex(("SERVER", port)); sockets.append(sock)
    time.sleep(PAUSE)
time.sleep(3)
"""
"""Three connections to each port, as browsers make them, which stay open: TCP sends each SYN again."""

CLIENTS = {
    "curl that retries": EACH.format(
        "curl -s --connect-timeout 1.3 --retry 1 --retry-delay 1 --retry-all-errors http://SERVER:$port/"
    ),
    "wget that retries": EACH.format("wget -q -T 1.3 -t 2 -O /dev/null http://SERVER:$port/"),
    "nmap that retries": EACH.format("nmap -n -Pn -sS --max-retries 2 --host-timeout 3s -p $port SERVER"),
    "nmap that connects": EACH.format("nmap -n -Pn -sT --max-retries 2 --host-timeout 3s -p $port SERVER"),
    "netcat": EACH.format("nc -z -w 2 SERVER $port"),
    "a shell": EACH.format("timeout 1.3 bash -c ': </dev/tcp/SERVER/'$port"),
    "three connections to each": f"{sys.executable} -c '{PARALLEL.replace('PAUSE', '0.2')}'",
    "three connections to each, slowly": f"{sys.executable} -c '{PARALLEL.replace('PAUSE', '1.2')}'",
    "hping3 with three packets": EACH.format("hping3 -q -c 3 -i u200000 -S -p $port SERVER"),
}


def test_one_connection_is_one_knock_however_often_its_syn_comes(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    """Of three equal steps: the zone drops, so TCP sends the SYN of a connection after one and three seconds again."""
    box.firewall_cmd("--zone=drop", f"--change-interface={client.server_interface}")
    daemon = sniffing(
        box,
        tmp_path,
        {"steps": [f"tcp:{PORTS[0]}"] * 3, "timeout": 30, "open": [GUARDED], "traps": None},
        options=("-v",),
    )
    assert client.connect(client.server4, PORTS[0], timeout=3.5) == "timeout"
    daemon.wait_for(f"{client.address4}: knock repeated")
    assert "step 2" not in daemon.stderr.text
    for _ in range(2):
        client.connect(client.server4, PORTS[0], timeout=1.2)
    daemon.wait_for(f"{client.address4}: opened")
    assert "wrong knock" not in daemon.stderr.text


@pytest.mark.parametrize("zone", ["public", "drop"])
def test_client_that_tries_again_opens_the_door(box: Sandbox, tmp_path: Path, zone: str) -> None:
    daemon = sniffing(
        box,
        tmp_path,
        {"steps": [f"tcp:{port}" for port in PORTS], "timeout": 30, "duration": 60, "open": [GUARDED]},
        ignoring_period_after_knock_error=60,
    )
    hosts: dict[str, ClientHost] = {}
    for number, (name, script) in enumerate(CLIENTS.items()):
        host = hosts[name] = box.add_client(f"tries{number}")
        box.firewall_cmd(f"--zone={zone}", f"--change-interface={host.server_interface}")
        host.popen(["bash", "-c", script.replace("SERVER", str(host.server4))])

    def shut() -> list[str]:
        return [name for name, host in hosts.items() if f" {host.address4}: opened" not in daemon.stderr.text]

    wait_until(lambda: not shut(), 30, lambda: f"opens nothing: {shut()}: {daemon.stderr.text}")
    assert "wrong knock" not in daemon.stderr.text
