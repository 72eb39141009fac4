"""`doctor`'s commands, run as they are shown: the guarded ports are closed, and nothing else is."""

import re
import sys
from pathlib import Path

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import begin_daemon, write_configuration
from tests.system.test_doctor import about, doctor

SSH, WEB = 22, 8088
GUARDED = (3001, 3002, 3003, 3004, 3005)
SERVICE = '<service><port port="3003" protocol="tcp"/><port port="8088" protocol="tcp"/></service>'
QUOTED = """rule port port="3004" protocol="tcp" log prefix="it's $HOME" accept"""
COMMAND = re.compile(r"(firewall-cmd .*), and the same with --permanent$")


def commands(lines: list[str]) -> list[str]:
    """The commands that the findings about guarded ports end with."""
    found = [match[1] for line in lines if line.startswith("PROBLEM") and (match := COMMAND.search(line))]
    return [*found, *(one.replace("firewall-cmd ", "firewall-cmd --permanent ") for one in found)]


def reach(host: ClientHost, ports: tuple[int, ...]) -> set[int]:
    """The ports that the firewall lets through; nothing listens on most of them."""
    return {port for port in ports if host.connect(host.server4, port, timeout=0.5) in ("open", "refused")}


def test_commands_close_guarded_ports_and_nothing_else(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """ssh and a web server stay open, at once and after a reload."""
    conf = write_configuration(tmp_path, ports_to_controls=list(GUARDED))
    begin_daemon(box, conf).wait_for(r"\bready\b", 20)
    box.server.run(["tee", "/etc/firewalld/services/pair.xml"], text=SERVICE)
    box.server.run(
        ["tee", "/etc/firewalld/services/mine.xml"], text=SERVICE.replace("3003", "3005").replace(str(WEB), str(SSH))
    )
    box.firewall_cmd("--reload")
    zone = ("--permanent", "--zone=public")
    stages = (
        (
            ("--add-port=3001/tcp", "--add-port=3002-3002/tcp"),
            ("--add-service=pair", "--add-service=mine"),
            (f"--add-rich-rule={QUOTED}",),
        ),
        (("--add-port=3001-3010/tcp",), ("--remove-service=ssh",), ("--add-protocol=tcp",)),
        (
            ("--add-rich-rule=rule priority=1 accept",),
            ("--add-source-port=1-65535/tcp",),
            (f"--remove-port={WEB}/tcp",),
        ),
    )
    with box.server.listen(SSH), box.server.listen(WEB):
        for number, stage in enumerate(stages):
            for options in stage:
                box.firewall_cmd(*zone, *options)
            box.firewall_cmd("--reload")
            assert reach(client, (SSH, WEB, *GUARDED)) == {SSH, WEB, *GUARDED}, number
            lines = doctor(box, conf, status=1)
            found = commands(lines)
            assert found, lines
            for command in found:
                box.server.run(["sh", "-c", command])
            assert reach(client, (SSH, WEB, *GUARDED)) == {SSH, WEB}, (number, found)
            box.firewall_cmd("--reload")
            assert reach(client, (SSH, WEB, *GUARDED)) == {SSH, WEB}, (number, found)
            assert about(doctor(box, conf), r"guarded ports: closed without a knock .3001/tcp", "ok")


def test_zone_of_vpn_is_cut_off_by_no_command(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path, ports_to_controls=list(GUARDED))
    begin_daemon(box, conf).wait_for(r"\bready\b", 20)
    stranger = box.hosts["stranger"]
    for option in ("--add-interface=to-stranger", "--add-source=10.0.9.0/24"):
        box.firewall_cmd("--zone=trusted", option)
        box.firewall_cmd("--permanent", "--zone=trusted", option)
    said = "zone trusted: port 3001/tcp is OPEN WITHOUT A KNOCK: the target ACCEPT lets every packet through; all from "
    with box.server.listen(SSH), box.server.listen(WEB):
        lines = doctor(box, conf, status=1)
        (line,) = about(lines, re.escape(said), "PROBLEM")
        # The default zone would close what is served there: that is no command, but a choice.
        assert "to-stranger, 10.0.9.0/24 passes: a VPN or containers may need that; if strangers come this way" in line
        assert line.endswith("which must let in what is served there: zone public would close 8088/tcp")
        assert commands(lines) == []
        assert not any("--set-target" in line for line in lines)

    with box.server.listen(SSH):
        lines = doctor(box, conf, status=1)
        for command in set(commands(lines)):
            assert "--change-interface=to-stranger" in command
            box.server.run(["sh", "-c", command])
        assert reach(stranger, (SSH, *GUARDED)) == {SSH}
        assert about(doctor(box, conf), "zone trusted: port 3001/tcp is OPEN", "warning")


def test_commands_against_denials_let_doors_in_and_nothing_else(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    conf = write_configuration(tmp_path, ports_to_controls=list(GUARDED))
    begin_daemon(box, conf).wait_for(r"\bready\b", 20)
    rules = ("rule port port=3001 protocol=tcp drop", "rule port port=3002-3003 protocol=tcp drop")
    box.firewall_cmd("--permanent", *(f"--add-rich-rule={rule}" for rule in rules))
    box.firewall_cmd("--reload")
    lines = doctor(box, conf, status=1)
    (first, second, third) = about(lines, "is denied before any door", "PROBLEM")
    assert [one for one in (second, third) if "change it so that it leaves out port 300" in one] == [second, third]
    assert COMMAND.search(first)
    for command in commands(lines):
        box.server.run(["sh", "-c", command])
    box.server.run([sys.executable, "-m", "port_knocking_doors", "open", str(client.address4)])
    assert reach(client, GUARDED) == {3001, 3004, 3005}
    assert reach(box.hosts["stranger"], GUARDED) == set()
