"""`port-knocking-doors knockd`: its options and the directives of its file, with real packets."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Host, Sandbox
from tests.helpers.in_place_of_knockd import PROGRAM, SOON, await_line, await_run, knock, log_lines, ran, running, write
from tests.helpers.waiting import wait_until

ONE, TWO, THREE = (7101, 7901, 7301), (7102, 7902, 7302), (7103, 7903, 7303)
PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """One for all of them: each ends what it starts."""
    with Sandbox(clients=("client", "stranger")) as sandbox:
        yield sandbox


def door(name: str, ports: tuple[int, ...], *lines: str) -> str:
    sequence = ",".join(f"{port}:udp" for port in ports)
    return "\n".join([f"[{name}]", f"Sequence = {sequence}", *lines, ""])


def configuration(folder: Path, *doors: str, options: str = "") -> Path:
    return write(folder / "knockd.conf", f"[options]\nLogFile = {folder / 'log'}\n{options}\n" + "\n".join(doors))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What commands write to."""
    return tmp_path / "ran"


def in_background(host: Host, conf: Path, *options: object, cwd: Path | None = None) -> None:
    host.run([*PROGRAM, "-d", "-c", str(conf), *map(str, options)], env=PATHS, cwd=cwd)


def end(host: Host, pid_file: Path, number: signal.Signals = signal.SIGTERM) -> None:
    """End the process whose number is in the file, and wait until it is gone."""
    pid = pid_file.read_text().strip()
    host.run(["kill", f"-{number.value}", pid])
    wait_until(lambda: host.run(["kill", "-0", pid], check=False).returncode, SOON, f"the end of {pid}")


# --- where it listens


@pytest.mark.parametrize("named", ["by -i", "in the file", "-i beats the file"])
def test_named_interface_alone_is_captured(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path, named: str
) -> None:
    stranger = box.hosts["stranger"]
    here, there = client.server_interface, stranger.server_interface
    in_file = {"by -i": "", "in the file": f"Interface = {here}", "-i beats the file": f"Interface = {there}"}[named]
    conf = configuration(tmp_path, door("d", ONE, f"Command = echo %IP% >>{log}"), options=in_file)
    with running(box.server, conf, *([] if named == "in the file" else ["-i", here])):
        knock(stranger, stranger.server4, ONE)
        knock(client, client.server4, ONE)
        await_run(log, str(client.address4))
    lines = log_lines(tmp_path / "log")
    assert (lines[0], lines[-1]) == (f"starting up, listening on {here}", "shutting down")


