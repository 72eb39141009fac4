"""The same packets to Debian's knockd and to this daemon in its place, at the same time on the same link.

Compared is what each writes of every step and every door that opens. Known differences, each with its reason:

- When knockd clears the first attempt of its list, it forgets all others with it: another address's wrong knock, or one
  that opened a door, sends others back to the start. This daemon doesn't, and a model with that fault foretells knockd.
- The very packet that was just accepted, once more (the network doubled it, or TCP sent its SYN again), ends an attempt
  in knockd. Here it is no knock.
- knockd counts in whole seconds of the wall clock; here a time limit is exact, and the clock may be set.
- A door with a stop command that is open is not started a second time: its deadline moves. One without runs its command
  each time, as in knockd.

Files are compared in test_knockd_files.py, options and commands in test_knockd_command.py; the README has all
differences with their reasons.
"""

import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest

from port_knocking_doors.model import Flags
from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers import play
from tests.helpers.knockd_model import TCP, UDP, Door, Packet, expected_log
from tests.helpers.waiting import wait_until

FLAG_SETS = ("", "syn", "syn,!ack", "fin", "syn,ack", "!rst")
NAMES = {flag.name.lower(): flag for flag in Flags if flag.name}
PORTS = (7001, 7002, 7003, 7004, 7005)
TRACES, LENGTH = 100, 8
TRIES = 3
"""On a busy machine knockd's capture buffer overflows now and then, and it misses the end of it all."""
WITHOUT_LIMITS = """
import runpy
from port_knocking_doors.daemon import knock_handler, knockd_log
knockd_log.LINES_MAX = knock_handler.STEPS_MAX = 10**6
runpy.run_module("port_knocking_doors", run_name="__main__", alter_sys=True)
"""
"""The daemon with a log as unbounded as knockd's."""
EVENT = re.compile(r"\[\S+ \S+\] (\S+: \w+: (?:Stage \d+|OPEN SESAME|sequence timeout .*))$")


def door(name: str, steps: Iterable[tuple[int, int]], flags: str) -> Door:
    words = [word for word in flags.split(",") if word]
    mask = sum(NAMES[word.lstrip("!")] for word in words)
    value = sum(NAMES[word] for word in words if not word.startswith("!"))
    return Door(name, tuple(steps), mask, value)


def text(doors: Iterable[tuple[Door, str]], log: Path, timeout: int = 60) -> str:
    """A file for knockd."""
    parts = [f"[options]\nLogFile = {log}\n"]
    for one, flags in doors:
        steps = ",".join(f"{port}:{'tcp' if protocol == TCP else 'udp'}" for protocol, port in one.steps)
        parts.append(f"[{one.name}]\nSequence = {steps}\nSeq_Timeout = {timeout}\n")
        parts.append(f"TCPFlags = {flags}\n" if flags else "")
    return "".join(parts)


def both(box: Sandbox, client: ClientHost, folder: Path, conf: str) -> tuple[Process, Process, Path, Path]:
    """knockd and this daemon, both listening, with a log each."""
    logs = folder / "knockd.log", folder / "ours.log"
    for log in logs:
        log.unlink(missing_ok=True)
        log.with_suffix(".conf").write_text(conf.replace("LOG", str(log)))
        log.with_suffix(".conf").chmod(0o600)
    link = client.server_interface
    # Answers to sources that do not exist would wait for ARP, and fill the one socket by which the kernel sends the
    # ICMP of all hosts, those of other tests, too.
    mute = f"add rule inet mute out oifname {link} drop"
    chain = "add chain inet mute out { type filter hook output priority 0; }"
    box.server.run(["nft", f"add table inet mute; {chain}; {mute}"])
    peer = box.server.popen(["knockd", "-i", link, "-c", str(logs[0].with_suffix(".conf"))])
    ours = box.server.popen(
        [sys.executable, "-c", WITHOUT_LIMITS, "knockd", "-i", link, "-c", str(logs[1].with_suffix(".conf"))]
    )
    for log in logs:
        wait_until(lambda log=log: "starting up" in read(log), 20, f"{log} begins")  # type: ignore[misc]
    return peer, ours, *logs


