"""The whole examination: everything that can keep a knock from opening a door, one check after the other.

No check changes anything. No finding shows a port of a sequence.
"""

import sys
from collections.abc import Callable, Iterator

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control import client
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.daemon import about_daemon, no_daemon
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.doctor.firewall import about_firewalld
from port_knocking_doors.doctor.guarded import about_redirections, about_services
from port_knocking_doors.doctor.host import about_capability, about_ephemeral_ports, about_knock_ports, about_links
from port_knocking_doors.doctor.listen import listened
from port_knocking_doors.doctor.packets import about_packets
from port_knocking_doors.doctor.report import print_report
from port_knocking_doors.errors import DoorsError, NoDaemonError
from port_knocking_doors.system.clock import run
from port_knocking_doors.system.terminal import show


def examine(load: Callable[[], Loaded], priority: int | None, listen: float | None) -> int:
    """Print every finding, then each knock for `listen` seconds; returns the exit status, 1 if there is a problem."""
    problems = print_report(_findings(load, priority), sys.stdout)
    if listen is not None:
        mark = priority if priority is not None else load().settings.rule_priority
        for line in listened(mark, listen):
            show(line, flush=True)
    return 1 if problems else 0


def _findings(load: Callable[[], Loaded], priority: int | None) -> Iterator[Finding]:
    try:
        loaded = load()
    except DoorsError as error:
        yield problem(f"configuration: {error}")
        yield warning("nothing else was checked: correct the configuration, then run doctor again")
        return
    settings = loaded.settings
    mark = priority if priority is not None else settings.rule_priority
    yield ok(f"configuration: {loaded.path or 'no file found, built-in defaults'}")
    yield from (warning(f"configuration: {text}") for text in loaded.warnings)
    snapshot: Snapshot | None = None
    try:
        snapshot = client.snapshot(mark)
    except NoDaemonError as error:
        # Without permission to ask, it is not known whether a daemon runs.
        yield warning(f"daemon: {error}") if error.forbidden else no_daemon(mark)
    except DoorsError as error:
        yield problem(f"daemon: {error}")
    else:
        yield from about_daemon(snapshot, loaded)
    answers = run(about_firewalld(settings, mark, snapshot))
    yield from answers.findings
    tested = about_packets(settings, answers.expected, has_daemon=snapshot is not None)
    yield from tested.findings
    yield from about_redirections(settings, tested.redirected)
    yield from about_services(settings)
    if snapshot is None or not snapshot.listeners:
        yield from about_knock_ports(settings)
    yield from about_ephemeral_ports(settings)
    yield from about_links(settings)
    yield from about_capability(settings, snapshot)
