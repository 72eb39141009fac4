"""The receivers together: what they capture is replaced whole, or not at all. Real sockets; a stand-in sniffs."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

import pytest

from port_knocking_doors.capture import on_demand
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.on_demand import OnDemandSniffer
from port_knocking_doors.capture.receiver import RECEIVERS, KnockReceiver
from port_knocking_doors.errors import CaptureError, DoorsError, ListenError
from port_knocking_doors.knocks.authenticator import NOT_A_KNOCK, Authenticator, Capture, Grant, Judge, Outcome, Verdict
from port_knocking_doors.knocks.code import code_of, listened_code
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import PAYLOAD, Access, Protocol, Sequence, Step
from port_knocking_doors.system.clock import now
from tests.helpers.ports import free_ports

SOON = 10.0
CLIENT = ip_address("127.0.0.1").packed
SNIFFED, OTHER = 21500, 21600


class StandIn:
    """What the receivers know of a sniffer. A real one needs a capability, and a kernel that runs out of memory."""

    def __init__(self, dispatch: Dispatch, capture: Capture, *_: object) -> None:
        self.dispatch, self.codes = dispatch, capture.codes
        self.is_open = False
        self.refuses = False

    def __enter__(self) -> "StandIn":
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    @contextmanager
    def replacing(self, capture: Capture) -> Iterator[None]:
        if self.refuses:
            raise CaptureError("packets cannot be filtered: Cannot allocate memory")
        before, self.codes = self.codes, capture.codes
        try:
            yield
        except BaseException:
            self.codes = before
            raise


class Refusing(StandIn):
    def __enter__(self) -> "StandIn":
        raise CaptureError("packets cannot be captured")


class Received:
    """A receiver, with the table of knockers that it has first."""

    def __init__(self, ports: tuple[int, ...], *steps: int) -> None:
        self.complete: list[str] = []
        self.before = table(ports, *steps)
        self.receiver = KnockReceiver([self.before], self._act)

    def _act(self, source: bytes, _: int, outcome: Outcome, __: float) -> None:
        assert source == CLIENT
        self.complete += [grant.access.name for grant in outcome.grants]

    @property
    def sniffer(self) -> StandIn:
        sniffer = self.sniffer_or_none
        assert isinstance(sniffer, StandIn)
        return sniffer

    @property
    def sniffer_or_none(self) -> object:
        (found,) = (one for one in self.receiver._receivers if isinstance(one, OnDemandSniffer))
        return found.sniffer

    def sniff(self, *steps: int) -> Verdict:
        """What is said of the last of these UDP knocks, if the sniffer hears them."""
        verdict = Verdict.NOT_A_KNOCK
        for step in steps:
            code = code_of(Step(Protocol.UDP, step))
            if code in self.sniffer.codes and (judge := self.sniffer.dispatch.judges.get(code)):
                verdict = judge(CLIENT, code, 1, now()).verdict
        return verdict

    def knock(self, *ports: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for port in ports:
                sock.sendto(PAYLOAD, ("127.0.0.1", port))

    async def opens(self, *ports: int) -> None:
        """Knock, and wait for the whole opening sequence."""
        self.knock(*ports)
        await until(lambda: self.complete)
        assert self.complete == ["main"]


async def until(condition: Callable[[], object]) -> None:
    """`tell` has the time limit."""
    while not condition():
        await asyncio.sleep(0.01)


def table(ports: tuple[int, ...], *steps: int) -> KnockerTable:
    main = Sequence("main", tuple(Step(Protocol.UDP, port) for port in ports), Access.of("main"), listened=True)
    sniffed = Sequence("ssh", tuple(Step(Protocol.UDP, port) for port in steps))
    return KnockerTable((main, sniffed), 5.0, 100)


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("::", port))
        except OSError:
            return False
    return True


def tell(monkeypatch: pytest.MonkeyPatch, kind: type[StandIn], story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    monkeypatch.setattr(on_demand, "Sniffer", kind)
    asyncio.run(asyncio.wait_for(story(), SOON))


def test_replace_changes_nothing_when_filter_cannot_be_attached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *old, new = free_ports(4)

    async def story() -> None:
        received = Received(tuple(old), SNIFFED, SNIFFED + 1)
        with received.receiver:
            received.knock(*old[:1])
            await until(lambda: len(received.before) == 1)
            received.sniffer.refuses = True
            after = table((new, *old[:2]), OTHER, OTHER + 1)
            with pytest.raises(CaptureError):
                received.receiver.replace([after])
            assert is_free(new), "a port of the new sequence is listened on"
            assert received.sniff(OTHER, OTHER + 1) is Verdict.NOT_A_KNOCK
            assert received.sniff(SNIFFED, SNIFFED + 1) is Verdict.COMPLETE
            await received.opens(*old[1:])  # by the source that was on its way
            assert (len(after), len(received.before)) == (0, 1), "the table that is judged by is not the one that stays"

    tell(monkeypatch, StandIn, story)


def test_replace_changes_nothing_when_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    *old, taken = free_ports(4)

    async def story() -> None:
        received = Received(tuple(old), SNIFFED, SNIFFED + 1)
        with received.receiver, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::", taken))
            after = table((taken, *old[:2]), OTHER, OTHER + 1)
            with pytest.raises(ListenError):
                received.receiver.replace([after])
            assert received.sniff(OTHER, OTHER + 1) is Verdict.NOT_A_KNOCK
            assert received.sniff(SNIFFED, SNIFFED + 1) is Verdict.COMPLETE
            await received.opens(*old)
            assert (len(after), len(received.before)) == (0, 1)

    tell(monkeypatch, StandIn, story)


class Last:
    """One more kind of receiver, which refuses every replacement."""

    counters: Mapping[str, int] = MappingProxyType({"last": 1})

    def __init__(self, _: Dispatch) -> None:
        pass

    def start(self, capture: Capture) -> None:
        assert capture.ports

    def stop(self) -> None:
        pass

    @contextmanager
    def replacing(self, _: Capture) -> Iterator[None]:
        raise ListenError("not possible")
        yield


@pytest.mark.parametrize(
    ("kind", "is_taken", "is_last", "error"),
    [
        (Refusing, False, False, CaptureError),
        (StandIn, True, False, ListenError),
        (StandIn, False, True, ListenError),
        (Refusing, True, True, DoorsError),
    ],
    ids=["no sniffer", "a taken port", "another kind of receiver", "all of them"],
)
def test_failed_replace_leaves_no_sniffer_when_none_ran(
    monkeypatch: pytest.MonkeyPatch, kind: type[StandIn], is_taken: bool, is_last: bool, error: type[DoorsError]
) -> None:
    *old, new = free_ports(4)
    if is_last:
        monkeypatch.setitem(RECEIVERS, "last", Last)

    async def story() -> None:
        received = Received(tuple(old))
        with received.receiver, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            if is_taken:
                sock.bind(("::", new))
            after = table((new, *old[:2]), OTHER, OTHER + 1)
            with pytest.raises(error):
                received.receiver.replace([after])
            assert received.sniffer_or_none is None
            assert is_free(new) is not is_taken
            assert received.receiver.counters == {"ports": 3, **({"last": 1} if is_last else {})}
            await received.opens(*old)

    tell(monkeypatch, kind, story)


def test_replace_captures_new_ports_and_codes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    *old, new = free_ports(4)

    async def story() -> None:
        received = Received(tuple(old), SNIFFED, SNIFFED + 1)
        with received.receiver:
            after = table((new, *old[:2]), OTHER, OTHER + 1)
            received.receiver.replace([after])
            assert is_free(old[2])
            assert received.sniff(SNIFFED, SNIFFED + 1) is Verdict.NOT_A_KNOCK
            assert received.sniff(OTHER, OTHER + 1) is Verdict.COMPLETE
            await received.opens(new, *old[:2])
            sniffer = received.sniffer
            silent = table((new, *old[:2]))
            received.receiver.replace([silent])
            assert (received.sniffer_or_none, sniffer.is_open) == (None, False)

    tell(monkeypatch, StandIn, story)


class Toy(Authenticator):
    """Grants access for one datagram, if its source port is right."""

    def __init__(self, port: int, source_port: int) -> None:
        self._port, self._source_port = port, source_port

    @property
    def capture(self) -> Capture:
        return Capture(ports=(self._port,))

    def on_knock(self, source: bytes, code: int, packet_id: int, now: float) -> Outcome:  # noqa: ARG002
        if packet_id != self._source_port:
            return NOT_A_KNOCK
        return Outcome.of(Verdict.COMPLETE, grants=(Grant(Access.of("toy")),))


@pytest.mark.parametrize("is_shared", [False, True], ids=["a port of its own", "a port of a sequence"])
def test_second_authenticator_judges_the_packets_that_it_captures(is_shared: bool) -> None:
    *ports, own = free_ports(4)
    opened: list[tuple[str, ...]] = []

    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            toy = Toy(ports[2] if is_shared else own, sock.getsockname()[1])
            receiver = KnockReceiver(
                [table(tuple(ports)), toy],
                lambda _, __, outcome, ___: opened.append(tuple(grant.access.name for grant in outcome.grants)),
            )
            with receiver:
                assert receiver.counters["ports"] == (3 if is_shared else 4)
                for port in (*ports, *(() if is_shared else (own,))):
                    sock.sendto(PAYLOAD, ("127.0.0.1", port))
                await until(lambda: sum(map(len, opened)) == 2)

    asyncio.run(asyncio.wait_for(story(), SOON))
    assert opened == ([("main", "toy")] if is_shared else [("main",), ("toy",)])


def test_wrap_is_around_every_judge_until_it_is_replaced() -> None:
    ports = free_ports(2)
    seen: list[Verdict] = []

    def aloud(judge: Judge) -> Judge:
        def wrapped(source: bytes, code: int, packet_id: int, now: float) -> Outcome:
            outcome = judge(source, code, packet_id, now)
            seen.append(outcome.verdict)
            return outcome

        return wrapped

    received = Received(tuple(ports))
    dispatch = received.receiver._dispatch
    dispatch.use([received.before])
    assert set(dispatch.judges.values()) == {received.before.on_knock}, "nothing between a receiver and the table"
    received.receiver.wrap(aloud)
    dispatch.judges[listened_code(ports[0])](CLIENT, listened_code(ports[0]), 1, 0.0)
    assert seen == [Verdict.ADVANCED]
    received.receiver.wrap(lambda judge: judge)
    assert set(dispatch.judges.values()) == {received.before.on_knock}
