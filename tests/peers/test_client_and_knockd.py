"""Our client at the door of the real knockd: Debian's, with its own configuration."""

import sys
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import Sandbox
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
DOORS = """\
[options]
    UseSyslog

[plain]
    sequence = 7000,8000:udp
    seq_timeout = 15
    tcpflags = syn
    start_command = touch {folder}/plain-%IP%

[odd]
    sequence = 7010,7020:udp,7030
    seq_timeout = 15
    tcpflags = fin,!syn
    start_command = touch {folder}/odd-%IP%
"""

KNOCKS = {
    "knockd's spelling": ("plain", ["7000", "8000:udp"]),
    "tportknockd's spelling": ("plain", ["tcp:7000", "udp:8000"]),
    "flags": ("odd", ["tcp:7010:f", "7020:udp", "tcp:7030:fp"]),
}


@pytest.mark.parametrize(("door", "words"), KNOCKS.values(), ids=KNOCKS)
def test_knockd_opens_for_our_client(tmp_path: Path, door: str, words: list[str]) -> None:
    conf = tmp_path / "knockd.conf"
    conf.write_text(DOORS.format(folder=tmp_path))
    with Sandbox() as box:
        client = box.hosts["client"]
        knockd = box.server.popen(["knockd", "-v", "-D", "-c", str(conf), "-i", client.server_interface])

        def listens() -> bool:
            assert knockd.poll() is None, knockd.stderr.text + knockd.stdout.text
            return box.server.run(["cat", "/proc/net/packet"]).stdout.count("\n") == 2

        wait_until(listens, 10, "knockd to listen")
        opened = tmp_path / f"{door}-{client.address4}"

        def knocked() -> bool:
            """Again, since knockd's filter may have come into force a moment after its socket."""
            client.run([*PROGRAM, "knock", "-d", "50", str(client.server4), *words])
            return opened.exists()

        wait_until(knocked, 20, lambda: f"knockd to open; it said: {knockd.stdout.text}", every=0.2)
