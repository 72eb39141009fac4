"""The sniffer, through the daemon, with real packets: what opens, what does not, and what makes no difference."""

import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.doorstep import children
from tests.helpers.raw_knock import send_tcp
from tests.helpers.running import (
    GUARDED,
    SEQUENCE,
    await_time,
    begin_daemon,
    doors,
    knock,
    wait_open,
    wait_shut,
    write_configuration,
)
from tests.helpers.sniffed import (
    FLAGS_STEP,
    RIGHT,
    STEPS,
    SYN_STEP,
    UDP_STEP,
    knock_udp,
    sniffing,
    whole_sequence,
    write_sniffing,
)
from tests.helpers.waiting import wait_until

TALK = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as sock:
    sock.settimeout(5)
    while True:
        sock.sendall(b"x" * 2000); sock.recv(2000); print("talked", flush=True); time.sleep(0.02)
"""


def never_open(box: Sandbox, daemon: Process, *clients: ClientHost) -> None:
    """A stranger knocks right afterwards: once it is in, any door owed to the clients would be open, too."""
    stranger = box.hosts["stranger"]
    whole_sequence(stranger, stranger.server4)
    daemon.wait_for(f"{stranger.address4}: opened")
    for client in clients:
        assert client.connect(client.server4, GUARDED) == "prohibited", client.name
        assert not any(f'"{client.address4}"' in rule for rule in doors(box)), client.name


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_right_sequence_opens_on_ports_that_look_closed(
    box: Sandbox, client: ClientHost, tmp_path: Path, family: str
) -> None:
    address = client.server4 if family == "IPv4" else client.server6
    before = [client.connect(address, port) for port in (SYN_STEP, FLAGS_STEP)]
    sniffing(box, tmp_path)
    with box.server.listen(GUARDED):
        whole_sequence(client, address)
        wait_open(client, address)
        assert box.hosts["stranger"].connect(box.hosts["stranger"].server4, GUARDED) == "prohibited"
        assert [client.connect(address, port) for port in (SYN_STEP, FLAGS_STEP)] == before
        wait_shut(client, address)


def by_connecting(client: ClientHost) -> None:
    for port in (SYN_STEP, SYN_STEP + 50):
        client.connect(client.server4, port, timeout=0.2)


def by_hping3(client: ClientHost) -> None:
    for port in (SYN_STEP, SYN_STEP + 50):
        client.run(["hping3", "-q", "-c", "1", "-S", "-p", str(port), str(client.server4)], check=False)


def by_knock(client: ClientHost) -> None:
    ports = [f"{port}:tcp" for port in (SYN_STEP, SYN_STEP + 50)]
    client.run(["knock", "-d", "20", str(client.server4), f"{UDP_STEP}:udp", *ports])


def by_nmap(client: ClientHost) -> None:
    for port in (SYN_STEP, SYN_STEP + 50):
        options = ["-n", "-Pn", "-sS", "--max-retries", "0", "--host-timeout", "2s"]
        client.run(["nmap", *options, "-p", str(port), str(client.server4)], check=False)


@pytest.mark.parametrize("way", [by_connecting, by_hping3, by_knock, by_nmap], ids=lambda way: way.__name__)
def test_usual_programs_knock(
    box: Sandbox, client: ClientHost, tmp_path: Path, way: Callable[[ClientHost], None]
) -> None:
    steps = [f"udp:{UDP_STEP}", f"tcp:{SYN_STEP}", f"tcp:{SYN_STEP + 50}"]
    sniffing(box, tmp_path, {"steps": steps, "duration": 5})
    with box.server.listen(GUARDED):
        if way is not by_knock:
            knock_udp(client, client.server4)
        way(client)
        wait_open(client, client.server4)


WRONG = {
    "the order": [(FLAGS_STEP, "frap"), (SYN_STEP, "s")],
    "flags of the last step": [(SYN_STEP, "s"), (FLAGS_STEP, "fra"), (FLAGS_STEP, "frap")],
    "flags on a bare SYN's port": [(SYN_STEP, "fs"), (SYN_STEP, "s"), (FLAGS_STEP, "frap")],
    "no flags at all": [(SYN_STEP, ""), (SYN_STEP, "s"), (FLAGS_STEP, "frap")],
    "ACK on the port of the flags": [(SYN_STEP, "s"), (FLAGS_STEP, "a"), (FLAGS_STEP, "frap")],
}


def test_wrong_packets_open_nothing(box: Sandbox, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, ignoring_period_after_knock_error=5)
    hosts = [box.add_client(f"wrong{number}") for number in range(len(WRONG))]
    for host, packets in zip(hosts, WRONG.values(), strict=True):
        knock_udp(host, host.server4)
        send_tcp(host, host.server4, packets)
        daemon.wait_for(f"{host.address4}: wrong knock")
    never_open(box, daemon, *hosts)


HARMLESS = {
    "every packet twice": {"repeat": 2},
    "an ECN SYN": {"ecn": True},
}


@pytest.mark.parametrize("how", HARMLESS.values(), ids=HARMLESS)
def test_harmless_packets_change_nothing(
    box: Sandbox, client: ClientHost, tmp_path: Path, how: dict[str, bool | int]
) -> None:
    daemon = sniffing(box, tmp_path)
    with box.server.listen(GUARDED):
        knock_udp(client, client.server4)
        knock_udp(client, client.server4)
        send_tcp(client, client.server4, RIGHT, **how)  # type: ignore[arg-type]
        wait_open(client, client.server4)
    assert "wrong knock" not in daemon.stderr.text


def test_connection_to_port_of_bare_syn_neither_helps_nor_hurts(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    """The step's port is served, and the session goes on talking while its owner knocks."""
    box.firewalld.ask("zone", "addPort", "", str(SYN_STEP), "tcp", 0)
    daemon = sniffing(box, tmp_path)
    talk = (
        "import socket, sys, time\n"
        f"with socket.create_connection(('{client.server4}', {SYN_STEP}), 5) as sock:\n"
        "    sock.settimeout(5); print('connected', flush=True)\n"
        "    for line in sys.stdin:\n"
        "        sock.sendall(b'x' * 2000); sock.recv(2000); print('talked', flush=True)\n"
    )
    with box.server.listen(SYN_STEP), box.server.listen(GUARDED):
        script = f'(while sleep 0.02; do echo; done) | {sys.executable} -c "$0"'
        session = client.popen(["sh", "-c", script, talk])
        session.stdout.wait_for("connected", 5)
        daemon.wait_for("wrong knock")  # its SYN is a wrong first knock, and no packet after it is a knock at all
        wait_until(lambda: session.stdout.text.count("talked") > 30, 10, "the session to outlast the ignored period")
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
        assert len(re.findall("wrong knock", daemon.stderr.text)) == 1
        session.kill()


