"""The daemon: whether it runs, and what its own status shows."""

from collections.abc import Iterator

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control import client
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.finding import Finding, ok, problem, shortened, warning
from port_knocking_doors.model import FirewalldState

_RESTART = "systemctl restart firewalld"
_REMEDIES = {FirewalldState.ABSENT: "systemctl start firewalld"}


def no_daemon(mark: int) -> Finding:
    """No daemon with this mark answers."""
    others = " or ".join(map(str, client.running_marks()))
    if others:
        return problem(f"no daemon is running with rule_priority = {mark}; ask the one that is: --priority {others}")
    return problem("no daemon is running; start it: systemctl start port-knocking-doors")


def about_daemon(snapshot: Snapshot, loaded: Loaded) -> Iterator[Finding]:
    """The running daemon, by its own status."""
    if snapshot.configuration != str(loaded.path or ""):
        theirs = snapshot.configuration or "its built-in defaults"
        yield warning(f"daemon: process {snapshot.pid} runs with {theirs}, not with the configuration read here")
    else:
        yield ok(f"daemon: process {snapshot.pid} runs")
    wanted = len(set(loaded.settings.opening_sequence))
    if wanted and not snapshot.listeners:
        yield problem("daemon: it listens on none of its knock ports: it waits for one that another program uses")
    elif snapshot.listeners != wanted:
        yield warning(
            f"daemon: it listens on {snapshot.listeners} UDP ports, but the configuration has {wanted}: "
            "run `port-knocking-doors reload`"
        )
    if snapshot.firewalld is FirewalldState.HUNG:
        yield problem("daemon: firewalld does not answer it: systemctl restart firewalld")
    if snapshot.firewalld is FirewalldState.REFUSING:
        yield problem(
            "daemon: firewalld denies it every change: see its log; most often the polkit rule is missing that allows "
            "the daemon's user the action org.fedoraproject.FirewallD1.config"
        )
    if snapshot.doors_closing and snapshot.firewalld is not FirewalldState.PRESENT:
        yield problem(
            f"daemon: {snapshot.doors_closing} of its doors not confirmed closed although their time is over: they "
            f"may be open until firewalld answers again: {_REMEDIES.get(snapshot.firewalld, _RESTART)}"
        )
    if snapshot.rules_refused:
        yield problem(f"daemon: firewalld refused {snapshot.rules_refused} of its rules: see its log")
    if snapshot.doors_open >= snapshot.doors_limit:
        yield problem(
            f"daemon: max_open_doors reached ({snapshot.doors_limit}): raise it, or close a door that is not needed: "
            "port-knocking-doors close ADDRESS (`port-knocking-doors status` shows them)"
        )
    if snapshot.sniffer_dropped:
        yield warning(f"daemon: the kernel dropped {snapshot.sniffer_dropped} packets that may have been knocks")
    ignored = [knocker.address for knocker in snapshot.knockers if knocker.ignored_seconds > 0]
    if ignored:
        yield warning(
            f"daemon: {snapshot.knockers_ignored} ignored after a wrong knock ({shortened(ignored, 5)}): wait, or run "
            "`port-knocking-doors forget ADDRESS`"
        )
