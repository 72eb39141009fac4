"""The clients that people knock knockd with, at the door of this daemon in its place: each opens, and once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.in_place_of_knockd import ran, running, write
from tests.helpers.waiting import wait_until

DOORS = """\
[options]
    LogFile = {folder}/log
[syn]
    sequence = 7003,7001,7002:tcp
    tcpflags = syn,!ack
    command = echo syn %IP% >>{folder}/ran
[udp]
    sequence = 7013:udp,7011:udp,7012:udp
    command = echo udp %IP% >>{folder}/ran
[mixed]
    sequence = 7023:udp,7021:tcp,7022:udp
    tcpflags = syn
    command = echo mixed %IP% >>{folder}/ran
[odd]
    sequence = 7033,7031,7032
    tcpflags = fin,psh,!syn
    command = echo odd %IP% >>{folder}/ran
"""
NC = "{nc} -w 1 -z {to} {port} || true"
NMAP = "nmap -n -Pn {family} --max-retries 0 -p {port} {scan} {to} >/dev/null"
HPING = "hping3 -q -c 1 {flags} -p {port} {to} >/dev/null 2>&1 || true"
BOTH, IPV4 = ("4", "6"), ("4",)


def each(line: str, *ports: int, **words: str) -> str:
    """The line for each port; words in braces that are left are the address and its family."""
    return "\n".join(line.format(port=port, to="{to}", family="{family}", **words) for port in ports)


CLIENTS = {
    "knock": ("syn", "knock -d 20 {to} 7003 7001:tcp 7002", BOTH),
    "knock -u": ("udp", "knock -u -d 20 {to} 7013 7011 7012", BOTH),
    "knock, mixed": ("mixed", "knock -d 20 {to} 7023:udp 7021 7022:udp", BOTH),
    "nc of OpenBSD": ("syn", each(NC, 7003, 7001, 7002, nc="nc.openbsd"), BOTH),
    "nc of OpenBSD, UDP": ("udp", each("echo x | nc.openbsd -u -w 1 -q 0 {to} {port}", 7013, 7011, 7012), BOTH),
    "nc, the traditional one": ("syn", each(NC, 7003, 7001, 7002, nc="nc.traditional"), IPV4),
    "nc, the traditional one, UDP": (
        "udp",
        each("echo x | nc.traditional -u -w 1 -q 0 {to} {port} || true", 7013, 7011, 7012),
        IPV4,
    ),
    "ncat": ("syn", each(NC, 7003, 7001, 7002, nc="ncat"), BOTH),
    "ncat, UDP": ("udp", each("echo x | ncat -u --send-only {to} {port}", 7013, 7011, 7012), BOTH),
    "nmap": ("syn", each(NMAP, 7003, 7001, 7002, scan="-sS"), BOTH),
    "nmap, by connections": ("syn", each(NMAP, 7003, 7001, 7002, scan="-sT"), BOTH),
    "nmap, UDP": ("udp", each(NMAP, 7013, 7011, 7012, scan="-sU"), BOTH),
    "nmap, flags": ("odd", each(NMAP, 7033, 7031, 7032, scan="--scanflags FINPSHURG"), BOTH),
    "hping3": ("syn", each(HPING, 7003, 7001, 7002, flags="-S"), IPV4),
    "hping3, UDP": ("udp", each(HPING, 7013, 7011, 7012, flags="-2"), IPV4),
    "hping3, flags": ("odd", each(HPING, 7033, 7031, 7032, flags="-F -P -U"), IPV4),
    "bash": ("syn", each("bash -c ': </dev/tcp/{to}/{port}' 2>/dev/null || true", 7003, 7001, 7002), BOTH),
}
"""The door, a shell's lines, and the families of addresses that the client knows."""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """One for all clients. Its closed ports answer, so that no client waits."""
    with Sandbox() as sandbox:
        link = sandbox.hosts["client"].server_interface
        sandbox.firewall_cmd("--zone=trusted", f"--change-interface={link}")
        yield sandbox


@pytest.fixture(scope="module")
def folder(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the daemon's commands write."""
    path = tmp_path_factory.mktemp("doors")
    (path / "ran").touch()
    conf = write(path / "knockd.conf", DOORS.format(folder=path))
    with running(box.server, conf, "-i", box.hosts["client"].server_interface):
        yield path


@pytest.mark.parametrize(
    ("client_name", "family"), [(name, family) for name, (*_, known) in CLIENTS.items() for family in known]
)
def test_knockd_client_opens_door(client: ClientHost, folder: Path, client_name: str, family: str) -> None:
    door, script, _ = CLIENTS[client_name]
    to, by = (client.server4, client.address4) if family == "4" else (client.server6, client.address6)
    before = len(ran(folder / "ran"))
    client.run(["sh", "-ec", script.format(to=to, family=f"-{family}" if family == "6" else "")])
    wait_until(lambda: len(ran(folder / "ran")) > before, 10, lambda: (folder / "log").read_text())
    assert ran(folder / "ran")[before:] == [f"{door} {by}"]
