"""The order of datagrams across sockets when the wall clock was set between them, by injected stamps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.capture.arrival import SLACK, restamped
from port_knocking_doors.capture.recvmmsg import Datagram

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
NOW = 1_800_000_000 * SECOND


def datagram(stamp: int, code: int) -> Datagram:
    return (stamp, b"\x0a\x00\x00\x02", code, 40000, 1)


def codes(received: list[Datagram]) -> list[int]:
    return [code for _, _, code, _, _ in sorted(received, key=lambda one: one[0])]


MS = 1_000_000
CASES = {
    "a step back between two knocks": (-HOUR, [(NOW + HOUR - 3 * MS, 1), (NOW - MS, 2)], [1, 2]),
    "a step back behind both": (-HOUR, [(NOW + HOUR - 3 * MS, 1), (NOW + HOUR - MS, 2)], [1, 2]),
    "a step back ahead of both": (-HOUR, [(NOW - 3 * MS, 1), (NOW - MS, 2)], [1, 2]),
    "a step forward between two knocks": (HOUR, [(NOW - HOUR - 3 * MS, 1), (NOW - MS, 2)], [1, 2]),
    "a step forward behind both": (HOUR, [(NOW - HOUR - 3 * MS, 1), (NOW - HOUR - MS, 2)], [1, 2]),
    "a small step back": (-20 * MS, [(NOW + 17 * MS, 1), (NOW - MS, 2)], [1, 2]),
    "a step back, and the sockets read the other way round": (
        -HOUR,
        [(NOW - MS, 3), (NOW + HOUR - 3 * MS, 1), (NOW - 2 * MS, 2)],
        [1, 2, 3],
    ),
}


@pytest.mark.parametrize(("step", "received", "order"), CASES.values(), ids=CASES)
def test_knocks_around_a_step_keep_the_order_of_their_arrival(
    step: int, received: list[tuple[int, int]], order: list[int]
) -> None:
    assert codes(restamped([datagram(*one) for one in received], NOW, step)) == order


def test_datagrams_of_one_socket_are_never_swapped() -> None:
    """The first waited for longer than the step is wide, so that its stamp could be of after the step."""
    received = [datagram(NOW - 5 * MS, 1), datagram(NOW - 9 * MS, 1), datagram(NOW - MS, 2)]
    stamps = [stamp for stamp, *_ in restamped(received, NOW, -4 * MS)]
    assert stamps == sorted(stamps)


def test_stamp_that_no_clock_explains_is_taken_for_now() -> None:
    ((stamp, *_),) = restamped([datagram(NOW + 2 * HOUR, 1)], NOW, -HOUR)
    assert stamp == NOW + SLACK


@given(
    st.integers(-24 * HOUR, 24 * HOUR).filter(lambda step: abs(step) > SECOND),
    st.lists(
        st.tuples(st.integers(0, SECOND // MS - 1), st.integers(1, 5)),
        min_size=1,
        max_size=30,
        unique_by=lambda one: one[0],
    ),
    st.integers(0, SECOND),
)
def test_any_step_leaves_datagrams_of_the_last_second_in_order(
    step: int, arrivals: list[tuple[int, int]], stepped: int
) -> None:
    """`arrivals`: milliseconds before now, and the socket; `stepped`: nanoseconds before now."""
    sockets: dict[int, list[Datagram]] = {}
    for before, code in sorted(arrivals, reverse=True):
        stamp = NOW - before * MS - (step if before * MS > stepped else 0)
        sockets.setdefault(code, []).append((stamp, b"", code, before, 0))
    read = [one for socket in sockets.values() for one in socket]
    order = [before for _, _, _, before, _ in sorted(restamped(read, NOW, step), key=lambda one: one[0])]
    assert order == sorted(order, reverse=True)
