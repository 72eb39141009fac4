"""Access requests to doors, with openers that record what is asked of them and report what the test says."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from port_knocking_doors.doors import manager as module
from port_knocking_doors.doors.manager import DoorManager
from port_knocking_doors.doors.opener import DoorListener
from port_knocking_doors.errors import DoorsError, FirewallError
from port_knocking_doors.events import (
    DoorClosed,
    DoorDenied,
    DoorNeverOpened,
    DoorOpened,
    DoorPending,
    DoorProlonged,
    DoorRefused,
    DoorReopened,
    EventStream,
    NothingToClose,
)
from port_knocking_doors.model import Access, AccessRequest, CommandOpening, Door, Opening, Origin, Port, PortOpening

START = 1e6
ALICE, BOB = ip_address("10.0.0.2"), ip_address("10.0.0.3")
SSH, RUN = PortOpening((Port(22),)), CommandOpening("start", "stop")
EVENTS = (
    DoorOpened,
    DoorProlonged,
    DoorReopened,
    DoorRefused,
    DoorClosed,
    DoorDenied,
    DoorNeverOpened,
    DoorPending,
    NothingToClose,
)


class Recording:
    """An opener that does nothing, and records what it was asked for."""

    def __init__(self, *, uses_interface: bool = False, counts_from_open: bool = False, stays: bool = True) -> None:
        self.listener: DoorListener
        self.uses_interface = uses_interface
        self.counts_from_open = counts_from_open
        self.is_available = True
        self.asked: list[tuple[str, Door]] = []
        self.started = 0
        self.closed_all = 0
        self.failure: Exception | None = None
        """Raised at the start, at the end, and while waiting."""
        self.is_settled = True
        self.takes_access = False
        self.bans: dict[Door, str] = {}
        self._stays = stays

    def start(self) -> None:
        self.started += 1
        self._fail()

    def denial(self, door: Door) -> str:
        return self.bans.get(door, "")

    def stays_open(self, _: Door) -> bool:
        return self._stays

    def seconds(self, door: Door, access: Access) -> float:
        return access.duration if self.takes_access or isinstance(door.opening, PortOpening) else 3.0

    def open(self, door: Door) -> None:
        self.asked.append(("open", door))

    def prolong(self, door: Door) -> None:
        self.asked.append(("prolong", door))

    def close(self, door: Door) -> None:
        self.asked.append(("close", door))

    async def settled(self) -> None:
        self._fail()
        if not self.is_settled:
            await asyncio.Event().wait()

    async def close_all(self) -> None:
        self._fail()
        for _ in range(5):  # longer than the one that fails
            await asyncio.sleep(0)
        self.closed_all += 1

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class House:
    """A manager with an opener for ports and one for commands, a clock that stands still, and what it published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = START
        monkeypatch.setattr(module, "now", lambda: self.now)
        self.ports = Recording(uses_interface=True)
        self.commands = Recording(counts_from_open=True)
        self.published: list[object] = []
        self.changes: list[float | None] = []
        events = EventStream()
        events.add(dict.fromkeys(EVENTS, self.published.append))
        kinds: dict[type[Opening], Recording] = {PortOpening: self.ports, CommandOpening: self.commands}
        self.doors = DoorManager(3, kinds, events, lambda: self.changes.append(self.doors.next_deadline()))

    def grant(self, access: Access, when: float = START, *, of: object = ALICE, interface: str = "eth0") -> None:
        self.doors.grant(AccessRequest(ip_address(str(of)), interface, access, when))

    def opened(self, access: Access, *, of: object = ALICE) -> Door:
        """The door of an access with one opening, granted and reported as open."""
        self.grant(access, of=of)
        (found,) = self.doors.doors_of(ip_address(str(of)), access.name)
        self.opener_of(found).listener.on_open(found, ("public",))
        return found

    def opener_of(self, door: Door) -> Recording:
        return self.ports if isinstance(door.opening, PortOpening) else self.commands

    def news(self) -> list[object]:
        """What was published since the last time."""
        news, self.published[:] = list(self.published), []
        return news


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def port_access(name: str = "ssh", duration: float = 10.0) -> Access:
    return Access(name, (SSH,), duration)


