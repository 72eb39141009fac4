"""The dialects of knockd and tportknockd in the one table: cases for each rule, and an obvious model of knockd's."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.knocks import dialects
from port_knocking_doors.knocks.authenticator import Verdict
from port_knocking_doors.knocks.code import SCOPE_SHIFT, code_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import Dialect, Flags, Protocol, Scope, Sequence, Step

ALICE, BOB = b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03"
S, A, F = Flags.SYN, Flags.ACK, Flags.FIN
Packet = tuple[str, float, str, int]
"""Source, seconds, step such as `t7000:s` or `u7000`, and what tells it from another with the same step."""


def code(word: str) -> int:
    port, _, letters = word[1:].partition(":")
    flags = sum({"s": S, "a": A, "f": F, "r": Flags.RST, "p": Flags.PSH, "u": Flags.URG}[letter] for letter in letters)
    return code_of(Step(Protocol.TCP if word[0] == "t" else Protocol.UDP, int(port), flags))


def knockd(name: str, words: str, flags: tuple[int, int] = (0, 0), timeout: float = 10) -> Sequence:
    mask, value = flags
    steps = tuple(
        Step(Protocol.TCP, int(word[1:]), value, mask) if word[0] == "t" else Step(Protocol.UDP, int(word[1:]))
        for word in words.split()
    )
    return Sequence(name, steps, timeout=timeout, dialect=Dialect.KNOCKD, group="knockd.conf", flags=flags)


def tport(name: str, *steps: tuple[int, int, int], timeout: float = 10) -> Sequence:
    return Sequence(
        name,
        tuple(Step(Protocol.TCP, port, flags, mask) for port, flags, mask in steps),
        timeout=timeout,
        dialect=Dialect.TPORTKNOCKD,
    )


def completed(sequences: list[Sequence], packets: list[Packet]) -> list[tuple[int, str]]:
    """Which packet, by its position, opened which door."""
    knockers = KnockerTable(sequences, 5.0, 100)
    found = []
    for position, (source, when, word, packet_id) in enumerate(packets):
        outcome = knockers.on_knock(ALICE if source == "a" else BOB, code(word), packet_id, 1e6 + when)
        assert outcome.verdict in (Verdict.ADVANCED, Verdict.COMPLETE, Verdict.REPEATED, Verdict.NOT_A_KNOCK)
        if outcome.verdict is Verdict.COMPLETE:
            found += [(position, sequence.name) for sequence in outcome.sequences]
    return found


def knocks(words: str, source: str = "a", when: float = 0) -> list[Packet]:
    return [(source, when, word, number) for number, word in enumerate(words.split())]


OPEN, CLOSE = knockd("open", "t7 t8 t9", (S, S)), knockd("close", "t9 t8 t7", (S, S))
MIXED = knockd("mixed", "u2 t3 u4", (S | A, S))

KNOCKD = {
    "in order": ([OPEN], knocks("t7:s t8:s t9:s"), [(2, "open")]),
    "again and again": ([OPEN], knocks("t7:s t8:s t9:s t7:s t8:s t9:s"), [(2, "open"), (5, "open")]),
    "flags that nobody listed are free": ([OPEN], knocks("t7:sa t8:sp t9:s"), [(2, "open")]),
    "other flags on a step's port are not heard": ([OPEN], knocks("t7:s t7:a t9:f t8:s t8:a t9:s"), [(5, "open")]),
    "a flag that must be clear": ([MIXED], knocks("u2 t3:sa u4 u2 t3:s u4"), [(5, "mixed")]),
    "a door with udp steps, and flags for what is tcp": ([MIXED], knocks("u2 t3:sa t3:s u4"), [(3, "mixed")]),
    "a wrong step ends it, and counts as no first step": ([OPEN], knocks("t7:s t9:s t7:s t8:s t9:s"), [(4, "open")]),
    "a repeated first knock ends it and begins none": ([OPEN], knocks("t7:s t7:s t8:s t9:s"), []),
    "after that it may begin": ([OPEN], knocks("t7:s t7:s t7:s t8:s t9:s"), [(4, "open")]),
    "the very packet once more is no knock": (
        [OPEN],
        [("a", 0, "t7:s", 1), ("a", 0, "t7:s", 1), ("a", 0, "t8:s", 2), ("a", 0, "t8:s", 2), ("a", 0, "t9:s", 3)],
        [(4, "open")],
    ),
    "a port of another door of the file ends it": ([OPEN, MIXED], knocks("t7:s u2 t8:s t9:s"), []),
    "a port of another door with flags that are not this one's": (
        [OPEN, knockd("fin", "t5 t6", (F, F))],
        knocks("t7:s t5:f t8:s t9:s"),
        [(3, "open")],
    ),
    "who is on the way through one door begins no other": ([OPEN, CLOSE], knocks("t9:s t7:s t8:s t9:s"), []),
    "two doors with the same first step advance side by side": (
        [OPEN, knockd("other", "t7 t8 t6", (S, S))],
        knocks("t7:s t8:s t6:s"),
        [(2, "other")],
    ),
    "two doors complete at once": ([OPEN, knockd("b", "t7 t8 t9")], knocks("t7:s t8:s t9:s"), [(2, "open"), (2, "b")]),
    "a single step": ([knockd("one", "t7")], knocks("t7:s t7:s"), [(0, "one"), (1, "one")]),
    "the time limit counts from the first knock": (
        [OPEN],
        [("a", 0, "t7:s", 1), ("a", 9.9, "t8:s", 2), ("a", 10, "t9:s", 3)],
        [],
    ),
    "what is too late is as if nothing was": (
        [OPEN],
        [("a", 0, "t7:s", 1), ("a", 10, "t7:s", 2), ("a", 10, "t8:s", 3), ("a", 10, "t9:s", 4)],
        [(3, "open")],
    ),
    "sources do not mix": ([OPEN], [*knocks("t7:s t8:s"), *knocks("t9:s", "b")], []),
}


@pytest.mark.parametrize(("doors", "packets", "opened"), KNOCKD.values(), ids=KNOCKD.keys())
def test_knockd(doors: list[Sequence], packets: list[Packet], opened: list[tuple[int, str]]) -> None:
    assert completed(doors, packets) == opened


FLAGGED = tport(
    "flags", (110, 63, 63), (110, Flags.URG | Flags.PSH, 63), (110, Flags.URG | Flags.PSH, 63), (110, 0, 63)
)
ANY = tport("any", (12, A, 63), (27, 0, 0), (83, 0, 63))

TPORTKNOCKD = {
    "flags on one port": ([FLAGGED], knocks("t110:fsrpau t110:up t110:up t110:"), [(3, "flags")]),
    "any flags": ([ANY], knocks("t12:a t27:fa t83:"), [(2, "any")]),
    "flags are exact": ([ANY], knocks("t12:a t27:s t83:s"), []),
    "other flags take it back to its start": ([FLAGGED], knocks("t110:fsrpau t110:up t110:up t110:s t110:"), []),
    "a wrong knock counts as a first step if it is one": (
        [FLAGGED],
        knocks("t110:fsrpau t110:up t110:fsrpau t110:up t110:up t110:"),
        [(5, "flags")],
    ),
    "nobody is ignored": ([ANY], knocks("t83: t27:s t12:a t27: t83:"), [(4, "any")]),
    "other ports are no knocks": ([ANY], knocks("t12:a t99:s t27:s u83 t83:"), [(4, "any")]),
    "the time limit counts from the first knock": (
        [ANY],
        [("a", 0, "t12:a", 1), ("a", 9, "t27:", 2), ("a", 10, "t83:", 3)],
        [],
    ),
}


@pytest.mark.parametrize(("doors", "packets", "opened"), TPORTKNOCKD.values(), ids=TPORTKNOCKD.keys())
def test_tportknockd(doors: list[Sequence], packets: list[Packet], opened: list[tuple[int, str]]) -> None:
    assert completed(doors, packets) == opened


def test_trying_all_combinations_of_flags_opens_nothing() -> None:
    knockers = KnockerTable([FLAGGED], 5.0, 100)
    for turn in range(20):
        for flags in range(64):
            outcome = knockers.on_knock(ALICE, code_of(Step(Protocol.TCP, 110, flags)), turn << 6 | flags, turn)
            assert outcome.verdict is not Verdict.COMPLETE


class TestTogether:
    NATIVE = Sequence("native", (Step(Protocol.UDP, 1), Step(Protocol.UDP, 2)), lifetime=30)

    def test_source_ignored_in_native_counts_in_other_dialects(self) -> None:
        knockers = KnockerTable([self.NATIVE, OPEN, ANY], 5.0, 100)
        assert [knockers.on_knock(ALICE, code(word), 1, 0).verdict for word in ("u2", "u2", "u1")] == [
            Verdict.FORGIVEN,
            Verdict.WRONG,
            Verdict.IGNORED,
        ]
        verdicts = [knockers.on_knock(ALICE, code(word), 1, 0).verdict for word in ("t7:s", "t8:s", "t9:s")]
        assert verdicts[-1] is Verdict.COMPLETE

    def test_native_error_keeps_progress_in_another_dialect(self) -> None:
        knockers = KnockerTable([self.NATIVE, OPEN], 5.0, 100)
        words = ("t7:s", "u2", "u2", "t8:s", "t9:s")
        verdicts = [knockers.on_knock(ALICE, code(word), 1, 0).verdict for word in words]
        assert verdicts == [
            Verdict.ADVANCED,
            Verdict.FORGIVEN,
            Verdict.WRONG,
            Verdict.ADVANCED,
            Verdict.COMPLETE,
        ]

    def test_knock_right_in_one_dialect_is_no_error_in_another(self) -> None:
        knockers = KnockerTable([self.NATIVE, knockd("b", "u2 u1")], 5.0, 100)
        assert [knockers.on_knock(ALICE, code(word), 1, 0).verdict for word in ("u2", "u1")] == [
            Verdict.ADVANCED,
            Verdict.COMPLETE,
        ]

    def test_trap_of_foreign_sequence_resets_it_without_ignoring(self) -> None:
        knockers = KnockerTable([OPEN], 5.0, 100, {code("t70:s"): frozenset({OPEN})})
        words = ("t7:s", "t70:s", "t8:s", "t9:s", "t7:s", "t8:s", "t9:s")
        verdicts = [knockers.on_knock(ALICE, code(word), number, 0).verdict for number, word in enumerate(words)]
        assert Verdict.COMPLETE not in verdicts[:4]
        assert Verdict.WRONG not in verdicts


class TestScope:
    """A sequence hears only what comes by its links to its address."""

    HERE, ELSEWHERE = Scope(interfaces=("ppp0",)), Scope(interfaces=("eth*",))
    ONE = Sequence("one", (Step(Protocol.UDP, 1), Step(Protocol.UDP, 2)), scope=HERE)
    TWO = Sequence("two", (Step(Protocol.UDP, 1), Step(Protocol.UDP, 2)), scope=ELSEWHERE)

    @pytest.mark.parametrize(
        ("scopes", "opened"),
        [({HERE}, {"one"}), ({ELSEWHERE}, {"two"}), ({HERE, ELSEWHERE}, {"one", "two"})],
    )
    def test_who_hears(self, scopes: set[Scope], opened: set[str]) -> None:
        knockers = KnockerTable([self.ONE, self.TWO], 5.0, 100)
        knockers.add_scopes(3, frozenset(scopes))
        outcomes = [knockers.on_knock(ALICE, code(word) | 3 << SCOPE_SHIFT, 1, 0) for word in ("u1", "u2")]
        assert {sequence.name for sequence in outcomes[-1].sequences} == opened

    def test_packet_within_no_scope_is_no_knock(self) -> None:
        knockers = KnockerTable([self.ONE], 5.0, 100)
        knockers.add_scopes(1, frozenset())
        assert knockers.on_knock(ALICE, code("u1") | 1 << SCOPE_SHIFT, 1, 0).verdict is Verdict.NOT_A_KNOCK

    def test_packet_without_scope_number_is_within_all_scopes(self) -> None:
        knockers = KnockerTable([self.ONE, self.TWO], 5.0, 100)
        assert knockers.capture.scopes == {self.HERE, self.ELSEWHERE}
        outcomes = [knockers.on_knock(ALICE, code(word), 1, 0) for word in ("u1", "u2")]
        assert outcomes[-1].sequences == (self.ONE, self.TWO)

    def test_trap_counts_only_within_scope_of_its_sequence(self) -> None:
        knockers = KnockerTable([self.ONE, self.TWO], 5.0, 100, {code("u9"): frozenset({self.ONE})})
        one, two = 1 << SCOPE_SHIFT, 2 << SCOPE_SHIFT
        knockers.add_scopes(1, frozenset({self.HERE}))
        knockers.add_scopes(2, frozenset({self.ELSEWHERE}))
        knockers.on_knock(ALICE, code("u1") | one, 1, 0)
        assert knockers.on_knock(ALICE, code("u9") | two, 1, 0).verdict is Verdict.NOT_A_KNOCK
        assert knockers.on_knock(ALICE, code("u9") | one, 1, 0).verdict is Verdict.FORGIVEN
        knockers.on_knock(ALICE, code("u1") | one, 1, 0)
        assert knockers.on_knock(ALICE, code("u9") | one, 1, 0).verdict is Verdict.WRONG


class TestAdopt:
    """A new table, for a new configuration, goes on where the old one was."""

    def test_attempt_at_unchanged_sequence_continues(self) -> None:
        old = KnockerTable([OPEN, ANY], 5.0, 100)
        for source, words in ((ALICE, "t7:s t8:s"), (BOB, "t7:s")):
            for number, word in enumerate(words.split()):
                old.on_knock(source, code(word), number, 0)
        new = KnockerTable([OPEN], 5.0, 100)
        new.adopt(old)
        assert len(new) == 2
        assert new.on_knock(ALICE, code("t9:s"), 9, 1).verdict is Verdict.COMPLETE
        assert new.on_knock(BOB, code("t8:s"), 9, 1).verdict is Verdict.ADVANCED
        assert new.on_knock(BOB, code("t9:s"), 10, 10).verdict is Verdict.NOT_A_KNOCK, "its time counts from the first"

    @pytest.mark.parametrize("is_widened", [True, False])
    def test_packets_are_known_again_beside_other_sequences(self, is_widened: bool) -> None:
        """Of a tree with TCP or with a step twice, more is kept of each packet."""
        datagrams = Sequence("a", tuple(Step(Protocol.UDP, port) for port in (1, 2, 3)), timeout=10.0)
        twice = Sequence("b", tuple(Step(Protocol.UDP, port) for port in (1, 2, 4, 2)), timeout=10.0)
        tables = [KnockerTable(those, 5.0, 100) for those in ([datagrams], [datagrams, twice])]
        old, new = tables if is_widened else tables[::-1]
        for number, word in enumerate(("u1", "u2")):
            old.on_knock(ALICE, code(word), 40000 + number, 1e6)
        new.adopt(old)
        words = (("u2", 40001), *([] if is_widened else [("u1", 40000)]))  # the other one would begin with that
        verdicts = [new.on_knock(ALICE, code(word), packet_id, 1e6 + 1).verdict for word, packet_id in words]
        assert verdicts == [Verdict.REPEATED] * len(words)
        assert new.on_knock(ALICE, code("u3"), 40002, 1e6 + 1).verdict is Verdict.COMPLETE

    def test_attempt_at_changed_sequence_starts_again(self) -> None:
        old = KnockerTable([OPEN], 5.0, 100)
        old.on_knock(ALICE, code("t7:s"), 1, 0)
        new = KnockerTable([knockd("open", "t7 t9", (S, S))], 5.0, 100)
        new.adopt(old)
        assert new.on_knock(ALICE, code("t9:s"), 9, 1).verdict is Verdict.NOT_A_KNOCK

    def test_ignored_source_stays_ignored(self) -> None:
        old = KnockerTable([TestTogether.NATIVE], 5.0, 100)
        for source, count in ((ALICE, 2), (BOB, 1)):
            for _ in range(count):
                old.on_knock(source, code("u2"), 1, 0)
        new = KnockerTable([TestTogether.NATIVE], 5.0, 100)
        new.adopt(old)
        assert new.on_knock(BOB, code("u2"), 1, 4).verdict is Verdict.WRONG, "forgiven once already"
        assert new.on_knock(ALICE, code("u1"), 1, 4).verdict is Verdict.IGNORED
        assert new.on_knock(ALICE, code("u1"), 1, 5).verdict is Verdict.ADVANCED

    def test_smaller_table_keeps_knockers_with_most_progress(self) -> None:
        old = KnockerTable([OPEN], 5.0, 100)
        for number in range(50):
            old.on_knock(number.to_bytes(4, "big"), code("t7:s"), 1, 0)
        for word in ("t7:s", "t8:s"):
            old.on_knock(ALICE, code(word), 1, 1)
        new = KnockerTable([OPEN], 5.0, 10)
        new.adopt(old)
        assert len(new) == 10
        assert new.on_knock(ALICE, code("t9:s"), 9, 1).verdict is Verdict.COMPLETE


def test_hundreds_of_doors_in_a_file_are_soon_prepared_and_each_opens() -> None:
    """Each hears what is meant for any other: listed for each of them, that took minutes."""
    doors = [knockd(f"d{n}", f"t{1000 + n} t{2000 + n} u{3000 + n}", (S, S)) for n in range(300)]
    began = time.process_time()
    knockers = KnockerTable(doors, 5.0, 100)
    assert len(dialects.subscriptions(doors)) == 1
    assert time.process_time() - began < 15, "it is one second"
    for n in (0, 150, 299):
        words = (f"t{1000 + n}:s", f"t{2000 + n}:s", f"u{3000 + n}")
        outcomes = [knockers.on_knock(ALICE, code(word), 1, n) for word in words]
        assert [sequence.name for sequence in outcomes[-1].sequences] == [f"d{n}"]


def obvious(doors: list[Sequence], packets: list[Packet]) -> list[tuple[int, str]]:
    """knockd's matching as its facts tell it, with lists and no thought of speed; no packet comes twice."""
    found = []
    flying: dict[tuple[str, str], tuple[int, float]] = {}

    def matches(door: Sequence, number: int) -> bool:
        mask, value = door.flags
        return (number >> 16 & 0xFF) != 6 or ((number >> 24) ^ value) & mask == 0

    def passes(number: int) -> bool:
        return any(
            (number ^ code_of(step)) & 0xFFFFFF == 0 and matches(door, number) for door in doors for step in door.steps
        )

    for position, (source, when, word, _) in enumerate(packets):
        number = code(word)
        if not passes(number):
            continue
        flying = {key: (stage, first) for key, (stage, first) in flying.items() if when - first < 10}
        mine = [door for door in doors if (source, door.name) in flying]
        for door in mine or doors:
            if not matches(door, number):
                continue
            stage, first = flying.pop((source, door.name), (0, when))
            if (code_of(door.steps[stage]) ^ number) & 0xFFFFFF == 0:
                if stage + 1 == len(door.steps):
                    found.append((position, door.name))
                else:
                    flying[source, door.name] = (stage + 1, first)
    return found


