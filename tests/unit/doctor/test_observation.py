"""What is seen of a copy of this host that only pretends: which packets are sent, and what is made of them."""

from collections.abc import Iterable
from ipaddress import ip_address

import pytest

from port_knocking_doors.doctor import observation
from port_knocking_doors.doctor.host_copy import Probe
from port_knocking_doors.doctor.kernel_tables import KernelTables
from port_knocking_doors.doctor.observation import SOURCES, Observation, Passage, Way, observe
from port_knocking_doors.doctor.programs import NotProvenError
from port_knocking_doors.doctor.ruleset import Table
from port_knocking_doors.doctor.trace import Decision
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.model import Address, Port, Protocol
from port_knocking_doors.system.rtnetlink import Link

SSH, WEB = Port(22), Port(80)
KNOCK, OTHER_KNOCK = Port(7001, Protocol.UDP), Port(7002, Protocol.UDP)
CHAINS = "".join(f"\tchain filter_IN_{name}_post {{\n\t}}\n" for name in ("public", "work", "policy_strict"))
FIREWALLD = Table("inet", "firewalld", f"table inet firewalld {{\n{CHAINS}}}\n")
DENIAL = Decision("inet", "firewalld", "filter_INPUT", "drop")
SOME = {SOURCES[3], SOURCES[7]}


def link(name: str, *addresses: str, up: bool = True) -> Link:
    return Link(name, 1, up=up, addresses={ip_address(one).packed for one in addresses})


LINKS = [
    link("lo", "127.0.0.1", "::1"),
    link("eth0", "10.0.0.1", "10.0.0.2", "fd00::1", "fe80::1"),
    link("eth1", "10.1.0.1", up=False),
    link("eth2", "fe80::2"),
    link("docker0", "172.17.0.1"),
    link("wg0", *(f"10.9.0.{number}" for number in range(1, 9))),
]
ETH4, ETH6, WG4 = Way("eth0", 4), Way("eth0", 6), Way("wg0", 4)


class Pretended:
    """A copy of the host whose rules are what a test says: `lets_in` before and after doors."""

    made: list["Pretended"] = []  # noqa: RUF012 emptied for each test

    def __init__(
        self,
        links: dict[str, list[Address]],
        others: list[str],
        sources: list[Address],
        ports: Iterable[Port],
        _: object,
    ) -> None:
        self.links, self.others, self.sources, self.ports = links, others, sources, list(ports)
        self.rules = ""
        self.asked: list[Probe] = []
        self.loaded: list[KernelTables] = []
        self.made.append(self)

    def __enter__(self) -> "Pretended":
        return self

    def __exit__(self, *_: object) -> None: ...

    def load(self, kernel: KernelTables) -> None:
        self.loaded.append(kernel)

    def change(self, commands: str) -> None:
        self.rules = commands

    def arriving(self, packets: Iterable[Probe]) -> set[Probe]:
        return {packet for packet in packets if not self.loaded or self.lets_in(packet)}

    def lets_in(self, packet: Probe) -> bool:
        if packet.port == WEB:
            return packet.source in SOME
        return packet.port == OTHER_KNOCK or (bool(self.rules) and packet.interface == "eth0")

    def decision(self, packet: Probe) -> Decision | None:
        self.asked.append(packet)
        return DENIAL

    def redirected(self) -> frozenset[Port]:
        return frozenset({WEB})


class Monitor:
    """The interfaces of the pretended host."""

    def __init__(self) -> None:
        self.links = dict(enumerate(LINKS))

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Pretended]:
    """The copies that are made."""
    Pretended.made.clear()
    monkeypatch.setattr(observation, "HostCopy", Pretended)
    monkeypatch.setattr(observation, "InterfaceMonitor", Monitor)
    monkeypatch.setattr(observation, "in_namespace", lambda work: work())
    kernel(monkeypatch, FIREWALLD)
    return Pretended.made


