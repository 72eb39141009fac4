"""Knocks and what they do, on a real firewalld: every claim is tried by connecting from the client's own host."""

import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest

from port_knocking_doors.model import Address
from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from port_knocking_doors.sandbox.host import ConnectionWatch
from tests.helpers.running import (
    GUARDED,
    SEQUENCE,
    await_time,
    begin_daemon,
    door_rule,
    doors,
    knock,
    knock_port_rules,
    start_daemon,
    wait_open,
    wait_shut,
    write_configuration,
)
from tests.helpers.waiting import wait_until

OTHER_SEQUENCE = (22005, 22001, 22009, 22003, 22007)
LATENESS = 1.0
"""Seconds after its deadline by which a door must be closed, on a busy machine."""


@pytest.fixture
def box(box: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, with a service on the guarded port."""
    with box.server.listen(GUARDED):
        yield box


@pytest.fixture
def stranger(box: Sandbox) -> ClientHost:
    return box.hosts["stranger"]


def both_families(host: ClientHost) -> list[tuple[Address, Address]]:
    """The server's address and the host's own, for each family."""
    return [(host.server4, host.address4), (host.server6, host.address6)]


def tried(host: ClientHost) -> list[str]:
    return [host.connect(server, GUARDED) for server, _ in both_families(host)]


def assert_no_door_comes(box: Sandbox, *hosts: ClientHost) -> None:
    """The hosts are kept out, and not only because their rules are still on their way.

    The daemon receives knocks, and firewalld works off rules, one after the other. So once the stranger, who
    knocks now, is in, every rule owed to the hosts is active as well.
    """
    stranger = box.hosts["stranger"]
    assert doors(box) == [], "this needs a stranger who is not in yet"
    knock(stranger, stranger.server4)
    wait_open(stranger, stranger.server4)
    assert {host.name: tried(host) for host in hosts} == {host.name: ["prohibited"] * 2 for host in hosts}
    assert doors(box) == [door_rule(stranger.address4)]


def a_host_for_each(box: Sandbox, cases: Collection[str]) -> dict[str, ClientHost]:
    """Attempts are counted by address, so all of them can be made at one daemon. A host is named for its case."""
    letters = ("".join(filter(str.islower, case)) for case in cases)
    return {case: box.add_client(f"{name[:9]}{n}") for n, (case, name) in enumerate(zip(cases, letters, strict=True))}


# --- the right sequence


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_right_sequence_opens_for_knockers_address_alone(box: Sandbox, tmp_path: Path, version: int) -> None:
    # IPv4 knocks reach the daemon's one socket as addresses mapped into IPv6; the door must be an IPv4 one.
    client, stranger = box.hosts["client"], box.hosts["stranger"]
    (server, own), (other_server, _) = sorted(both_families(client), key=lambda pair: pair[0].version != version)
    daemon = start_daemon(box, tmp_path)
    assert tried(client) == ["prohibited", "prohibited"]

    knock(client, server)

    wait_open(client, server)
    assert doors(box) == [door_rule(own)]
    assert client.connect(other_server, GUARDED) == "prohibited", "the other family was not knocked for"
    assert client.connect(server, GUARDED + 1) == "prohibited", "another port is not guarded"
    assert tried(stranger) == ["prohibited", "prohibited"]
    daemon.wait_for(f"{own}: opened {GUARDED}/tcp in zone public")


def test_client_opens_for_both_of_its_addresses(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path)
    for server, _ in both_families(client):
        knock(client, server)
    for server, _ in both_families(client):
        wait_open(client, server)
    assert doors(box) == [door_rule(client.address4), door_rule(client.address6)]


def test_alternating_knocks_of_two_clients_open_for_both(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    start_daemon(box, tmp_path)
    for port in SEQUENCE:
        knock(client, client.server4, [port])
        knock(stranger, stranger.server4, [port])
    wait_open(client, client.server4)
    wait_open(stranger, stranger.server4)
    assert doors(box) == [door_rule(client.address4), door_rule(stranger.address4)]


def test_sequence_with_a_port_twice_opens(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    ports = (21007, 21003, 21007, 21007, 21005)
    start_daemon(box, tmp_path, opening_sequence=list(ports))
    knock(client, client.server4, ports, pause=0.06)  # from one source port: sooner, it would be a doubled datagram
    wait_open(client, client.server4)


# --- wrong ones

FIRST, SECOND, THIRD, FOURTH, FIFTH = SEQUENCE
WRONG_ORDERS = {
    "first and second swapped": (SECOND, FIRST, THIRD, FOURTH, FIFTH),
    "second and third swapped": (FIRST, THIRD, SECOND, FOURTH, FIFTH),
    "third and fourth swapped": (FIRST, SECOND, FOURTH, THIRD, FIFTH),
    "fourth and fifth swapped": (FIRST, SECOND, THIRD, FIFTH, FOURTH),
    "backwards": SEQUENCE[::-1],
    "the last one first": (FIFTH, FIRST, SECOND, THIRD, FOURTH),
    "without the first": (SECOND, THIRD, FOURTH, FIFTH),
    "without the second": (FIRST, THIRD, FOURTH, FIFTH),
    "without the third": (FIRST, SECOND, FOURTH, FIFTH),
    "without the fourth": (FIRST, SECOND, THIRD, FIFTH),
    "without the last": (FIRST, SECOND, THIRD, FOURTH),
    "a wrong one in between": (FIRST, SECOND, FIFTH, THIRD, FOURTH, FIFTH),
    "too often wrong, then right at once": (*[FIRST, THIRD] * 5, *SEQUENCE),
}


def test_wrong_order_opens_nothing(box: Sandbox, tmp_path: Path) -> None:
    start_daemon(box, tmp_path)
    hosts = a_host_for_each(box, WRONG_ORDERS)
    for case, host in hosts.items():
        knock(host, host.server4, WRONG_ORDERS[case])
    assert_no_door_comes(box, *hosts.values())


LOST = {
    "the first": (SECOND, THIRD, FOURTH, FIFTH),
    "the second": (FIRST, THIRD, FOURTH, FIFTH),
    "the fourth": (FIRST, SECOND, THIRD, FIFTH),
    "the last": (FIRST, SECOND, THIRD, FOURTH),
    "all but the second": (SECOND,),
    "none, but two came in another order": (FIRST, THIRD, SECOND, FOURTH, FIFTH),
}


def test_client_that_lost_packet_gets_in_at_its_second_try(box: Sandbox, tmp_path: Path) -> None:
    start_daemon(box, tmp_path, ignoring_period_after_knock_error=60)
    hosts = a_host_for_each(box, LOST)
    for case, host in hosts.items():
        knock(host, host.server4, LOST[case])
    assert_no_door_comes(box, *hosts.values())
    for host in hosts.values():
        knock(host, host.server4)
        wait_open(host, host.server4)


WRONG_PAYLOADS = {
    "no newline": b"knock",
    "Windows newline": b"knock\r\n",
    "two newlines": b"knock\n\n",
    "capitals": b"KNOCK\n",
    "empty": b"",
    "1400 bytes": b"knock\n".ljust(1400, b"\n"),
    "one byte more": b"knock\nx",
    "the first byte is wrong": b"Knock\n",
    "the fifth byte is wrong": b"knocK\n",
    "the last byte is wrong": b"knock\r",
}


def test_wrong_payload_neither_helps_nor_hurts(box: Sandbox, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, "-v")
    hosts = a_host_for_each(box, WRONG_PAYLOADS)
    for case, host in hosts.items():
        knock(host, host.server4, payload=WRONG_PAYLOADS[case])
    assert_no_door_comes(box, *hosts.values())
    for case, host in hosts.items():
        for port in SEQUENCE:
            knock(host, host.server4, SEQUENCE[::-1], payload=WRONG_PAYLOADS[case])
            knock(host, host.server4, [port])
        wait_open(host, host.server4)
        judged = [line for line in daemon.stderr.lines if f"{host.address4}: knock" in line]
        assert len(judged) == len(SEQUENCE) - 1, f"{case}: the daemon has not even seen the others"


def test_wrong_payload_does_not_reach_daemon(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    def waiting() -> int:
        """How many bytes wait in the knock sockets: the second half of the fifth column (proc_net_udp.txt)."""
        lines = box.server.run(["cat", "/proc/net/udp6"]).stdout.splitlines()[1:]
        assert len(lines) == len(SEQUENCE)
        return sum(int(line.split()[4].partition(":")[2], 16) for line in lines)

    daemon = start_daemon(box, tmp_path)
    daemon.send_signal(signal.SIGSTOP)
    for payload in WRONG_PAYLOADS.values():
        knock(client, client.server4, payload=payload)
        knock(client, client.server6, payload=payload)
    assert waiting() == 0
    knock(client, client.server6, [FIRST])
    assert waiting() > 0
    daemon.send_signal(signal.SIGCONT)


# --- knocks that arrive faster than they are read


def hear_at_once(daemon: Process, *knocks: tuple[ClientHost, Sequence[int]]) -> None:
    """Let all of the knocks wait in the daemon's sockets before it reads the first one."""
    daemon.send_signal(signal.SIGSTOP)
    for host, ports in knocks:
        knock(host, host.server4, ports)
    daemon.send_signal(signal.SIGCONT)


def await_lines(daemon: Process, text: str, count: int) -> None:
    def found() -> bool:
        return sum(text in line for line in daemon.stderr.lines) == count

    wait_until(found, 5, lambda: f"{count} times {text!r}: {daemon.stderr.text}")


def test_queued_knocks_are_received_in_order_of_arrival(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    daemon = start_daemon(box, tmp_path)
    hear_at_once(daemon, (client, SEQUENCE), (stranger, SEQUENCE), (client, SEQUENCE), (stranger, SEQUENCE))
    for host in (client, stranger):
        wait_open(host, host.server4)
        daemon.wait_for(f"{host.address4}: prolonged")
    hear_at_once(daemon, (stranger, SEQUENCE), (client, SEQUENCE))
    hear_at_once(daemon, (stranger, SEQUENCE), (client, SEQUENCE))
    for host in (client, stranger):
        await_lines(daemon, f"{host.address4}: prolonged", 3)
    assert not any("wrong knock" in line for line in daemon.stderr.lines)


def test_queued_wrong_order_opens_nothing(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    daemon = start_daemon(box, tmp_path)
    hear_at_once(daemon, (client, [FIRST, SECOND, FOURTH, THIRD, FIFTH]))
    daemon.wait_for(f"{client.address4}: wrong knock")
    assert_no_door_comes(box, client)


# --- an address is ignored after a wrong knock


def test_address_is_ignored_after_wrong_knock_until_period_ends(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    period = 1.0
    daemon = start_daemon(box, tmp_path, "-v", ignoring_period_after_knock_error=period)
    erred = time.monotonic()
    knock(client, client.server4, [FIRST, *[THIRD] * 5])
    daemon.wait_for(f"{client.address4}: wrong knock, address ignored for 1 s")
    received = time.monotonic()
    knock(client, client.server4)
    assert_no_door_comes(box, client)
    assert time.monotonic() < erred + period, "the machine was too slow for this to mean anything"

    await_time(received + period)
    knock(client, client.server4)
    wait_open(client, client.server4)
    assert sum("address not ignored" in line for line in daemon.stderr.lines) == 4
    assert sum("address ignored" in line for line in daemon.stderr.lines) == 1


def test_knocks_while_ignored_do_not_prolong_period(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    period = 1.5
    daemon = start_daemon(box, tmp_path, ignoring_period_after_knock_error=period)
    knock(client, client.server4, [THIRD] * 5)
    daemon.wait_for("address ignored")
    received = time.monotonic()
    while time.monotonic() < received + 0.6 * period:
        knock(client, client.server4, [*SEQUENCE, THIRD], pause=0.01)
    assert doors(box) == []

    await_time(received + period)
    knock(client, client.server4)
    wait_open(client, client.server4, within=0.5 * period)


def test_neighbour_of_ignored_address_is_not_ignored(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    daemon = start_daemon(box, tmp_path)
    knock(stranger, stranger.server4, [FIRST, *[THIRD] * 5])
    knock(client, client.server6, [THIRD] * 5)
    await_lines(daemon, "address ignored", 2)
    knock(client, client.server4)
    wait_open(client, client.server4)


# --- late and repeated knocks


def test_knocker_silent_for_its_lifetime_starts_again(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, "-v", max_knocker_live_time=0.7)
    knock(client, client.server4, SEQUENCE[:-1])
    daemon.wait_for("advanced to step 4")
    await_time(time.monotonic() + 0.7)
    knock(client, client.server4, SEQUENCE[-1:])
    assert_no_door_comes(box, client)


def test_first_knock_after_lifetime_starts_new_attempt(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, "-v", max_knocker_live_time=0.7)
    knock(client, client.server4, SEQUENCE[:-1])
    daemon.wait_for("advanced to step 4")
    await_time(time.monotonic() + 0.7)
    knock(client, client.server4)
    wait_open(client, client.server4)


def test_lifetime_counts_from_last_knock(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path, max_knocker_live_time=1.0)
    knock(client, client.server4, pause=0.4)  # 1.6 s in all
    wait_open(client, client.server4)


def test_repeated_packet_does_no_harm(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path)
    for _ in range(2):
        for port in SEQUENCE:
            knock(client, client.server4, [port] * 3, source_port=40000)
    wait_open(client, client.server4)
    daemon.wait_for(f"{client.address4}: prolonged")
    assert doors(box) == [door_rule(client.address4)]
    assert not any("wrong knock" in line for line in daemon.stderr.lines)


def test_first_step_from_another_source_port_begins_again(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path)
    knock(client, client.server4, SEQUENCE[:2], source_port=40000)
    knock(client, client.server4, [FIRST], source_port=40001)
    knock(client, client.server4, SEQUENCE[2:], source_port=40000)
    assert_no_door_comes(box, client)
    knock(client, client.server4, [FIRST], source_port=40002)
    knock(client, client.server4, SEQUENCE[1:], source_port=40002)
    wait_open(client, client.server4)


def test_knocks_may_have_different_source_ports(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path)
    for source_port, port in enumerate(SEQUENCE, 40000):
        knock(client, client.server4, [port], source_port=source_port)
    wait_open(client, client.server4)


# --- deadlines


def await_closing(watch: ConnectionWatch, host: ClientHost, server: Address) -> float:
    """When the door that is open under the watch closed: every try before was let in, every later one turned away."""
    wait_shut(host, server)
    shut = time.monotonic()
    tries = watch.stop()
    opened = next(number for number, attempt in enumerate(tries) if attempt.outcome == "open")
    # The watch may have ended ahead of its own first try at the closed door.
    closed = next((n for n, attempt in enumerate(tries) if n > opened and attempt.outcome != "open"), len(tries))
    assert "open" not in {attempt.outcome for attempt in tries[:opened] + tries[closed:]}
    return tries[closed].time if closed < len(tries) else shut


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
def test_door_closes_at_its_deadline(box: Sandbox, client: ClientHost, tmp_path: Path, version: int) -> None:
    duration = 1.2
    server, _ = next(pair for pair in both_families(client) if pair[0].version == version)
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    with client.watch_connect(server, GUARDED, interval=0.005) as watch:
        before = time.monotonic()
        knock(client, server)
        after = time.monotonic()
        wait_open(client, server)
        closed = await_closing(watch, client, server)
    assert before + duration <= closed <= after + duration + LATENESS
    assert doors(box) == []
    daemon.wait_for(f"closed {GUARDED}/tcp")


def test_prolonged_door_is_never_closed_for_a_moment(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    duration = 1.5
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    knock(client, client.server4)
    wait_open(client, client.server4)
    with client.watch_connect(client.server4, GUARDED, interval=0.001) as watch:
        for _ in range(3):
            await_time(time.monotonic() + 0.5 * duration)
            last = time.monotonic()
            knock(client, client.server4)
            assert doors(box) == [door_rule(client.address4)]
        closed = await_closing(watch, client, client.server4)
    assert len(watch.attempts) > 100, "connections were tried continuously"
    assert last + duration <= closed <= last + duration + LATENESS
    assert doors(box) == []
    assert_log_says_once(daemon, "opened", "closed")
    assert sum("prolonged" in line for line in daemon.stderr.lines) == 3


def test_five_quick_sequences_make_one_rule_and_one_close(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    duration = 1.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    knock(client, client.server4, SEQUENCE * 5)
    last = time.monotonic()
    wait_open(client, client.server4)
    daemon.wait_for(f"{client.address4}: prolonged")
    assert doors(box) == [door_rule(client.address4)]
    assert box.nft().count(f" {client.address4} ") == 1
    wait_shut(client, client.server4)
    assert time.monotonic() < last + duration + LATENESS
    assert str(client.address4) not in box.nft()
    assert_log_says_once(daemon, "opened", "closed")


def assert_log_says_once(daemon: Process, *words: str) -> None:
    for word in words:
        daemon.wait_for(rf": {word} {GUARDED}/tcp")
        assert sum(f": {word} " in line for line in daemon.stderr.lines) == 1


TALKER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as connection:
    print("connected", flush=True)
    for line in sys.stdin:
        connection.sendall(line.encode())
        print("received", connection.recv(100).decode().strip(), flush=True)
"""


def test_established_session_outlives_its_door(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path, max_opened_door_duration=2)  # a busy machine needs a while to connect
    knock(client, client.server4)
    wait_open(client, client.server4)
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=1) as words:
        talker = client.popen([sys.executable, "-c", TALKER, str(client.server4), str(GUARDED)], stdin=reading)
        os.close(reading)
        talker.stdout.wait_for("connected", 10)
        wait_shut(client, client.server4)
        assert doors(box) == []
        words.write("still there?\n")
        talker.stdout.wait_for("received still there", 5)
    assert talker.wait(5) == 0


# --- several ports, several doors


def test_door_opens_every_guarded_port(box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path) -> None:
    guarded = [(GUARDED, "tcp"), (11940, "udp"), (11940, "tcp")]
    with box.server.listen(11940, "udp"), box.server.listen(11940):
        start_daemon(box, tmp_path, ports_to_controls=[GUARDED, "11940/udp", "11940/tcp"], max_opened_door_duration=1.0)
        for port, protocol in guarded:
            assert client.connect(client.server4, port, protocol=protocol) == "prohibited"
        knock(client, client.server4)
        for port, protocol in guarded:
            wait_open(client, client.server4, port, protocol=protocol)
            assert stranger.connect(stranger.server4, port, protocol=protocol) == "prohibited"
        assert doors(box) == sorted(door_rule(client.address4, port, protocol) for port, protocol in guarded)
        for port, protocol in guarded:
            wait_shut(client, client.server4, port, protocol=protocol)
        assert doors(box) == []


def test_newcomer_above_max_open_doors_is_refused_alone(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    duration = 1.5
    daemon = start_daemon(box, tmp_path, max_open_doors=1, max_opened_door_duration=duration)
    knock(client, client.server4)
    wait_open(client, client.server4)
    with client.watch_connect(client.server4, GUARDED) as watch:
        knock(stranger, stranger.server4)
        daemon.wait_for(f"{stranger.address4}: not opened: max_open_doors")
        last = time.monotonic()
        knock(client, client.server4)
        daemon.wait_for(f"{client.address4}: prolonged")
        assert doors(box) == [door_rule(client.address4)]
        assert tried(stranger) == ["prohibited", "prohibited"]
        assert await_closing(watch, client, client.server4) >= last + duration, "it could prolong"
    knock(stranger, stranger.server4)
    wait_open(stranger, stranger.server4)


# --- the knock ports themselves


def knock_port_outcomes(host: ClientHost) -> set[str]:
    """What becomes of a datagram to each knock port: not answered where it reaches the daemon's (deaf) socket."""
    return {
        host.connect(address, port, protocol="udp", timeout=0.05)
        for port in SEQUENCE
        for address in (host.server4, host.server6)
    }


def test_knock_ports_are_open_while_daemon_runs(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    assert knock_port_outcomes(client) == {"prohibited"}
    daemon = start_daemon(box, tmp_path)
    assert set(box.rules()) == knock_port_rules()
    assert knock_port_outcomes(client) == knock_port_outcomes(stranger) == {"timeout"}
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert box.rules() == []
    assert knock_port_outcomes(client) == {"prohibited"}


def test_knock_ports_stay_closed_where_configured(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, "-v", open_knock_ports=False)
    assert box.rules() == []
    assert knock_port_outcomes(client) == {"prohibited"}
    knock(client, client.server4)
    box.firewall_cmd(*(f"--add-port={port}/udp" for port in SEQUENCE))
    assert doors(box) == []
    assert not any("knock advanced" in line for line in daemon.stderr.lines)
    knock(client, client.server4)
    wait_open(client, client.server4)
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert knock_port_outcomes(client) == {"refused"}, "what the administrator let through stays so"


# --- floods

FLOOD = """
import socket, sys, time
server, sources, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ports = [int(port) for port in sys.argv[4:]]
print("begun", flush=True)
began, sent = time.monotonic(), 0
while sent < sources or time.monotonic() < began + seconds:
    source = f"10.77.{sent % sources // 250}.{sent % sources % 250 + 1}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        for port in ports:
            sock.sendto(b"knock\\n", (server, port))
    sent += 1
print("sent", sent, flush=True)
"""


def begin_flood(box: Sandbox, host: ClientHost, ports: Sequence[int], *, sources: int, seconds: float = 0.0) -> Process:
    """Right payloads from `sources` addresses, each of which knocks at the ports; again until `seconds` are over."""
    host.run(["ip", "route", "add", "local", "10.77.0.0/16", "dev", "lo"])
    box.server.run(["ip", "route", "add", "10.77.0.0/16", "via", str(host.address4)])
    arguments = [str(host.server4), str(sources), str(seconds), *map(str, ports)]
    flood = host.popen([sys.executable, "-c", FLOOD, *arguments])
    flood.stdout.wait_for("begun", 10)
    return flood


FLOODS = {
    "of first knocks, the table large enough": (FIRST, 65536),
    "of wrong knocks, the table far too small": (FOURTH, 100),
}


@pytest.mark.parametrize(("port", "max_knockers"), FLOODS.values(), ids=FLOODS.keys())
def test_honest_knocker_gets_in_during_flood(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path, port: int, max_knockers: int
) -> None:
    # The flood may fill the socket of its port, and a knock that found no room there was lost: the knocker tries again.
    daemon = start_daemon(box, tmp_path, max_knockers=max_knockers, ignoring_period_after_knock_error=0.2)
    flood = begin_flood(box, stranger, [port], sources=20_000, seconds=3.0)

    def gets_in() -> bool:
        knock(client, client.server4, pause=0.01)
        try:
            return wait_open(client, client.server4, within=0.25) >= 0
        except AssertionError:
            return False

    wait_until(gets_in, 2.5, "the honest knocker gets in")
    assert flood.poll() is None, "the flood was over before that: this showed nothing"
    assert doors(box) == [door_rule(client.address4)]
    assert flood.wait(20) == 0
    assert len(daemon.stderr.lines) < 40, "wrong knocks are summed up"


def test_flood_is_summed_up_in_log(box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, max_open_doors=1, max_opened_door_duration=60)
    knock(client, client.server4)
    wait_open(client, client.server4)
    knock(client, client.server4, SEQUENCE * 200)
    begin_flood(box, stranger, SEQUENCE, sources=500).wait(20)
    stranger.run(["ip", "route", "del", "local", "10.77.0.0/16", "dev", "lo"])
    box.server.run(["ip", "route", "del", "10.77.0.0/16"])
    begin_flood(box, stranger, [THIRD], sources=5000).wait(20)
    for summary in (r"\d+ more wrong knocks", r"\d+ more doors not opened", r"\d+ more doors prolonged"):
        daemon.wait_for(summary, 11)
    assert len(daemon.stderr.lines) < 60
    assert doors(box) == [door_rule(client.address4)]


# --- SIGHUP


def hang_up(daemon: Process, answer: str) -> list[str]:
    """Let it read its configuration again; returns the lines that it said."""
    before = len(daemon.stderr.lines)
    daemon.send_signal(signal.SIGHUP)
    daemon.stderr.wait_for(answer, 5, start=before)
    return daemon.stderr.lines[before:]


def test_good_file_is_active_after_sighup_and_open_doors_stay(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    duration = 2.0
    daemon = start_daemon(box, tmp_path, max_opened_door_duration=duration)
    with client.watch_connect(client.server4, GUARDED) as watch:
        before = time.monotonic()
        knock(client, client.server4)
        after = time.monotonic()
        wait_open(client, client.server4)
        daemon.wait_for("opened")
        keys = {"opening_sequence": list(OTHER_SEQUENCE), "ports_to_controls": [GUARDED, GUARDED + 1]}
        write_configuration(tmp_path, max_opened_door_duration=60, **keys)
        assert len(hang_up(daemon, "configuration reloaded")) == 1
        wait_until(
            lambda: set(box.rules()) == {*knock_port_rules(OTHER_SEQUENCE), door_rule(client.address4)},
            2,
            lambda: f"the new knock ports are let through: {box.rules()}",
        )
        assert knock_port_outcomes(stranger) == {"prohibited"}, "the old sequence is gone"
        knock(stranger, stranger.server4, OTHER_SEQUENCE)
        wait_open(stranger, stranger.server4)
        closed = await_closing(watch, client, client.server4)
    assert before + duration <= closed <= after + duration + LATENESS
    assert doors(box) == sorted(door_rule(stranger.address4, port) for port in (GUARDED, GUARDED + 1))


def test_open_door_is_prolonged_by_new_sequence_after_reload(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path)
    knock(client, client.server4)
    wait_open(client, client.server4)
    write_configuration(tmp_path, opening_sequence=list(OTHER_SEQUENCE))
    hang_up(daemon, "configuration reloaded")
    wait_until(lambda: knock_port_rules(OTHER_SEQUENCE) <= set(box.rules()), 2, "the new knock ports are let through")
    knock(client, client.server4, OTHER_SEQUENCE)
    daemon.wait_for(f"{client.address4}: prolonged")
    assert doors(box) == [door_rule(client.address4)]


BAD_FILES = {
    "not TOML": ("ports_to_controls = [2222\n", r"port_knocker\.toml:\d"),
    "two ports": ("ports_to_controls = [2222]\nopening_sequence = [22005, 22001]\n", r"\.toml:2: .*2 ports"),
    "an unknown key": (
        f"port_to_controls = [2222]\nopening_sequence = {list(OTHER_SEQUENCE)}\n",
        r"\.toml:1: .*nearest",
    ),
    "an unknown zone": (
        f'ports_to_controls = [2222]\nopening_sequence = {list(OTHER_SEQUENCE)}\nzone = "nosuch"\n',
        "nosuch",
    ),
    "a port in use": ("ports_to_controls = [2222]\nopening_sequence = [22005, 22001, 22009, 22003, 23456]\n", "in use"),
    "another mark": (
        f"ports_to_controls = [2222]\nopening_sequence = {list(OTHER_SEQUENCE)}\nrule_priority = 7\n",
        "rule_priority",
    ),
    "no file": (None, "cannot read the file"),
}


def test_bad_file_at_sighup_is_one_line_and_changes_nothing(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    daemon = start_daemon(box, tmp_path)
    knock(client, client.server4)
    wait_open(client, client.server4)
    daemon.wait_for("opened")
    rules = set(box.rules())
    path = tmp_path / "port_knocker.toml"
    with box.server.listen(23456, "udp"):
        for case, (content, said) in BAD_FILES.items():
            if content is None:
                path.unlink()
            else:
                path.write_text(content)
            (line,) = hang_up(daemon, "reload failed")
            assert re.search(said, line), case
            assert str(path) in line, f"{case}: it says which file"
            assert set(box.rules()) == rules, case
            assert knock_port_outcomes(stranger) == {"timeout"}, f"{case}: it listens as before"
        knock(stranger, stranger.server4)
        wait_open(stranger, stranger.server4)
    assert client.connect(client.server4, GUARDED) == "open"
    assert set(box.rules()) == {*rules, door_rule(stranger.address4)}
    daemon.terminate()
    assert daemon.wait(10) == 0


# --- secrets


def test_log_never_has_a_port_of_a_sequence(
    box: Sandbox, client: ClientHost, stranger: ClientHost, tmp_path: Path
) -> None:
    """All that a daemon says with -v, through everything that it has something to say about."""
    long_sequence = [23003, 23001, 23007, 23005]
    daemon = start_daemon(box, tmp_path, "-v", max_open_doors=1)
    knock(client, client.server4, [*SEQUENCE, *SEQUENCE, FIRST, FIRST, THIRD, *SEQUENCE], pause=0.005)
    wait_open(client, client.server4)
    knock(stranger, stranger.server4)
    for said in ("opened", "prolonged", "repeated", "wrong knock", "ignored", "max_open_doors"):
        daemon.wait_for(said)
    for ports, keys in (
        (long_sequence[:2], {}),
        ([*long_sequence, 99999], {}),
        ([*long_sequence, "23009"], {}),
        ([*long_sequence, 23456], {}),
        (OTHER_SEQUENCE, {"zone": "nosuch"}),
        (OTHER_SEQUENCE, {"ports_to_control": [22]}),
        (OTHER_SEQUENCE, {"rule_priority": 7}),
    ):
        write_configuration(tmp_path, opening_sequence=ports, **keys)
        with box.server.listen(23456, "udp"):
            hang_up(daemon, "reload failed")
    write_configuration(tmp_path, opening_sequence=list(OTHER_SEQUENCE), max_open_doors=1)
    hang_up(daemon, "configuration reloaded")
    box.firewall_cmd("--reload")
    daemon.wait_for("firewalld was reloaded")
    box.firewalld.restart()
    daemon.wait_for("firewalld has stopped")
    wait_until(lambda: knock_port_rules(OTHER_SEQUENCE) <= set(box.rules()), 10, "its rules are back")
    with box.server.listen(23456, "udp"):
        for options in (
            ["-m", "23003,23001,23007,23005"],
            ["-m", "23003 23001 23007 23005 23009"],
            ["-m", "23003,23001,23007,23005,23456", "--zone", "nosuch"],
            ["-m", "23003-23001-23007-23005-23009", "-v"],
            ["-m", "23003,23001,23007,23005,23456", "-v"],
        ):
            conf = write_configuration(tmp_path, rule_priority=77, opening_sequence=list(SEQUENCE))
            assert begin_daemon(box, conf, *options).wait(10) in (1, 2)
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert_no_port_is_said(box)


def test_misplaced_sequence_on_command_line_is_not_repeated(box: Sandbox, tmp_path: Path) -> None:
    wrong = begin_daemon(box, write_configuration(tmp_path), ",".join(map(str, SEQUENCE)))
    assert wrong.wait(10) == 2
    assert_no_port_is_said(box)


def test_failure_of_firewalld_is_logged_without_knock_ports(box: Sandbox, tmp_path: Path) -> None:
    # firewalld answers with the whole rule that failed where nftables were flushed behind its back; the daemon sees
    # that they are gone. Since firewalld 2.1 no other process can flush them, unless firewalld does not own its table;
    # earlier ones don't know the key and ignore it.
    box.server.run(["tee", "-a", "/etc/firewalld/firewalld.conf"], text="NftablesTableOwner=no\n")
    box.firewalld.restart()
    box.server.run(["nft", "delete", "table", "inet", "firewalld"])
    daemon = begin_daemon(box, write_configuration(tmp_path), "-v")
    daemon.wait_for("firewalld has lost its rules in the kernel")
    daemon.terminate()
    daemon.wait(20)
    assert_no_port_is_said(box)


def assert_no_port_is_said(box: Sandbox) -> None:
    secrets = {*SEQUENCE, *OTHER_SEQUENCE, 23001, 23003, 23005, 23007, 23009}
    daemons = [process for process in box.processes if "port_knocking_doors" in process.args]
    assert daemons
    for process in daemons:
        said = process.stdout.text + process.stderr.text
        assert said
        assert [port for port in secrets if str(port) in said] == [], said
