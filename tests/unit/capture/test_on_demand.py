"""The sniffer that exists on demand: what it reports of interfaces. A stand-in sniffs, and one lists the links."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from port_knocking_doors.capture import on_demand
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.on_demand import OnDemandSniffer
from port_knocking_doors.knocks.authenticator import NOT_A_KNOCK, Authenticator, Capture, Outcome
from port_knocking_doors.model import Scope
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.resource import Resource
from port_knocking_doors.system.rtnetlink import Link, LinkChange


class Monitor(Resource):
    """Stands in for the monitor of interfaces: the links that a test names, and what is called at a change."""

    links: dict[int, Link] = {}  # noqa: RUF012 set by each test
    last: "Monitor"

    def __init__(self, on_change: Callable[[LinkChange, Link], None]) -> None:
        self.on_change = on_change
        Monitor.last = self

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass


class Sniffing(Resource):
    """Stands in for the sniffer."""

    def __init__(self, *_: Any) -> None:
        self.seen, self.dropped = 3, 1

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass


class Scoped(Authenticator):
    """Asks for packets that arrive on some interfaces."""

    def __init__(self, *patterns: str) -> None:
        self._capture = Capture(codes=frozenset({1}), scopes=frozenset({Scope(interfaces=patterns)}))

    @property
    def capture(self) -> Capture:
        return self._capture

    def on_knock(self, *_: Any) -> Outcome:
        return NOT_A_KNOCK


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(on_demand, "InterfaceMonitor", Monitor)
    monkeypatch.setattr(on_demand, "Sniffer", Sniffing)
    caplog.set_level(logging.DEBUG, logger.name)


def started(*patterns: str, links: tuple[str, ...] = ()) -> OnDemandSniffer:
    dispatch = Dispatch(lambda *_: None)
    authenticator = Scoped(*patterns)
    dispatch.use([authenticator])
    Monitor.links = {index: Link(name, index) for index, name in enumerate(links, 1)}
    sniffer = OnDemandSniffer(dispatch)
    sniffer.start(authenticator.capture)
    return sniffer


def reports(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, object, object]]:
    """Level, text and fields of each line."""
    return [
        (record.levelno, record.getMessage(), *(record.__dict__["about"][1][name] for name in ("interface", "reason")))
        for record in caplog.records
    ]


ABSENT = "interface {} does not exist: listening on it once it appears"


@pytest.mark.parametrize(
    ("patterns", "links", "absent"),
    [
        (("eth0", "ppp*"), ("lo", "eth0", "ppp7"), []),
        (("eth0", "ppp*"), ("lo", "eth1"), ["eth0", "ppp*"]),
        (("eth0", "ppp*"), ("ppp0",), ["eth0"]),
        ((), (), []),
    ],
    ids=["all are there", "none is there", "one is not", "every interface"],
)
def test_interface_that_does_not_exist_is_reported_at_the_start(
    caplog: pytest.LogCaptureFixture, patterns: tuple[str, ...], links: tuple[str, ...], absent: list[str]
) -> None:
    started(*patterns, links=links)
    assert reports(caplog) == [(logging.WARNING, ABSENT.format(name), name, "absent") for name in absent]


CHANGES: dict[str, tuple[LinkChange, str, list[tuple[int, str, object, object]]]] = {
    "one appears": (
        LinkChange.APPEARED,
        "ppp1",
        [(logging.INFO, "interface ppp1 exists: listening on it", "ppp1", "there")],
    ),
    "one disappears": (
        LinkChange.DISAPPEARED,
        "ppp1",
        [(logging.WARNING, "interface ppp1 is gone: listening on it again once it is back", "ppp1", "gone")],
    ),
    "another one appears": (LinkChange.APPEARED, "eth5", []),
    "another one disappears": (LinkChange.DISAPPEARED, "eth5", []),
}


@pytest.mark.parametrize(("change", "name", "lines"), CHANGES.values(), ids=CHANGES)
def test_change_of_a_named_interface_is_reported(
    caplog: pytest.LogCaptureFixture, change: LinkChange, name: str, lines: list[tuple[int, str, object, object]]
) -> None:
    started("ppp*", links=("ppp0",))
    Monitor.last.on_change(change, Link(name, 7))
    assert reports(caplog) == lines


def test_every_interface_is_listened_on_without_a_report_of_changes(caplog: pytest.LogCaptureFixture) -> None:
    started()
    for change in LinkChange:
        Monitor.last.on_change(change, Link("eth0", 7))
    assert caplog.records == []


def test_change_of_the_state_of_an_interface_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    started("eth0", links=("eth0",))
    for change in set(LinkChange) - {LinkChange.APPEARED, LinkChange.DISAPPEARED}:
        Monitor.last.on_change(change, Link("eth0", 1))
    assert caplog.records == []


LO, OTHER, HERE, BROADCAST = 1, 2, b"\x0a\0\0\1", b"\x0a\0\0\xff"


@pytest.mark.parametrize(
    ("source", "interface", "honest"),
    [
        (BROADCAST, OTHER, False),
        (BROADCAST, LO, False),
        (HERE, OTHER, False),
        (HERE, LO, True),
        (b"\x0a\0\0\2", OTHER, True),
    ],
    ids=["broadcast", "broadcast on lo", "own on a link", "own on lo", "of another host"],
)
def test_source_that_no_packet_can_have_is_dropped(source: bytes, interface: int, honest: bool) -> None:
    sniffer = started()
    links: Any = SimpleNamespace(is_broadcast=BROADCAST.__eq__, is_local=HERE.__eq__)
    sniffer._links = links
    assert sniffer._is_honest(source, interface) is honest


def test_remembered_routes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "_ROUTES_MAX", 2)
    sniffer = started()
    links: Any = SimpleNamespace(
        drain=lambda: False, changes=0, is_local=lambda _: True, is_selected=lambda *_: True, links={}
    )
    sniffer._links = links
    bits = [sniffer._scope_bits(bytes([10, 0, 0, number]), OTHER) for number in range(5)]
    assert len(set(bits)) == 1
    assert len(sniffer._bits) == 1


def test_counters_exist_while_it_sniffs() -> None:
    sniffer = started()
    assert sniffer.counters == {"seen": 3, "dropped": 1}
    sniffer.stop()
    assert (sniffer.counters, sniffer.sniffer) == ({}, None)


@pytest.mark.parametrize(
    ("target", "is_ipv4_only", "destination", "is_within"),
    [
        (None, False, bytes([10, 0, 0, 1]), True),
        (None, False, bytes([10, 0, 0, 9]), False),
        (None, True, bytes([10, 0, 0, 1]), True),
        (None, True, bytes(15) + b"\1", False),
    ],
    ids=["an address of this host", "another address", "IPv4 where it alone counts", "IPv6 where IPv4 alone counts"],
)
def test_packet_is_within_the_scopes_of_its_destination(
    target: None, is_ipv4_only: bool, destination: bytes, is_within: bool
) -> None:
    scope = Scope(target, (), is_ipv4_only)
    authenticator: Any = SimpleNamespace(
        capture=Capture(codes=frozenset({1}), scopes=frozenset({scope})), on_knock=None, add_scopes=None
    )
    dispatch = Dispatch(lambda *_: None)
    dispatch.use([authenticator])
    own = {bytes([10, 0, 0, 1]), bytes(15) + b"\1"}
    links: Any = SimpleNamespace(is_local=own.__contains__, is_selected=lambda *_: True)
    found = OnDemandSniffer(dispatch)._scopes_of(destination, 2, links)
    assert found == (frozenset({scope}) if is_within else frozenset())
