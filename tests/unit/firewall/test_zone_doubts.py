"""The log's warnings about zones that a knock does not show."""

import logging
from ipaddress import ip_address

import pytest

from port_knocking_doors.firewall.source_set import SourceSet
from port_knocking_doors.firewall.zone_doubts import ZoneDoubts, filled_by_others
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Address, Door, Port, PortOpening
from port_knocking_doors.system import nft_set

DOOR = Door(ip_address("10.0.0.2"), "eth0", "ssh", PortOpening((Port(22),)))
KNOWN = SourceSet("hash:net")
KNOWN.add(["10.9.0.0/16"])


class Kernel:
    """The kernel's sets, and what it was asked for."""

    def __init__(self, answer: bool | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    def set_contains(self, table: str, name: str, address: Address) -> bool | None:
        self.asked.append((table, name, str(address)))
        return self.answer


def messages(caplog: pytest.LogCaptureFixture, doubts: ZoneDoubts, zones: Zones) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        doubts.log(DOOR, zones)
    return caplog.messages


def test_warning_is_written_once_until_it_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    zones = Zones("public", sources={"52:54:00:12:34:56": "work"})
    doubts = ZoneDoubts()
    (expected,) = messages(caplog, doubts, zones)
    assert expected == (
        "10.0.0.2: may be in zone work, by its source 52:54:00:12:34:56 (a hardware address cannot be known from a "
        'knock): the door opens in zone public; if its door lets nothing in, set zone = "work"'
    )
    assert messages(caplog, doubts, zones) == []
    doubts.forget()
    assert messages(caplog, doubts, zones) == [expected]


KERNEL = {
    "the kernel's set contains it": ({"ipset:known": "work"}, True, ["work"]),
    "the kernel's set does not": ({"ipset:known": "work"}, False, []),
    "the kernel does not say": ({"ipset:known": "work"}, None, []),
    "the set of a zone behind its own": ({"ipset:known": "work", "10.0.0.0/8": "home"}, True, []),
    "the set of a zone ahead of its own": ({"ipset:known": "home", "10.0.0.0/8": "work"}, True, ["home"]),
    "the set of its own zone": ({"ipset:known": "public"}, True, []),
}


@pytest.mark.parametrize(("sources", "answer", "expected"), KERNEL.values(), ids=KERNEL)
def test_set_that_another_program_fills_is_asked_for_in_the_kernel(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    sources: dict[str, str],
    answer: bool | None,
    expected: list[str],
) -> None:
    monkeypatch.setattr(nft_set, "set_contains", Kernel(answer).set_contains)
    found = messages(caplog, ZoneDoubts(), Zones("public", sources=sources, sets={"known": KNOWN}))
    assert [text.partition("may be in zone ")[2].partition(",")[0] for text in found] == expected
    assert all("another program has put the address into the set" in text for text in found)


def test_kernel_that_does_not_answer_is_not_asked_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(None)
    monkeypatch.setattr(nft_set, "set_contains", kernel.set_contains)
    doubts, zones = ZoneDoubts(), Zones("public", sources={"ipset:known": "work"}, sets={"known": KNOWN})
    assert [messages(caplog, doubts, zones) for _ in range(3)] == [[], [], []]
    assert kernel.asked == [("firewalld", "known", "10.0.0.2")]


@pytest.mark.parametrize(
    ("size", "expected"), [(None, []), (1, []), (3, ["work"])], ids=["not known", "the same", "more in the kernel"]
)
def test_set_with_more_in_the_kernel_is_a_doubt(
    monkeypatch: pytest.MonkeyPatch, size: int | None, expected: list[str]
) -> None:
    monkeypatch.setattr(nft_set, "set_size", lambda _table, _name: size)
    sources = {"ipset:known": "work", "52:54:00:12:34:56": "home", "ipset:gone": "dmz"}
    found = filled_by_others(Zones("public", sources=sources, sets={"known": KNOWN}))
    assert [doubt.zone for doubt in found] == expected
    assert all("the kernel has 3 entries and firewalld 1" in doubt.reason for doubt in found)