def test_packets_of_a_connection_do_not_complete_a_sequence(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """The last step is a port that is served, where a session talks: its packets are not the SYN that is missing."""
    box.firewalld.ask("zone", "addPort", "", str(SYN_STEP), "tcp", 0)
    daemon = sniffing(
        box, tmp_path, {"steps": [f"udp:{UDP_STEP}", f"udp:{UDP_STEP + 1}", f"tcp:{SYN_STEP}"]}, options=("-v",)
    )
    with box.server.listen(SYN_STEP):
        session = client.popen([sys.executable, "-c", TALK, str(client.server4), str(SYN_STEP)])
        session.stdout.wait_for("talked", 10)
        daemon.wait_for("wrong knock")
        await_time(time.monotonic() + 0.6)  # it was ignored for 0.5 s
        for port in (UDP_STEP, UDP_STEP + 1):
            knock_udp(client, client.server4, port)
        daemon.wait_for("knock advanced to step 2")
        talked = session.stdout.text.count("talked")
        wait_until(lambda: session.stdout.text.count("talked") > talked + 5, 10, "the session to talk on")
        session.kill()
        assert "opened" not in daemon.stderr.text
        send_tcp(client, client.server4, [(SYN_STEP, "s")])
        daemon.wait_for(f"{client.address4}: opened")
    assert daemon.stderr.text.count("wrong knock") == 1


def test_time_limit_counts_from_first_knock(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"timeout": 1.0})
    knock_udp(client, client.server4)
    # Each pause is shorter than the limit, and both together are longer.
    await_time(time.monotonic() + 0.6)
    send_tcp(client, client.server4, RIGHT, pause=0.6)
    daemon.wait_for("wrong knock")
    assert "opened" not in daemon.stderr.text