COMMAND = Access("web", (RUN,))
BOTH = Access("both", (SSH, RUN))
DOOR = Door(ALICE, "eth0", "ssh", SSH)
COMMAND_DOOR = Door(ALICE, "", "web", RUN)


# Granting


def test_granted_access_asks_each_opening_s_opener_for_a_door(house: House) -> None:
    house.grant(BOTH)
    assert house.ports.asked == [("open", Door(ALICE, "eth0", "both", SSH))]
    assert house.commands.asked == [("open", Door(ALICE, "", "both", RUN))], "commands know no interface"
    assert house.news() == [], "nothing was reported open"


def test_door_is_published_as_opened_once_its_opener_reports_it(house: House) -> None:
    house.grant(port_access(), when=START - 1)
    for _ in range(2):  # again after a reload of firewalld
        house.ports.listener.on_open(DOOR, ("public", "dmz"))
    assert house.news() == [DoorOpened(DOOR, ("public", "dmz"), 9.0)]
    assert house.doors.is_open(DOOR)
    assert house.doors.zones(DOOR) == ("public", "dmz")


def test_door_granted_while_opener_is_away_is_published_as_pending(house: House) -> None:
    house.ports.is_available = False
    house.grant(port_access())
    assert house.ports.asked == [("open", DOOR)]
    assert house.news() == [DoorPending(DOOR)]
    house.grant(port_access())
    assert house.news() == [DoorProlonged(DOOR, 10.0, START)], "once for each door"


def test_second_grant_prolongs_the_door_and_opens_nothing(house: House) -> None:
    house.opened(port_access())
    house.news()
    house.grant(port_access(), when=START + 4)
    assert house.ports.asked == [("open", DOOR), ("prolong", DOOR)]
    assert house.news() == [DoorProlonged(DOOR, 10.0, START + 4)]
    assert house.doors.deadline(DOOR) == START + 14


def test_door_above_the_limit_is_refused_and_not_opened(house: House) -> None:
    for number in range(3):
        house.grant(port_access(), of=f"10.0.1.{number}")
    house.grant(port_access(), when=START + 1)
    assert house.news() == [DoorRefused(DOOR, 3, START + 1)]
    assert ("open", DOOR) not in house.ports.asked
    assert ("prolong", DOOR) not in house.ports.asked
    house.grant(port_access(), of="10.0.1.1")
    assert house.news() == [DoorProlonged(Door(ip_address("10.0.1.1"), "eth0", "ssh", SSH), 10.0, START)]


def test_lower_limit_closes_no_door_and_refuses_the_next(house: House) -> None:
    house.opened(port_access())
    house.news()
    house.doors.limit = 1
    house.grant(port_access(), of=BOB)
    assert [type(event) for event in house.news()] == [DoorRefused]
    assert (house.doors.limit, house.doors.doors()) == (1, [DOOR])


def test_door_that_does_not_stay_open_is_opened_at_each_grant(house: House) -> None:
    house.commands._stays = False
    for _ in range(5):
        house.grant(COMMAND)
    assert house.commands.asked == [("open", COMMAND_DOOR)] * 5
    assert (house.news(), house.doors.doors(), house.doors.next_deadline()) == ([], [], None)


# Time that counts from the moment of opening


def test_door_that_counts_from_open_has_no_deadline_before(house: House) -> None:
    house.grant(COMMAND)
    assert (house.doors.deadline(COMMAND_DOOR), house.doors.next_deadline()) == (None, None)
    house.now = START + 60
    house.commands.listener.on_open(COMMAND_DOOR, ())
    assert house.news() == [DoorOpened(COMMAND_DOOR, (), 3.0)]
    assert house.doors.deadline(COMMAND_DOOR) == START + 63
    assert house.changes[-1] == START + 63, "the timer is set again"


