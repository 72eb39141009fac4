"""What the examination says of this host: whether packets can be captured, and its interfaces."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

import pytest

from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor import host
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import Protocol, Scope, Sequence, Settings, Step
from port_knocking_doors.system.rtnetlink import Link
from tests.unit.control.test_status import SNAPSHOT

SNIFFED = Sequence("ssh", (Step(Protocol.UDP, 7001),))
LISTENED = Sequence("main", (Step(Protocol.UDP, 7001),), listened=True)
CAPABILITIES = {
    "granted": ("CapPrm:\t0000000000002000\n", ok("sniffing: permitted (CAP_NET_RAW)")),
    "not granted": (
        "CapPrm:\t0000000000001000\n",
        problem(
            "sniffing: permission denied: run the daemon as root, or grant it CAP_NET_RAW "
            "(AmbientCapabilities=CAP_NET_RAW in a systemd unit)"
        ),
    ),
}
DAEMONS = {
    "sniffs": (replace(SNAPSHOT, sniffing=True, sniffer_seen=8), ok("sniffing: running, 8 packets so far")),
    "does not": (
        replace(SNAPSHOT, sniffing=False),
        problem("sniffing: not running: run `port-knocking-doors reload`, or restart the daemon; see its log"),
    ),
}


@pytest.mark.parametrize(("status", "finding"), CAPABILITIES.values(), ids=CAPABILITIES)
def test_capability_of_this_process_decides_without_a_daemon(
    status: str, finding: Finding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(f"Name:\tx\n{status}")
    monkeypatch.setattr(host, "PROC", tmp_path)
    assert list(host.about_capability(Settings(sequences=(SNIFFED,)), None)) == [finding]


@pytest.mark.parametrize(("snapshot", "finding"), DAEMONS.values(), ids=DAEMONS)
def test_running_daemon_shows_whether_it_sniffs(snapshot: Snapshot, finding: Finding) -> None:
    assert list(host.about_capability(Settings(sequences=(SNIFFED,)), snapshot)) == [finding]


def test_capability_is_not_looked_for_without_a_sniffed_sequence() -> None:
    assert list(host.about_capability(Settings(sequences=(LISTENED,)), None)) == []


def test_interface_and_target_that_do_not_exist_are_problems() -> None:
    elsewhere = replace(SNIFFED, scope=Scope(ip_address("192.0.2.99"), ("nosuch0",)))
    found = list(host.about_links(Settings(sequences=(elsewhere,), interfaces=("lo", "wg*x"))))
    assert problem("interface nosuch0: not found, so no sniffed knock is received there") in found
    assert problem("interface wg*x: not found, so no sniffed knock is received there") in found
    assert problem("sequence ssh: its target 192.0.2.99 is no address of this host") in found
    assert not any("interface lo:" in one.text for one in found)


class Refusing:
    """The kernel gives no list of interfaces."""

    def __enter__(self) -> None:
        raise DoorsError("the kernel does not report network interfaces: refused")

    def __exit__(self, *_: object) -> None: ...


class Down:
    """Interfaces without an address that others reach."""

    links: ClassVar = {
        1: Link("lo", 1, up=True, addresses={ip_address("127.0.0.1").packed}),
        2: Link("eth0", 2, up=False, addresses={ip_address("192.0.2.1").packed}),
        3: Link("eth1", 3, up=True),
    }

    def __enter__(self) -> "Down":
        return self

    def __exit__(self, *_: object) -> None: ...


def test_host_without_a_usable_interface_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "InterfaceMonitor", Down)
    assert list(host.about_links(Settings(interfaces=("eth0",)))) == [
        problem("interfaces: none is up and has an address: `ip address` shows them")
    ]
    assert host.used_interfaces() == []


@pytest.mark.parametrize("user", [0, 1000])
def test_root_may_sniff_where_the_kernel_shows_no_capabilities(
    user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\n")
    monkeypatch.setattr(host, "PROC", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: user)
    (found,) = host.about_capability(Settings(sequences=(SNIFFED,)), None)
    assert found == (CAPABILITIES["not granted"] if user else CAPABILITIES["granted"])[1]


def test_kernel_that_refuses_the_list_of_interfaces_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "InterfaceMonitor", Refusing)
    assert list(host.about_links(Settings())) == [
        warning("interfaces: the kernel does not report network interfaces: refused")
    ]
    assert host.used_interfaces() == []