def test_reload_whose_filter_kernel_rejects_changes_nothing(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 1})
    box.server.run(["sysctl", "-qw", "net.core.optmem_max=1"])
    other = UDP_STEP + 1
    write_sniffing(tmp_path, {"steps": [f"udp:{other}", *STEPS[1:]]}, opening_sequence=list(SEQUENCE[::-1]))
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("configuration reload failed, keeping the running one: packets cannot be filtered")
    stranger = box.hosts["stranger"]
    with box.server.listen(GUARDED):
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
        wait_shut(client, client.server4)
        knock(client, client.server4)
        wait_open(client, client.server4)
        knock_udp(stranger, stranger.server4, other)
        send_tcp(stranger, stranger.server4, RIGHT)
        daemon.wait_for(f"{stranger.address4}: wrong knock")
        assert stranger.connect(stranger.server4, GUARDED) == "prohibited"


def test_ignored_address_is_ignored_by_both_receivers(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, ignoring_period_after_knock_error=30)
    knock(client, client.server4, SEQUENCE[2:3] * 5)
    daemon.wait_for("address ignored")
    whole_sequence(client, client.server4)
    never_open(box, daemon, client)
    other = box.hosts["stranger"]
    send_tcp(other, other.server4, [(FLAGS_STEP, "frap")] * 5)
    wait_until(lambda: daemon.stderr.text.count("address ignored") == 2, 5, "the second address is ignored")
    knock(other, other.server4)
    assert daemon.stderr.text.count(f"{other.address4}: opened") == 1, "the one that the fence opened"


