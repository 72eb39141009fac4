"""What is asked over the control socket: by hand a door opens, closes or is prolonged as by a knock."""

import asyncio
from collections.abc import Awaitable
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TypeVar, cast

import pytest

from port_knocking_doors.control.server import CloseResult
from port_knocking_doors.daemon.control_handler import CONFIRMED_WITHIN, ControlHandler
from port_knocking_doors.daemon.knock_handler import KnockHandler
from port_knocking_doors.daemon.running_config import RunningConfig
from port_knocking_doors.daemon.status_collector import StatusCollector
from port_knocking_doors.doors.manager import DoorManager
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import (
    Access,
    AccessRequest,
    Address,
    CommandOpening,
    Door,
    Opening,
    Origin,
    Port,
    PortOpening,
    Protocol,
    Sequence,
    Settings,
    Step,
)

T = TypeVar("T")
ALICE = ip_address("10.0.0.2")
SSH, RUN = PortOpening((Port(22),)), CommandOpening("start", "stop")
STEPS = tuple(Step(Protocol.UDP, port) for port in (1, 3, 2))
BOTH = Sequence("both", STEPS, Access("both", (SSH, RUN)))
WEB = Sequence("web", STEPS, Access("web", (RUN,)))
SETTINGS = Settings(guarded_ports=(Port(22),), sequences=(BOTH, WEB))


def door(opening: Opening = SSH, access: str = "main", interface: str = "") -> Door:
    return Door(ALICE, interface, access, opening)


class Doors:
    """Stands in for the door manager."""

    def __init__(self) -> None:
        self.existing: list[Door] = []
        self.opening: list[Door] = []
        """Doors that exist after the next grant."""
        self.granted: list[AccessRequest] = []
        self.open: set[Door] = set()
        self.kinds: frozenset[type[Opening]] = frozenset()
        """What is not confirmed in time."""
        self.waited: list[float] = []
        self.ban = ""

    def denial(self, _: AccessRequest) -> str:
        return self.ban

    def doors_of(self, address: Address, access: str) -> list[Door]:
        return [one for one in self.existing if (one.address, one.access) == (address, access)]

    def grant(self, request: AccessRequest) -> None:
        self.granted.append(request)
        self.existing += self.opening

    def close(self, address: Address | None) -> list[Door]:
        closed = [one for one in self.existing if address in (None, one.address)]
        self.existing = [one for one in self.existing if one not in closed]
        return closed

    async def unsettled(self, seconds: float) -> frozenset[type[Opening]]:
        self.waited.append(seconds)
        return self.kinds

    def is_open(self, one: Door) -> bool:
        return one in self.open