def test_door_that_counts_from_open_is_prolonged_from_then_on(house: House) -> None:
    house.grant(COMMAND)
    house.grant(COMMAND, when=START + 1)
    assert house.news() == [DoorProlonged(COMMAND_DOOR, None, START + 1)]
    assert house.doors.deadline(COMMAND_DOOR) is None
    house.commands.listener.on_open(COMMAND_DOOR, ())
    house.news()
    house.grant(COMMAND, when=START + 2)
    assert house.news() == [DoorProlonged(COMMAND_DOOR, 3.0, START + 2)]
    assert house.doors.deadline(COMMAND_DOOR) == START + 5


def test_door_that_counts_from_open_has_the_time_of_its_access(house: House) -> None:
    house.commands.takes_access = True
    house.grant(Access("web", (RUN,), 7.0))
    house.commands.listener.on_open(COMMAND_DOOR, ())
    assert house.doors.deadline(COMMAND_DOOR) == START + 7


def test_door_for_a_banned_address_is_denied_and_not_opened(house: House) -> None:
    door = Door(ALICE, "eth0", "ssh", SSH)
    house.ports.bans[door] = "a ban"
    house.grant(Access.of("ssh", (Port(22),), 30))
    assert house.published == [DoorDenied(door, "a ban", START)]
    assert house.ports.asked == []
    assert house.doors.denial(AccessRequest(ALICE, "eth0", Access.of("ssh", (Port(22),), 30), START)) == "a ban"
    assert house.doors.denial(AccessRequest(BOB, "eth0", Access.of("ssh", (Port(22),), 30), START)) == ""
    assert house.doors.doors() == []


@pytest.mark.parametrize("knocks_again", [False, True], ids=["its opener reports it", "it is knocked for again"])
def test_open_door_whose_address_is_banned_is_closed(house: House, knocks_again: bool) -> None:
    access = Access.of("ssh", (Port(22),), 30)
    door = house.opened(access)
    house.published.clear()
    house.ports.bans[door] = "a ban"
    if knocks_again:
        house.grant(access)
    else:
        house.ports.listener.on_denied(door, "a ban")
    assert house.ports.asked[-1] == ("close", door)
    house.ports.listener.on_closed(door)
    assert house.published == [DoorDenied(door, "a ban", START), DoorClosed(door)]
    assert house.doors.doors() == []


def test_refused_or_failed_door_that_counts_from_open_leaves_nothing(house: House) -> None:
    house.doors.limit = 0
    house.grant(COMMAND)
    house.doors.limit = 1
    house.grant(COMMAND)
    house.commands.listener.on_failed(COMMAND_DOOR)
    assert house.doors._seconds == {}


def test_door_of_ports_keeps_its_deadline_when_it_is_reported_open(house: House) -> None:
    house.grant(port_access())
    house.now = START + 6
    house.ports.listener.on_open(DOOR, ("public",))
    assert house.news() == [DoorOpened(DOOR, ("public",), 4.0)]
    assert house.doors.deadline(DOOR) == START + 10


# Closing


def test_door_closes_at_its_deadline_and_is_published_once_confirmed(house: House) -> None:
    house.opened(port_access())
    house.news()
    house.doors.close_due(START + 9.999)
    assert house.ports.asked == [("open", DOOR)]
    house.doors.close_due(START + 10)
    assert house.ports.asked == [("open", DOOR), ("close", DOOR)]
    assert house.news() == []
    for _ in range(2):
        house.ports.listener.on_closed(DOOR)
    assert house.news() == [DoorClosed(DOOR)]
    assert not house.doors.is_open(DOOR)
    assert house.doors.zones(DOOR) == ()


def test_door_due_before_it_was_open_is_published_as_never_opened(house: House) -> None:
    house.grant(port_access())
    house.doors.close_due(START + 10)
    house.ports.listener.on_closed(DOOR)
    assert house.ports.asked == [("open", DOOR), ("close", DOOR)]
    assert house.news() == [DoorNeverOpened(DOOR)]


def test_door_granted_again_before_its_closing_is_confirmed_is_reopened(house: House) -> None:
    house.opened(port_access())
    house.doors.close_due(START + 10)
    house.news()
    house.grant(port_access(), when=START + 11)
    assert house.ports.asked[-2:] == [("close", DOOR), ("open", DOOR)]
    assert house.news() == [DoorReopened(DOOR)]
    house.now = START + 12
    house.ports.listener.on_open(DOOR, ("public",))
    assert house.news() == [DoorOpened(DOOR, ("public",), 9.0)]


