"""Knock to close: a knocker closes its own doors ahead of time, and no other ones."""

import json
import sys
from pathlib import Path

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from tests.helpers.running import GUARDED, doors, wait_open, wait_shut
from tests.helpers.sniffed import STEPS, sniffing, whole_sequence, write_sniffing
from tests.helpers.waiting import wait_until

PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
CLOSING = ["tcp:20811", "udp:21822", "tcp:20833:f"]
LONG = 600
"""Seconds: no door of these tests closes by itself."""


def knock(host: ClientHost, *arguments: object) -> None:
    done = host.run([*PROGRAM, "knock", "-d", "20", *map(str, arguments)], check=False, env={"HOME": "/nonexistent"})
    assert (done.returncode, done.stderr) == (0, "")


def counts(box: Sandbox) -> dict[str, int]:
    status = box.server.run([*PROGRAM, "status", "--priority", "31313", "--json"]).stdout
    found: dict[str, int] = json.loads(status)["counts"]
    return found


def events(daemon: Process) -> list[dict[str, object]]:
    return [json.loads(line) for line in daemon.stderr.lines if line.startswith("{")]


def test_knock_to_close_closes_the_own_door_and_no_other(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    table = {"close_steps": CLOSING, "duration": LONG}
    daemon = sniffing(box, tmp_path, table, options=("--log-json",), max_opened_door_duration=LONG)
    conf, stranger = tmp_path / "port_knocker.toml", box.hosts["stranger"]
    with box.server.listen(GUARDED):
        for host, address in ((client, client.server4), (client, client.server6), (stranger, stranger.server4)):
            whole_sequence(host, address)
            wait_open(host, address)
        knock(client, "-c", conf, "--close", client.server4)
        wait_shut(client, client.server4)
        assert client.connect(client.server6, GUARDED) == "open", "the door of another address"
        assert stranger.connect(stranger.server4, GUARDED) == "open", "the door of another knocker"
        assert len(doors(box)) == 2

        closed = [one for one in events(daemon) if one["event"] == "closed"]
        assert [(one["address"], one["sequence"], one["reason"]) for one in closed] == [
            (str(client.address4), "door", "knock")
        ]
        assert closed[0]["message"] == f"{client.address4}: closed {GUARDED}/tcp: the knocker closed it"
        assert {name: counts(box)[name] for name in ("opened", "closed", "closed_by_knock")} == {
            "opened": 3,
            "closed": 1,
            "closed_by_knock": 1,
        }

        knock(client, "-c", conf, "--close", client.server4)
        wait_until(lambda: "nothing_to_close" in {one["event"] for one in events(daemon)}, 5, "the second is reported")
        knock(client, "-c", conf, "--close", "-s", "door", client.server6)
        wait_shut(client, client.server6)

        whole_sequence(client, client.server4)  # opens again, as ever
        wait_open(client, client.server4)
        steps = CLOSING[:2]  # half of it, and then a wrong knock
        knock(client, client.server4, *steps, STEPS[1])
        assert client.connect(client.server4, GUARDED) == "open"
    assert not any(port in daemon.stderr.text for port in ("20811", "21822", "20833")), "the steps are a secret"


def test_knock_to_close_runs_the_stop_command_and_follows_a_reload(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    commands: dict[str, object] = {
        "open": None,
        "duration": None,
        "start_command": f"echo start %IP% >> {ran}",
        "stop_command": f"echo stop %IP% >> {ran}",
        "command_delay": LONG,
    }
    daemon = sniffing(box, tmp_path, commands)

    def lines() -> list[str]:
        return ran.read_text().splitlines() if ran.exists() else []

    whole_sequence(client, client.server4)
    wait_until(lambda: lines() == [f"start {client.address4}"], 5, "the start command has run")
    conf = write_sniffing(tmp_path, {**commands, "close_steps": CLOSING})
    box.server.run([*PROGRAM, "reload", "--priority", "31313"])
    knock(client, "-c", conf, "--close", client.server4)
    wait_until(lambda: lines()[1:] == [f"stop {client.address4}"], 5, "the stop command has run")
    daemon.terminate()
    assert len(lines()) == 2, "and not again at the end"


def test_steps_backwards_close_as_in_files_of_knockd(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    ports = ["20700", "20900", "20800"]
    steps = [f"tcp:{port}" for port in ports]
    daemon = sniffing(box, tmp_path, {"steps": steps, "close_steps": steps[::-1], "traps": 0, "duration": LONG})
    with box.server.listen(GUARDED):
        for _ in range(2):
            client.run(["knock", "-d", "20", str(client.server4), *ports])
            wait_open(client, client.server4)
            client.run(["knock", "-d", "20", str(client.server4), *ports[::-1]])
            wait_shut(client, client.server4)
    assert "wrong knock" not in daemon.stderr.text
