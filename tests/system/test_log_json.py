"""The log for programs, and fail2ban on the daemon's real log in each of its forms."""

import json
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from port_knocking_doors.sandbox import ClientHost, Host, Process, Sandbox
from tests.helpers.running import GUARDED, SEQUENCE, begin_daemon, knock, write_configuration
from tests.helpers.waiting import wait_until

FILTER = Path(__file__).parents[2] / "packaging" / "fail2ban" / "port-knocking-doors.conf"


def events(daemon: Process, name: str) -> list[dict[str, Any]]:
    """The events of this name so far; each line is one."""
    return [event for event in map(json.loads, daemon.stderr.lines) if event["event"] == name]


def wait_for_event(daemon: Process, name: str) -> dict[str, Any]:
    wait_until(lambda: events(daemon, name), 20, lambda: f"{name}: {daemon.stderr.lines}")
    return events(daemon, name)[0]


def test_event_is_one_object_with_its_fields(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    stranger = box.hosts["stranger"]
    conf = write_configuration(tmp_path, max_opened_door_duration=1)
    command = 'start_command = "exit 3"\nstop_command = "true"\ncommand_delay = 0.1\n'
    conf.write_text(
        conf.read_text() + f'\n[[sequence]]\nname = "run"\nsteps = ["udp:24001", "udp:24009", "udp:24004"]\n{command}'
    )
    daemon = begin_daemon(box, conf, "--log-json", "--verbose")
    wait_for_event(daemon, "ready")
    began = datetime.now(timezone.utc)
    knock(client, client.server4)
    knock(client, client.server4, pause=0.01)
    knock(stranger, stranger.server4, [SEQUENCE[0], *[SEQUENCE[2]] * 5])
    knock(client, client.server4, [24001, 24009, 24004], pause=0.05)
    opened = wait_for_event(daemon, "opened")
    assert abs((datetime.fromisoformat(opened["time"].replace("Z", "+00:00")) - began).total_seconds()) < 30
    assert (opened["level"], opened["address"], opened["sequence"]) == ("info", str(client.address4), "main")
    assert (opened["ports"], opened["zone"]) == ([f"{GUARDED}/tcp"], "public")
    assert 0 < opened["seconds"] <= 1
    assert wait_for_event(daemon, "prolonged")["address"] == str(client.address4)
    assert wait_for_event(daemon, "closed")["ports"] == [f"{GUARDED}/tcp"]
    wait_until(lambda: len(events(daemon, "wrong_knock")) == 5, 20, "the stranger's wrong knocks")
    wrong = [(event["level"], event["seconds"], event["address"]) for event in events(daemon, "wrong_knock")]
    assert wrong == [*[("info", 0, str(stranger.address4))] * 4, ("warning", 5, str(stranger.address4))]
    ended = wait_for_event(daemon, "command_ended")
    assert (ended["sequence"], ended["command"], ended["status"]) == ("run", "start", 3)
    single = events(daemon, "knock")
    assert {"address": str(client.address4), "sequence": "main", "stage": 4, "reason": "advanced"}.items() <= next(
        event for event in single if event.get("stage") == 4
    ).items()
    conf.write_text("bogus = 1\n")
    daemon.send_signal(1)
    assert "bogus" in wait_for_event(daemon, "reload_failed")["reason"]
    daemon.send_signal(15)
    assert daemon.wait(20) == 0
    text = daemon.stderr.text
    assert not any(str(port) in text for port in (*SEQUENCE, 24001, 24009, 24004))


def test_events_around_doors_are_logged(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    stranger = box.hosts["stranger"]
    box.firewall_cmd("--add-port=2223/tcp")
    keys = {"ports_to_controls": [GUARDED, 2223], "max_open_doors": 1, "max_opened_door_duration": 2}
    conf = write_configuration(tmp_path, **keys)
    sequence = '\n[[sequence]]\nname = "run"\nsteps = ["udp:24001", "udp:24009", "udp:24004"]\nstart_command = "true"\n'
    conf.write_text(conf.read_text() + sequence)
    daemon = begin_daemon(box, conf, "--log-json", "--verbose", "--interface", "other*")
    wait_for_event(daemon, "ready")

    def await_event(name: str, **fields: object) -> None:
        def logged() -> bool:
            return any(fields.items() <= event.items() for event in events(daemon, name))

        wait_until(logged, 20, lambda: f"{name} with {fields}: {daemon.stderr.lines}")

    await_event("open_without_knock", port="2223/tcp", zone="public", reason="port 2223/tcp")
    await_event("interface", interface="other*", reason="absent")
    box.server.run(["ip", "link", "add", "other0", "type", "veth", "peer", "name", "peer0"])
    await_event("interface", interface="other0", reason="there")
    box.server.run(["ip", "link", "del", "other0"])
    await_event("interface", interface="other0", reason="gone")
    knock(client, client.server4)
    wait_for_event(daemon, "opened")
    knock(stranger, stranger.server4)
    await_event("refused", address=str(stranger.address4), sequence="main", reason="max_open_doors")
    ask = [sys.executable, "-m", "port_knocking_doors"]
    box.server.run([*ask, "open", "10.0.9.9", "--sequence", "run", "--conf", str(conf)])
    await_event("asked", address="10.0.9.9", sequence="run", reason="open 10.0.9.9")
    await_event("command_started", address="10.0.9.9", sequence="run", command="start")
    daemon.send_signal(1)
    await_event("reloaded")
    box.firewall_cmd("--reload")
    await_event("firewalld", reason="reloaded")
    box.firewalld.stop()
    await_event("firewalld", reason="gone")

    def is_open() -> bool:
        status = json.loads(box.server.run([*ask, "status", "--json", "--conf", str(conf)]).stdout)
        return any(one["standing"] == "open" for one in status["doors"])

    # It is "closing" until firewalld is back, where its time is over only after firewalld was stopped.
    wait_until(lambda: not is_open(), 20, "the door's time is over")
    knock(client, client.server4)
    await_event("complete", address=str(client.address4), sequence="main", reason="firewalld is not there")
    await_event("never_opened", address=str(client.address4), sequence="main")


def test_sweep_after_kill_logs_json(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = begin_daemon(box, write_configuration(tmp_path, max_opened_door_duration=600), "--log-json")
    wait_for_event(daemon, "ready")
    knock(client, client.server4)
    wait_for_event(daemon, "opened")
    daemon.send_signal(9)
    daemon.wait(20)
    wait_until(
        lambda: [event for event in events(daemon, "message") if "6 rules removed" in event["message"]],
        20,
        lambda: str(daemon.stderr.lines),
    )


def test_error_that_ends_daemon_is_an_event(box: Sandbox, tmp_path: Path) -> None:
    daemon = begin_daemon(box, write_configuration(tmp_path, zone="nosuch"), "--log-json")
    assert daemon.wait(30) == 2
    daemon.stderr.wait_for_end(10)
    last = [json.loads(line) for line in daemon.stderr.lines][-1]
    assert (last["event"], last["level"]) == ("failed", "critical")
    assert "zone 'nosuch' is unknown to firewalld" in last["message"]


def found_by_fail2ban(box: Sandbox, lines: list[str], folder: Path) -> dict[str, int]:
    """How often the filter finds each address in these lines."""
    log = folder / "log"
    log.write_text("".join(f"{line}\n" for line in lines))
    argv = ["fail2ban-regex", "--verbose", "--print-all-missed", str(log), str(FILTER)]
    said = box.server.run(argv, timeout=60).stdout
    assert "Traceback" not in said
    found = re.findall(r"^\|? {6,}([0-9a-f.:]+)  \w{3} \w{3} +\d", said, re.MULTILINE)
    return {address: found.count(address) for address in found}


def wrong_knocks(client: Host, daemon: Process, servers: list[Any]) -> None:
    """Knock wrongly once by each family, and rightly before it, so that there are lines of other kinds."""
    knock(client, servers[0])
    daemon.wait_for("closed")
    for server in servers:
        knock(client, server, [SEQUENCE[0], *[SEQUENCE[2]] * 5])
    wait_until(lambda: "".join(daemon.stderr.lines).count("address ignored") >= len(servers), 20, "both are ignored")


def test_fail2ban_finds_wrong_knocks_in_real_log(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    expected = {str(client.address4): 1, str(client.address6): 1}
    conf = write_configuration(tmp_path, max_opened_door_duration=0.2)
    for options, env in (((), {}), ((), {"JOURNAL_STREAM": "8:1"}), (("--log-json",), {})):
        daemon = begin_daemon(box, conf, *options, env=env)
        daemon.wait_for(r"\bready\b", 30)
        wrong_knocks(client, daemon, [client.server4, client.server6])
        daemon.send_signal(15)
        assert daemon.wait(20) == 0
        lines = daemon.stderr.lines
        if env:
            # As fail2ban's own reader of the journal puts them together, and as syslog writes them: the journal takes
            # the priority away, and adds time, host and program.
            texts = [re.sub(r"^<\d>", "", line) for line in lines]
            for head in (
                "2026-11-21T11:53:08.123456 server port-knocking-doors[123]: ",
                "Nov 21 11:53:08 server port-knocking-doors[123]: ",
                "Nov 21 11:53:08 server python3[123]: ",
            ):
                assert found_by_fail2ban(box, [head + text for text in texts], tmp_path) == expected
        else:
            assert found_by_fail2ban(box, lines, tmp_path) == expected