def test_door_closed_before_its_opener_has_opened_it_is_opened_and_closed(house: House) -> None:
    """A start command that was running when its door was closed by hand."""
    house.grant(COMMAND)
    assert house.doors.close(ALICE) == [COMMAND_DOOR]
    house.commands.listener.on_open(COMMAND_DOOR, ())
    house.commands.listener.on_closed(COMMAND_DOOR)
    assert house.news() == [DoorOpened(COMMAND_DOOR, (), 0.0), DoorClosed(COMMAND_DOOR, Origin.CONTROL)]
    assert (house.doors.doors(), house.doors.next_deadline()) == ([], None)


CLOSING = Access("ssh", closes=True)


def test_knock_to_close_closes_own_doors_of_its_access_only(house: House) -> None:
    house.opened(port_access())
    house.grant(port_access(), interface="eth1")  # another door: it may be in another zone
    others = [house.opened(port_access(), of=BOB)]
    house.doors.limit = 9
    others += [house.opened(port_access("vpn"))]
    house.news()
    house.grant(CLOSING)
    closed = [DOOR, replace(DOOR, interface="eth1")]
    assert [door for what, door in house.ports.asked if what == "close"] == closed
    assert house.doors.doors() == others
    house.ports.listener.on_closed(DOOR)
    assert house.news() == [DoorNeverOpened(closed[1], Origin.KNOCK), DoorClosed(DOOR, Origin.KNOCK)]


def test_knock_to_close_runs_the_stop_command_at_once(house: House) -> None:
    house.opened(COMMAND)
    house.news()
    house.grant(Access("web", closes=True))
    assert house.commands.asked == [("open", COMMAND_DOOR), ("close", COMMAND_DOOR)]
    house.commands.listener.on_closed(COMMAND_DOOR)
    assert house.news() == [DoorClosed(COMMAND_DOOR, Origin.KNOCK)]
    assert house.doors.next_deadline() is None


def test_knock_to_close_without_a_door_is_published(house: House) -> None:
    house.opened(port_access(), of=BOB)
    house.news()
    house.grant(CLOSING, when=START + 1)
    assert house.news() == [NothingToClose(ALICE, "ssh", START + 1)]
    assert len(house.doors.doors()) == 1


def test_door_opened_again_after_a_knock_to_close_ends_at_its_deadline(house: House) -> None:
    house.opened(port_access())
    house.grant(CLOSING)
    house.opened(port_access())
    house.news()
    house.doors.close_due(START + 10)
    house.ports.listener.on_closed(DOOR)
    assert house.news() == [DoorClosed(DOOR)]


def test_causes_of_closed_doors_are_forgotten(house: House) -> None:
    house.doors.limit = 9
    for access, name in ((port_access(), "ssh"), (COMMAND, "web")):
        house.grant(access)  # never confirmed
        house.grant(Access(name, closes=True))
        house.opened(access)
        house.grant(Access(name, closes=True))
    house.ports.listener.on_closed(DOOR)
    house.commands.listener.on_failed(COMMAND_DOOR)
    assert house.doors._causes == {}


@pytest.mark.parametrize(("address", "closed"), [(ALICE, [ALICE]), (None, [ALICE, BOB]), (ip_address("::1"), [])])
def test_doors_of_one_address_or_all_close_ahead_of_time(house: House, address: object, closed: list[object]) -> None:
    for one in (ALICE, BOB):
        house.opened(port_access(), of=one)
    doors = house.doors.close(None if address is None else ip_address(str(address)))
    assert [door.address for door in doors] == closed
    assert [door for what, door in house.ports.asked if what == "close"] == doors
    assert [door.address for door in house.doors.doors()] == [one for one in (ALICE, BOB) if one not in closed]


