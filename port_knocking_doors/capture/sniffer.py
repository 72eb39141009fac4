"""The sniffer: a packet ring that captures knocks on ports which are closed, and look closed, on every link at once.

One cooked socket for all links: it need not notice that links appear and vanish, and a packet begins at its IP header
on every kind of link. The kernel drops every packet that the filter does not name, and puts the rest into memory that
the kernel and this process share.

This is the hot path of a flood: the loop in `_read` makes no object that it does not need, calls what it calls through
local names, and reads the clock once a block.
"""

import asyncio
import errno
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from port_knocking_doors.capture import bpf, ring
from port_knocking_doors.capture.block import packets
from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.errors import CaptureError
from port_knocking_doors.knocks.authenticator import Capture
from port_knocking_doors.model import Address
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.rate_limit import Incident
from port_knocking_doors.system.resource import Resource
from port_knocking_doors.system.sockets import attach_filter, detach_filter

GEOMETRY = ring.Geometry(block_size=1 << 15, blocks=256, frame_size=1 << 11, retire_after=5)
"""8 MiB: some 60,000 knocks of a burst. A lone knock waits up to `retire_after` milliseconds, and the kernel's timer
ticks as often; the process is not woken where there is none. Many small blocks, since a block is used up after these
milliseconds, however few packets are in it: 256 last for 1.3 s in which the daemon does not run. Large ones were not
cheaper (measured: 32 of 256 KiB)."""

BLOCKS_AT_ONCE = 16
"""Blocks that are read before others have their turn: some thousand packets, some milliseconds."""

STATISTICS_EVERY = 1.0
"""Seconds between looks at the kernel's counters while packets come."""

DROPS_EVERY = 10.0
"""Seconds between two lines about dropped packets, and without any of them after which it is over."""

PROGRAM_LIMITS = (bpf.MAX_INSTRUCTIONS, bpf.MAX_INSTRUCTIONS, 1600, 600)
"""Instructions of the filter, tried in turn: older kernels have memory for 1,745 (net.core.optmem_max = 20480). A
shorter one lets more packets through, and user space decides."""

ETH_P_ALL = 0x0003  # linux/if_ether.h


