"""knockd's file, tportknockd's file and our own sequences in one process."""

import signal
import sys
from pathlib import Path

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.in_place_of_knockd import await_run, knock, write
from tests.helpers.raw_knock import send_tcp
from tests.helpers.running import GUARDED, doors, wait_open, wait_shut
from tests.helpers.running import knock as knock_opening
from tests.helpers.sniffed import sniffing, whole_sequence
from tests.helpers.waiting import wait_until

KNOCKD = """\
[options]
    LogFile = {folder}/unused
[legacy]
    sequence = {ports}
    start_command = echo knockd %IP% >>{folder}/ran
    stop_command = echo shut >>{folder}/ran
    cmd_timeout = 60
[other]
    sequence = 7403:udp,7401:udp,7409:udp
    start_command = echo other %IP% >>{folder}/ran
    stop_command = echo shut >>{folder}/ran
    cmd_timeout = 60
"""
TPORTKNOCKD = """\
<web>
 sequence      = tcp:7503:fp tcp:7501 tcp:7507:x
 timeout       = 10
 start_command = echo tportknockd %IP% >>{folder}/ran
</web>
"""
FIRST, SECOND = (7303, 7301, 7309), (7313, 7301, 7309)
WEB = [(7503, "fp"), (7501, ""), (7507, "fsrpau")]


def imported(folder: Path, ports: tuple[int, ...]) -> None:
    text = KNOCKD.format(folder=folder, ports=",".join(f"{port}:udp" for port in ports))
    write(folder / "knockd.conf", text)
    write(folder / "knock.conf", TPORTKNOCKD.format(folder=folder))


def test_imported_sequences_open_and_sighup_reads_changed_file(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    log, by = tmp_path / "ran", client.address4
    imported(tmp_path, FIRST)
    tables = "".join(
        f"\n[[import]]\nformat = '{form}'\npath = '{name}'\n"
        for form, name in (("knockd", "knockd.conf"), ("tportknockd", "knock.conf"))
    )
    daemon = sniffing(box, tmp_path, max_opened_door_duration=1, max_open_doors=1, appended=tables)
    with box.server.listen(GUARDED):
        for opens in (knock_opening, whole_sequence):
            opens(client, client.server4)
            wait_open(client, client.server4)
            wait_shut(client, client.server4)
    wait_until(lambda: not doors(box), 5, "no door")
    send_tcp(client, client.server4, WEB)
    await_run(log, f"tportknockd {by}")
    knock(client, client.server4, FIRST)
    await_run(log, f"tportknockd {by}", f"knockd {by}")

    # A door of knockd's counts among the open ones, as far as something closes it.
    knock(client, client.server4, (7403, 7401, 7409))
    daemon.wait_for(rf"ERROR {by}: not opened: max_open_doors \(1\) reached")
    send_tcp(client, client.server4, WEB, number=2000)
    await_run(log, f"tportknockd {by}", f"knockd {by}", f"tportknockd {by}")

    write(tmp_path / "knockd.conf", "[legacy]\nSequence = ssh\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for(rf'keeping the running one: {tmp_path}/knockd.conf:2: Sequence: position 1: "ssh" is not a port')
    imported(tmp_path, SECOND)
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("configuration reloaded")
    stranger = box.hosts["stranger"]
    conf = tmp_path / "port_knocker.toml"
    write(conf, conf.read_text().replace("max_open_doors = 1\n", "max_open_doors = 9\n"))
    seen = len(daemon.stderr.lines)
    daemon.send_signal(signal.SIGHUP)
    daemon.stderr.wait_for("configuration reloaded", 20, start=seen)
    before = log.read_text().splitlines()
    knock(stranger, stranger.server4, FIRST)
    knock(stranger, stranger.server4, SECOND)
    await_run(log, *before, f"knockd {stranger.address4}")
    assert not (tmp_path / "unused").exists(), "the log is this daemon's own"
    daemon.terminate()
    assert daemon.wait(20) == 0
    assert log.read_text().splitlines()[len(before) + 1 :] == ["shut"] * 2


def test_traps_make_scan_a_wrong_knock_in_imported_file(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """knockd itself has none: who sends to all ports in order of the steps is in."""
    log, by = tmp_path / "ran", client.address4
    imported(tmp_path, (7301, 7304, 7309))
    for traps, of_scan in ((0, [f"knockd {by}"]), (64, [])):
        tables = f"\n[[import]]\nformat = 'knockd'\npath = 'knockd.conf'\ntraps = {traps}\n"
        log.unlink(missing_ok=True)
        daemon = sniffing(box, tmp_path, appended=tables)
        client.send([(client.server4, port, b"x", 0) for port in range(7295, 7315)])
        stranger = box.hosts["stranger"]
        knock(stranger, stranger.server4, (7301, 7304, 7309))
        await_run(log, *of_scan, f"knockd {stranger.address4}")
        daemon.kill()
        daemon.wait(20)
        await_run(log, *of_scan, f"knockd {stranger.address4}", *["shut"] * (len(of_scan) + 1))


PAIR = """\
[openSSH]
    sequence = 7603:udp,7601:udp,7609:udp
    start_command = /usr/sbin/ufw allow from %IP% to any port {port} proto tcp
[closeSSH]
    sequence = 7609:udp,7601:udp,7603:udp
    start_command = /usr/sbin/ufw delete allow from %IP% to any port {port} proto tcp
"""


def test_pair_of_knockd_opens_and_closes_a_door_as_toml(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    write(tmp_path / "knockd.conf", PAIR.format(port=GUARDED))
    program = [sys.executable, "-m", "port_knocking_doors", "check", "--as-toml", "--knockd"]
    made = box.server.run([*program, str(tmp_path / "knockd.conf")]).stdout
    sniffing(box, tmp_path, appended=f"\n{made}")
    with box.server.listen(GUARDED):
        knock(client, client.server4, (7603, 7601, 7609))
        wait_open(client, client.server4)
        knock(client, client.server4, (7609, 7601, 7603))
        wait_shut(client, client.server4)
    wait_until(lambda: not doors(box), 5, "no door")