def read(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def events(log: Path) -> list[str]:
    return [found[1] for line in read(log).splitlines() if (found := EVENT.match(line))]


def send(
    client: ClientHost, packets: Iterable[Packet], pause: float = 0.0005, waits: dict[int, float] | None = None
) -> None:
    rows = [
        (packet.source, packet.protocol, packet.port, packet.flags, (waits or {}).get(number, 0))
        for number, packet in enumerate(packets)
    ]
    argv = [sys.executable, play.__file__, str(client.server4), str(pause)]
    client.run(argv, text=json.dumps(rows), timeout=60)


def finished(client: ClientHost, logs: Iterable[Path], last: Door) -> None:
    """Wait until both have received a last knock, and so everything before it."""
    send(client, [Packet("10.0.1.250", protocol, port, last.value) for protocol, port in last.steps[:1]])
    for log in logs:
        wait_until(lambda log=log: f"10.0.1.250: {last.name}: Stage 1" in read(log), 20, f"{log} ends")  # type: ignore[misc]


def doors_and_traces(seed: int) -> tuple[list[tuple[Door, str]], list[Packet]]:
    """Doors that share ports and first steps, and traces that are nearly right, from one source after another."""
    chance = random.Random(seed)
    steps = [(chance.choice((TCP, TCP, UDP)), port) for port in PORTS]
    doors: list[tuple[Door, str]] = []
    for number in range(chance.randint(1, 4)):
        flags = chance.choice(FLAG_SETS)
        chosen = [chance.choice(steps) for _ in range(chance.randint(1, 4))]
        if doors and chance.random() < 0.4:
            chosen[:1] = doors[0][0].steps[:1]
        doors.append((door(f"d{number}", chosen, flags), flags))
    packets: list[Packet] = []
    for trace in range(TRACES):
        source = f"10.0.1.{chance.randint(10, 30)}" if trace % 3 == 0 else f"10.0.1.{30 + trace}"
        while len(packets) < (trace + 1) * LENGTH:
            one, _ = chance.choice(doors)
            for protocol, port in one.steps:
                roll = chance.random()
                if roll < 0.08:
                    protocol, port = chance.choice(steps)
                elif roll < 0.12:
                    port = 7100
                bits = one.value if chance.random() < 0.9 else chance.randrange(64)
                packets.append(Packet(source, protocol, port, bits if protocol == TCP else 0))
    return doors, packets


def by_source(lines: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        source, _, event = line.partition(": ")
        found.setdefault(source, []).append(event)
    return found


def played(
    box: Sandbox, client: ClientHost, folder: Path, doors: list[tuple[Door, str]], packets: list[Packet]
) -> list[list[str]]:
    """What knockd and what ours wrote of these packets."""
    last = door("last", [(UDP, 7999), (UDP, 7998)], "")
    peer, ours, *logs = both(box, client, folder, text([*doors, (last, "")], Path("LOG")))
    send(client, packets)
    finished(client, logs, last)
    peer.terminate()
    ours.terminate()
    assert ours.wait(10) == 0
    peer.wait(10)
    return [[line for line in events(log) if not line.startswith("10.0.1.250:")] for log in logs]


@pytest.mark.parametrize("seeds", [range(first, first + 6) for first in range(0, 24, 6)], ids=str)
def test_random_traces_match_as_in_knockd(box: Sandbox, client: ClientHost, tmp_path: Path, seeds: range) -> None:
    counted: Counter[str] = Counter()
    for seed in seeds:
        doors, packets = doors_and_traces(seed)
        foretold = {
            faulty: list(chain(*expected_log([one for one, _ in doors], packets, faulty=faulty)))
            for faulty in (True, False)
        }
        for _ in range(TRIES):
            of_knockd, of_ours = played(box, client, tmp_path, doors, packets)
            assert of_ours == foretold[False], f"ours, seed {seed}"
            counted["packets"] += len(packets)
            counted["openings of knockd"] += sum("OPEN" in line for line in of_knockd)
            counted["openings of ours"] += sum("OPEN" in line for line in of_ours)
            if of_knockd == foretold[True]:
                break
        else:
            assert of_knockd == foretold[True], f"knockd, seed {seed}"
    print(dict(counted))
    assert counted["openings of knockd"] > 200


def test_time_limits_are_those_of_knockd(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """Whole seconds apart, since knockd counts those alone: well within the limit, and well beyond."""
    one = door("ssh", [(TCP, 7001), (TCP, 7002), (UDP, 7003)], "syn")
    *_, knockd_log, our_log = both(box, client, tmp_path, text([(one, "syn")], Path("LOG"), timeout=3))

    def knocks(source: str) -> list[Packet]:
        return [Packet(source, protocol, port, one.value if protocol == TCP else 0) for protocol, port in one.steps]

    slow, late = knocks("10.0.1.11"), knocks("10.0.1.12")
    # One source after the other: knockd would forget the one when the other is through.
    send(client, [*slow, *late, *knocks("10.0.1.13")], waits={1: 0.9, 2: 0.9, 5: 4.1})
    for log in (knockd_log, our_log):
        wait_until(lambda log=log: "10.0.1.13: ssh: OPEN SESAME" in read(log), 10, str(log))  # type: ignore[misc]
    assert by_source(events(knockd_log)) == by_source(events(our_log))
    assert "sequence timeout (stage 2)" in " ".join(by_source(events(our_log))["10.0.1.12"])


def test_repeated_packet_is_ignored_here_and_ends_attempt_in_knockd(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    """A known difference: here a SYN that TCP sends again does no harm."""
    one = door("ssh", [(TCP, 7001), (TCP, 7002)], "syn")
    *_, knockd_log, our_log = both(box, client, tmp_path, text([(one, "syn")], Path("LOG")))
    script = """
import socket, sys
from tests.helpers.play import packet
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    for port, number in ((7001, 1), (7001, 1), (7002, 2)):
        sock.sendto(packet("10.0.1.11", sys.argv[1], 6, port, 2, number), (sys.argv[1], 0))
"""
    client.run([sys.executable, "-c", script, str(client.server4)], env={"PYTHONPATH": sys.path[0]})
    wait_until(lambda: "OPEN SESAME" in read(our_log), 10, "ours opens")
    send(client, [Packet("10.0.1.12", TCP, 7001, 2)])
    wait_until(lambda: "10.0.1.12: ssh: Stage 1" in read(knockd_log), 10, "knockd has received all packets")
    assert "OPEN SESAME" not in read(knockd_log)


def test_open_door_with_stop_command_is_not_started_twice(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """A known difference: knockd starts it each time, and so leaves a rule behind when it stops it once."""
    conf = (
        "[options]\nLogFile = LOG\n[stopped]\nSequence = 7001:udp\nStart_Command = true\nStop_Command = true\n"
        "Cmd_Timeout = 2\n[started]\nSequence = 7002:udp\nStart_Command = true\n"
    )
    *_, knockd_log, our_log = both(box, client, tmp_path, conf)
    send(client, [Packet("10.0.1.11", UDP, port) for port in (7001, 7002, 7001, 7002)], pause=0.2)
    began = time.monotonic()
    for log in (knockd_log, our_log):
        wait_until(lambda log=log: read(log).count("started: running command") == 2, 10, str(log))  # type: ignore[misc]
    wait_until(lambda: read(our_log).count("stopped: running command") == 2, 10, "the stop command")
    assert time.monotonic() - began > 1.5, "its deadline moved"
    wait_until(lambda: read(knockd_log).count("stopped: running command") == 4, 10, "knockd's")
    assert read(our_log).count("stopped: running command") == 2


def test_log_lines_equal_those_of_knockd(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = (
        "[options]\nLogFile = LOG\n[ssh]\nSequence = 7001,7002:udp\nTCPFlags = syn\nStart_Command = exit 3\n"
        "Stop_Command = exit 4\nCmd_Timeout = 0\n[two]\nSequence = 7003\nCommand = echo %IP%\n"
    )
    peer, ours, knockd_log, our_log = both(box, client, tmp_path, conf)
    client.run(["knock", "-d", "50", str(client.server4), "7001", "7002:udp", "7003"])
    for log in (knockd_log, our_log):
        wait_until(lambda log=log: read(log).count("returned non-zero") == 2 and "echo" in read(log), 10, str(log))  # type: ignore[misc]
    peer.terminate()
    ours.terminate()
    assert ours.wait(10) == 1, "the stop command has failed, and is still on record"
    peer.wait(10)
    texts = [
        sorted(re.sub(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d\] ", "", line) for line in read(log).splitlines() if line)
        for log in (knockd_log, our_log)
    ]
    assert texts[0] == texts[1]
