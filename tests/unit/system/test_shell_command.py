"""Commands in a real shell: what they inherit, their gate, and the file that goes with their success."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from port_knocking_doors.system.command_output import CommandOutput
from port_knocking_doors.system.shell_command import ProcessIdentity, ShellCommand, environment
from tests.helpers.fake_bus import open_descriptors
from tests.helpers.waiting import wait_until

REPOSITORY = Path(__file__).parents[3]
SOON = 5.0


def start(line: str, done: Path | None = None) -> ShellCommand:
    with CommandOutput() as output:
        return ShellCommand(line, output, done)


def run(line: str, done: Path | None = None) -> int:
    async def main() -> int:
        command = start(line, done)
        command.go()
        return await command.ended()

    return asyncio.run(main())


KEPT = {"PATH": "/bin", "HOME": "/root", "LANG": "C", "RUNTIME_DIRECTORY": "/run/x", "MY_PYTHON": "a"}
WITHHELD = {
    "a secret": "KNOCKER_SEQ",
    "the ports": "KNOCKER_PORTS",
    "systemd's socket": "NOTIFY_SOCKET",
    "the journal's mark": "JOURNAL_STREAM",
    "the watchdog's": "WATCHDOG_USEC",
    "sockets of systemd": "LISTEN_FDS",
    "where Python finds modules": "PYTHONPATH",
    "where Python is": "PYTHONHOME",
    "how Python writes": "PYTHONUNBUFFERED",
    "how Python starts": "PYTHONSTARTUP",
    "the venv's Python": "__PYVENV_LAUNCHER__",
}


@pytest.mark.parametrize("name", WITHHELD.values(), ids=WITHHELD)
def test_commands_get_no_variable_of_the_daemon_or_its_python(name: str) -> None:
    assert environment({**KEPT, name: "x"}) == KEPT


def test_command_inherits_no_descriptor_of_ours(tmp_path: Path) -> None:
    before = open_descriptors()
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        assert run(f"ls /proc/self/fd >{tmp_path}/seen") == 0
    assert (tmp_path / "seen").read_text().split() == ["0", "1", "2", "3"], "3 is the directory that ls reads"
    assert open_descriptors() == before


def test_command_waits_behind_its_gate(tmp_path: Path) -> None:
    async def main() -> None:
        command = start(f"echo $$ >{tmp_path}/ran")
        assert command.identity.is_running()
        assert not (tmp_path / "ran").exists()
        command.go()
        assert await command.ended() == 0
        assert int((tmp_path / "ran").read_text()) == command.identity.pid, "the number on record is the command's"

    asyncio.run(main())


def test_command_whose_gate_stays_shut_never_runs(tmp_path: Path) -> None:
    command = start(f"touch {tmp_path}/ran")
    command.give_up()
    assert not command.identity.is_running()
    assert not (tmp_path / "ran").exists()


def test_command_of_a_process_killed_before_the_gate_never_runs(tmp_path: Path) -> None:
    script = f"""
import os, signal
from port_knocking_doors.system.command_output import CommandOutput
from port_knocking_doors.system.shell_command import ShellCommand
with CommandOutput() as output:
    print(*ShellCommand("touch {tmp_path}/ran", output).identity, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, check=False)
    identity = ProcessIdentity(*map(int, done.stdout.split()))
    # As a zombie it has ended: not every process 1 waits for orphans.
    wait_until(lambda: not identity.is_running(), SOON, "the end of the shell")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("line", "status", "is_left"), [("true", 0, False), ("exit 3", 3, True), ("kill $$", 143, True)]
)
def test_record_goes_if_and_only_if_the_command_works(tmp_path: Path, line: str, status: int, is_left: bool) -> None:
    record = tmp_path / "it's a record"
    record.touch()
    assert run(line, record) == status
    assert record.exists() is is_left


def test_record_goes_after_the_process_that_began_it_is_killed(tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.touch()
    script = f"""
import os, signal
from pathlib import Path
from port_knocking_doors.system.command_output import CommandOutput
from port_knocking_doors.system.shell_command import ShellCommand
with CommandOutput() as output:
    ShellCommand("sleep 0.2", output, Path("{record}")).go()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False)
    wait_until(lambda: not record.exists(), SOON, "the record gone")


def test_identity_tells_a_process_from_another_with_its_number() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        identity = ProcessIdentity(process.pid, int(stat[19]))
        assert identity.is_running()
        assert not identity._replace(began=identity.began + 1).is_running()
        process.kill()
        wait_until(lambda: not identity.is_running(), SOON, "its end, though nothing has waited for it")
    assert not identity.is_running()


@pytest.mark.parametrize("set_name", ["CapAmb", "CapPrm", "CapEff", "CapInh"])
def test_command_gets_no_capability_of_the_daemon(tmp_path: Path, set_name: str) -> None:
    script = f"""
import asyncio
from tests.unit.system.test_shell_command import run
run("grep {set_name} /proc/self/status >{tmp_path}/seen")
"""
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("only root can give capabilities")
    # Without the rules for root, the superuser is like the service's user.
    caps = ["--securebits", "+noroot", "--inh-caps", "+net_raw", "--ambient-caps", "+net_raw"]
    subprocess.run(["setpriv", *caps, "--", sys.executable, "-c", script], cwd=REPOSITORY, check=True)
    assert int((tmp_path / "seen").read_text().split()[1], 16) == 0


def test_line_with_a_zero_byte_is_an_error_and_leaves_no_descriptor() -> None:
    before = open_descriptors()
    with pytest.raises(ValueError, match="null byte"):
        start("a\0b")
    assert open_descriptors() == before


def test_command_gets_an_empty_standard_input(tmp_path: Path) -> None:
    assert run(f"cat >{tmp_path}/seen; readlink /proc/self/fd/0 >>{tmp_path}/seen") == 0
    assert (tmp_path / "seen").read_text() == "/dev/null\n"


def test_identity_survives_its_way_through_a_file() -> None:
    assert ProcessIdentity(*json.loads(json.dumps(ProcessIdentity(1, 2)))) == (1, 2)


def test_status_is_known_where_the_parent_ignores_ends_of_children() -> None:
    script = """
import signal
from port_knocking_doors.system.shell_command import keep_statuses
from tests.unit.system.test_shell_command import run
keep_statuses()
raise SystemExit(run("exit 3"))
"""
    ignoring = ["sh", "-c", 'trap "" CHLD; exec "$@"', "sh", sys.executable, "-c", script]
    assert subprocess.run(ignoring, cwd=REPOSITORY, check=False).returncode == 3