class Config:
    """Stands in for the running configuration."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.active = SimpleNamespace(forget=lambda source: source == ALICE.packed)
        self.reloads = 0
        self.is_ending = False

    def refuse_at_end(self) -> None:
        if self.is_ending:
            raise DoorsError("the daemon is ending")

    def reload(self) -> None:
        self.reloads += 1


class Asked:
    def __init__(self) -> None:
        self.doors, self.config = Doors(), Config()
        self.watched: list[bool] = []
        self.handler = ControlHandler(
            cast("RunningConfig", self.config),
            cast("DoorManager", self.doors),
            cast("KnockHandler", SimpleNamespace(watch=self.watched.append)),
            cast("StatusCollector", SimpleNamespace(snapshot=lambda: "everything", of_door=str)),
        )


@pytest.fixture
def asked() -> Asked:
    return Asked()


def result(waiting: Awaitable[T]) -> T:
    async def main() -> T:
        return await asyncio.wait_for(waiting, 5)

    return asyncio.run(main())


# Opening


@pytest.mark.parametrize(("name", "access"), [("", "main"), ("main", "main"), ("both", "both")])
def test_open_grants_the_access_of_the_sequence(asked: Asked, name: str, access: str) -> None:
    asked.doors.opening = [door(access=access)]
    assert result(asked.handler.open(ALICE, name)) == ["22/tcp"]  # type: ignore[comparison-overlap]
    (request,) = asked.doors.granted
    assert (request.source, request.interface, request.origin) == (ALICE, "", Origin.CONTROL)
    assert request.access.name == access
    assert asked.doors.waited == [CONFIRMED_WITHIN]


def test_open_prolongs_a_knocked_door_on_its_interface(asked: Asked) -> None:
    asked.doors.existing = [door(RUN, "both"), door(SSH, "both", "eth1"), door(interface="eth2")]
    result(asked.handler.open(ALICE, "both"))
    assert [request.interface for request in asked.doors.granted] == ["eth1"]


def test_opened_door_that_does_not_exist_afterwards_is_an_error(asked: Asked) -> None:
    asked.doors.opening = [door(RUN, "both")]
    with pytest.raises(DoorsError, match=r"not opened: max_open_doors reached, or already closed"):
        result(asked.handler.open(ALICE, "both"))


def test_open_for_a_banned_address_is_an_error_that_names_the_ban(asked: Asked) -> None:
    asked.doors.ban = "address is in zone drop, whose target is DROP"
    with pytest.raises(DoorsError, match=r"not opened: address is in zone drop, .* DROP; set doors_for_banned = true"):
        result(asked.handler.open(ALICE, "both"))


def test_opened_command_that_leaves_no_door_is_no_error(asked: Asked) -> None:
    assert result(asked.handler.open(ALICE, "web")) == []
    assert [request.access for request in asked.doors.granted] == [WEB.access]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vpn", "there is no sequence 'vpn', expected one of: both, main, web"),
        ("", "there is no opening sequence, expected one of: both, web"),
    ],
)
def test_unknown_sequence_is_refused_with_those_that_exist(asked: Asked, name: str, text: str) -> None:
    if not name:
        asked.config.settings = Settings(opening_sequence=(), sequences=(BOTH, WEB))
    with pytest.raises(ConfigError) as refused:
        result(asked.handler.open(ALICE, name))
    assert (str(refused.value), asked.doors.granted) == (text, [])


def test_open_at_the_end_is_refused(asked: Asked) -> None:
    asked.config.is_ending = True
    with pytest.raises(DoorsError, match="the daemon is ending"):
        result(asked.handler.open(ALICE, ""))
    assert asked.doors.granted == []


# Closing

CLOSING: dict[str, tuple[list[Door], set[Door], frozenset[type[Opening]], CloseResult]] = {
    "no door": ([], set(), frozenset(), CloseResult(0, 0)),
    "confirmed": ([door(), door(RUN)], set(), frozenset(), CloseResult(2, 0)),
    "still open": ([door(), door(RUN)], {door()}, frozenset({PortOpening}), CloseResult(2, 1)),
    "pending, and not confirmed": ([door(), door(RUN)], set(), frozenset({PortOpening}), CloseResult(2, 1)),
}


@pytest.mark.parametrize(("doors", "is_open", "kinds", "expected"), CLOSING.values(), ids=CLOSING)
def test_close_counts_doors_and_those_not_confirmed(
    asked: Asked, doors: list[Door], is_open: set[Door], kinds: frozenset[type[Opening]], expected: CloseResult
) -> None:
    asked.doors.existing, asked.doors.open, asked.doors.kinds = doors, is_open, kinds
    assert result(asked.handler.close(ALICE)) == expected
    assert asked.doors.existing == []
    assert asked.doors.waited == [CONFIRMED_WITHIN]


@pytest.mark.parametrize(("address", "left"), [(None, 0), (ip_address("10.0.0.3"), 1)])
def test_close_takes_one_address_or_all(asked: Asked, address: Address | None, left: int) -> None:
    asked.doors.existing = [door()]
    result(asked.handler.close(address))
    assert len(asked.doors.existing) == left


# The rest


def test_other_requests_reach_the_part_that_does_them(asked: Asked) -> None:
    assert asked.handler.snapshot() == "everything"  # type: ignore[comparison-overlap]
    assert [asked.handler.forget(ip_address(address)) for address in ("10.0.0.2", "10.0.0.3")] == [True, False]
    asked.handler.reload()
    for is_watched in (True, False):
        asked.handler.watch(is_watched)
    assert (asked.config.reloads, asked.watched) == (1, [True, False])