class Sniffer(Resource):
    """The ring and its socket: a context manager, and once entered it captures.

    `capture`: the codes to capture, and targets other than this host's addresses. `scope_bits`: what to add to the
    codes of packets to a destination that arrive on an interface (by index), or None where they are within no scope.
    `is_honest`: whether a packet can have a source, on an interface; asked only where the outcome needs action.
    Entering raises `CaptureError` where this process may not sniff.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        capture: Capture,
        scope_bits: Callable[[bytes, int], int | None],
        is_honest: Callable[[bytes, int], bool] = lambda *_: True,
    ) -> None:
        self._dispatch = dispatch
        self._is_honest = is_honest
        self._capture = capture
        self._scope_bits = scope_bits
        self._filtered: tuple[frozenset[int], frozenset[Address]] | None = None
        """Codes and targets that the filter of the kernel passes, where there is one."""
        self._socket: socket.socket | None = None
        self._ring: mmap.mmap | None = None
        self._next = 0
        self._looked_at = 0.0
        self._drops = Incident(DROPS_EVERY)
        self._timer: asyncio.TimerHandle | None = None
        self.seen = 0
        """Packets that passed the filter, by the kernel's count."""
        self.dropped = 0
        """Of those, for which the ring had no space."""

    def open(self) -> None:
        """Raises `CaptureError`."""
        try:
            # It captures on every link from now on: Python can bind a packet socket to one link only. What arrives
            # ahead of the filter goes into the socket's queue, which the kernel empties when it gets its ring.
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            self._socket = sock
            sock.setblocking(False)
            self._attach_filter(self._capture)
            sock.setsockopt(ring.SOL_PACKET, ring.PACKET_VERSION, ring.TPACKET_V3)
            sock.setsockopt(ring.SOL_PACKET, ring.PACKET_IGNORE_OUTGOING, 1)
            sock.setsockopt(ring.SOL_PACKET, ring.PACKET_RX_RING, GEOMETRY.request())
            self._ring = mmap.mmap(sock.fileno(), GEOMETRY.size)
            # A crash guard that is forked later would keep the socket capturing for as long as it has the memory.
            self._ring.madvise(mmap.MADV_DONTFORK)
            asyncio.get_running_loop().add_reader(sock, self._read)
        except PermissionError as error:
            raise CaptureError(
                "sniffed sequences need the capability CAP_NET_RAW: run as root, or grant it"
                " (AmbientCapabilities=CAP_NET_RAW in a systemd unit)"
            ) from error
        except OSError as error:
            raise CaptureError(f"packets cannot be captured: {error.strerror}") from error

    def close(self) -> None:
        """Capture no more; again is harmless."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            if self._ring is not None:
                asyncio.get_running_loop().remove_reader(self._socket)
                self._ring.close()
            self._socket.close()
        self._socket = self._ring = None

    @contextmanager
    def replacing(self, capture: Capture) -> Iterator[None]:
        """Capture this from now on, unless the body raises. The kernel exchanges filters between two packets: none is
        lost, and none is exchanged where the same is captured.

        Raises `CaptureError` where the kernel has no memory for a filter, with nothing changed but that all packets
        pass.
        """
        try:
            self._attach_filter(capture)
        except OSError as error:
            raise CaptureError(f"packets cannot be filtered: {error.strerror}") from error
        try:
            yield
        except BaseException:
            with suppress(OSError):  # all packets pass
                self._attach_filter(self._capture)
            raise
        self._capture = capture

    def _attach_filter(self, capture: Capture) -> None:
        assert self._socket is not None
        targets = frozenset(scope.target for scope in capture.scopes if scope.target is not None)
        wanted = capture.codes, targets
        if wanted == self._filtered:
            return
        self._filtered = None
        interests = tuple(bpf.interests(capture.codes))
        for limit in PROGRAM_LIMITS:
            if attach_filter(self._socket, bpf.build(interests, targets, limit)):
                self._filtered = wanted
                return
            # While filters are exchanged the kernel counts both. Without any, all packets pass: user space decides.
            detach_filter(self._socket)
        raise OSError(errno.ENOMEM, "the kernel has no memory for the filter (net.core.optmem_max)")

    def _read(self) -> None:
        memory = self._ring
        assert memory is not None
        judges, act, scope_bits = self._dispatch.judges, self._dispatch.act, self._scope_bits
        is_honest = self._is_honest
        when = now()
        for _ in range(BLOCKS_AT_ONCE):
            block = self._next
            if not ring.is_ours(memory, block):
                break
            when = now()
            to, by, bits = b"", 0, None
            for source, destination, code, packet_id, interface in packets(memory, block, GEOMETRY.block_size):
                judge = judges.get(code)
                if judge is None:  # the filter may let more through than was asked for
                    continue
                # Of a block's packets nearly all come the same way: asking once for all of them saves 0.3 µs each.
                if destination != to or interface != by:
                    to, by = destination, interface
                    bits = scope_bits(destination, interface)
                if bits:
                    code |= bits
                elif bits is None:
                    continue
                outcome = judge(source, code, packet_id, when)
                if outcome.needs_action and is_honest(source, interface):
                    act(source, interface, outcome, when)
            ring.release(memory, block)
            self._next = (block + GEOMETRY.block_size) % GEOMETRY.size
        else:
            # It is busy; and where it is not, an error may be what woke us.
            if when - self._looked_at < STATISTICS_EVERY:
                return
        self._look(when)

    def _look(self, when: float) -> None:
        """Read the kernel's counters, which reading sets to zero, and clear an error of the socket."""
        assert self._socket is not None
        self._looked_at = when
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            logger.warning("the sniffer: %s; it goes on", os.strerror(error))
        statistics = ring.Statistics.parse(
            self._socket.getsockopt(ring.SOL_PACKET, ring.PACKET_STATISTICS, ring.STATISTICS_SIZE)
        )
        self.seen += statistics.packets
        self.dropped += statistics.drops
        if self._drops.begins(statistics.drops, statistics.packets, when):
            text = "the kernel drops packets: %d of %d did not fit into the ring"
            logger.warning(text, statistics.drops, statistics.packets)
            self._timer = asyncio.get_running_loop().call_later(DROPS_EVERY, self._sum_up_drops)

    def _sum_up_drops(self) -> None:
        when = now()
        self._look(when)
        if summary := self._drops.summary(when):
            dropped, seen = summary
            if dropped:
                text = "the kernel drops packets: %d more of %d did not fit into the ring in the last %g s"
                logger.warning(text, dropped, seen, DROPS_EVERY)
            else:
                logger.info("no packets dropped for %g s", DROPS_EVERY)
        if deadline := self._drops.next_deadline():
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - when), self._sum_up_drops)
