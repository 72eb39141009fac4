"""The soak test's model: what it says must be open, what may be, and where it leaves that open."""

from dataclasses import dataclass, field

import pytest

from tests.soak.model import Hit, Model, Orders, Packet, Plan, Tolerances, Window

ONE, TWO, THREE = Hit("udp", 1001), Hit("udp", 1002), Hit("udp", 1003)
SYN, FRAP = Hit("tcp", 2001, 0x02), Hit("tcp", 2002, 0x1D)
MAIN = Plan("main", (ONE, TWO, THREE), 10.0, listened=True, lifetime=4.0, opens=22)
SNIFFED = Plan("sniffed", (Hit("udp", 1500), SYN, FRAP), 10.0, timeout=4.0, opens=23)
COMMANDS = Plan("commands", (Hit("udp", 1600), Hit("udp", 1601)), 10.0, timeout=4.0)
ORDERS = Orders((MAIN, SNIFFED, COMMANDS), ignoring=3.0)
A = "10.0.0.9"


@dataclass
class Scene:
    model: Model = field(default_factory=lambda: Model(ORDERS, [ORDERS], Tolerances(1.0, 1.0, 1.0, 1.0, 0.1)))
    number: int = 0

    def send(self, when: float, *hits: Hit, right: bool = True, again: bool = False) -> None:
        """A packet each 0.01 s, from `when` on."""
        for place, hit in enumerate(hits):
            self.number += not again
            moment = when + 0.01 * place
            self.model.note(moment, "sent", Packet(moment, moment, A, hit, right, (self.number, self.number)))
        self.model.advance()

    def is_open(self, when: float, port: int = 22) -> str:
        """ "must", "may" or "no"."""
        if (A, port) in self.model.must(when, when):
            return "must"
        return "may" if self.model.may(when, when, A, port) else "no"


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_right_knocks_open_after_a_moment_for_the_promised_time(scene: Scene) -> None:
    scene.send(0.0, *MAIN.steps)
    states = [scene.is_open(when) for when in (-1, 0.5, 1.5, 9.9, 10.5, 11.5)]
    assert states == ["no", "may", "must", "must", "may", "no"]


def test_second_sequence_while_open_leaves_no_gap(scene: Scene) -> None:
    scene.send(0.0, *MAIN.steps)
    scene.send(8.0, *MAIN.steps)
    assert [scene.is_open(when) for when in (8.5, 10.5, 17.9, 18.5, 19.5)] == ["must", "must", "must", "may", "no"]


WRONG = {
    "another order": (TWO, ONE, THREE),
    "one left out": (ONE, THREE),
    "flags of the last step": (SNIFFED.steps[0], SYN, FRAP._replace(flags=0x02), FRAP),
    "another flag with the SYN": (SNIFFED.steps[0], SYN._replace(flags=0x03), SYN, FRAP),
}


@pytest.mark.parametrize("hits", WRONG.values(), ids=WRONG)
def test_wrong_knock_opens_nothing_and_address_is_ignored(scene: Scene, hits: tuple[Hit, ...]) -> None:
    scene.send(0.0, *hits)
    assert [scene.is_open(1.0), scene.is_open(1.0, 23)] == ["no", "no"]
    scene.send(0.1, *[THREE] * 3)
    scene.send(1.0, *MAIN.steps)
    assert scene.is_open(3.0) == "no"
    scene.send(5.0, *MAIN.steps)
    assert scene.is_open(7.0) == "must"


def test_client_that_lost_a_packet_is_let_in_at_its_second_try(scene: Scene) -> None:
    for when, lost in ((0.0, ONE), (40.0, TWO), (80.0, THREE)):
        scene.send(when, *(step for step in MAIN.steps if step != lost))
        scene.send(when + 1, *MAIN.steps)
        assert scene.is_open(when + 3) == "must"


def test_door_is_uncertain_at_end_of_ignoring(scene: Scene) -> None:
    scene.send(0.0, TWO, TWO, TWO)
    scene.send(3.0, *MAIN.steps)
    assert scene.is_open(5.0) == "may"
    scene.send(5.0, *MAIN.steps)  # who goes on knocking remains unknown
    assert scene.is_open(7.0) == "may"
    scene.send(25.0, *MAIN.steps)
    assert scene.is_open(27.0) == "must"


HARMLESS = {
    "the wrong payload": lambda scene: scene.send(0.02, TWO, THREE, right=False),
    "the same packet twice": lambda scene: scene.send(0.02, ONE, again=True),
    "of a connection to a step's port": lambda scene: scene.send(0.02, SYN._replace(flags=0x12)),
}


