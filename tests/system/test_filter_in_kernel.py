"""The kernel and the interpreter of the unit tests run the same filters on the same frames, and agree on each.

A socket without a filter shows what arrives and what the kernel knows of it; beside it are two with the filter, one
read packet by packet and one by its ring. What these receive must be exactly what the interpreter lets through of
what the first one shows. `python -m tests.system.test_filter_in_kernel` is what runs on the hosts.
"""

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from random import Random

import pytest

from port_knocking_doors.capture import ring
from port_knocking_doors.capture.bpf import MAX_INSTRUCTIONS, Interest, build
from port_knocking_doors.capture.packet import Packet, parse
from port_knocking_doors.model import Address, Protocol
from port_knocking_doors.sandbox import Sandbox
from tests.helpers import blocks, frames
from tests.helpers.bpf_machine import About, Machine
from tests.helpers.frames import OTHER4, OTHER6, Frame
from tests.helpers.raw_frames import link_address

ROUND = 100
"""Frames that are sent before the sender waits: as many as any socket's buffer holds."""
WITHIN = 30.0

ETH_P_ALL, ETH_P_802_EX1 = 0x0003, 0x88B5  # linux/if_ether.h; the latter ends a round
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
PACKET_AUXDATA = 8  # linux/if_packet.h
TP_STATUS_VLAN_VALID = 1 << 4
MTU = 1500

Arrived = tuple[bytes, About]


def arrivals(sock: socket.socket) -> Iterator[Arrived]:
    """What waits in a packet socket."""
    while True:
        try:
            data, ancillary, _, address = sock.recvmsg(65535, 64)
        except BlockingIOError:
            return
        status, _, _, _, _, tag, _ = struct.unpack("@3I4H", ancillary[0][2])  # struct tpacket_auxdata
        yield data, About(address[1], address[2], tag if status & TP_STATUS_VLAN_VALID else None)


