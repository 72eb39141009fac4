"""The table of open doors: its answers, and a slow model of its deadlines."""

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.doors.table import Answer, DoorTable
from port_knocking_doors.model import Door, Port, PortOpening


def door(number: int = 2, interface: str = "eth0") -> Door:
    return Door(ip_address(f"10.0.0.{number}"), interface, "main", PortOpening((Port(22),)))


def test_door_opens_is_prolonged_and_is_due_once() -> None:
    doors = DoorTable(10)
    assert doors.open(door(), 10) is Answer.OPEN
    assert doors.open(door(), 15) is Answer.PROLONG
    assert doors.next_deadline() == 15
    assert doors.due(14.9) == []
    assert doors.due(15) == [door()]
    assert (doors.due(99), doors.next_deadline(), len(doors)) == ([], None, 0)


def test_shorter_time_never_shortens_an_open_door() -> None:
    doors = DoorTable(10)
    doors.open(door(), 100)
    assert doors.open(door(), 50) is Answer.PROLONG
    assert doors.deadline(door()) == 100


def test_doors_are_due_in_the_order_of_their_deadlines() -> None:
    doors = DoorTable(10)
    for number, until in ((2, 30), (3, 10), (4, 20)):
        doors.open(door(number), until)
    assert doors.due(99) == [door(3), door(4), door(2)]


def test_same_address_on_another_interface_is_another_door() -> None:
    doors = DoorTable(10)
    assert doors.open(door(), 10) is doors.open(door(interface="eth1"), 10) is Answer.OPEN


def test_full_table_refuses_newcomers_and_prolongs_open_doors() -> None:
    doors = DoorTable(2)
    doors.open(door(2), 10)
    doors.open(door(3), 10)
    assert doors.open(door(4), 10) is Answer.REFUSE
    assert doors.open(door(3), 20) is Answer.PROLONG
    assert set(doors) == {door(2), door(3)}
    doors.due(10)
    assert doors.open(door(4), 30) is Answer.OPEN


def test_door_closed_before_its_deadline_is_never_due() -> None:
    doors = DoorTable(10)
    doors.open(door(), 10)
    assert doors.close(door())
    assert not doors.close(door())
    assert doors.due(99) == []
    doors.open(door(), 200)
    assert doors.due(199) == []


def test_door_prolonged_endlessly_takes_bounded_memory() -> None:
    doors = DoorTable(10)
    for until in range(10_000):
        doors.open(door(), until)
    assert len(doors._deadlines._heap) < 100  # nothing else in there can grow
    assert doors.due(9_998) == []
    assert doors.due(9_999) == [door()]


@pytest.mark.parametrize("turns", range(20, 60))
def test_next_deadline_is_the_nearest_however_often_doors_are_prolonged(turns: int) -> None:
    """Nothing asks meanwhile, so the heap is built again from the doors, of which the first has the last deadline."""
    doors, until = DoorTable(10), dict[Door, float]()
    for turn in range(turns):
        prolonged = door(turn % 5)
        until[prolonged] = 1000 + turn * (5 - turn % 5)
        doors.open(prolonged, until[prolonged])
    assert doors.next_deadline() == min(until.values())
    assert doors.due(10_000) == sorted(until, key=until.__getitem__)


@pytest.mark.parametrize("start", [0.0, 1e6])
def test_next_deadline_is_right_after_each_of_hundreds_of_prolongations(start: float) -> None:
    """Five doors, some of them prolonged more often than others."""
    doors, until = DoorTable(10), dict[Door, float]()
    for turn in range(600):
        prolonged = door((0, 1, 2, 3, 4, 1, 1, 3)[turn % 8])
        until[prolonged] = max(until.get(prolonged, 0.0), start + turn + 40 * (turn % 7))
        assert doors.open(prolonged, start + turn + 40 * (turn % 7)) in (Answer.OPEN, Answer.PROLONG)
        assert doors.next_deadline() == min(until.values())
    assert doors.due(start + 10_000) == sorted(until, key=until.__getitem__)


def test_door_without_a_deadline_is_open_until_its_time_runs() -> None:
    doors = DoorTable(2)
    assert doors.open(door(2), None) is Answer.OPEN
    assert doors.open(door(2), None) is Answer.PROLONG
    assert (doors.next_deadline(), doors.deadline(door(2)), door(2) in doors) == (None, None, True)
    assert doors.open(door(3), 5) is Answer.OPEN
    assert doors.open(door(4), None) is Answer.REFUSE
    doors.run_until(door(2), 7)
    assert doors.open(door(2), None) is Answer.PROLONG
    assert (doors.deadline(door(2)), doors.due(99)) == (7, [door(3), door(2)])
    assert door(2) not in doors


def test_door_without_a_deadline_can_be_closed() -> None:
    doors = DoorTable(2)
    doors.open(door(), None)
    assert [doors.close(door()) for _ in range(2)] == [True, False]
    assert (len(doors), doors.due(99)) == (0, [])


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([0.0, 1e6]),
    st.lists(st.tuples(st.sampled_from("ocd"), st.integers(1, 5), st.integers(0, 20)), max_size=80),
)
def test_table_agrees_with_a_dictionary(start: float, actions: list[tuple[str, int, int]]) -> None:
    doors, model, now = DoorTable(3), dict[Door, float](), start
    for action, number, amount in actions:
        if action == "o":
            expected = Answer.PROLONG if door(number) in model else Answer.OPEN if len(model) < 3 else Answer.REFUSE
            assert doors.open(door(number), now + amount) is expected
            if expected is not Answer.REFUSE:
                model[door(number)] = max(now + amount, model.get(door(number), 0))
        elif action == "c":
            assert doors.close(door(number)) is (model.pop(door(number), None) is not None)
        else:
            now += amount
            due = {key for key, until in model.items() if until <= now}
            assert set(doors.due(now)) == due
            for key in due:
                del model[key]
        assert set(doors) == set(model)
        assert [door(one) in doors for one in range(1, 6)] == [door(one) in model for one in range(1, 6)]
        assert doors.next_deadline() == min(model.values(), default=None)
