"""The client's tries of a port: which error is reported, and which addresses are used."""

import errno
import itertools
import socket
import time
from collections.abc import Callable, Iterable

import pytest

from port_knocking_doors.client import knock
from port_knocking_doors.client.knock import KnockPlan, Target
from port_knocking_doors.errors import DoorClosedError

TARGET = Target(socket.AF_INET, ("127.0.0.1", 9), ("127.0.0.1", 0))
OTHER = Target(socket.AF_INET, ("127.0.0.2", 9), ("127.0.0.1", 0))
Answers = Callable[[Iterable[int]], None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Makes each try of the port end with the next of these errors, and the clock advance by a second at each look."""

    def set_answers(errors: Iterable[int]) -> None:
        left = iter(errors)
        clock = itertools.count()
        monkeypatch.setattr(knock, "try_port", lambda *_: (None, next(left)))
        monkeypatch.setattr(time, "sleep", lambda _: None)
        monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    return set_answers


TIMEOUT, REJECTED, REFUSED = errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNREFUSED
TELLING = {
    "only timeouts": ([TIMEOUT] * 3, TIMEOUT),
    "rejections, then a timeout": ([REJECTED, REJECTED, TIMEOUT], REJECTED),
    "a timeout, then a rejection": ([TIMEOUT, TIMEOUT, REJECTED], REJECTED),
    "a rejection, then a refusal": ([REJECTED, REFUSED, TIMEOUT], REFUSED),
}


@pytest.mark.parametrize(("errors", "reported"), TELLING.values(), ids=TELLING)
def test_timeout_does_not_hide_earlier_error(answers: Answers, errors: list[int], reported: int) -> None:
    answers(errors)
    assert knock.wait_for_port(TARGET, 22, 6.0) == (None, reported)


PLANS = {
    "first try": (True, 1, [REJECTED, TIMEOUT, TIMEOUT, TIMEOUT], "once; a firewall rejected the connection"),
    "two tries": (False, 2, [REFUSED, *[TIMEOUT] * 5], "2 times; the connection was refused: no service listens there"),
    "no answer": (False, 2, [TIMEOUT] * 6, "2 times; the connection timed out"),
    "another error": (False, 1, [errno.ENETUNREACH, TIMEOUT, TIMEOUT], "once; Network is unreachable"),
}


@pytest.mark.parametrize(("try_first", "tries", "errors", "said"), PLANS.values(), ids=PLANS)
def test_closed_port_is_reported_with_most_telling_error(
    answers: Answers, try_first: bool, tries: int, errors: list[int], said: str
) -> None:
    answers(errors)
    plan = KnockPlan("host", (TARGET, OTHER), (), 0.2, 22, tries, 6.0)
    with pytest.raises(DoorClosedError, match=f"port 22 is not open, knocked {said}"):
        plan.connect(try_first=try_first, report=knock.no_report, detail=knock.no_report)


def test_tries_use_addresses_of_host_in_turn(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    answers([TIMEOUT] * 9)
    knocked: list[Target] = []
    monkeypatch.setattr(knock, "knock", lambda target, *_: knocked.append(target))
    plan = KnockPlan("host", (TARGET, OTHER), (), 0.2, 22, 3, 6.0)
    with pytest.raises(DoorClosedError, match=r"^host \(127.0.0.1, 127.0.0.2\): "):
        plan.connect(try_first=False, report=knock.no_report, detail=knock.no_report)
    assert knocked == [TARGET, OTHER, TARGET]
