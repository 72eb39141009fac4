"""The closer: what it closes, when it gives up, and that what it did not close is not forgotten."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from port_knocking_doors.daemon import sweep
from port_knocking_doors.doors import owed_stops
from port_knocking_doors.errors import DoorsError, FirewallError
from port_knocking_doors.firewall.error_codes import UNREACHABLE
from port_knocking_doors.firewall.health import UNVERIFIED
from port_knocking_doors.firewall.reconciler import RuleReconciler
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system import as_user, instance, log
from port_knocking_doors.system.crash_guard import Closer, CrashGuard
from port_knocking_doors.system.instance import CLOSER, DAEMON, instance_lock, unreleased_marks
from port_knocking_doors.system.log import logger
from tests.helpers.fake_bus import FakeBus, shorten_calls
from tests.helpers.folders import let_others_through
from tests.helpers.waiting import wait_until

REPOSITORY = Path(__file__).parents[3]
MARK = 31313
RULE = f'rule priority="{MARK}" port port="1" protocol="udp" accept'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory, with the mark of a daemon that was killed."""
    path = tmp_path / "runtime"
    path.mkdir()
    (path / f"{MARK}.lock").write_text(f"{DAEMON} 99999999\n")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(path))
    monkeypatch.setattr(sweep, "ABSENCE", 0.2)
    monkeypatch.setattr(instance, "_PATIENCE", 0.5)
    return path


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    fake = FakeBus(tmp_path)
    fake.zones["public"].append(RULE)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.address)
    shorten_calls(monkeypatch)
    return fake


def test_sweep_removes_marked_rules_and_leaves_nothing(bus: FakeBus) -> None:
    async def story() -> None:
        async with bus:
            assert await sweep.sweep(MARK) == (1, 0)

    assert unreleased_marks() == [MARK]
    asyncio.run(story())
    assert bus.zones["public"] == []
    assert unreleased_marks() == []


def test_sweep_of_several_turns_counts_the_rules_of_all(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "TURN", 0.5)
    settled, turns = RuleReconciler.settled, []

    async def settled_late(self: RuleReconciler) -> None:
        turns.append(self)
        await settled(self)
        if len(turns) == 1:
            await asyncio.Event().wait()

    monkeypatch.setattr(RuleReconciler, "settled", settled_late)

    async def story() -> None:
        async with bus:
            assert await sweep.sweep(MARK) == (1, 0)

    asyncio.run(story())
    assert len(turns) == 2
    assert bus.zones["public"] == []


def test_sweep_gives_up_on_hung_firewalld_and_says_what_is_left(bus: FakeBus) -> None:
    bus.silent.add("getDefaultZone")

    async def story() -> None:
        async with bus:
            with pytest.raises(FirewallError, match=r"has not answered for 0\.3 s"):
                await sweep.sweep(MARK, patience=0.3)

    asyncio.run(story())
    assert unreleased_marks() == [MARK]


def test_sweep_waits_for_firewalld_that_hangs_while_closing(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "TURN", 0.3)
    bus.silent.add("getRichRules")

    async def story() -> None:
        async with bus:
            work = asyncio.create_task(sweep.sweep(MARK))
            while not bus.called("getRichRules"):
                await asyncio.sleep(0.01)
            before = bus.connections
            while bus.connections < before + 2:  # the turn is over, and it looks again
                await asyncio.sleep(0.01)
            assert unreleased_marks() == [MARK]
            bus.silent.clear()
            assert await asyncio.wait_for(work, 10) == (1, 0)

    asyncio.run(story())
    assert unreleased_marks() == []


def test_stopped_firewalld_leaves_nothing_to_sweep(bus: FakeBus) -> None:
    bus.owned = False

    async def story() -> None:
        async with bus:
            with pytest.raises(FirewallError) as raised:
                await sweep.sweep(MARK)
        assert raised.value.code == UNREACHABLE

    asyncio.run(story())


def test_sweep_that_gives_up_leaves_rules_to_one_with_more_patience(bus: FakeBus) -> None:
    """As after every end under systemd: the crash guard's closer and ExecStopPost's begin in the same moment."""

    async def story() -> None:
        async with bus:
            with instance_lock(MARK, CLOSER, leaves_rules=True):
                waiting = asyncio.create_task(asyncio.to_thread(sweep.close, MARK, 10.0))
                await asyncio.sleep(0.3)
                assert not waiting.done()
            assert await asyncio.wait_for(waiting, 10) is None

    asyncio.run(story())
    assert bus.zones["public"] == []
    assert unreleased_marks() == []


