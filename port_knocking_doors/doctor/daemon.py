"""The running daemon, by its own status."""

from collections.abc import Iterator

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.model import FirewalldState


def about_daemon(snapshot: Snapshot, loaded: Loaded) -> Iterator[Finding]:
    if snapshot.configuration != str(loaded.path or ""):
        theirs = snapshot.configuration or "its built-in defaults"
        yield warning(f"daemon: process {snapshot.pid} runs with {theirs}, and not with what was read here")
    else:
        yield ok(f"daemon: process {snapshot.pid} runs")
    wanted = len(set(loaded.settings.opening_sequence))
    if snapshot.listeners != wanted:
        yield warning(
            f"daemon: it listens on {snapshot.listeners} UDP ports, the configuration has {wanted}: "
            "`port-knocking-doors reload` lets it read the configuration again"
        )
    if snapshot.firewalld is FirewalldState.HUNG:
        yield problem("daemon: it gets no answer from firewalld: systemctl restart firewalld")
    if snapshot.firewalld is FirewalldState.REFUSING:
        yield problem(
            "daemon: firewalld does not let it do anything: its log says why; mostly the polkit rule is missing that "
            "allows the daemon's user the action org.fedoraproject.FirewallD1.config"
        )
    if snapshot.rules_refused:
        yield problem(f"daemon: firewalld refused {snapshot.rules_refused} of its rules: its log says why")
    if snapshot.doors_open >= snapshot.doors_limit:
        yield problem("daemon: as many doors are open as may be: raise max_open_doors, or `port-knocking-doors close`")
    if snapshot.sniffer_dropped:
        yield warning(f"daemon: the kernel dropped {snapshot.sniffer_dropped} packets that might have been knocks")
    ignored = [knocker.address for knocker in snapshot.knockers if knocker.ignored_seconds > 0]
    if ignored:
        shown = ", ".join(ignored[:5]) + (" …" if len(ignored) > 5 else "")
        yield warning(
            f"daemon: {snapshot.knockers_ignored} knockers are ignored for a wrong knock now ({shown}): they wait, or "
            "`port-knocking-doors forget ADDRESS`"
        )