STEPS = st.sampled_from(["t7", "t8", "t9", "u7", "u8"])
FLAGS = st.sampled_from([(0, 0), (S, S), (S | A, S), (F, F)])
DOORS = st.lists(st.tuples(st.lists(STEPS, min_size=1, max_size=4), FLAGS), min_size=1, max_size=4).map(
    lambda all_steps: [knockd(f"d{n}", " ".join(steps), flags) for n, (steps, flags) in enumerate(all_steps)]
)
WORDS = st.sampled_from(["t7:s", "t7:sa", "t7:a", "t8:s", "t8:f", "t9:s", "t9:sf", "u7", "u8", "u9"])
PACKETS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.0, 0.0, 4.0]), WORDS), max_size=40)


@settings(max_examples=500, deadline=None)
@given(DOORS, PACKETS)
def test_it_agrees_with_an_obvious_knockd(doors: list[Sequence], steps: list[tuple[str, float, str]]) -> None:
    when, packets = 0.0, []
    for packet_id, (source, pause, word) in enumerate(steps):
        when += pause
        packets.append((source, when, word, packet_id))
    assert completed(doors, packets) == obvious(doors, packets)


class TestTraps:
    """Traps of one sequence, and what another one makes of them."""

    ONE, TWO = tport("one", (7, S, 63), (8, S, 63)), tport("two", (17, S, 63), (18, S, 63))
    NATIVE = Sequence("native", (Step(Protocol.UDP, 1), Step(Protocol.UDP, 2)), timeout=10.0)

    def test_trap_of_one_sequence_leaves_progress_in_another(self) -> None:
        traps = {code("t70:s"): frozenset({self.ONE}), code("t71:s"): frozenset({self.TWO})}
        knockers = KnockerTable([self.ONE, self.TWO], 5.0, 100, traps)
        verdicts = [knockers.on_knock(ALICE, code(word), 1, 1e6).verdict for word in ("t7:s", "t17:s", "t70:s")]
        assert verdicts == [Verdict.ADVANCED, Verdict.ADVANCED, Verdict.NOT_A_KNOCK]
        assert (knockers.stage(ALICE, self.ONE), knockers.stage(ALICE, self.TWO)) == (0, 1)
        assert knockers.on_knock(ALICE, code("t18:s"), 1, 1e6).verdict is Verdict.COMPLETE

    @pytest.mark.parametrize("words", ["", "t7:s t8:s"], ids=["not begun", "complete"])
    def test_trap_is_nothing_to_source_that_is_not_on_its_way(self, words: str) -> None:
        knockers = KnockerTable([self.ONE], 5.0, 100, {code("t70:s"): frozenset({self.ONE})})
        for word in words.split():
            knockers.on_knock(ALICE, code(word), 1, 1e6)
        assert knockers.on_knock(ALICE, code("t70:s"), 1, 1e6).verdict is Verdict.NOT_A_KNOCK
        assert knockers.on_knock(ALICE, code("t7:s"), 2, 1e6).verdict is Verdict.ADVANCED

    def test_trap_of_native_and_other_sequence_is_wrong_and_takes_both_back(self) -> None:
        knockers = KnockerTable([self.ONE, self.NATIVE], 5.0, 100, {code("t70:s"): frozenset({self.ONE, self.NATIVE})})
        verdicts = [
            knockers.on_knock(ALICE, code(word), 1, 1e6).verdict
            for word in ("t7:s", "u1", "t70:s", "u1", "t70:s", "u1")
        ]
        assert verdicts[:3] == [Verdict.ADVANCED, Verdict.ADVANCED, Verdict.FORGIVEN]
        assert verdicts[3:] == [Verdict.ADVANCED, Verdict.WRONG, Verdict.IGNORED]
        assert knockers.stage(ALICE, self.ONE) == 0
        assert knockers.on_knock(ALICE, code("t8:s"), 1, 1e6).verdict is Verdict.IGNORED


