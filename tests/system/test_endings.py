"""However the daemon ends, its doors close: tried from the client's host."""

import random
import signal
import sys
import time
from pathlib import Path

import pytest

import port_knocking_doors
from port_knocking_doors.sandbox import Process, Sandbox
from tests.helpers.doorstep import (
    NOTICE,
    a_door_rule,
    await_closed,
    await_open,
    children,
    closed_at,
    door_rules,
    gone,
    kill_with_crash_guard,
    knock_port_rules,
    marked,
    nothing_marked,
    one_more_try,
    said,
    state,
)
from tests.helpers.running import GUARDED, SEQUENCE, begin_daemon, knock, start_daemon, write_configuration
from tests.helpers.waiting import wait_until

GUARD = "doors-guard"
"""What the kernel calls the crash guard, and its fork that closes the doors."""
KILLED_CLOSED = 2.0
"""Seconds after a SIGKILL within which every door is shut."""
FAREWELL = 10.0
"""Seconds that a hung firewalld gets at the end."""
PACKAGE = Path(port_knocking_doors.__file__).parent
PROGRAM = Path(sys.executable).with_name("port-knocking-doors")


def a_daemon_with_an_open_door(box: Sandbox, folder: Path, **keys: object) -> Process:
    """Open for `client`, for longer than any test lasts."""
    client = box.hosts["client"]
    daemon = start_daemon(box, folder, **{"max_opened_door_duration": 300, **keys})
    knock(client, client.server4)
    daemon.wait_for("opened")  # the rule is active before firewalld says so
    await_open(client)
    return daemon


def closers(box: Sandbox) -> list[int]:
    """The processes that crash guards have started."""
    guards = ",".join(box.server.run(["pgrep", "-x", GUARD], check=False).stdout.split())
    return [int(pid) for pid in box.server.run(["pgrep", "-P", guards or "0"], check=False).stdout.split()]


