"""The sniffer where much comes at once: filters exchanged under traffic, a ring that overflows, hundreds of sequences.

`python -m tests.system.test_sniffer_under_load` is what runs on the hosts: a sniffer alone, whose filter is exchanged
again and again, and who sends it numbered packets.
"""

import asyncio
import json
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from port_knocking_doors.capture.dispatch import Dispatch
from port_knocking_doors.capture.sniffer import DROPS_EVERY, GEOMETRY, Sniffer
from port_knocking_doors.knocks.authenticator import NOT_A_KNOCK, Capture, Outcome
from port_knocking_doors.knocks.code import code_of
from port_knocking_doors.model import Flags, Protocol, Step
from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.doorstep import said
from tests.helpers.raw_knock import send_tcp
from tests.helpers.running import GUARDED, wait_open, wait_shut
from tests.helpers.sniffed import UDP_STEP, knock_udp, sniffing, whole_sequence, write_sniffing

LITTLE_ROOM = 20480
"""Bytes of net.core.optmem_max, as older kernels come with."""

STAYS = 20000
"""The port that every filter asks for."""

WITHIN = 20.0
PACE = 0.0005
"""Seconds between packets: some two thousand a second, of which the ring holds half a minute's."""

SMALL = tuple(frozenset({code_of(Step(Protocol.UDP, port))}) for port in (21000, 22000))
LARGE = tuple(
    frozenset(code_of(Step(Protocol.UDP, port)) for port in range(first, 60000, 30)) for first in (21000, 21010)
)
"""1,300 ports: with little filter memory a filter as long as this is refused, and so is its replacement."""


# --- on the hosts


async def capture(folder: Path, others: tuple[frozenset[int], ...], exchanges: int) -> None:
    """Exchange filters while packets come; when the folder says how many were sent, print which were judged."""
    stays = code_of(Step(Protocol.TCP, STAYS, Flags.SYN))
    judged: list[int] = []

    def judge(source: bytes, code: int, packet_id: int, when: float) -> Outcome:
        if code == stays:
            judged.append(packet_id >> 16)
        return NOT_A_KNOCK

    rounds = cycle(Capture(codes=other | {stays}) for other in others)
    dispatch = Dispatch(lambda *_: None)
    dispatch.judges = dict.fromkeys(frozenset().union({stays}, *others), judge)
    with Sniffer(dispatch, next(rounds), lambda *_: 0) as sniffer:
        print("captures", flush=True)
        while exchanges:
            before = len(judged)
            with sniffer.replacing(next(rounds)):
                pass
            await asyncio.sleep(0.005)  # all that waits is read
            exchanges -= len(judged) > before  # the others were between the same two packets as one before
        print("exchanged", flush=True)
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            if (folder / "sent").exists() and len(judged) >= int((folder / "sent").read_text()):
                break
        print(json.dumps({"judged": judged, "dropped": sniffer.dropped}), flush=True)


