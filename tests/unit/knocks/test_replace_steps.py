"""Other steps for one sequence, in a table that exists: its traps move, and no one else's progress is lost."""

from random import Random

import pytest

from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import SCOPE_SHIFT, connection_code, port_of, protocol_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.knocks.traps import choose_traps, move_traps
from port_knocking_doors.model import Dialect, Flags, Protocol, Scope, Sequence, Step

ALICE, BOB, CAROL = (bytes([10, 0, 0, number]) for number in range(2, 5))
START = 1e6
OUTGOING = range(32768, 61000)
SCOPE = Scope(interfaces=("ppp0",))


def sequence(name: str, *ports: int, dialect: Dialect = Dialect.NATIVE, traps: int = 40) -> Sequence:
    steps = tuple(Step(Protocol.TCP, port, Flags.SYN) for port in ports)
    return Sequence(name, steps, timeout=10.0, traps=traps, dialect=dialect, group="f", scope=SCOPE)


def syn(table: KnockerTable, source: bytes, *ports: int, now: float = START, bits: int = 0) -> list[Verdict]:
    codes = [connection_code(Protocol.TCP, port) for port in ports]
    return [table.on_knock(source, code | bits, number, now).verdict for number, code in enumerate(codes)]


OLD, NEW = sequence("once", 7000, 9000, 8000), sequence("once", 5000, 5500, 5200, 5300)
OTHER = sequence("other", 100, 300, 200)
A, C, N, W, I = Verdict.ADVANCED, Verdict.COMPLETE, Verdict.NOT_A_KNOCK, Verdict.WRONG, Verdict.IGNORED  # noqa: E741


def test_progress_in_other_sequences_and_ignored_periods_stay() -> None:
    table = KnockerTable([OLD, OTHER], 5.0, 100)
    assert syn(table, ALICE, 100, 300) == [A, A]
    assert syn(table, BOB, 7000) == [A]
    assert syn(table, CAROL, 300, 200, 200)[2:] == [W]
    table.replace_steps({OLD: NEW}, {})
    assert (len(table), table.sequences) == (2, (NEW, OTHER))
    assert syn(table, BOB, 9000, 8000) == [N, N]
    assert syn(table, ALICE, 200) == [C]
    assert syn(table, CAROL, 100) == [I]
    assert syn(table, BOB, 5000, 5500, 5200, 5300) == [A, A, A, C]


def test_source_far_in_the_old_steps_is_filed_by_what_is_left() -> None:
    table = KnockerTable([OLD, OTHER], 5.0, 2)
    syn(table, ALICE, 7000, 9000, 100)
    table.replace_steps({OLD: NEW}, {})
    assert [view.done for view in table.view(START, 10)] == [((OTHER, 1),)]
    assert syn(table, ALICE, 300, 200) == [A, C]
    assert table.expire(START + 35.0) == 1, "once its wrong knocks would not count any more"


def test_attempt_at_old_knockd_steps_keeps_no_other_door_of_the_file_shut() -> None:
    old, new, other = (
        sequence(name, *ports, dialect=Dialect.KNOCKD)
        for name, ports in (("once", (7000, 9000)), ("once", (5000, 5100)), ("other", (100, 300)))
    )
    table = KnockerTable([old, other], 5.0, 100)
    syn(table, ALICE, 7000)
    table.replace_steps({old: new}, {})
    assert syn(table, ALICE, 100, 300) == [A, C]


def test_scopes_that_are_known_apply_to_new_steps() -> None:
    table = KnockerTable([OLD, OTHER], 5.0, 100)
    table.add_scopes(1, frozenset({SCOPE}))
    table.add_scopes(2, frozenset({Scope()}))
    table.replace_steps({OLD: NEW}, {})
    assert syn(table, ALICE, 5000, bits=1 << SCOPE_SHIFT) == [A]
    assert syn(table, BOB, 5000, bits=2 << SCOPE_SHIFT) == [N]


@pytest.mark.parametrize("steps", [(), (5000, 5500)], ids=["no steps", "other steps"])
def test_capture_follows_the_steps(steps: tuple[int, ...]) -> None:
    table = KnockerTable([OLD, OTHER], 5.0, 100)
    table.replace_steps({OLD: sequence("once", *steps)}, {})
    assert {port_of(code) for code in table.capture.codes} == {100, 200, 300, *steps}


class TestMoveTraps:
    EVERY = (OLD, OTHER)

    def traps(self) -> dict[int, frozenset[Sequence]]:
        return choose_traps(self.EVERY, (), OUTGOING, Random(1))

    @staticmethod
    def of(traps: dict[int, frozenset[Sequence]], one: Sequence) -> set[int]:
        return {port_of(code) for code, of in traps.items() if one in of}

    def test_traps_of_other_sequences_stay(self) -> None:
        before = self.traps()
        after = move_traps(before, {OLD: NEW}, (NEW, OTHER), (), OUTGOING, Random(2))
        assert self.of(after, OTHER) == self.of(before, OTHER)
        assert not any(OLD in of for of in after.values())

    def test_new_steps_have_traps_beside_them_and_as_many_as_before(self) -> None:
        ports = self.of(move_traps(self.traps(), {OLD: NEW}, (NEW, OTHER), (), OUTGOING, Random(2)), NEW)
        assert {4999, 5001, 5199, 5201, 5299, 5301, 5499, 5501} <= ports
        assert len(ports) == 40
        assert len(ports & self.of(self.traps(), OLD)) >= 40 - 8 - 3, "the rest are those that were drawn"

    def test_port_of_a_new_step_is_no_trap_any_more(self) -> None:
        before = self.traps()
        taken = sorted(self.of(before, OTHER))[:2]
        new = sequence("once", *taken)
        after = move_traps(before, {OLD: new}, (new, OTHER), (), OUTGOING, Random(2))
        assert not {port_of(code) for code in after} & set(taken)
        assert self.of(after, OTHER) == self.of(before, OTHER) - set(taken)

    def test_steps_of_another_protocol_get_traps_of_that_protocol(self) -> None:
        new = Sequence("once", tuple(Step(Protocol.UDP, port) for port in (5000, 5200)), traps=40)
        after = move_traps(self.traps(), {OLD: new}, (new, OTHER), (), OUTGOING, Random(2))
        protocols = [protocol_of(code) for code, of in after.items() if new in of]
        assert protocols == [Protocol.UDP] * 40

    def test_sequence_without_steps_has_no_traps(self) -> None:
        after = move_traps(self.traps(), {OLD: sequence("once")}, (OTHER,), (), OUTGOING, Random(2))
        assert {one for of in after.values() for one in of} == {OTHER}
