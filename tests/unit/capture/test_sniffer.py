"""The sniffer's filter, which is exchanged or stays, and its reports of drops. A socket stands in for the kernel's."""

import asyncio
import errno
import logging
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from port_knocking_doors.capture import ring, sniffer
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.sniffer import DROPS_EVERY, PROGRAM_LIMITS, Sniffer
from port_knocking_doors.errors import CaptureError
from port_knocking_doors.knocks.authenticator import Capture
from port_knocking_doors.system.log import logger

BEFORE, AFTER = Capture(codes=frozenset({1})), Capture(codes=frozenset({2}))


class Kernel:
    """Stands in for the socket: filters that are attached, and counters."""

    def __init__(self) -> None:
        self.memory = True
        self.attached = 0
        self.error = 0
        self.counted = (0, 0)
        self.is_closed = False

    def attach(self, *_: object) -> bool:
        self.attached += self.memory
        return self.memory

    def getsockopt(self, level: int, *_: int) -> Any:
        return struct.pack("3I", *self.counted, 0) if level == ring.SOL_PACKET else self.error

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(sniffer, "attach_filter", made.attach)
    monkeypatch.setattr(sniffer, "detach_filter", lambda _: None)
    caplog.set_level(logging.INFO, logger.name)
    return made


@pytest.fixture
def sniffing(kernel: Kernel) -> Iterator[Sniffer]:
    made = Sniffer(Dispatch(lambda *_: None), BEFORE, lambda *_: 0)
    made._socket = kernel  # type: ignore[assignment]
    made._attach_filter(BEFORE)
    yield made
    made.close()
    assert kernel.is_closed
    made.close()


def test_same_capture_exchanges_no_filter(sniffing: Sniffer, kernel: Kernel) -> None:
    with sniffing.replacing(BEFORE):
        assert kernel.attached == 1
    with sniffing.replacing(AFTER):
        assert kernel.attached == 2
    assert sniffing._capture is AFTER


@pytest.mark.parametrize("memory", [True, False], ids=["the filter of before", "no memory for any"])
def test_error_of_the_body_keeps_the_capture(sniffing: Sniffer, kernel: Kernel, memory: bool) -> None:
    def fail() -> None:
        kernel.memory = memory
        raise KeyError

    with pytest.raises(KeyError), sniffing.replacing(AFTER):
        fail()
    assert sniffing._capture is BEFORE
    assert kernel.attached == 2 + memory


def test_filter_without_memory_is_an_error_after_every_size(
    sniffing: Sniffer, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    detached: list[object] = []
    monkeypatch.setattr(sniffer, "detach_filter", detached.append)
    kernel.memory = False
    said = r"^packets cannot be filtered: the kernel has no memory for the filter \(net.core.optmem_max\)$"
    with pytest.raises(CaptureError, match=said), sniffing.replacing(AFTER):
        pytest.fail("its body runs")
    assert len(detached) == len(PROGRAM_LIMITS)


def test_error_of_the_socket_is_reported(sniffing: Sniffer, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel.error = errno.ENETDOWN
    sniffing._look(1.0)
    assert caplog.messages == ["the sniffer: Network is down; it goes on"]


def test_drops_are_reported_summed_up_and_over(
    sniffing: Sniffer, kernel: Kernel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        moment = 1000.0
        monkeypatch.setattr(sniffer, "now", lambda: moment)
        for counted in ((10, 3), (20, 5), (7, 0)):
            kernel.counted = counted
            if sniffing._timer is None:
                sniffing._look(moment)
            else:
                sniffing._timer.cancel()
                sniffing._sum_up_drops()
            assert sniffing._timer is not None
            moment += DROPS_EVERY
        sniffing.close()
        assert sniffing._timer is not None
        assert sniffing._timer.cancelled()

    asyncio.run(story())
    assert caplog.messages == [
        "the kernel drops packets: 3 of 10 did not fit into the ring",
        "the kernel drops packets: 5 more of 20 did not fit into the ring in the last 10 s",
        "no packets dropped for 10 s",
    ]
    assert (sniffing.seen, sniffing.dropped) == (37, 8)