def send(server: str) -> None:
    """Send SYNs whose sequence numbers count up, until SIGTERM; then print how many."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.connect((server, 0))
        number = 0
        print("sends", flush=True)
        while not ended:
            # struct tcphdr: ports, numbers, length and flags, window, checksum, urgent pointer
            sock.send(struct.pack("!HHIIBBHHH", 40000, STAYS, number, 0, 5 << 4, Flags.SYN, 1024, 0, 0))
            number += 1
            time.sleep(PACE)
    print(number, flush=True)


# --- the tests


def little_room(box: Sandbox) -> None:
    box.server.run(["sysctl", "-qw", f"net.core.optmem_max={LITTLE_ROOM}"])


def as_it_is(box: Sandbox) -> None:
    """The largest filter memory that this kernel gives."""


EXCHANGES = {
    "small filters": (as_it_is, "SMALL", 200),
    "filters that the kernel has no room for": (little_room, "LARGE", 8),
}


@pytest.mark.parametrize(("room", "filters", "exchanges"), EXCHANGES.values(), ids=EXCHANGES)
def test_replacing_filters_loses_no_packet(
    box: Sandbox, client: ClientHost, tmp_path: Path, room: Callable[[Sandbox], None], filters: str, exchanges: int
) -> None:
    room(box)
    run = [sys.executable, "-m", "tests.system.test_sniffer_under_load"]
    root = Path(__file__).parents[2]
    capturing = box.server.popen([*run, "capture", str(tmp_path), filters, str(exchanges)], cwd=root)
    capturing.stdout.wait_for("^captures", WITHIN)
    sending = client.popen([*run, "send", str(client.server4)], cwd=root)
    capturing.stdout.wait_for("^exchanged", WITHIN)
    sending.terminate()
    assert sending.wait(WITHIN) == 0
    sent = int(sending.stdout.lines[-1])
    (tmp_path / "number").write_text(str(sent))
    (tmp_path / "number").rename(tmp_path / "sent")
    assert capturing.wait(2 * WITHIN) == 0, capturing.stderr.text
    result = json.loads(capturing.stdout.lines[-1])
    assert result["dropped"] == 0
    assert sorted(set(range(sent)) - set(result["judged"])) == [], "lost"
    assert result["judged"] == list(range(sent))


def overflow(box: Sandbox, daemon: Process) -> None:
    """Send the daemon more than its ring holds while it is not looking."""
    flooder = box.hosts["stranger"]
    size_of_one = 128  # in the ring, with its header
    daemon.send_signal(signal.SIGSTOP)
    flooder.send([(flooder.server4, UDP_STEP, b"", 40000)], repeat=GEOMETRY.size // size_of_one + 1000)
    daemon.send_signal(signal.SIGCONT)


def test_packets_dropped_by_kernel_are_logged_and_next_knock_opens(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 1})
    with box.server.listen(GUARDED):
        overflow(box, daemon)
        daemon.wait_for("the kernel drops packets", 10)
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
    overflow(box, daemon)
    over = "no packets dropped for 10 s"
    daemon.wait_for(over, 3 * DROPS_EVERY)
    some = r"[1-9]\d*"
    begins = rf"the kernel drops packets: {some} of {some} did not fit into the ring$"
    more = rf"the kernel drops packets: {some} more of {some} did not fit into the ring in the last 10 s$"
    lines = said(daemon, "packets dropped|kernel drops")
    assert re.search(begins, lines[0])
    assert all(re.search(f"{begins}|{more}|{over}$", line) for line in lines)
    assert len(lines) <= 5, "more than a line each ten seconds"
    assert "wrong knock" not in daemon.stderr.text


def test_trickle_of_packets_survives_pause_of_daemon(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """However few packets come, a block of the ring is full after some milliseconds: there must be enough of them."""
    daemon = sniffing(box, tmp_path, {"duration": 5})
    stranger = box.hosts["stranger"]
    with box.server.listen(GUARDED):
        daemon.send_signal(signal.SIGSTOP)
        stranger.send([(stranger.server4, UDP_STEP, b"", 40000)], repeat=80, pause=0.006)
        whole_sequence(client, client.server4)
        daemon.send_signal(signal.SIGCONT)
        wait_open(client, client.server4)
    assert said(daemon, "the kernel drops") == []


HUNDREDS = 400


def hundreds(first: int) -> list[dict[str, object]]:
    """Sequences of UDP and TCP steps, with as many traps as by default; the last one opens what we can see."""
    return [
        {
            "name": f"s{number}",
            "steps": [f"udp:{first + number}", f"tcp:{first + 3 * number}", f"udp:{first - number}"],
            "open": [GUARDED if number == HUNDREDS else GUARDED + 1],
            "traps": 512,
            "duration": 1,
        }
        for number in range(1, HUNDREDS + 1)
    ]


@pytest.mark.parametrize("room", [as_it_is, little_room], ids=lambda room: room.__name__)
def test_one_of_hundreds_of_sequences_opens_before_and_after_reload(
    box: Sandbox, client: ClientHost, tmp_path: Path, room: Callable[[Sandbox], None]
) -> None:
    room(box)
    daemon = sniffing(box, tmp_path, *hundreds(11000))

    def knock_the_last(first: int) -> None:
        knock_udp(client, client.server4, first + HUNDREDS)
        send_tcp(client, client.server4, [(first + 3 * HUNDREDS, "s")])
        knock_udp(client, client.server4, first - HUNDREDS)

    with box.server.listen(GUARDED):
        knock_the_last(11000)
        wait_open(client, client.server4)
        wait_shut(client, client.server4)
        write_sniffing(tmp_path, *hundreds(13000))
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reloaded", 20)
        knock_the_last(13000)
        wait_open(client, client.server4)
    assert said(daemon, "WARN|ERROR|Traceback") == []


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "send":
        send(*arguments)
    else:
        asyncio.run(capture(Path(arguments[0]), {"SMALL": SMALL, "LARGE": LARGE}[arguments[1]], int(arguments[2])))
