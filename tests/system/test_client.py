"""The client against the real daemon: every kind of step, whether the door opened, and ssh through it."""

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.doorstep import past
from tests.helpers.running import (
    GUARDED,
    SEQUENCE,
    begin_daemon,
    start_daemon,
    wait_open,
    wait_shut,
    write_configuration,
)
from tests.helpers.sniffed import STEPS, sniffing
from tests.helpers.ssh import Ssh

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
ORDINARY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
"""The sandbox's root without a capability may no more than any user."""
PORT = str(GUARDED)
QUICK = ["-d", "50"]
LARGE = 64 << 20


def knock(
    host: ClientHost, *arguments: object, user: list[str] | None = None, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """The client's run to its end."""
    words = [*(user or []), *PROGRAM, "knock", *map(str, arguments)]
    done = host.run(words, check=False, timeout=timeout, env={"HOME": "/nonexistent"})
    assert "Traceback" not in done.stderr
    return done


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


# --- every kind of step


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_knock_without_steps_uses_configuration_without_privilege(
    box: Sandbox, client: ClientHost, tmp_path: Path, ipv6: bool
) -> None:
    start_daemon(box, tmp_path)
    server = client.server6 if ipv6 else client.server4
    with box.server.listen(GUARDED):
        done = knock(client, "-c", tmp_path / "port_knocker.toml", "--wait", PORT, server, user=ORDINARY)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{server}: port {PORT} is open\n"
        wait_open(client, server)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_sniffed_sequence_with_flags_is_knocked_by_name_and_by_steps(
    box: Sandbox, client: ClientHost, tmp_path: Path, ipv6: bool
) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 1})
    server = client.server6 if ipv6 else client.server4
    with box.server.listen(GUARDED):
        for words in (["-c", tmp_path / "port_knocker.toml", "--sequence", "door"], STEPS):
            done = knock(client, *QUICK, server, "--wait", PORT, *words)
            assert done.returncode == 0, done.stderr
            wait_shut(client, server)
    assert "wrong knock" not in daemon.stderr.text