# --- by a signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_to_end_closes_every_door(box: Sandbox, tmp_path: Path, number: signal.Signals) -> None:
    client, stranger = box.hosts["client"], box.hosts["stranger"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        knock(stranger, stranger.server6)
        await_open(stranger, ipv6=True)
        family = children(box, daemon)
        daemon.send_signal(number)
        assert daemon.wait(NOTICE) == 0
        assert (state(client), state(stranger, ipv6=True)) == ("prohibited", "prohibited")
    assert nothing_marked(box)
    assert family
    assert gone(box, family)()
    assert not said(daemon, "Traceback|ERROR")


def test_second_signal_to_end_changes_nothing(box: Sandbox, tmp_path: Path) -> None:
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        daemon.terminate()
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(NOTICE) == 0
        assert state(box.hosts["client"]) == "prohibited"


def test_hung_firewalld_bounds_shutdown_and_helper_closes_doors(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        family = children(box, daemon)
        box.firewalld.freeze()
        before = len(daemon.stderr.lines)
        daemon.terminate()
        assert daemon.wait(FAREWELL + NOTICE) == 1
        assert "doors are not closed" in daemon.stderr.lines[-1]
        assert len(daemon.stderr.lines) - before <= 2, "that firewalld does not answer, and how it ended"
        box.firewalld.thaw()
        await_closed(client)
        wait_until(lambda: nothing_marked(box), NOTICE, "no rule")
    wait_until(gone(box, family), NOTICE, "no helper left")


def test_shutdown_waits_no_longer_once_hung_firewalld_is_gone(box: Sandbox, tmp_path: Path) -> None:
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
    box.firewalld.freeze()
    daemon.terminate()
    # Its sockets are shut when it waits for nothing but firewalld.
    wait_until(lambda: str(SEQUENCE[0]) not in box.server.run(["ss", "-lnu"]).stdout, NOTICE, "the listeners shut")
    box.firewalld.kill()
    start = time.monotonic()
    daemon.wait(FAREWELL + NOTICE)
    assert time.monotonic() - start < 2


def test_shutdown_without_firewalld_ends_at_once_with_status_0(box: Sandbox, tmp_path: Path) -> None:
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
    family = children(box, daemon)
    box.firewalld.stop()
    daemon.wait_for("firewalld has stopped")
    daemon.terminate()
    assert daemon.wait(2) == 0
    assert gone(box, family)()
    box.firewalld.start()
    assert nothing_marked(box)


def test_signal_before_ready_ends_daemon(box: Sandbox, tmp_path: Path) -> None:
    box.firewalld.stop()
    daemon = begin_daemon(box, write_configuration(tmp_path))
    daemon.wait_for("accepting knocks")
    daemon.terminate()
    assert daemon.wait(2) == 0
    assert not said(daemon, r"\bready\b|Traceback")
    box.firewalld.start()
    assert nothing_marked(box)


def test_signal_at_any_moment_of_start_leaves_nothing(box: Sandbox, tmp_path: Path) -> None:
    conf, chance = write_configuration(tmp_path), random.Random(1)
    starting = start_daemon(box, tmp_path)
    starting.terminate()
    starting.wait(NOTICE)
    for _ in range(8):
        daemon = begin_daemon(box, conf)
        moment = time.monotonic() + chance.uniform(0.1, 0.6)
        wait_until(lambda moment=moment: time.monotonic() > moment, 2, "the moment", every=0.001)  # type: ignore[misc]
        daemon.terminate()
        # Before Python handles signals, they end it as they end any process.
        assert daemon.wait(NOTICE) in (0, -signal.SIGTERM)
        assert not said(daemon, "Traceback|ERROR")
        wait_until(lambda: not marked(box.rules()), KILLED_CLOSED, "no rule")


# --- when it is killed


def test_killed_daemons_doors_close_within_two_seconds(box: Sandbox, tmp_path: Path) -> None:
    client, stranger = box.hosts["client"], box.hosts["stranger"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        knock(client, client.server6)
        knock(stranger, stranger.server4)
        await_open(client, ipv6=True)
        await_open(stranger)
        family = children(box, daemon)
        with (
            client.watch_connect(client.server4, GUARDED) as over4,
            client.watch_connect(client.server6, GUARDED) as over6,
            stranger.watch_connect(stranger.server4, GUARDED) as stranger4,
        ):
            daemon.kill()
            killed = time.monotonic()
            await_closed(client, KILLED_CLOSED + NOTICE)
            await_closed(client, NOTICE, ipv6=True)
            await_closed(stranger)
            one_more_try()
        for watch in (over4, over6, stranger4):
            assert 0 < closed_at(watch.attempts) - killed < KILLED_CLOSED
    wait_until(gone(box, family), NOTICE, "neither crash guard nor sweep")
    assert nothing_marked(box)
    daemon.wait_for("closed the doors of a daemon that ended without doing so: 8 rules removed")


def test_killed_daemons_doors_close_once_hung_firewalld_resumes(box: Sandbox, tmp_path: Path) -> None:
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        family = children(box, daemon)
        box.firewalld.freeze()
        daemon.kill()
        daemon.wait(NOTICE)
        wait_until(lambda: closers(box), NOTICE, "the closer")
        box.firewalld.thaw()
        await_closed(box.hosts["client"])
    wait_until(gone(box, family), NOTICE, "no closer left")
    assert nothing_marked(box)


def test_killed_daemons_doors_close_once_hung_bus_resumes(box: Sandbox, tmp_path: Path) -> None:
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        family = children(box, daemon)
        box.bus.freeze()
        daemon.kill()
        # The closer's patience with a firewalld that is not there, and it may give up only on that.
        frozen_until = time.monotonic() + 6
        wait_until(lambda: time.monotonic() > frozen_until or gone(box, family)(), 7, "the time to pass", every=0.2)
        box.bus.thaw()
        await_closed(box.hosts["client"])
    assert nothing_marked(box)


def test_next_start_after_kill_of_both_closes_doors_before_ready(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        kill_with_crash_guard(box, daemon)
        assert state(client) == "open", "no process is left to close it"
        again = start_daemon(box, tmp_path)
        assert state(client) == "prohibited"
        assert door_rules(box) == []
        assert len(knock_port_rules(box)) == len(SEQUENCE)
        assert len(said(again, f"{len(SEQUENCE) + 1} rules carry our mark")) == 1


def test_start_right_after_kill_keeps_its_own_rules(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        family = children(box, daemon)
        daemon.kill()
        again = start_daemon(box, tmp_path)
        assert state(client) == "prohibited"
        wait_until(gone(box, family), NOTICE, "the old crash guard gone")
        assert len(knock_port_rules(box)) == len(SEQUENCE)
        knock(client, client.server4)
        await_open(client)
        assert door_rules(box) == [a_door_rule(client.address4)]
        assert again.poll() is None


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_any_moment_of_opening_leaves_no_door_open(box: Sandbox, tmp_path: Path, seed: int) -> None:
    client, chance = box.hosts["client"], random.Random(seed)
    with box.server.listen(GUARDED):
        for _ in range(4):
            daemon = start_daemon(box, tmp_path, max_opened_door_duration=300)
            family = children(box, daemon)
            knock(client, client.server4)
            moment = time.monotonic() + chance.uniform(0, 0.03)
            while time.monotonic() < moment:
                pass
            daemon.kill()
            killed = time.monotonic()
            wait_until(gone(box, family), NOTICE, "the closer's end")
            assert time.monotonic() - killed < KILLED_CLOSED
            assert state(client) == "prohibited"
            assert marked(box.rules()) == []


def test_signals_to_process_group_do_not_end_crash_guard(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        family = children(box, daemon)
        box.server.run(["kill", "-STOP", str(daemon.inner_pid)])
        for name in ("INT", "HUP", "TERM", "KILL"):
            box.server.run(["kill", f"-{name}", "--", f"-{daemon.inner_pid}"])
        assert daemon.wait(NOTICE) == -signal.SIGKILL
        await_closed(client)
    wait_until(gone(box, family), NOTICE, "no crash guard left")


def test_signals_to_crash_guard_do_not_end_it(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        (guard,) = children(box, daemon)
        for name in ("INT", "HUP", "TERM", "QUIT"):
            box.server.run(["kill", f"-{name}", str(guard)])
        assert not gone(box, [guard])()
        daemon.kill()
        await_closed(client)


def test_daemon_without_crash_guard_runs_on_and_closes_its_doors(box: Sandbox, tmp_path: Path) -> None:
    client, stranger = box.hosts["client"], box.hosts["stranger"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        box.server.run(["kill", "-KILL", *map(str, children(box, daemon))])
        knock(stranger, stranger.server4)
        await_open(stranger)
        daemon.terminate()
        assert daemon.wait(NOTICE) == 0
        assert (state(client), state(stranger)) == ("prohibited", "prohibited")
    assert not said(daemon, "Traceback")


def test_sweep_runs_nothing_from_working_folder(box: Sandbox, tmp_path: Path) -> None:
    client, folder = box.hosts["client"], tmp_path / "another's"
    folder.mkdir()
    for name in ("asyncio", "port_knocking_doors"):
        (folder / f"{name}.py").write_text("import pathlib\npathlib.Path('was-run').touch()\nraise SystemExit\n")
    conf = write_configuration(tmp_path, max_opened_door_duration=300)
    with box.server.listen(GUARDED):
        daemon = box.server.popen([str(PROGRAM), "--conf", str(conf)], cwd=folder)
        daemon.wait_for(r"\bready\b")
        knock(client, client.server4)
        await_open(client)
        family = children(box, daemon)
        daemon.kill()
        wait_until(gone(box, family), NOTICE, "the closer's end")
        assert not (folder / "was-run").exists()
        assert state(client) == "prohibited"


def test_crash_guard_has_little_memory_of_its_own(box: Sandbox, tmp_path: Path) -> None:
    (guard,) = children(box, start_daemon(box, tmp_path))
    pages = box.server.run(["cat", f"/proc/{guard}/smaps_rollup"]).stdout.splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in pages[1:]}
    assert sizes["Private_Dirty"] + sizes["Private_Clean"] < 12000, "kB; the rest is the daemon's, too"


def test_killed_crash_guard_is_noticed_replaced_and_closes_doors(box: Sandbox, tmp_path: Path) -> None:
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        (guard,) = children(box, daemon)
        box.server.run(["kill", "-KILL", str(guard)])
        line = daemon.wait_for("takes its place", 1.0 + NOTICE)
        assert f"the crash guard, process {guard}, was ended by signal 9; process" in line
        (other,) = children(box, daemon)
        assert other != guard, "and no zombie"
        daemon.kill()
        await_closed(client, KILLED_CLOSED + NOTICE)
    wait_until(lambda: nothing_marked(box), NOTICE, "no rule")


def places_of_python() -> list[str]:
    """The folders of the interpreter and of the program; of the system's own, not those that other programs need."""
    library = f"{sys.base_prefix}/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    if sys.base_prefix == "/usr":
        return [library, str(PACKAGE)]
    return [*([sys.prefix] if sys.prefix != sys.base_prefix else []), library, f"{sys.base_prefix}/bin", str(PACKAGE)]


@pytest.mark.parametrize("replaced", ["before the guard", "before a second guard"])
def test_doors_close_after_python_was_replaced_under_the_daemon(box: Sandbox, tmp_path: Path, replaced: str) -> None:
    """As by an upgrade: the files of the interpreter that runs are those of another one, or gone."""
    client = box.hosts["client"]
    with box.server.listen(GUARDED):
        daemon = a_daemon_with_an_open_door(box, tmp_path)
        for place in places_of_python():
            box.server.run(["mount", "-t", "tmpfs", "sandbox", place])
        (guard,) = children(box, daemon)
        if replaced == "before a second guard":
            box.server.run(["kill", "-KILL", str(guard)])
            daemon.wait_for("takes its place")
        with client.watch_connect(client.server4, GUARDED) as over4:
            daemon.kill()
            killed = time.monotonic()
            await_closed(client, KILLED_CLOSED + NOTICE)
            one_more_try()
        assert 0 < closed_at(over4.attempts) - killed < KILLED_CLOSED
    daemon.wait_for("closed the doors of a daemon that ended without doing so: 6 rules removed")


# --- two at once


def test_second_daemon_with_same_mark_changes_nothing_of_the_first(box: Sandbox, tmp_path: Path) -> None:
    client, other = box.hosts["client"], tmp_path / "other"
    other.mkdir()
    with box.server.listen(GUARDED):
        first = a_daemon_with_an_open_door(box, tmp_path)
        before = marked(box.rules())
        second = begin_daemon(box, write_configuration(other, opening_sequence=[port + 100 for port in SEQUENCE]))
        assert second.wait(NOTICE) == 1
        (line,) = second.stderr.lines
        assert f"process {first.inner_pid}," in line
        assert (state(client), marked(box.rules())) == ("open", before)
        first.terminate()
        assert first.wait(NOTICE) == 0
        assert state(client) == "prohibited"


# --- a log that cannot be written


@pytest.mark.parametrize(
    "streams",
    ["2>&-", "0<&- 1>&- 2>&-", ">/dev/full 2>&1"],
    ids=["standard error closed", "all closed", "the disk is full"],
)
def test_daemon_with_unwritable_log_opens_doors(box: Sandbox, tmp_path: Path, streams: str) -> None:
    client = box.hosts["client"]
    conf = write_configuration(tmp_path, max_opened_door_duration=1)
    argv = [sys.executable, "-m", "port_knocking_doors", "--conf", str(conf)]
    daemon = box.server.popen(["sh", "-c", f'exec "$@" {streams}', "sh", *argv])
    wait_until(lambda: len(knock_port_rules(box)) == len(SEQUENCE), NOTICE, "the knock ports' rules")
    with box.server.listen(GUARDED):
        knock(client, client.server4)
        await_open(client)
        await_closed(client)
        knock(client, client.server4)
        await_open(client)
        daemon.kill()
        await_closed(client)
    assert daemon.wait(NOTICE) == -signal.SIGKILL


def test_daemon_with_unwritable_log_ends_with_status_0(box: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    argv = [sys.executable, "-m", "port_knocking_doors", "--conf", str(conf)]
    daemon = box.server.popen(["sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh", *argv])
    wait_until(lambda: len(knock_port_rules(box)) == len(SEQUENCE), NOTICE, "the knock ports' rules")
    daemon.terminate()
    assert daemon.wait(NOTICE) == 0
    assert nothing_marked(box)