def test_interface_any_captures_every_interface(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    """Real knockd accepts the name, and then captures packets of doors with a Target alone."""
    stranger = box.hosts["stranger"]
    conf = configuration(tmp_path, door("d", ONE, f"Command = echo %IP% >>{log}"))
    with running(box.server, conf, "-i", "any"):
        for count, host in enumerate((client, stranger), start=1):
            knock(host, host.server4, ONE)
            wait_until(lambda count=count: len(ran(log)) == count, SOON, host.name)  # type: ignore[misc]
    assert log_lines(tmp_path / "log")[0] == "starting up, listening on any"


def test_option_4_ignores_ipv6_knocks(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    conf = configuration(tmp_path, door("d", ONE, f"Command = echo %IP% >>{log}"))
    with running(box.server, conf, "-i", client.server_interface, "-4"):
        knock(client, client.server6, ONE)
        knock(client, client.server4, ONE)
        await_run(log, str(client.address4))


def test_door_with_target_accepts_knocks_sent_to_target_alone(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    elsewhere = "10.9.8.7"
    conf = configuration(
        tmp_path,
        door("here", ONE, f"Command = echo here >>{log}"),
        door("there", ONE, f"Target = {elsewhere}", f"Command = echo there >>{log}"),
    )
    with running(box.server, conf, "-i", client.server_interface):
        client.send([(elsewhere, port, b"x") for port in ONE], pause=0.002)
        await_run(log, "there")
        knock(client, client.server4, ONE)
        await_run(log, "there", "here")


# --- commands


def test_commands_of_both_families_run_and_report_their_status(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    conf = configuration(
        tmp_path,
        door(
            "d",
            ONE,
            f"Start_Command = echo start4 %IP% >>{log}",
            f"Start_Command_6 = echo start6 %IP% >>{log}; exit 3",
            f"Stop_Command = echo stop4 %IP% >>{log}",
            f"Stop_Command_6 = echo stop6 %IP% >>{log}; exit 4",
            "Cmd_Timeout = 0",
        ),
        door("e", TWO, f"Command = echo four >>{log}", "Command_6 ="),
    )
    by4, by6 = client.address4, client.address6
    with running(box.server, conf, "-i", client.server_interface):
        knock(client, client.server4, ONE)
        await_run(log, f"start4 {by4}", f"stop4 {by4}")
        knock(client, client.server6, ONE)
        await_line(tmp_path / "log", "d: command returned non-zero status code (4)")
        knock(client, client.server6, TWO)
        await_line(tmp_path / "log", f"{by6}: e: OPEN SESAME")
        knock(client, client.server4, TWO)
        await_run(log, f"start4 {by4}", f"stop4 {by4}", f"start6 {by6}", f"stop6 {by6}", "four")
    # The next daemon on this host would run the stop command that failed, and end with an error.
    box.server.run([*PROGRAM[:-1], "sweep", "--forget"])
    lines = log_lines(tmp_path / "log")
    assert [line for line in lines if "code" in line] == [
        f"d: command returned non-zero status code ({status})" for status in (3, 4)
    ]
    assert [line for line in lines if "command timeout" in line] == [f"{by}: d: command timeout" for by in (by4, by6)]


def test_endless_start_commands_delay_neither_knocks_nor_shutdown(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    hanging = f"Command = until [ -e {tmp_path}/go ]; do sleep 0.2; done; touch {tmp_path}/%IP%"
    stopped = [f"Start_Command = echo start >>{log}", f"Stop_Command = echo stop >>{log}", "Cmd_Timeout = 9"]
    ports = range(7201, 7218)
    doors = [door(f"h{port}", (port,), hanging) for port in ports]
    with running(
        box.server, configuration(tmp_path, *doors, door("s", TWO, *stopped)), "-i", client.server_interface
    ) as daemon:
        knock(client, client.server4, TWO)
        await_run(log, "start")
        for port in ports:
            knock(client, client.server4, [port])
        daemon.wait_for("WARNING .*: h7217: start command waits, 16 run already and have not ended")
        knock(client, client.server4, TWO)
        daemon.wait_for("prolonged s's command")
        daemon.terminate()
        assert daemon.wait(5) == 0
    await_run(log, "start", "stop")
    (tmp_path / "go").touch()
    wait_until((tmp_path / str(client.address4)).exists, SOON, "what had begun to go on to its end")


def test_lack_of_descriptors_delays_stop_command_and_starts_nothing(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    conf = configuration(
        tmp_path,
        door("d", ONE, f"Start_Command = echo start >>{log}", f"Stop_Command = echo stop >>{log}", "Cmd_Timeout = 1"),
        door("e", TWO, f"Command = echo e >>{log}"),
    )
    with running(box.server, conf, "-i", client.server_interface) as daemon:
        limit = ["prlimit", "--pid", str(daemon.inner_pid)]
        knock(client, client.server4, ONE)
        await_run(log, "start")
        box.server.run([*limit, "--nofile=3:4096"])
        knock(client, client.server4, TWO)
        daemon.wait_for("ERROR .*: e: start command not run: .*Too many open files")
        daemon.wait_for("ERROR .*: d: stop command not run, it is tried again every 1 s: .*Too many open files")
        assert ran(log) == ["start"]
        box.server.run([*limit, "--nofile=1024:4096"])
        await_run(log, "start", "stop")
        knock(client, client.server4, TWO)
        await_run(log, "start", "stop", "e")
    assert "Traceback" not in daemon.stderr.text


def test_command_gets_no_variable_of_the_environment(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    hostile = {"IP": "$(reboot)", "%IP%": "x", "IFS": "1", "PS4": f"$(touch {tmp_path}/owned)", "KNOCKER_SEQ": "1,2"}
    conf = configuration(tmp_path, door("d", ONE, f'Command = echo "%IP% ${{KNOCKER_SEQ-none}}" >>{log}'))
    with running(box.server, conf, "-i", client.server_interface, env=hostile):
        knock(client, client.server4, ONE)
        await_run(log, f"{client.address4} none")
    assert not (tmp_path / "owned").exists()


# --- what it logs


def test_options_verbose_debug_and_log_work(box: Sandbox, client: ClientHost, tmp_path: Path, log: Path) -> None:
    conf = configuration(tmp_path, door("d", ONE, f"Command = echo %IP% >>{log}"))
    with running(box.server, conf, "-i", client.server_interface, "-v", "-D", "-g", tmp_path / "other") as daemon:
        knock(client, client.server4, ONE)
        await_run(log, str(client.address4))
        lines = [f"{client.address4}: d: Stage {stage}" for stage in (1, 2, 3)]
        lines += [f"{client.address4}: d: OPEN SESAME", f"d: running command: echo {client.address4} >>{log}"]
        await_line(tmp_path / "other", lines[-1])
        assert log_lines(tmp_path / "other") == [f"starting up, listening on {client.server_interface}", *lines]
        daemon.stdout.wait_for("running command", SOON)
        assert daemon.stdout.lines == [f"listening on {client.server_interface}...", *lines]
        daemon.wait_for("DEBUG .*: knock advanced to step 2$")
        assert not [line for line in daemon.stderr.lines if any(str(port) in line for port in ONE)]
    assert not (tmp_path / "log").exists()


def test_option_lookup_logs_host_names_and_hung_resolver_delays_no_door(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    stranger = box.hosts["stranger"]
    hosts = write(tmp_path / "hosts", f"{client.address4} knocker.example\n")
    resolver = write(tmp_path / "resolv.conf", f"nameserver {stranger.address4}\noptions timeout:30 attempts:1\n")
    for own, theirs in ((hosts, "/etc/hosts"), (resolver, "/etc/resolv.conf")):
        box.server.run(["mount", "--bind", str(own), theirs])
    rules = "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; "
    stranger.run(["nft", rules + "add rule ip deaf in udp dport 53 drop"])
    conf = configuration(tmp_path, door("d", ONE, f"Command = echo %IP% >>{log}"))
    try:
        with running(box.server, conf, "-i", "to-*", "-l") as daemon:
            knock(client, client.server4, ONE)
            await_line(tmp_path / "log", f"{client.address4} (knocker.example): d: OPEN SESAME")
            await_line(tmp_path / "log", f"d: running command: echo {client.address4} >>{log}")
            knock(stranger, stranger.server4, ONE)
            knock(client, client.server4, ONE)
            await_run(log, str(client.address4), str(stranger.address4), str(client.address4))
            assert f"{stranger.address4}: d: Stage 1" not in log_lines(tmp_path / "log"), "it still hangs"
            daemon.terminate()
            assert daemon.wait(10) == 0
        await_line(tmp_path / "log", f"{client.address4}: d: OPEN SESAME")
        assert log_lines(tmp_path / "log")[-1] == "shutting down"
    finally:
        stranger.run(["nft", "delete table ip deaf"])
        for path in ("/etc/hosts", "/etc/resolv.conf"):
            box.server.run(["umount", path])


LISTENER = """
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
    listening.bind("/dev/log")
    print("listens", flush=True)
    while True:
        print(listening.recv(9000).decode(), flush=True)
"""
DEVICES = """
for name in null urandom; do : >"$1/$name"; mount --bind "/dev/$name" "$1/$name"; done
mount --rbind "$1" /dev
shift
exec "$@"
"""


def test_background_daemon_logs_to_syslog_and_to_the_configured_file(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    """In a /dev that is not the machine's."""
    devices, pid_file = tmp_path / "dev", tmp_path / "pid"
    devices.mkdir()
    conf = configuration(tmp_path, door("d", ONE, f"Command = echo %IP% >>{log}"), options="UseSyslog")
    apart = ["unshare", "--mount", "sh", "-ec", DEVICES, "-", str(devices)]
    syslog = box.server.popen([*apart, sys.executable, "-c", LISTENER])
    syslog.stdout.wait_for("listens", SOON)
    try:
        options = ["-d", "-c", str(conf), "-i", client.server_interface, "-p", str(pid_file)]
        box.server.run([*apart, *PROGRAM, *options], env=PATHS)
        knock(client, client.server4, ONE)
        await_run(log, str(client.address4))
        pid = pid_file.read_text().strip()
        syslog.stdout.wait_for(rf"^<30>knockd\[{pid}\]: ready: sniffing for d$", SOON)
        syslog.stdout.wait_for(rf"^<13>knockd: starting up, listening on {client.server_interface}$", SOON)
        syslog.stdout.wait_for(rf"^<13>knockd: {client.address4}: d: OPEN SESAME$", SOON)
    finally:
        end(box.server, pid_file)
        syslog.kill()
    assert log_lines(tmp_path / "log")[-1] == "shutting down"


def test_version_and_help_are_printed(box: Sandbox) -> None:
    assert box.server.run([*PROGRAM, "-V"]).stdout.endswith(", in place of knockd 0.8\n")
    shown = box.server.run([*PROGRAM, "-h"]).stdout
    assert all(f" {option}" in shown for option in ("-i", "-d", "-c", "-D", "-l", "-p", "-g", "-v", "-4", "-V", "-h"))
    assert "security risk" in " ".join(shown.split())


# --- in the background


@pytest.mark.parametrize("by_option", [True, False], ids=["by -p", "in the file"])
def test_background_daemon_takes_pid_file_and_relative_paths(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path, by_option: bool
) -> None:
    (tmp_path / "sequences").write_text("".join(f" {port}:udp,7905:udp\n" for port in (7105, 7106, 7107)))
    once = f"[once]\nOne_Time_Sequences = sequences\nCommand = echo once >>{log}\n"
    options = f"Interface = {client.server_interface}\n" + ("" if by_option else "PidFile = pid\n")
    text = f"[options]\nLogFile = knockd.log\n{options}" + door("d", ONE, f"Command = echo %IP% >>{log}") + once
    conf, pid_file, log_file = write(tmp_path / "knockd.conf", text), tmp_path / "pid", tmp_path / "knockd.log"
    in_background(box.server, Path("knockd.conf"), *(["-p", "pid"] if by_option else []), cwd=tmp_path)
    try:
        knock(client, client.server4, ONE)
        await_run(log, str(client.address4))
        knock(client, client.server4, (7105, 7905))
        await_run(log, str(client.address4), "once")
        log_file.rename(tmp_path / "rotated")
        conf.write_text(text.replace(str(ONE[0]), str(TWO[0])))
        box.server.run(["kill", "-HUP", pid_file.read_text().strip()])
        wait_until(log_file.exists, SOON, "a new log file")
        knock(client, client.server4, (7106, 7905))
        await_run(log, str(client.address4), "once", "once")
        second = box.server.run(
            [*PROGRAM, "-d", "-c", "knockd.conf", "-p", "pid"], env=PATHS, cwd=tmp_path, check=False
        )
        assert (second.returncode, len(second.stderr.splitlines()) - second.stderr.count("WARNING")) == (1, 1)
        assert f"process {pid_file.read_text().strip()} " in second.stderr
    finally:
        end(box.server, pid_file)
    assert not pid_file.exists()
    assert log_lines(tmp_path / "rotated")[-1] == f"re-reading config file: {conf}"
    assert log_lines(log_file)[-1] == "shutting down"


def test_unwritable_pid_file_is_refused_in_one_line(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    conf = configuration(tmp_path, door("d", ONE, "Command = true"))
    box.server.run(["mount", "-t", "tmpfs", "-o", "ro", "sandbox", str(tmp_path / "disk")])
    options = ["-d", "-c", str(conf), "-i", client.server_interface, "-p", f"{tmp_path}/disk/pid"]
    done = box.server.run([*PROGRAM, *options], env=PATHS, check=False)
    box.server.run(["umount", str(tmp_path / "disk")])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"port-knocking-doors: {tmp_path}/disk/pid: the pid file cannot be written (Read-only file system)\n"
    )
    assert not (tmp_path / "log").exists(), "it never ran"


# --- SIGHUP


def test_sighup_reloads_file_reopens_log_and_keeps_attempts(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    stays = door("stays", ONE, f"Command = echo stays >>{log}")
    changes = door("changes", TWO, f"Command = echo changes >>{log}")
    conf = configuration(tmp_path, stays, changes)
    with running(box.server, conf, "-i", client.server_interface) as daemon:
        knock(client, client.server4, ONE[:2])
        await_line(tmp_path / "log", f"{client.address4}: stays: Stage 2")
        (tmp_path / "log").rename(tmp_path / "rotated")
        configuration(tmp_path, stays, door("changes", THREE, f"Command = echo changed >>{log}"))
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reloaded")
        knock(client, client.server4, ONE[2:])
        await_run(log, "stays")
        knock(client, client.server4, TWO)
        knock(client, client.server4, THREE)
        await_run(log, "stays", "changed")
        await_line(tmp_path / "log", f"{client.address4}: changes: OPEN SESAME")
        assert log_lines(tmp_path / "log")[:2] == [
            f"{client.address4}: stays: Stage 3",
            f"{client.address4}: stays: OPEN SESAME",
        ]
        assert log_lines(tmp_path / "rotated")[-1] == f"re-reading config file: {conf}"

        # One that is wrong changes nothing but the log file, which is logrotate's business.
        (tmp_path / "log").rename(tmp_path / "rotated")
        conf.write_text(conf.read_text() + "Sequence = ssh\n")
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for(rf'keeping the running one: {conf}:\d+: Sequence: position 1: "ssh" is not a port')
        knock(client, client.server4, ONE)
        await_run(log, "stays", "changed", "stays")
        await_line(tmp_path / "log", f"{client.address4}: stays: OPEN SESAME")

        # A folder that is gone is no reason not to open.
        (tmp_path / "gone").mkdir()
        configuration(tmp_path, stays, options=f"LogFile = {tmp_path}/gone/log")
        seen = len(daemon.stderr.lines)
        daemon.send_signal(signal.SIGHUP)
        daemon.stderr.wait_for("configuration reloaded", SOON, start=seen)
        await_file(tmp_path / "gone" / "log", client, log)
        (tmp_path / "gone" / "log").unlink()
        (tmp_path / "gone").rmdir()
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for(f"WARNING {tmp_path}/gone/log: the log file cannot be opened")
        before = len(ran(log))
        knock(client, client.server4, ONE)
        wait_until(lambda: len(ran(log)) > before, SOON, "the door")
    assert "Traceback" not in daemon.stderr.text


def await_file(log_file: Path, client: ClientHost, log: Path) -> None:
    """Knock, and wait for the file that records it."""
    before = len(ran(log))
    knock(client, client.server4, ONE)
    wait_until(lambda: len(ran(log)) > before, SOON, "the door")
    await_line(log_file, f"{client.address4}: stays: OPEN SESAME")


def test_refused_reload_leaves_log_file_and_syslog_as_they_were(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    """The new file is right, and then the daemon has no descriptor left for the packets that it asks for."""
    (tmp_path / "sequences").touch()
    devices = tmp_path / "dev"
    devices.mkdir()
    apart = ["unshare", "--mount", "sh", "-ec", DEVICES, "-", str(devices)]
    syslog = box.server.popen([*apart, sys.executable, "-c", LISTENER])
    syslog.stdout.wait_for("listens", SOON)
    conf = configuration(tmp_path, f"[once]\nOne_Time_Sequences = {tmp_path / 'sequences'}\nCommand = true\n")
    with running(box.server, conf, "-i", client.server_interface, program=[*apart, *PROGRAM], env=PATHS) as daemon:
        limit = ["prlimit", "--pid", str(daemon.inner_pid)]
        taken = {int(name) for name in box.server.run(["ls", f"/proc/{daemon.inner_pid}/fd"]).stdout.split()}
        free = next(number for number in range(len(taken) + 1) if number not in taken)
        box.server.run([*limit, f"--nofile={free + 1}:4096"])
        one = door("d", ONE, f"Command = echo %IP% >>{log}")
        write(conf, f"[options]\nLogFile = {tmp_path / 'other'}\nUseSyslog\n{one}")
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reload failed, keeping the running one: .*Too many open files")
        box.server.run([*limit, "--nofile=1024:4096"])
        assert log_lines(tmp_path / "log")[-1] == f"re-reading config file: {conf}"
    assert log_lines(tmp_path / "log")[-1] == "shutting down"
    assert not (tmp_path / "other").exists()
    assert syslog.stdout.lines == ["listens"]
    syslog.kill()


def test_sighup_applies_another_interface_and_syslog(
    box: Sandbox, client: ClientHost, tmp_path: Path, log: Path
) -> None:
    stranger = box.hosts["stranger"]
    one = door("d", ONE, f"Command = echo %IP% >>{log}")
    conf = configuration(tmp_path, one, options=f"Interface = {client.server_interface}")
    with running(box.server, conf) as daemon:
        knock(client, client.server4, ONE)
        await_run(log, str(client.address4))
        configuration(tmp_path, one, options=f"Interface = {stranger.server_interface}\nUseSyslog")
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reloaded")
        knock(client, client.server4, ONE)
        knock(stranger, stranger.server4, ONE)
        await_run(log, str(client.address4), str(stranger.address4))