def test_flags_without_privilege_send_nothing_and_bare_syns_need_none(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    steps = ["tcp:20600", "udp:21500", "20601"]
    daemon = sniffing(box, tmp_path, {"steps": ["tcp:20600", "udp:21500", "tcp:20601"]}, options=("-v",))
    with box.server.listen(GUARDED):
        for server in (client.server4, client.server6):
            done = knock(client, *QUICK, server, *steps, "20602:tcp", "tcp:20603:f", user=ORDINARY)
            assert done.returncode == 5
            assert "CAP_NET_RAW" in last_line(done)
            assert "knock advanced" not in daemon.stderr.text
        done = knock(client, *QUICK, client.server4, *steps, "--wait", PORT, user=ORDINARY)
        assert done.returncode == 0, done.stderr


def test_knock_is_exactly_one_packet_even_where_nothing_answers(box: Sandbox, client: ClientHost) -> None:
    """And the first of them waits for the neighbour's address without getting lost."""
    box.server.run(
        ["nft", "add table inet deaf; add chain inet deaf in { type filter hook prerouting priority -300; }"]
    )
    box.server.run(["nft", "add rule inet deaf in iifname to-client tcp dport 20000-21999 counter drop"])
    for row in ("add table inet t", "add chain inet t out { type filter hook output priority 0; }"):
        client.run(["nft", row])
    for match in ("tcp dport 20600", "tcp dport 20700", "udp dport 21500"):
        client.run(["nft", f"add rule inet t out {match} counter"])
    client.run(["ip", "neigh", "flush", "dev", client.interface])
    assert knock(client, *QUICK, client.server4, "20600", "tcp:20700:frap", "udp:21500", "20600").returncode == 0
    left = time.monotonic()
    past(left + 1.3)  # the kernel repeats a SYN that got no answer after a second
    counted = client.run(["nft", "list", "table", "inet", "t"]).stdout
    assert re.findall(r"dport (\d+) counter packets (\d+)", counted) == [
        ("20600", "2"),
        ("20700", "1"),
        ("21500", "1"),
    ]
    arrived = box.server.run(["nft", "list", "table", "inet", "deaf"]).stdout
    assert re.search(r"counter packets (\d+)", arrived)[1] == "3"  # type: ignore[index]


# --- did it work?


def test_port_that_stays_closed_is_status_3_with_reason(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, ignoring_period_after_knock_error=0.2)
    conf = ["-c", tmp_path / "port_knocker.toml"]
    began = time.monotonic()
    done = knock(client, *QUICK, *conf, "--wait", PORT, "--tries", "2", client.server4)
    assert done.returncode == 3, "no service listens there"
    assert "try 2 of 2" in done.stderr.splitlines()[0]
    assert re.search("not open, knocked 2 times; the connection was refused", last_line(done))
    assert time.monotonic() - began > 2 * 1.2
    daemon.wait_for(f"{client.address4}: opened")


def test_later_try_opens_after_lost_one(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """When the client begins, no daemon listens."""
    conf = write_configuration(tmp_path, ignoring_period_after_knock_error=0.1)
    words = [*PROGRAM, "knock", *QUICK, "-c", str(conf), "--wait", PORT, "--tries", "50", str(client.server4)]
    with box.server.listen(GUARDED):
        knocking = client.popen(words)
        knocking.wait_for(r"port 2222 is not open yet, knocking again \(try 2 of 50\)")
        begin_daemon(box, conf).wait_for(r"\bready\b", 20)
        assert knocking.wait(30) == 0
    assert knocking.stdout.text == f"{client.server4}: port {PORT} is open\n"


def test_tries_use_addresses_of_host_in_turn(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """The service listens on IPv4 only, and IPv6 comes first."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{client.server6} both\n{client.server4} both\n")
    box.server.run(["mount", "--bind", str(hosts), "/etc/hosts"])
    unreachable = tmp_path / "resolv.conf"
    unreachable.write_text("nameserver 127.0.0.1\n")  # refuses at once
    box.server.run(["mount", "--bind", str(unreachable), "/etc/resolv.conf"])
    start_daemon(box, tmp_path, ignoring_period_after_knock_error=0.1)
    conf = ["-c", tmp_path / "port_knocker.toml"]
    echo = [sys.executable, "-m", "http.server", "--bind", str(client.server4), PORT]
    serving = box.server.popen(echo, env={"PYTHONUNBUFFERED": "1"})
    serving.stdout.wait_for("Serving HTTP", 10)
    done = knock(client, *QUICK, *conf, "both", "--wait", PORT)
    assert (done.returncode, done.stdout) == (0, f"both ({client.server4}): port {PORT} is open\n")
    assert knock(client, *QUICK, *conf, "-6", "both", "--wait", PORT, "--tries", 1).returncode == 3
    assert knock(client, *QUICK, *conf, "-4", "both", "--wait", PORT, "--tries", 1).returncode == 0
    no_way = knock(client, *QUICK, *conf, "-4", "nowhere.invalid", "--wait", PORT)
    assert no_way.returncode == 4
    assert last_line(no_way).startswith("port-knocking-doors: nowhere.invalid: ")
    client.run(["ip", "route", "del", "default"])
    unrouted = knock(client, "192.0.2.1", "7117")
    assert (unrouted.returncode, "no route" in last_line(unrouted)) == (1, True)


def test_interrupt_prints_no_error(box: Sandbox, client: ClientHost) -> None:
    waiting = client.popen([*PROGRAM, "knock", "-v", "--wait", PORT, str(client.server4), "7000:udp"])
    waiting.wait_for("knock 1 of 1 sent")
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(10) == 130
    assert "Traceback" not in waiting.stderr.text


# --- inside ssh


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_ssh_and_scp_connect_through_door(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    start_daemon(box, tmp_path, max_opened_door_duration=1)
    ssh = Ssh(box, tmp_path)
    proxy = shlex.join([*PROGRAM, "knock", "-c", str(tmp_path / "port_knocker.toml"), *QUICK])
    config = ["-c", "aes128-gcm@openssh.com", "-F", str(ssh.client_config(client.server4, f"{proxy} %h --connect %p"))]

    def over_ssh(*command: str, stdin: Path | None = None, text: str = "") -> str:
        wait_shut(client, client.server4)
        given = None if stdin is None else os.open(stdin, os.O_RDONLY)
        try:
            if given is None:
                done = client.run([*command], text=text, timeout=60)
                assert done.stderr == "", "not a word where all went well"
                return done.stdout
            process = client.popen([*command], stdin=given)
        finally:
            if given is not None:
                os.close(given)
        assert process.wait(60) == 0, process.stderr.text
        return process.stdout.text

    assert over_ssh("ssh", *config, "door", "echo inside") == "inside\n"
    large, up, down = (tmp_path / name for name in ("large", "up", "down"))
    with large.open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    over_ssh("scp", "-q", *config, str(large), f"door:{up}")
    assert digest(up) == digest(large)
    over_ssh("scp", "-q", *config, f"door:{up}", str(down))
    assert digest(down) == digest(large)
    assert over_ssh("ssh", *config, "door", "sha256sum", stdin=down).split()[0] == digest(large)
    assert over_ssh("ssh", *config, "door", "cat; echo and the end", text="typed\n") == "typed\nand the end\n"


def test_open_port_is_used_without_knock(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = start_daemon(box, tmp_path, "-v")
    box.firewalld.ask("zone", "addPort", "", PORT, "tcp", 0)
    with box.server.listen(GUARDED):
        done = client.run(
            [*PROGRAM, "knock", "-c", str(tmp_path / "port_knocker.toml"), str(client.server4), "--connect", PORT],
            text="said back\n",
        )
        assert done.stdout == "said back\n"
        # The daemon judges in order: had the client knocked, the log would say so before this.
        knock(client, "-u", client.server6, SEQUENCE[0])
        daemon.wait_for(f"{client.address6}.*knock advanced")
    assert str(client.address4) not in daemon.stderr.text


def test_connect_without_door_fails_and_writes_nothing(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path, ignoring_period_after_knock_error=0.1)
    done = knock(client, "-c", conf, client.server4, "--connect", PORT, "--tries", 1)
    assert (done.returncode, done.stdout) == (3, "")
    assert "not open, knocked once; a firewall rejected the connection" in last_line(done)


# --- without this program


def piece(text: str, title: str) -> str:
    return text.split(f"## {title}")[1].split("\n\n")[1]


NETCATS = [path for name in ("nc.openbsd", "nc.traditional", "ncat") if (path := shutil.which(name))]
NETCATS = NETCATS or [shutil.which("nc") or "/usr/bin/nc"]


@pytest.mark.parametrize("netcat", NETCATS, ids=lambda path: Path(path).name)
def test_shell_snippets_open_door(box: Sandbox, client: ClientHost, tmp_path: Path, netcat: str) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 10})
    (tmp_path / "nc").symlink_to(netcat)
    conf = ["--conf", str(tmp_path / "port_knocker.toml")]
    with box.server.listen(GUARDED):
        for host, sequence in ((client, []), (box.hosts["stranger"], ["--sequence", "door"])):
            text = host.run([*PROGRAM, "client-config", *conf, *sequence, str(host.server4)]).stdout
            host.run(["sh", "-c", f'PATH="{tmp_path}:$PATH"\n{piece(text, "A POSIX shell")}'], check=False)
            wait_open(host, host.server4)
    assert "wrong knock" not in daemon.stderr.text


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_bash_snippet_opens_door(box: Sandbox, client: ClientHost, tmp_path: Path, ipv6: bool) -> None:
    start_daemon(box, tmp_path)
    server = client.server6 if ipv6 else client.server4
    text = client.run([*PROGRAM, "client-config", "--conf", str(tmp_path / "port_knocker.toml"), str(server)]).stdout
    with box.server.listen(GUARDED):
        client.run(["bash", "-c", piece(text, "bash")])
        wait_open(client, server)


def test_client_config_prints_knock_line_and_ssh_snippet_that_work(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    sniffing(box, tmp_path, {"open": [GUARDED], "duration": 1})
    conf = ["--conf", str(tmp_path / "port_knocker.toml")]
    config = client.run([*PROGRAM, "client-config", *conf, "-s", "door", str(client.server4)]).stdout
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "port-knocking-doors").write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    (bin_folder / "port-knocking-doors").chmod(0o755)
    path = {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    (line,) = re.findall(r"^port-knocking-doors knock .*", config, re.MULTILINE)
    (proxy,) = re.findall(r"ProxyCommand (.*)", config)
    with box.server.listen(GUARDED):
        assert "is open" in client.run(["sh", "-c", line], env=path).stdout
        wait_shut(client, client.server4)
        proxy = proxy.replace("%h", str(client.server4)).replace("%p", PORT)
        assert client.run(["sh", "-c", proxy], env=path, text="said back\n").stdout == "said back\n"