def test_sweep_that_ends_leaves_nothing_to_the_other(bus: FakeBus) -> None:
    async def story() -> None:
        async with bus:
            with instance_lock(MARK, CLOSER):
                waiting = asyncio.create_task(asyncio.to_thread(sweep.close, MARK, 10.0))
                await asyncio.sleep(0.3)
            assert await asyncio.wait_for(waiting, 10) is None

    asyncio.run(story())
    assert bus.connections == 0


def put_on_record(folder: Path, stop: str, mark: int = MARK, **more: object) -> Path:
    """A stop command that a dead daemon with this mark left behind."""
    path = folder / f"pending-{mark}" / "a.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"address": "10.0.0.2", "sequence": "ssh", "stop": stop, **more}))
    return path


@pytest.mark.parametrize("fails", [False, True])
def test_closer_in_the_guard_loads_nothing(
    bus: FakeBus, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The files of Python may be another release's by then."""
    monkeypatch.setattr(owed_stops, "PAUSES", (0.05,))
    record = put_on_record(folder, f"touch {tmp_path}/stopped; exit {int(fails)}")
    prepare, run, programs = sweep.closer(MARK)
    loaded = tmp_path / "loaded"

    def run_audited() -> None:
        def note(event: str, arguments: tuple[object, ...]) -> None:
            if event == "import":
                with loaded.open("a") as file:
                    file.write(f"{arguments[0]}\n")

        sys.addaudithook(note)
        run()
        loaded.open("a").close()

    async def story() -> None:
        async with bus:
            with CrashGuard(Closer(prepare, run_audited, programs)) as guard:
                pass
            while os.waitpid(guard.pid, os.WNOHANG) == (0, 0):
                await asyncio.sleep(0.01)

    asyncio.run(story())
    assert loaded.read_text() == ""
    assert bus.zones["public"] == []
    assert (tmp_path / "stopped").exists()
    assert record.exists() is fails
    assert unreleased_marks() == ([MARK] if fails else [])


def test_closer_in_the_guard_has_three_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    module = (sys.executable, "-m", "port_knocking_doors.daemon.sweep", "31313")
    script = ("/usr/bin/port-knocking-doors", "sweep", "--patience", "600")
    assert sweep.closer(MARK).programs == [("/proc/self/exe", module), (sys.executable, module), (script[0], script)]


@pytest.mark.parametrize("way", range(2))
def test_other_way_closes_doors(bus: FakeBus, way: int) -> None:
    def fail() -> None:
        raise ImportError("SRE module mismatch")

    async def story() -> None:
        async with bus:
            with CrashGuard(Closer(lambda: None, fail, sweep.closer(MARK).programs[way:])) as guard:
                pass
            while (ended := os.waitpid(guard.pid, os.WNOHANG)) == (0, 0):
                await asyncio.sleep(0.01)
            assert ended[1] == 0

    asyncio.run(story())
    assert bus.zones["public"] == []


# --- marks of other daemons

OTHER = 31314
OTHER_RULE = RULE.replace(str(MARK), str(OTHER))


def take_over(bus: FakeBus, own: int = MARK) -> None:
    async def story() -> None:
        async with bus:
            await asyncio.wait_for(sweep.take_over(own), 10)

    asyncio.run(story())


def test_start_takes_over_rules_of_a_dead_daemon_with_another_mark(
    bus: FakeBus, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / f"{OTHER}.lock").write_text(f"{DAEMON} 99999999\n")
    (folder / f"{1 << 17}.lock").write_text(f"{DAEMON} 99999999\n")
    bus.zones["public"].append(OTHER_RULE)
    take_over(bus)
    assert bus.zones["public"] == [RULE], "its own rules are the daemon's business"
    assert unreleased_marks() == [MARK, 1 << 17]
    text = "closed the doors of a daemon that ended without doing so, with rule_priority = 31314: 1 rules removed"
    assert text in caplog.messages


def test_start_leaves_rules_of_a_live_daemon_alone(bus: FakeBus) -> None:
    bus.zones["public"].append(OTHER_RULE)
    with instance_lock(OTHER):
        take_over(bus)
    assert bus.zones["public"] == [RULE, OTHER_RULE]


def test_start_waits_for_a_firewalld_that_comes_late(
    bus: FakeBus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "ABSENCE", 0.1)
    (folder / f"{OTHER}.lock").write_text(f"{DAEMON} 99999999\n")
    bus.zones["public"].append(OTHER_RULE)
    bus.owned = False

    async def story() -> None:
        async with bus:
            work = asyncio.create_task(sweep.take_over(MARK))
            await asyncio.sleep(0.4)
            assert not work.done()
            bus.own(True)
            await asyncio.wait_for(work, 10)

    asyncio.run(story())
    assert bus.zones["public"] == [RULE]


def test_rules_that_stay_are_an_error_of_the_log(
    bus: FakeBus, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / f"{OTHER}.lock").write_text(f"{DAEMON} 99999999\n")

    async def refuse(*_: object) -> None:
        raise FirewallError("firewalld refuses")

    monkeypatch.setattr(sweep, "_remove_all", refuse)
    take_over(bus)
    assert "closing the doors of a daemon that ended, with rule_priority = 31314: firewalld refuses" in caplog.messages
    assert unreleased_marks() == [MARK, OTHER]


# --- stop commands


def test_rules_and_stop_commands_wait_for_nothing_of_each_other(bus: FakeBus, folder: Path, tmp_path: Path) -> None:
    record = put_on_record(folder, f"touch {tmp_path}/begun; until [ -e {tmp_path}/go ]; do sleep 0.02; done")

    async def story() -> None:
        async with bus:
            work = asyncio.create_task(sweep.sweep(MARK))
            while bus.zones["public"] or not (tmp_path / "begun").exists():
                await asyncio.sleep(0.01)
            assert not work.done()
            (tmp_path / "go").touch()
            assert await asyncio.wait_for(work, 10) == (1, 0)

    asyncio.run(story())
    assert not record.exists()
    assert unreleased_marks() == []


def test_sweep_that_is_cancelled_leaves_its_commands_running(bus: FakeBus, folder: Path, tmp_path: Path) -> None:
    """As the end of a daemon that takes over from another one."""
    record = put_on_record(folder, f"touch {tmp_path}/begun; until [ -e {tmp_path}/go ]; do sleep 0.02; done")
    bus.silent.add("getDefaultZone")

    async def story() -> None:
        async with bus:
            work = asyncio.create_task(sweep.sweep(MARK))
            while not (tmp_path / "begun").exists():
                await asyncio.sleep(0.01)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(work, 1)

    asyncio.run(story())
    assert record.exists()
    (tmp_path / "go").touch()
    wait_until(lambda: not record.exists(), 5, "the end of the command")


def test_stop_commands_run_while_firewalld_hangs(bus: FakeBus, folder: Path, tmp_path: Path) -> None:
    put_on_record(folder, f"touch {tmp_path}/ran")
    bus.silent.add("getDefaultZone")

    async def story() -> None:
        async with bus:
            with pytest.raises(FirewallError):
                await sweep.sweep(MARK, patience=0.3)

    asyncio.run(story())
    assert (tmp_path / "ran").exists()


def test_failed_stop_command_is_the_closers_error_and_stays(bus: FakeBus, folder: Path) -> None:
    record = put_on_record(folder, "exit 3")

    async def story() -> None:
        async with bus:
            error = await asyncio.to_thread(sweep.close, MARK)
        assert error is not None
        assert str(error) == (
            f"1 stop commands of a daemon that ended have failed or not ended: kept in {record.parent}, and run at "
            "each start until they work (`port-knocking-doors sweep --forget` drops them)"
        )

    asyncio.run(story())
    assert unreleased_marks() == [MARK], "for its stop command alone"
    assert (folder / f"{MARK}.lock").read_text() == ""


def test_closer_in_the_guard_tries_stop_commands_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = 1 << 17
    monkeypatch.setattr(owed_stops, "PAUSES", (0.01, 0.01, 0.01))
    record = put_on_record(folder, f"echo x >>{tmp_path}/ran; [ $(wc -l <{tmp_path}/ran) = 3 ]", mark)
    sweep.closer(mark).run()
    assert (tmp_path / "ran").read_text().split() == ["x"] * 3
    assert not record.exists()


def test_forget_drops_what_failed_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    mark = 1 << 17
    failed = put_on_record(folder, f"touch {tmp_path}/ran", mark, tries=8, status=3)
    kept = put_on_record(folder, f"touch {tmp_path}/ran", OTHER)
    with instance_lock(mark):
        done = the_command("--forget", RUNTIME_DIRECTORY=str(folder))
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(said) == 1
    assert "10.0.0.2: ssh: stop command dropped, which failed 8 times, at last with status 3" in said[0]
    assert (failed.exists(), kept.exists(), (tmp_path / "ran").exists()) == (False, True, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("fails", [False, True])
def test_root_sweeps_another_users_directory_as_that_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    let_others_through(tmp_path)
    units, mark, user = tmp_path / "run", 1 << 17, 12345
    monkeypatch.setattr(instance, "SYSTEM_DIRECTORY", units / "port-knocking-doors")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    own, foreign = units / "port-knocking-doors-commands", units / "port-knocking-doors"
    records = []
    for folder, owner in ((own, 0), (foreign, user)):
        folder.mkdir(parents=True)
        records.append(put_on_record(folder, f"id -u >{folder}/seen; exit {int(fails)}", mark))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, owner)
    if fails:
        with pytest.raises(DoorsError):
            sweep.close_all(1)
    else:
        sweep.close_all(1)
    assert [(folder / "seen").read_text() for folder in (own, foreign)] == ["0\n", "12345\n"]
    assert [record.exists() for record in records] == [fails] * 2


def the_command(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`sweep` as people run it, with a list of the modules that it needed."""
    argv = [sys.executable, "-X", "importtime", "-m", "port_knocking_doors", "sweep", "--patience", "1", *options]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), **env}
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_command_ends_at_once_if_nothing_is_left(folder: Path) -> None:
    (folder / f"{MARK}.lock").write_text("")
    done = the_command(RUNTIME_DIRECTORY=str(folder))
    assert done.returncode == 0
    assert "port_knocking_doors.system.instance" in done.stderr
    assert "dbus_next" not in done.stderr, "a third of a second for nothing"


def test_rules_of_running_daemon_are_kept(folder: Path) -> None:
    with instance_lock(MARK):
        done = the_command(RUNTIME_DIRECTORY=str(folder), DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nowhere")
    assert done.returncode == 0
    logged = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert "firewalld" not in "".join(logged)


def test_command_without_bus_says_in_one_line_what_is_left(folder: Path) -> None:
    done = the_command(RUNTIME_DIRECTORY=str(folder), DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nowhere")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert said == ["port-knocking-doors: firewalld has not answered for 1 s"]
    assert unreleased_marks() == [MARK]


ENDS: dict[str, tuple[bool, FirewalldState, int, type[Exception], str]] = {
    "firewalld left": (False, FirewalldState.ABSENT, 0, asyncio.TimeoutError, "^$"),
    "flushed": (True, FirewalldState.FLUSHED, 0, FirewallError, r"^firewalld lost its rules: run `.+`$"),
    "refused": (True, FirewalldState.PRESENT, 2, FirewallError, "^firewalld refuses to remove 2 rules of a daemon"),
}


@pytest.mark.parametrize(("present", "state", "rules", "raised", "said"), ENDS.values(), ids=ENDS)
def test_rules_that_firewalld_did_not_remove_are_an_error(
    present: bool, state: FirewalldState, rules: int, raised: type[Exception], said: str
) -> None:
    class Reconciler:
        unavailable_reason = "lost its rules"

        def __init__(self) -> None:
            self.present, self.state, self.active_rules = present, state, rules

        async def run(self) -> None:
            await asyncio.Event().wait()

        async def settled(self) -> None:
            return

    with pytest.raises(raised, match=said):
        asyncio.run(sweep._remove_all(Reconciler()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernel", "line"),
    [(None, UNVERIFIED), ([], "firewalld is not running: what was open went with it")],
    ids=["unreadable", "empty"],
)
def test_close_without_firewalld_logs_if_the_kernel_confirms(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kernel: list[object] | None, line: str
) -> None:
    def refuse(*_: object) -> None:
        raise FirewallError("firewalld is not running", UNREACHABLE)

    monkeypatch.setattr(sweep, "_sweep_after_others", refuse)
    monkeypatch.setattr(sweep, "read_kernel_rules", lambda: kernel)
    caplog.set_level("INFO", logger.name)
    assert sweep.close(MARK) is None
    assert caplog.messages == [line]


def test_closer_without_the_command_has_two_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert [program.path for program in sweep.closer(MARK).programs] == ["/proc/self/exe", sys.executable]


@pytest.mark.parametrize("error", [None, FirewallError("refused")], ids=["closed", "refused"])
def test_closer_as_a_program_ends_with_its_status(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: DoorsError | None
) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", str(MARK)])
    for name, value in (("keep_statuses", lambda: None), ("close", lambda _: error)):
        monkeypatch.setattr(sweep, name, value)
    monkeypatch.setattr(log, "set_up", lambda **_: None)
    assert sweep.main() == (error.exit_status if error else 0)
    assert caplog.messages == (["closing the doors of a daemon that ended: refused"] if error else [])


def test_foreign_directory_without_marks_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sweep, "foreign_directories", lambda: [tmp_path])
    monkeypatch.setattr(sweep, "usable_directories", list)
    monkeypatch.setattr(as_user, "run", lambda *_: pytest.fail("it is swept"))
    sweep.close_all(1)


def test_listener_of_a_sweep_is_never_called() -> None:
    listener = sweep._NoOwner()
    with pytest.raises(AssertionError):
        listener.on_active("door", ())
    with pytest.raises(AssertionError):
        listener.on_removed("door")