def kernel(monkeypatch: pytest.MonkeyPatch, *tables: Table, restores: tuple[tuple[str, str], ...] = ()) -> None:
    monkeypatch.setattr(observation, "read", lambda _limit: KernelTables(tables, restores))


def seen(zone: str = "", skipped: tuple[str, ...] = ("docker0",)) -> Observation:
    return observe([SSH, WEB], [KNOCK, OTHER_KNOCK], zone, skipped)


def test_links_that_are_up_and_have_addresses_are_tested(
    pretended: list[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(
        monkeypatch,
        FIREWALLD,
        Table("ip", "mine", 'table ip mine {\n\t\tiif "docker0" drop\n\t\tiif "eth10" drop\n}\n'),
    )
    seen()
    (host,) = pretended
    assert {name: list(map(str, found)) for name, found in host.links.items()} == {
        "eth0": ["10.0.0.1", "10.0.0.2", "fd00::1"],
        "wg0": ["10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4"],
    }
    assert host.others == ["docker0"]
    assert host.sources == list(SOURCES)
    assert host.ports == [SSH, WEB, KNOCK, OTHER_KNOCK]


def test_passage_depends_on_how_many_sources_get_through() -> None:
    found = seen()
    closed, limited, opened = Passage.CLOSED, Passage.LIMITED, Passage.OPEN
    for way in (ETH4, ETH6, WG4):
        assert [found.as_is[way, port] for port in (SSH, WEB, KNOCK, OTHER_KNOCK)] == [closed, limited, closed, opened]
    assert found.with_doors == {
        **{(way, port): opened for way in (ETH4, ETH6) for port in (SSH, KNOCK)},
        **{(WG4, port): closed for port in (SSH, KNOCK)},
    }
    assert (found.redirected, found.has_firewalld, found.queues) == (frozenset({WEB}), True, False)


def test_deciding_rule_is_looked_for_once_for_a_port_and_for_a_way(pretended: list[Pretended]) -> None:
    found = seen()
    assert found.decisions == dict.fromkeys(
        [(ETH4, WEB), (ETH4, KNOCK), (ETH6, KNOCK), (WG4, KNOCK), (WG4, SSH)], DENIAL
    )
    by_port = {packet.port: packet for packet in pretended[0].asked}
    assert by_port[WEB].source in SOME, "a packet that got through"


@pytest.mark.parametrize(("zone", "chains"), [("", ["public", "work"]), ("work", ["work"]), ("nosuch", [])])
def test_doors_open_in_the_chains_of_zones(zone: str, chains: list[str], pretended: list[Pretended]) -> None:
    found = seen(zone)
    assert pretended[0].rules.splitlines() == [
        f"insert rule inet firewalld filter_IN_{chain}_post {rule}"
        for chain in chains
        for rule in ("tcp dport { 22, 80 } accept", "udp dport { 7001, 7002 } accept")
    ]
    assert bool(found.with_doors) is bool(chains)


def test_queue_of_a_program_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, FIREWALLD, Table("ip", "mine", "table ip mine {\n\t\tqueue num 0\n}\n"))
    assert seen().queues
    kernel(monkeypatch, restores=(("iptables-legacy-restore", "*filter\n-A INPUT -j NFQUEUE\nCOMMIT\n"),))
    found = seen()
    assert (found.queues, found.has_firewalld, found.with_doors) == (True, False, {})


def test_packets_that_are_lost_without_rules_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pretended, "arriving", lambda *_: set())
    with pytest.raises(NotProvenError, match="test packets are lost even without rules"):
        seen()


def test_host_without_an_address_proves_nothing() -> None:
    with pytest.raises(NotProvenError, match="no interface is up and has an address"):
        seen(skipped=("docker0", "eth0", "wg0"))


def test_kernel_that_refuses_the_list_of_interfaces_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise DoorsError("cannot read network links")

    monkeypatch.setattr(Monitor, "__enter__", refuse)
    with pytest.raises(DoorsError, match="cannot read network links"):
        seen()
