"""Deadlines against an obvious model of them, and what ties and stale entries must not do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from port_knocking_doors.knocks.deadlines import Deadlines


class Incomparable:
    """A key that no heap may compare."""

    def __lt__(self, _: object) -> bool:
        raise AssertionError("compared")


def test_tie_compares_no_keys_and_comes_in_order() -> None:
    deadlines: Deadlines[Incomparable] = Deadlines()
    keys = [Incomparable() for _ in range(50)]
    for key in keys:
        deadlines.set(key, 5.0)
    assert deadlines.due(5.0) == keys


def test_removed_key_is_never_due() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 1.0)
    assert [deadlines.remove("a") for _ in range(2)] == [True, False]
    assert (deadlines.nearest(), deadlines.due(2.0), len(deadlines)) == (None, [], 0)


def test_due_key_is_forgotten_and_may_be_set_again() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for until in (1.0, 2.0):
        deadlines.set("a", until)
        assert deadlines.due(until) == ["a"]
        assert ("a" in deadlines, deadlines.get("a"), len(deadlines)) == (False, None, 0)


def test_key_set_a_thousand_times_keeps_the_heap_small() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for number in range(1000):
        deadlines.set("a", float(number))
        deadlines.set("b", float(number))
        assert len(deadlines._heap) <= 2 * 2 + 17
    assert deadlines.due(999.0) == ["a", "b"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "remove", "due"]), st.integers(0, 4), st.floats(0, 10).map(lambda x: 1e6 + x)
        ),
        max_size=200,
    )
)
def test_agrees_with_the_model(actions: list[tuple[str, int, float]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    for action, key, when in actions:
        if action == "set":
            deadlines.set(key, when)
            model[key] = when
        elif action == "remove":
            assert deadlines.remove(key) is (model.pop(key, None) is not None)
        else:
            due = deadlines.due(when)
            assert {*due} == {one for one, until in model.items() if until <= when}
            assert [model[one] for one in due] == sorted(model[one] for one in due)
            for one in due:
                del model[one]
        assert deadlines.nearest() == min(model.values(), default=None)
        assert {*deadlines} == model.keys()
        assert len(deadlines) == len(model)