def test_port_of_both_receivers_counts_once_in_each_sequence(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    shared = [f"udp:{SEQUENCE[0]}", f"udp:{SEQUENCE[1]}", f"tcp:{SYN_STEP}"]
    daemon = sniffing(box, tmp_path, {"steps": shared, "open": [GUARDED + 1]}, options=("-v",))
    with box.server.listen(GUARDED), box.server.listen(GUARDED + 1):
        knock(client, client.server4, SEQUENCE[:2], source_port=40000, pause=0.05)
        wait_until(lambda: daemon.stderr.text.count("step 2") == 2, 5, "both sequences at their second step")
        send_tcp(client, client.server4, [(SYN_STEP, "s")])
        wait_open(client, client.server4, GUARDED + 1)
        knock(client, client.server4, SEQUENCE[2:], source_port=40000)
        wait_open(client, client.server4)
    assert "wrong knock" not in daemon.stderr.text


def test_several_sequences_work_side_by_side(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    one: dict[str, object] = {"name": "one", "steps": ["udp:21501", "udp:21503", "udp:21502"], "open": [GUARDED]}
    two: dict[str, object] = {"name": "two", "steps": ["udp:21501", "udp:21503", "udp:21509"], "open": [GUARDED + 1]}
    sniffing(box, tmp_path, one, two)
    stranger = box.hosts["stranger"]
    with box.server.listen(GUARDED), box.server.listen(GUARDED + 1):
        for ports in zip((21501, 21503, 21502), (21501, 21503, 21509), strict=True):
            for host, port in zip((client, stranger), ports, strict=True):
                knock_udp(host, host.server4, port)
        wait_open(client, client.server4, GUARDED)
        wait_open(stranger, stranger.server4, GUARDED + 1)
        assert client.connect(client.server4, GUARDED + 1) == "prohibited"
        assert stranger.connect(stranger.server4, GUARDED) == "prohibited"


def test_router_ignores_packets_it_forwards(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path)
    stranger = box.hosts["stranger"]
    box.server.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=False)
    knock_udp(client, stranger.address4)
    send_tcp(client, stranger.address4, RIGHT)
    never_open(box, daemon, client)
    assert f"{client.address4}: wrong" not in daemon.stderr.text


def test_missing_capability_is_one_line_that_names_it(box: Sandbox, tmp_path: Path) -> None:
    conf = write_sniffing(tmp_path)
    argv = [sys.executable, "-m", "port_knocking_doors", "--conf", str(conf)]
    done = box.server.run(["setpriv", "--bounding-set", "-net_raw", *argv], check=False)
    assert done.returncode == 1
    assert "CAP_NET_RAW" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert doors(box) == []


def test_daemon_without_sniffed_sequence_opens_no_raw_socket(box: Sandbox, tmp_path: Path) -> None:
    daemon = begin_daemon(box, write_configuration(tmp_path))
    daemon.wait_for(r"\bready\b", 20)
    assert box.server.run(["cat", "/proc/net/packet"]).stdout.count("\n") == 1
    daemon.terminate()
    daemon.wait(5)
    sniffing(box, tmp_path)
    assert box.server.run(["cat", "/proc/net/packet"]).stdout.count("\n") == 2


def test_sequences_appear_change_and_vanish_at_sighup(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    daemon = begin_daemon(box, conf)
    daemon.wait_for(r"\bready\b", 20)
    with box.server.listen(GUARDED):
        write_sniffing(tmp_path)
        daemon.send_signal(1)
        daemon.wait_for("configuration reloaded")
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
        wait_shut(client, client.server4)
        write_sniffing(tmp_path, {"steps": ["udp:21601", "udp:21603", "udp:21602"]})
        daemon.send_signal(1)
        wait_until(lambda: daemon.stderr.text.count("configuration reloaded") == 2, 5, "the second configuration")
        for port in (21601, 21603, 21602):
            knock_udp(client, client.server4, port)
        wait_open(client, client.server4)
        write_configuration(tmp_path)
        daemon.send_signal(1)
        wait_until(lambda: daemon.stderr.text.count("configuration reloaded") == 3, 5, "the third configuration")
        assert box.server.run(["cat", "/proc/net/packet"]).stdout.count("\n") == 1


def test_log_never_has_a_step(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, options=("-v",))
    with box.server.listen(GUARDED):
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
        send_tcp(client, client.server4, RIGHT[1:])
        daemon.wait_for("wrong knock")
    daemon.terminate()
    daemon.wait(10)
    for secret in (UDP_STEP, SYN_STEP, FLAGS_STEP, "frap"):
        assert str(secret) not in daemon.stderr.text


def test_guard_that_was_replaced_keeps_no_capture_alive(box: Sandbox, tmp_path: Path) -> None:
    """The daemon's ring is mapped when the second guard is forked: a mapping keeps its socket."""
    daemon = sniffing(box, tmp_path)

    def captures() -> int:
        return len(box.server.run(["cat", "/proc/net/packet"]).stdout.splitlines()) - 1

    assert captures() == 1
    box.server.run(["kill", "-KILL", *map(str, children(box, daemon))])
    daemon.wait_for("takes its place")
    write_configuration(tmp_path)
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("configuration reloaded")
    wait_until(lambda: captures() == 0, 5, "the end of the capture")


def test_doors_of_a_killed_sniffing_daemon_close(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """The kernel takes a while to release a packet socket, and the lock on the mark after it."""
    daemon = sniffing(box, tmp_path, {"duration": 60})
    with box.server.listen(GUARDED):
        whole_sequence(client, client.server4)
        wait_open(client, client.server4)
        daemon.kill()
        wait_shut(client, client.server4)