NATIVE_FLAGS = {
    "bare SYN": ((S,), {"s": Verdict.ADVANCED, "a": Verdict.NOT_A_KNOCK, "sa": Verdict.NOT_A_KNOCK}),
    "bare SYN: reset": ((S,), {"r": Verdict.NOT_A_KNOCK, "ra": Verdict.NOT_A_KNOCK, "rs": Verdict.NOT_A_KNOCK}),
    "bare SYN: odd flags": ((S,), {"f": Verdict.FORGIVEN}),
    "bare SYN: no flags": ((S,), {"": Verdict.FORGIVEN}),
    "SYN, and FIN on the same port: ACK is wrong": ((S, F), {"a": Verdict.FORGIVEN}),
    "SYN and ACK": ((S | A,), {"sa": Verdict.ADVANCED, "s": Verdict.FORGIVEN}),
}


@pytest.mark.parametrize(("flags", "verdicts"), NATIVE_FLAGS.values(), ids=NATIVE_FLAGS)
def test_native_step_judges_flags(flags: tuple[int, ...], verdicts: dict[str, Verdict]) -> None:
    steps = (*(Step(Protocol.TCP, 7, one) for one in flags), Step(Protocol.TCP, 8, F))
    knockers = KnockerTable([Sequence("native", steps, timeout=10.0)], 5.0, 100)
    found = {word: knockers.on_knock(ALICE, code(f"t7:{word}"), 1, 1e6).verdict for word in verdicts}
    assert found == verdicts


def test_native_port_with_bare_syn_subscribes_to_no_ack_or_rst() -> None:
    one = Sequence("one", (Step(Protocol.TCP, 7, S), Step(Protocol.UDP, 7)), timeout=10.0)
    codes = dialects.subscriptions([one])[0].codes
    assert codes == {code("u7"), *(code(f"t7:{word}") for word in ("", "s", "f", "p", "u", "sf", "sp", "su", "fp"))} | {
        code(f"t7:{word}") for word in ("fu", "pu", "sfp", "sfu", "spu", "fpu", "sfpu")
    }
