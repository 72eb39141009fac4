"""What keeps this host's network from being copied, with scripts in place of ip and nft. The system tests copy one."""

import os
import resource
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors.doctor import host_copy
from port_knocking_doors.doctor.host_copy import HostCopy
from port_knocking_doors.doctor.kernel_tables import KernelTables
from port_knocking_doors.doctor.programs import NotProvenError, TimeLimit
from port_knocking_doors.model import Port, Protocol
from tests.unit.doctor.test_kernel_tables import program

LINKS = {"eth0": [ip_address("10.0.0.1"), ip_address("fd00::1")]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has all programs, and nothing that changes this process."""
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setattr("port_knocking_doors.doctor.programs._ADMINISTRATORS_PATH", "")
    monkeypatch.setattr(host_copy, "PROC_SYS", tmp_path / "sys")
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    program(tmp_path, "nft")
    return tmp_path


def copied() -> HostCopy:
    return HostCopy(LINKS, ["docker0"], [ip_address("192.0.2.77")], [], TimeLimit(10))


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            "Error: Unknown device type.",
            "cannot copy this host's network: ip: Error: Unknown device type.: modprobe veth",
        ),
        ("RTNETLINK answers: No", "cannot copy this host's network: ip: RTNETLINK answers: No"),
    ],
)
def test_links_that_cannot_be_made_prove_nothing(said: str, error: str, folder: Path) -> None:
    program(folder, "ip", errors=f"{said}\n", status=1)
    with pytest.raises(NotProvenError) as raised, copied():
        pass
    assert str(raised.value) == error


def test_missing_program_is_named_before_anything_is_made(folder: Path) -> None:
    with pytest.raises(NotProvenError, match="`ip` not found: install iproute2"):
        copied()


def test_sockets_that_the_system_refuses_prove_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    program(folder, "ip")
    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(NotProvenError, match="cannot copy this host's network: Too many open files"), copied():
        pass


@pytest.mark.parametrize(("refused", "is_copied"), [(socket.AF_INET6, True), (socket.AF_INET, False)])
def test_kernel_without_ipv6_is_copied_and_one_without_ipv4_is_not(
    refused: socket.AddressFamily, is_copied: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets, real = [], socket.socket

    def made(family: socket.AddressFamily, kind: int) -> socket.socket:
        if family is refused:
            raise OSError(97, "Address family not supported by protocol")
        sockets.append(real(family, kind))
        return sockets[-1]

    program(folder, "ip")
    monkeypatch.setattr(socket, "socket", made)
    copy = HostCopy({}, [], [], [Port(0, Protocol.UDP), Port(0)], TimeLimit(10))
    if is_copied:
        with copy:
            assert [one.getsockname()[0] for one in sockets] == ["0.0.0.0", "0.0.0.0"]
        assert [one.fileno() for one in sockets] == [-1, -1], "closed"
    else:
        with pytest.raises(NotProvenError, match="cannot copy this host's network: Address family not supported"), copy:
            pass


def test_tables_that_nft_refuses_prove_nothing(folder: Path) -> None:
    program(folder, "ip")
    program(folder, "nft", errors="/dev/stdin:1:1-5: Error: syntax error\n", status=1)
    with pytest.raises(NotProvenError, match="cannot copy the kernel's tables: nft: /dev/stdin:1:1-5: Error: syntax"):
        copied().load(KernelTables(()))


def test_sets_of_iptables_are_restored_before_its_rules(folder: Path) -> None:
    program(folder, "ip")
    for name in ("ipset", "iptables-nft-restore"):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/ran\n')
        script.chmod(0o755)
    copied().load(
        KernelTables((), (("ipset", "create banned hash:ip\n"), ("iptables-nft-restore", "*filter\nCOMMIT\n")))
    )
    assert (folder / "ran").read_text() == "ipset restore\niptables-nft-restore --noflush\n"
