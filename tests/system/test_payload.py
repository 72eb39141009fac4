"""Datagrams with another payload: shown while a client watches, and knocks with `payload = "any"`."""

import re
import sys
from pathlib import Path

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, SEQUENCE, begin_daemon, doors, wait_open, write_configuration
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]

EACH = "for p in {{ports}}; do {}; sleep 0.05; done"
APP = (
    f'{sys.executable} -c "import socket; s = socket.socket(type=socket.SOCK_DGRAM); '
    "[s.sendto({}, ('{{to}}', int(port))) for port in '{{ports}}'.split()]\""
)
ZERO = r"1 byte \(one zero byte, as knockd's client and netcat's -z send it\); expected "
CLIENTS = {
    "knock -u": ("knock -u -d 50 {to} {ports}", ZERO),
    "nc of OpenBSD, -z": (EACH.format("timeout 0.4 nc.openbsd -v -z -u -w 1 {to} $p || true"), "1 byte; "),
    "nc, the traditional one, -z": (EACH.format("timeout 0.4 nc.traditional -z -u -w 1 {to} $p || true"), ZERO),
    "nc, a letter": (EACH.format("printf x | timeout 0.4 nc.traditional -u -w 1 -q 0 {to} $p || true"), "1 byte; "),
    "ncat, -z": (EACH.format("timeout 0.4 ncat -z -u -w 1 {to} $p || true"), ZERO),
    "nmap": (
        EACH.format("nmap -n -Pn -sU --max-retries 0 --max-rtt-timeout 100ms -p $p {to} >/dev/null"),
        r"\d+ bytes?",
    ),
    "bash, no newline": (EACH.format("printf knock >/dev/udp/{to}/$p"), r"5 bytes \(the newline is missing\); "),
    "bash, CR LF": (EACH.format(r"printf 'knock\r\n' >/dev/udp/{to}/$p"), r"7 bytes \(it ends with CR LF instead of"),
    "bash, a zero byte": (EACH.format(r"printf '\0' >/dev/udp/{to}/$p"), ZERO),
    "an app, empty": (APP.format("b''"), r"0 bytes \(it is empty\); "),
    "an app, 1400 bytes": (APP.format("bytes(1400)"), "1400 bytes; "),
    "the daemon's own": (EACH.format(r"printf 'knock\n' >/dev/udp/{to}/$p"), ""),
}


def test_every_client_knocks_with_any_payload_and_is_shown_without(box: Sandbox, tmp_path: Path) -> None:
    hosts = [box.add_client(f"knocker{number}") for number in range(len(CLIENTS))]

    def knock(*those: tuple[ClientHost, str], ports: tuple[int, ...] = SEQUENCE) -> None:
        """All at once: most of them wait most of the time."""
        words = " ".join(map(str, ports))
        every = [(host, line.format(to=host.server4, ports=words)) for host, line in those]
        running = [host.popen(["bash", "-c", line]) for host, line in every]
        assert [process.wait(60) for process in running] == [0] * len(running)

    lines = [line for line, _ in CLIENTS.values()]
    keys = {"max_opened_door_duration": 600, "ignoring_period_after_knock_error": 1}
    daemon = begin_daemon(box, write_configuration(tmp_path, **keys), "-v")
    daemon.wait_for(r"\bready\b", 20)
    conf = ["--conf", str(tmp_path / "port_knocker.toml"), "--priority", "31313"]
    watching = box.server.popen([*PROGRAM, "doctor", "--listen", "300", *conf])
    wait_until(lambda: "Listening for 300 s" in watching.stdout.text, 60, "doctor listens")

    def shown(host: ClientHost, words: str) -> bool:
        return re.search(rf"{host.address4}: datagram with another payload: {words}", watching.stdout.text) is not None

    def is_watched() -> bool:
        # The daemon reports from the moment that the watch has begun, which cannot be seen from here.
        box.hosts["stranger"].send([(box.hosts["stranger"].server4, SEQUENCE[0], b"?", 0)])
        return shown(box.hosts["stranger"], "1 byte; ")

    wait_until(is_watched, 30, "the watch has begun", every=0.2)
    knock(*zip(hosts[:-1], lines[:-1], strict=True), ports=SEQUENCE[:1])
    for host, (_, words) in zip(hosts, CLIENTS.values(), strict=True):
        if words:
            wait_until(lambda host=host, words=words: shown(host, words), 10, lambda: watching.stdout.text)  # type: ignore[misc]
    assert doors(box) == []
    assert not any(str(port) in watching.stdout.text for port in SEQUENCE)
    watching.kill()

    write_configuration(tmp_path, **keys, payload="any")
    box.server.run([*PROGRAM, "reload", "--priority", "31313"])
    with box.server.listen(GUARDED):
        knock(*zip(hosts, lines, strict=True))
        for host in hosts:
            wait_open(host, host.server4)
    assert "wrong knock" not in daemon.stderr.text

    write_configuration(tmp_path, **keys)
    box.server.run([*PROGRAM, "reload", "--priority", "31313"])
    before = daemon.stderr.text.count(": knock ")
    knock((hosts[0], lines[0]))
    knock((box.hosts["client"], lines[-1]))
    daemon.wait_for(f"{box.hosts['client'].address4}: opened")
    assert daemon.stderr.text.count(": knock ") == before + len(SEQUENCE) - 1, "the kernel drops them again"