@pytest.mark.parametrize("what", HARMLESS.values(), ids=HARMLESS)
def test_packet_that_is_no_knock_changes_nothing(scene: Scene, what) -> None:  # type: ignore[no-untyped-def]
    scene.send(0.0, ONE)
    what(scene)
    scene.send(0.1, TWO, THREE)
    assert scene.is_open(2.0) == "must"


@pytest.mark.parametrize(("pause", "state"), [(3.0, "must"), (4.0, "may"), (5.0, "no")])
def test_time_between_two_knocks_is_limited(scene: Scene, pause: float, state: str) -> None:
    scene.send(0.0, ONE)
    scene.send(pause, TWO, THREE)
    assert scene.is_open(pause + 2) == state


@pytest.mark.parametrize(("pause", "state"), [(1.5, "must"), (2.5, "no")])
def test_time_from_first_knock_is_limited(scene: Scene, pause: float, state: str) -> None:
    for place, hit in enumerate(SNIFFED.steps):
        scene.send(place * pause, hit)
    assert scene.is_open(2 * pause + 2, 23) == state


def test_door_is_uncertain_after_packet_that_may_be_lost(scene: Scene) -> None:
    scene.model.begins(Window(0.0, 1.0, deaf=True))
    scene.send(0.9, *MAIN.steps)
    assert scene.is_open(3.0) == "may"
    scene.send(20.0, *MAIN.steps)
    assert scene.is_open(22.0) == "must"


@pytest.mark.parametrize(("when", "state"), [(4.9, "must"), (5.1, "may"), (8.0, "may"), (24.0, "must")])
def test_newcomer_is_uncertain_while_table_is_full_of_others(scene: Scene, when: float, state: str) -> None:
    scene.model.note(5.0, "disturbed")
    scene.model.advance()
    scene.send(when - 0.02, *MAIN.steps)
    assert scene.is_open(when + 2.0) == state


def test_nothing_is_judged_during_a_fault(scene: Scene) -> None:
    scene.model.begins(Window(1.0, 2.0, blind=True))
    assert [scene.model.is_calm(*when) for when in ((0.0, 0.5), (0.5, 1.5), (2.5, 3.0))] == [True, False, True]


def test_death_of_daemon_closes_doors_and_forgets_knockers(scene: Scene) -> None:
    scene.send(0.0, *MAIN.steps)
    scene.send(2.0, TWO, TWO, TWO)
    scene.model.note(3.0, "died", 1.0)
    scene.model.advance()
    assert [scene.is_open(when) for when in (2.9, 3.5, 4.5)] == ["must", "may", "no"]
    scene.send(5.0, *MAIN.steps)
    assert scene.is_open(7.0) == "must"


def test_doors_open_and_close_by_hand(scene: Scene) -> None:
    scene.model.note(1.0, "opened", 0.5, A, "main")
    scene.model.advance()
    assert [scene.is_open(when) for when in (2.5, 10.4, 11.5, 12.5)] == ["must", "must", "may", "no"]
    scene.model.note(5.0, "closed", 4.5, A)
    scene.model.advance()
    assert [scene.is_open(when) for when in (4.0, 5.5, 6.5)] == ["must", "may", "no"]


def test_forgotten_knocker_starts_again(scene: Scene) -> None:
    scene.send(0.0, TWO, TWO, TWO)
    scene.model.note(1.0, "forgotten", 0.9, A)
    scene.send(1.5, *MAIN.steps)
    assert scene.is_open(3.0) == "must"


def test_reloaded_orders_take_other_knocks(scene: Scene) -> None:
    other = Orders((Plan("main", (THREE, TWO, ONE), 10.0, listened=True, lifetime=4.0, opens=22),), 3.0)
    scene.send(0.0, ONE)
    scene.model.note(0.5, "orders_given", other)
    scene.send(1.0, TWO, THREE)
    assert scene.is_open(3.0) == "no"
    scene.send(9.0, THREE, TWO, ONE)
    assert scene.is_open(11.0) == "must"


def test_start_commands_are_counted(scene: Scene) -> None:
    scene.send(0.0, *COMMANDS.steps)
    assert scene.model.starts(A, "commands") == (1, 1)
    scene.send(5.0, *COMMANDS.steps)  # prolonged
    assert scene.model.starts(A, "commands") == (1, 2)
    scene.send(30.0, *COMMANDS.steps)
    assert scene.model.starts(A, "commands") == (2, 3)
    scene.model.note(30.5, "died", 1.0)  # the last one may not have begun
    scene.model.advance()
    assert scene.model.starts(A, "commands") == (1, 3)
