"""The client's tries of a port: which error is reported, and which addresses are used."""

import errno
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from port_knocking_doors.client import knock
from port_knocking_doors.client.knock import KnockPlan, Target
from port_knocking_doors.errors import DoorClosedError, DoorsError, NotPermittedError
from port_knocking_doors.model import Flags, Protocol, Step

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


FAILURES = {
    "forbidden by a firewall": (errno.EPERM, NotPermittedError, "this machine does not permit the knock (not allowed)"),
    "forbidden, a broadcast address": (
        errno.EACCES,
        NotPermittedError,
        "this machine does not permit the knock (not allowed)",
    ),
    "no route": (errno.ENETUNREACH, DoorsError, "no route to host"),
    "an unreachable host": (errno.EHOSTUNREACH, DoorsError, "no route to host"),
    "no address": (errno.EADDRNOTAVAIL, DoorsError, "no route to host"),
    "anything else": (errno.ENOBUFS, DoorsError, "sending a knock failed (not allowed)"),
}
UDP, SYN = Step(Protocol.UDP, 7117), Step(Protocol.TCP, 7117, Flags.SYN)


@pytest.mark.parametrize("step", [UDP, SYN], ids=["datagram", "SYN"])
@pytest.mark.parametrize(("number", "kind", "said"), FAILURES.values(), ids=FAILURES)
def test_knock_that_cannot_be_sent_is_one_line_without_its_port(
    monkeypatch: pytest.MonkeyPatch, step: Step, number: int, kind: type[DoorsError], said: str
) -> None:
    class Socket(socket.socket):
        def sendto(self, *_: Any) -> int:
            raise OSError(number, "not allowed")

        def connect_ex(self, _: Any) -> int:
            return number

    monkeypatch.setattr("port_knocking_doors.client.knock.socket.socket", Socket)
    monkeypatch.setattr(os, "strerror", lambda _: "not allowed")
    with pytest.raises(DoorsError) as caught:
        knock.knock(TARGET, (step,), 0)
    assert type(caught.value) is kind
    assert str(caught.value) == f"127.0.0.1: {said}"


def test_host_that_refuses_a_knock_got_it() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        knock.knock(TARGET, (Step(Protocol.TCP, bound.getsockname()[1], Flags.SYN),), 0)


def test_connection_without_an_answer_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the backlog's one place
            assert knock.try_port(TARGET, port, 0.05) == (None, errno.ETIMEDOUT)


BROADCAST = ("127.255.255.255", 9)
ROUTES = {
    "a broadcast address": (socket.AF_INET, BROADCAST, Target(socket.AF_INET, BROADCAST, BROADCAST)),
    "IPv4 in IPv6": (socket.AF_INET6, ("::ffff:127.0.0.1", 9, 0, 0), TARGET),
}


@pytest.mark.parametrize(("family", "address", "expected"), ROUTES.values(), ids=ROUTES)
def test_address_is_reached_as_the_kernel_routes_it(
    family: socket.AddressFamily, address: tuple[Any, ...], expected: Target
) -> None:
    target = knock._routed(family, address)
    assert target is not None
    assert (target.family, target.at(9)) == (expected.family, expected.at(9))


def test_refusal_at_once_ends_the_try() -> None:
    target = Target(socket.AF_INET, BROADCAST, BROADCAST)
    stream, number = knock.try_port(target, 9, 60.0)
    assert stream is None
    assert number in (errno.ENETUNREACH, errno.EACCES)


def test_interrupted_try_closes_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[socket.socket] = []

    def interrupt(attempt: socket.socket, _: float) -> int:
        tried.append(attempt)
        raise KeyboardInterrupt

    monkeypatch.setattr(knock, "_await_answer", interrupt)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(KeyboardInterrupt):
        knock.try_port(TARGET, server.getsockname()[1], 1.0)
    assert [one.fileno() for one in tried] == [-1]