def cooked(program: bytes) -> socket.socket:
    """A deaf packet socket with the filter, or with none."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    if program:
        memory = ctypes.create_string_buffer(program, len(program))
        value = struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, value)
    sock.setsockopt(ring.SOL_PACKET, PACKET_AUXDATA, 1)
    sock.setblocking(False)
    return sock


def receive(interface: str, folder: Path) -> None:
    """On the server: receive frames by all three sockets until the sender is done, and write down what arrived."""
    program = (folder / "filter").read_bytes()
    everything, filtered, ringed = cooked(b""), cooked(program), cooked(program)
    geometry = ring.Geometry(block_size=1 << 16, blocks=64, frame_size=2048, retire_after=20)
    ringed.setsockopt(ring.SOL_PACKET, ring.PACKET_VERSION, ring.TPACKET_V3)
    ringed.setsockopt(ring.SOL_PACKET, ring.PACKET_RX_RING, geometry.request())
    memory = mmap(ringed.fileno(), geometry.size)
    answer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    answer.bind((interface, 0))
    for sock in (everything, filtered, ringed):
        sock.bind((interface, ETH_P_ALL))
    print("ready", flush=True)

    arrived: list[Arrived] = []
    received: list[bytes] = []
    last = False
    while not last:
        assert select.select([everything], [], [], WITHIN)[0], "the end did not come"
        for data, about in arrivals(everything):
            if about.protocol != ETH_P_802_EX1:
                arrived.append((data, about))
            elif about.kind != frames.OUTGOING:
                # Whatever came before it is in all three sockets by now.
                last = data == b"last"
                received += [data for data, _ in arrivals(filtered)]
                for line in (folder / "outgoing").read_text().split():
                    answer.send(bytes.fromhex(line))
                answer.send(bytes(12) + struct.pack("!H", ETH_P_802_EX1))

    in_ring = list(walk(ringed, memory, geometry, len(received), socket.if_nametoindex(interface)))
    statistics = [
        ring.Statistics.parse(sock.getsockopt(ring.SOL_PACKET, ring.PACKET_STATISTICS, ring.STATISTICS_SIZE).ljust(12))
        for sock in (everything, filtered, ringed)
    ]
    result = {
        "arrived": [(data.hex(), about.protocol, about.kind, about.tag) for data, about in arrived],
        "received": [data.hex() for data in received],
        "in_ring": [data.hex() for data, _ in in_ring],
        "read": [packet and (packet[0].hex(), packet[1].hex(), *packet[2:]) for _, packet in in_ring],
        "drops": [one.drops for one in statistics],
        "seen": statistics[-1].packets,
    }
    (folder / "result").write_text(json.dumps(result))


def walk(
    sock: socket.socket, memory: mmap, geometry: ring.Geometry, count: int, interface: int
) -> Iterator[tuple[bytes, Packet | None]]:
    """The first `count` frames in the ring."""
    deadline = time.monotonic() + WITHIN
    for block in geometry.offsets:
        while not ring.is_ours(memory, block):
            if count <= 0:
                return
            assert time.monotonic() < deadline, f"{count} frames are missing in the ring"
            select.select([sock], [], [], 0.1)
        for start, length, index in blocks.frames(memory, block, geometry.block_size):
            assert index == interface
            count -= 1
            yield memory[start : start + length], parse(memory, start, length)
        ring.release(memory, block)
        assert not ring.is_ours(memory, block)


def send(interface: str, folder: Path) -> None:
    """On the client: send all frames, in rounds that the server answers."""
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # by another CPU a frame could overtake the one before it
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_802_EX1)) as sock:
        sock.bind((interface, ETH_P_802_EX1))
        sock.settimeout(WITHIN)
        sent = [bytes.fromhex(line) for line in (folder / "frames").read_text().split()]
        for start in range(0, len(sent), ROUND):
            for frame in sent[start : start + ROUND]:
                sock.send(frame)
            end = b"last" if start + ROUND >= len(sent) else b"more"
            sock.send(bytes(12) + struct.pack("!H", ETH_P_802_EX1) + end)
            while sock.recvfrom(64)[1][2] == frames.OUTGOING:
                pass


# --- the tests


def any_frames(random: Random, ports: list[int], count: int) -> list[Frame]:
    row: list[Frame] = []
    while len(row) < count:
        frame = replace(frames.any_frame(random.choice, ports), interface=About.interface)  # none comes by lo
        if frame.cut is not None and frame.tag is not None:
            continue  # the kernel throws away a tag with next to nothing behind it
        row.append(frame if len(frame.packet()) <= MTU else replace(frame, payload=0))
    return row


def few(random: Random) -> list[Interest]:
    return [
        Interest(Protocol.UDP, 3, 3),
        Interest(Protocol.UDP, 10, 20),
        Interest(Protocol.TCP, 5, 12, 63, 2),
        Interest(Protocol.TCP, 10, 14, 20, 0),
        Interest(Protocol.TCP, 20, 30, 1, 1),
        Interest(Protocol.TCP, 33, 33),
    ]


def many(random: Random) -> list[Interest]:
    """More than fit, so that the program is as long as it may be."""
    udp = [Interest(Protocol.UDP, port, port) for port in random.sample(range(65536), 2000)]
    flags = [(63, 2), (20, 0), (0, 0), (63, 41)]
    tcp = [Interest(Protocol.TCP, port, port, *random.choice(flags)) for port in random.sample(range(65536), 2000)]
    return udp + tcp


@pytest.mark.parametrize("targets", [(), (OTHER4, OTHER6)], ids=["this host", "targets"])
@pytest.mark.parametrize("asked", [few, many], ids=["few ports", "many ports"])
def test_kernel_and_interpreter_agree_on_every_frame(
    box: Sandbox, tmp_path: Path, asked: Callable[[Random], list[Interest]], targets: tuple[Address, ...]
) -> None:
    random = Random(6)
    interests = asked(random)
    program = build(interests, targets)
    machine = Machine(program)
    assert len(machine) > MAX_INSTRUCTIONS - 40 or asked is few
    ports = sorted({port for one in interests for port in (one.first, one.last, one.first ^ 1, one.last ^ 1)})
    client = box.hosts["client"]
    to = {
        frames.TO_HOST: link_address(box.server, client.server_interface),
        frames.TO_ALL: b"\xff" * 6,
        frames.TO_GROUP: bytes.fromhex("3333deadbeef"),
        frames.TO_OTHER: bytes.fromhex("020000000077"),
    }
    row = any_frames(random, ports, 3000)
    (tmp_path / "filter").write_bytes(program)
    on_wire = [frame.ethernet(to[frame.kind], b"\x02" * 6).hex() for frame in row]
    (tmp_path / "frames").write_text("\n".join(on_wire))
    would_pass = (number for number, frame in enumerate(row) if machine.run(frame.packet(), frame.about))
    (tmp_path / "outgoing").write_text(on_wire[next(would_pass)])

    run = [sys.executable, "-m", "tests.system.test_filter_in_kernel"]
    root = Path(__file__).parents[2]
    receiver = box.server.popen([*run, "receive", client.server_interface, str(tmp_path)], cwd=root)
    receiver.stdout.wait_for("^ready", WITHIN)
    client.run([*run, "send", client.interface, str(tmp_path)], cwd=root)
    assert receiver.wait(WITHIN) == 0
    result = json.loads((tmp_path / "result").read_text())

    assert result["drops"] == [0, 0, 0]
    arrived = [(bytes.fromhex(data), About(*about)) for data, *about in result["arrived"]]
    # What was sent is there, in order, among the hosts' own talk.
    rest = iter(arrived)
    assert [frame for frame in row if (frame.packet(), frame.about) not in rest] == []
    expected = [data[:length].hex() for data, about in arrived if (length := machine.run(data, about))]
    assert result["received"] == expected
    assert result["in_ring"] == expected
    assert result["seen"] == len(expected)
    assert 200 < len(expected) < 2500
    kinds = Counter(about.kind for _, about in arrived)
    assert all(kinds[kind] >= len(row) / ROUND for kind in range(5)), kinds
    unread = [data for data, packet in zip(expected, result["read"], strict=True) if packet is None]
    assert len(unread) < len(expected) / 4  # those whose IP header lies about its length


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
