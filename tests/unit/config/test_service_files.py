"""Services by their names, from the system's files."""

import os
from pathlib import Path

import pytest

from port_knocking_doors.config import service_files
from port_knocking_doors.model import Port, Protocol

UDP = Protocol.UDP
SERVICES = """\
# name port/protocol aliases
ssh\t\t22/tcp\t\t\t# SSH
domain 53/tcp
domain 53/udp nameserver
backdoor 4711/tcp bd back # mine
echo 7/ddp
"""
FIREWALLD = {
    "ssh": '<port protocol="tcp" port="2222"/>',
    "dns": '<port protocol="tcp" port="53"/><port protocol="udp" port="53"/>',
    "mine": '<short>Mine</short><include service="ssh"/><port protocol="udp" port="60000-60002"/>',
    "esp": '<protocol value="esp"/>',
    "itself": '<include service="itself"/>',
    "wide": '<port protocol="udp" port="60000-61000"/>',
    "backwards": '<port protocol="udp" port="60002-60000"/>',
    "named": '<port protocol="tcp" port="ssh"/>',
    "sctp": '<port protocol="sctp" port="22"/>',
    "broken": "<port",
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, ...]:
    own, shipped = tmp_path / "etc", tmp_path / "usr"
    for folder in (own, shipped):
        folder.mkdir()
    for name, ports in FIREWALLD.items():
        (shipped / f"{name}.xml").write_text(f'<?xml version="1.0"?><service>{ports}</service>')
    (own / "dns.xml").write_text('<service><port protocol="udp" port="5353"/></service>')
    return own, shipped


@pytest.mark.parametrize(
    ("name", "protocol", "port"),
    [
        ("ssh", Protocol.TCP, 22),
        ("ssh", UDP, None),
        ("nameserver", UDP, 53),
        ("back", Protocol.TCP, 4711),
        ("https", Protocol.TCP, 443),  # in no file: well known
        ("gnu", Protocol.TCP, None),
        ("echo", Protocol.TCP, None),
    ],
)
def test_port_of_a_service(tmp_path: Path, name: str, protocol: Protocol, port: int | None) -> None:
    path = tmp_path / "services"
    path.write_text(SERVICES)
    assert service_files.of_system(path, ()).port(name, protocol) == port


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("ssh", (Port(2222),)),
        ("dns", (Port(5353, UDP),)),  # the administrator's file
        ("mine", (Port(2222), *(Port(60000 + number, UDP) for number in range(3)))),
        ("esp", None),
        ("itself", None),
        ("wide", None),
        ("backwards", None),
        ("named", None),
        ("sctp", None),
        ("broken", None),
        ("none", None),
        ("../usr/ssh", None),
        ("", None),
    ],
)
def test_ports_of_a_service_of_firewalld(
    folders: tuple[Path, ...], tmp_path: Path, name: str, ports: tuple[Port, ...] | None
) -> None:
    assert service_files.of_system(tmp_path / "none", folders).firewalld(name) == ports


def test_folder_that_the_user_may_not_enter_is_skipped(
    folders: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = folders
    own.chmod(0o600)  # firewalld's is 0750
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "access", lambda path, _: path != own)
    assert service_files.of_system(tmp_path / "none", folders).firewalld("dns") == (Port(53), Port(53, UDP))


def test_well_known_services_need_no_file(tmp_path: Path) -> None:
    known = service_files.of_system(tmp_path / "none", (tmp_path / "none",))
    assert known.port("ssh", Protocol.TCP) == 22
    assert known.firewalld("dns") == (Port(53), Port(53, UDP))