def test_door_that_failed_is_opened_by_the_next_grant(house: House) -> None:
    house.grant(COMMAND)
    house.commands.listener.on_failed(COMMAND_DOOR)
    assert (house.doors.doors(), house.doors.next_deadline()) == ([], None)
    house.grant(COMMAND)
    assert house.commands.asked == [("open", COMMAND_DOOR)] * 2
    assert house.news() == []


CHANGES: dict[str, Callable[[House], object]] = {
    "grant": lambda house: house.grant(port_access(duration=5)),
    "close": lambda house: house.doors.close(None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_of_deadlines_is_reported_after_it(house: House, change: Callable[[House], object]) -> None:
    house.grant(port_access(), of=BOB)
    house.changes.clear()
    change(house)
    assert house.changes == [house.doors.next_deadline()]


# Start and end


def test_start_starts_every_opener(house: House) -> None:
    house.doors.start()
    assert (house.ports.started, house.commands.started) == (1, 1)


def test_failed_start_of_an_opener_is_raised(house: House) -> None:
    house.commands.failure = DoorsError("no folder")
    with pytest.raises(DoorsError, match="no folder"):
        house.doors.start()


def test_end_closes_by_every_opener_and_counts_open_doors(house: House) -> None:
    house.opened(port_access())
    house.grant(COMMAND)
    assert asyncio.run(house.doors.close_all()) == 1
    assert (house.ports.closed_all, house.commands.closed_all) == (1, 1)


@pytest.mark.parametrize("failing", ["ports", "commands"])
def test_opener_that_fails_at_the_end_leaves_others_to_close(house: House, failing: str) -> None:
    opener: Recording = getattr(house, failing)
    opener.failure = FirewallError("not closed")
    with pytest.raises(FirewallError, match="not closed"):
        asyncio.run(house.doors.close_all())
    assert house.ports.closed_all + house.commands.closed_all == 1


# Waiting


def test_unsettled_names_the_kinds_that_are_not_confirmed_in_time(house: House) -> None:
    assert asyncio.run(house.doors.unsettled(0.01)) == frozenset()
    house.ports.is_settled = False
    assert asyncio.run(house.doors.unsettled(0.01)) == {PortOpening}
    house.commands.is_settled = False
    assert asyncio.run(house.doors.unsettled(0.01)) == {PortOpening, CommandOpening}


def test_failure_while_waiting_is_raised(house: House) -> None:
    house.ports.is_settled = False
    house.commands.failure = DoorsError("broken")
    with pytest.raises(DoorsError, match="broken"):
        asyncio.run(house.doors.unsettled(0.01))


# Status


def test_doors_are_listed_by_deadline_with_those_that_do_not_count_last(house: House) -> None:
    house.grant(COMMAND)
    house.grant(port_access("slow", 20.0))
    house.grant(port_access("quick", 5.0))
    assert [door.access for door in house.doors.doors()] == ["quick", "slow", "web"]
    assert house.doors.next_deadline() == START + 5


def test_doors_of_an_address_are_those_of_one_access(house: House) -> None:
    for address in (ALICE, BOB):
        house.grant(BOTH, of=address)
    assert house.doors.doors_of(ALICE, "both") == [Door(ALICE, "eth0", "both", SSH), Door(ALICE, "", "both", RUN)]
    assert house.doors.doors_of(ALICE, "ssh") == house.doors.doors_of(ip_address("::1"), "both") == []


def test_unknown_door_has_no_state(house: House) -> None:
    doors = house.doors
    assert (doors.is_open(DOOR), doors.zones(DOOR), doors.deadline(DOOR)) == (False, (), None)


def test_door_whose_time_is_over_is_closing_until_it_is_confirmed_closed(house: House) -> None:
    door = house.opened(port_access())
    assert (house.doors.closing(), house.doors.is_closing(door)) == ([], False)
    house.doors.close_due(START + 10)
    assert (house.doors.doors(), house.doors.closing()) == ([], [door])
    house.ports.listener.on_closed(door)
    assert house.doors.closing() == []


def test_end_counts_no_door_that_nothing_confirmed_closed(house: House) -> None:
    house.opened(port_access())
    house.ports.is_available = False
    assert asyncio.run(house.doors.close_all()) == 0
