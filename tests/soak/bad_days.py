"""Faults of a bad day, each registered with `fault`: firewalld that leaves its rules or fails, a log that nobody reads,
a spammed bus, a killed crash guard, a replaced interpreter.

What touches only what the daemon says or hears from others opens no window: no door may notice.
"""

import signal
import time
from contextlib import suppress

from port_knocking_doors.errors import SandboxError
from tests.helpers.bus_spam import spam
from tests.helpers.waiting import wait_until
from tests.soak.faults import LEFT, Faults, fault
from tests.soak.stage import BLOCKED, ENDED_WITHIN, SET

MEGABYTES = 20
PROMPT = 3.0
"""Seconds in which the daemon answers `status`, times the patience."""
_FAILED = r"lost its rules in the kernel|state FAILED|COMMAND_FAILED"


# firewalld. ----------------------------------------------------------------------------------------------------------


@fault(weight=2)
def restart_keeping_rules(faults: Faults) -> None:
    """firewalld ends and leaves its rules in the kernel (CleanupOnExit=no); 1.3 starts on top of them."""
    stage = faults.stage
    faults.allow(LEFT)
    with faults.window(blind=True, deaf_listened=True, cut=True, settle=2 * faults.model.tolerances.settle):
        stage.keep_rules(keep=True)
        stage.box.firewalld.ask("", "reload", timeout=30)
        stage.box.firewalld.stop()
        faults.pause(0, 6)
        stage.box.firewalld.start()
        stage.keep_rules(keep=False)


@fault()
def crash_keeping_rules(faults: Faults) -> None:
    """firewalld is killed, and started with its old rules in the kernel; nobody reloads it."""
    faults.allow(LEFT)
    with faults.window(blind=True, deaf_listened=True, cut=True, settle=2 * faults.model.tolerances.settle):
        faults.stage.box.firewalld.kill()
        faults.pause(0, 3)
        faults.stage.box.firewalld.start()


@fault()
def fail(faults: Faults) -> None:
    """A reload with a set that the kernel refuses: firewalld is FAILED, and every port is open; then it is repaired."""
    stage = faults.stage
    faults.allow(_FAILED)
    with faults.window(blind=True, deaf_listened=True, cut=True, settle=2 * faults.model.tolerances.settle):
        stage.break_firewalld()
        faults.pause(0.5, 5)
        stage.repair_firewalld()


@fault()
def flush(faults: Faults) -> None:
    """`nft flush ruleset` under a running firewalld, and the restart that repairs it: a reload would fail (1.3.3)."""
    faults.allow(_FAILED)
    with faults.window(blind=True, deaf_listened=True, cut=True, settle=2 * faults.model.tolerances.settle):
        faults.stage.box.server.run(["nft", "flush", "ruleset"])
        faults.pause(0.2, 5)
        faults.stage.box.firewalld.restart()


@fault(weight=2)
def change_large_set(faults: Faults) -> None:
    """A set of thousands of networks, a source of a zone, gets entries and loses them; the daemon answers meanwhile."""
    server = faults.stage.box.server
    with faults.window(blind=True):  # firewalld is busy with it
        for _ in range(faults.chance.randint(1, 2)):
            server.run(["firewall-cmd", f"--ipset={SET}", f"--add-entries-from-file={BLOCKED}"], timeout=60)
            _answers(faults)
            server.run(["firewall-cmd", f"--ipset={SET}", "--add-entry=172.31.0.0/24"])
            _answers(faults)
            server.run(["firewall-cmd", f"--ipset={SET}", f"--remove-entries-from-file={BLOCKED}"], timeout=60)
            with suppress(SandboxError):  # one of the last turn
                server.run(["firewall-cmd", f"--ipset={SET}", "--remove-entry=172.31.0.0/24"])


def _answers(faults: Faults) -> None:
    start = time.monotonic()
    faults.command("status")
    seconds = time.monotonic() - start
    most = PROMPT * faults.patience
    assert seconds < most, f"status took {seconds:.2f} s, at most {most:g} are allowed"


# What is none of the doors' business. --------------------------------------------------------------------------------


@fault(weight=2)
def stall_log(faults: Faults) -> None:
    """The log's reader stands still for a while."""
    faults.stage.reader.send_signal(signal.SIGSTOP)
    faults.pause(1, 6)
    _answers(faults)
    faults.stage.reader.send_signal(signal.SIGCONT)


@fault()
def spam_bus(faults: Faults) -> None:
    """Large signals of type `av` to the daemon's unique name, which any user may send."""
    spam(faults.stage.box.server, MEGABYTES, signals=faults.chance.randint(1, 2), pid=faults.stage.daemon.inner_pid)
    _answers(faults)


@fault(weight=2)
def kill_crash_guard(faults: Faults) -> None:
    """The crash guard alone: the daemon starts another one."""
    stage = faults.stage
    faults.allow("crash guard")
    (before,) = stage.guards()
    stage.box.server.run(["kill", "-KILL", str(before)])
    wait_until(
        lambda: len(now := stage.guards()) == 1 and now != [before],
        PROMPT * faults.patience,
        lambda: f"another crash guard than {before}: {stage.guards()}",
    )


# The daemon's end. ---------------------------------------------------------------------------------------------------


@fault(ends=True)
def kill_after_its_crash_guard(faults: Faults) -> None:
    """The crash guard, and then the daemon: the second crash guard closes the doors."""
    kill_crash_guard(faults)
    _kill(faults)


@fault(ends=True)
def kill_with_a_stalled_log(faults: Faults) -> None:
    """What closes the doors does not wait for the log either."""
    reader = faults.stage.reader
    reader.send_signal(signal.SIGSTOP)
    faults.pause(0, 2)
    try:
        _kill(faults)
    finally:
        reader.send_signal(signal.SIGCONT)


@fault(ends=True)
def kill_with_a_replaced_interpreter(faults: Faults) -> None:
    """An upgrade of Python under the running daemon: what closes its doors cannot count on a Python that starts."""
    with faults.stage.broken_interpreter():
        faults.pause(0, 1)
        _kill(faults, starts=False)
    faults.start()


def _kill(faults: Faults, *, starts: bool = True) -> None:
    with faults.window(deaf=True, settle=faults.model.tolerances.blur):
        faults.end(faults.model.tolerances.killed)
        faults.await_shut(time.monotonic())
        if starts:
            faults.start()


@fault(ends=True)
def sigterm_without_firewalld(faults: Faults) -> None:
    """firewalld has stopped and left its rules: the daemon ends with an error, and once firewalld is back they go."""
    stage = faults.stage
    faults.allow(LEFT)
    with faults.window(deaf=True, blind=True, cut=True, settle=2 * faults.model.tolerances.settle):
        stage.keep_rules(keep=True)
        stage.box.firewalld.ask("", "reload", timeout=30)
        stage.box.firewalld.stop()
        faults.pause(0, 1)
        faults.model.note(time.monotonic(), "died", faults.model.tolerances.killed)
        faults.deaths += 1
        stage.daemon.send_signal(signal.SIGTERM)
        status = stage.daemon.wait(ENDED_WITHIN)
        assert status == (1 if stage.in_kernel() else 0), f"SIGTERM: the daemon ended with {status}"
        stage.box.firewalld.start()
        stage.keep_rules(keep=False)
        faults.start()
