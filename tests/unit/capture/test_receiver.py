"""Both ears together: what they hear is exchanged whole, or not at all. Real sockets; the sniffer is a stand-in."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import ip_address
from types import TracebackType
from typing import Any

import pytest

from port_knocking_doors.capture import receiver
from port_knocking_doors.capture.receiver import KnockReceiver
from port_knocking_doors.errors import CaptureError, DoorsError, ListenError
from port_knocking_doors.knocks.authenticator import Judge, Outcome, Verdict
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.knocks.table import KnockerTable
from port_knocking_doors.model import PAYLOAD, Protocol, Sequence, Step
from tests.helpers.ports import free_ports

SOON = 10.0
CLIENT = ip_address("127.0.0.1").packed
SNIFFED, OTHER = 21500, 21600


class StandIn:
    """What the ears know of a sniffer. A real one needs a capability, and a kernel that runs out of memory in time."""

    def __init__(self, codes: Iterable[int], judge: Judge, *_: Any) -> None:
        self.codes, self.judge = frozenset(codes), judge
        self.is_open = False
        self.refuses = False

    def __enter__(self) -> "StandIn":
        self.is_open = True
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.is_open = False

    def replace(self, codes: Iterable[int], judge: Judge, _: Any) -> None:
        if self.refuses:
            raise CaptureError("packets cannot be filtered: Cannot allocate memory")
        self.codes, self.judge = frozenset(codes), judge


class Refusing(StandIn):
    def __enter__(self) -> "StandIn":
        raise CaptureError("packets cannot be captured")


class Heard:
    """Ears, with the tables that they had before and got."""

    def __init__(self, ports: tuple[int, ...], *steps: int) -> None:
        self.complete: list[str] = []
        self.before = table(ports, *steps)
        self.ears = KnockReceiver(ports, self.before, self.before.on_knock, self._act)

    def _act(self, source: bytes, _: int, outcome: Outcome, __: float) -> None:
        assert source == CLIENT
        self.complete += [sequence.name for sequence in outcome.sequences]

    @property
    def sniffer(self) -> StandIn:
        assert isinstance(self.ears.sniffer, StandIn)
        return self.ears.sniffer

    def sniff(self, *steps: int) -> Verdict:
        """What is said of the last of these UDP knocks, if the sniffer hears them."""
        verdict = Verdict.NOT_A_KNOCK
        for step in steps:
            code = code_of(Step(Protocol.UDP, step))
            if code in self.sniffer.codes:
                verdict = self.sniffer.judge(CLIENT, code, 1, asyncio.get_running_loop().time()).verdict
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
    """`tell` has the limit."""
    while not condition():
        await asyncio.sleep(0.01)


def table(ports: tuple[int, ...], *steps: int) -> KnockerTable:
    main = Sequence("main", tuple(Step(Protocol.UDP, port) for port in ports), listened=True)
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
    monkeypatch.setattr(receiver, "Sniffer", kind)
    asyncio.run(asyncio.wait_for(story(), SOON))


def test_where_the_filter_cannot_be_exchanged_all_that_was_heard_is_heard_and_nothing_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *old, new = free_ports(4)

    async def story() -> None:
        heard = Heard(tuple(old), SNIFFED, SNIFFED + 1)
        with heard.ears:
            heard.knock(*old[:1])
            await until(lambda: len(heard.before) == 1)
            heard.sniffer.refuses = True
            after = table((new, *old[:2]), OTHER, OTHER + 1)
            with pytest.raises(CaptureError):
                heard.ears.replace((new, *old[:2]), after, after.on_knock)
            assert is_free(new), "a port of the new sequence is listened on"
            assert heard.sniff(OTHER, OTHER + 1) is Verdict.NOT_A_KNOCK
            assert heard.sniff(SNIFFED, SNIFFED + 1) is Verdict.COMPLETE
            await heard.opens(*old[1:])  # by whoever was on the way
            assert (len(after), len(heard.before)) == (0, 1), "the table that is judged by is not the one that stays"

    tell(monkeypatch, StandIn, story)


def test_where_a_port_is_taken_the_sniffer_hears_again_what_it_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    *old, taken = free_ports(4)

    async def story() -> None:
        heard = Heard(tuple(old), SNIFFED, SNIFFED + 1)
        with heard.ears, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::", taken))
            after = table((taken, *old[:2]), OTHER, OTHER + 1)
            with pytest.raises(ListenError):
                heard.ears.replace((taken, *old[:2]), after, after.on_knock)
            assert heard.sniff(OTHER, OTHER + 1) is Verdict.NOT_A_KNOCK
            assert heard.sniff(SNIFFED, SNIFFED + 1) is Verdict.COMPLETE
            await heard.opens(*old)
            assert (len(after), len(heard.before)) == (0, 1)

    tell(monkeypatch, StandIn, story)


@pytest.mark.parametrize(("kind", "error"), [(Refusing, CaptureError), (StandIn, ListenError)])
def test_a_first_sniffed_sequence_that_cannot_be_had_leaves_no_sniffer(
    monkeypatch: pytest.MonkeyPatch, kind: type[StandIn], error: type[DoorsError]
) -> None:
    *old, taken = free_ports(4)

    async def story() -> None:
        heard = Heard(tuple(old))
        with heard.ears, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::", taken))
            after = table((taken, *old[:2]), OTHER, OTHER + 1)
            with pytest.raises(error):
                heard.ears.replace((taken, *old[:2]), after, after.on_knock)
            assert heard.ears.sniffer is None
            await heard.opens(*old)

    tell(monkeypatch, kind, story)


def test_what_can_be_had_is_heard_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    *old, new = free_ports(4)

    async def story() -> None:
        heard = Heard(tuple(old), SNIFFED, SNIFFED + 1)
        with heard.ears:
            after = table((new, *old[:2]), OTHER, OTHER + 1)
            heard.ears.replace((new, *old[:2]), after, after.on_knock)
            assert is_free(old[2])
            assert heard.sniff(SNIFFED, SNIFFED + 1) is Verdict.NOT_A_KNOCK
            assert heard.sniff(OTHER, OTHER + 1) is Verdict.COMPLETE
            await heard.opens(new, *old[:2])
            sniffer = heard.sniffer
            silent = table((new, *old[:2]))
            heard.ears.replace((new, *old[:2]), silent, silent.on_knock)
            assert (heard.ears.sniffer, sniffer.is_open) == (None, False)

    tell(monkeypatch, StandIn, story)
