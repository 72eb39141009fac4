"""A machine that was suspended before: its clocks differ by the time of the suspend (time_namespaces(7))."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from port_knocking_doors.model import Address
from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, knock, wait_open, wait_shut, write_configuration
from tests.helpers.sniffed import STEPS, whole_sequence, write_sniffing

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
OPEN = 2.0


def test_doors_keep_their_time_where_the_clocks_differ(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    write_configuration(tmp_path)
    keys = {"max_opened_door_duration": OPEN, "firewall_rules_check_periode_seconds": 600}
    ran = tmp_path / "ran"
    commands: dict[str, object] = {
        "steps": STEPS,
        "duration": OPEN,
        "start_command": f"echo start >> {ran}",
        "stop_command": f"echo stop >> {ran}",
        "command_delay": OPEN,
    }
    conf = write_sniffing(tmp_path, commands, **keys)
    daemon = box.server.popen(["unshare", "--time", "--boottime", "100000", *PROGRAM, "--conf", str(conf), "-v"])
    daemon.wait_for(r"\bready\b", 20)
    with box.server.listen(GUARDED):
        ways: tuple[Callable[[ClientHost, Address], None], ...] = (knock, whole_sequence)
        for way in ways:
            way(client, client.server4)
            wait_open(client, client.server4)
            opened = time.monotonic()
            status = json.loads(box.server.run([*PROGRAM, "status", "--priority", "31313", "--json"]).stdout)
            assert all(0 < door["seconds_left"] <= OPEN for door in status["doors"]), status["doors"]
            assert status["uptime"] < 60
            wait_shut(client, client.server4)
            assert time.monotonic() - opened > OPEN / 2
    daemon.wait_for("stop command ended with status 0")
    assert ran.read_text() == "start\nstop\n"
    assert "wrong knock" not in daemon.stderr.text
