"""Why nothing happens when somebody knocks: everything that can stand in the way, looked at one after the other.

Nothing is changed by looking. Each finding is one line that says what to do next; ports of a sequence are never in it.
"""

from collections.abc import Callable, Iterator

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control import client
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor.daemon import about_daemon
from port_knocking_doors.doctor.finding import Finding, Grade, ok, problem, warning
from port_knocking_doors.doctor.firewall import about_firewalld
from port_knocking_doors.doctor.guarded import about_redirections, about_services
from port_knocking_doors.doctor.host import about_capability, about_knock_ports, about_links
from port_knocking_doors.doctor.listen import listened
from port_knocking_doors.errors import DoorsError, NoDaemonError
from port_knocking_doors.system.clock import run


def examine(load: Callable[[], Loaded], priority: int | None, listen: float | None) -> int:
    """Print every finding, then listen for so many seconds; the exit status: 1 where there is a problem."""
    problems = 0
    for finding in _findings(load, priority):
        print(finding, flush=True)
        problems += finding.grade is Grade.PROBLEM
    if listen is not None:
        mark = priority if priority is not None else load().settings.rule_priority
        for line in listened(mark, listen):
            print(line, flush=True)
    return 1 if problems else 0


def _findings(load: Callable[[], Loaded], priority: int | None) -> Iterator[Finding]:
    try:
        loaded = load()
    except DoorsError as error:
        yield problem(f"configuration: {error}")
        yield warning("nothing else was looked at: set the configuration right, then ask again")
        return
    settings = loaded.settings
    mark = priority if priority is not None else settings.rule_priority
    yield ok(f"configuration: {loaded.path or 'none found, built-in defaults'}")
    yield from (warning(f"configuration: {text}") for text in loaded.warnings)
    snapshot: Snapshot | None = None
    try:
        snapshot = client.snapshot(mark)
    except NoDaemonError as error:
        # Who may not ask cannot know whether it runs.
        yield (warning if error.forbidden else problem)(f"daemon: {error}")
    except DoorsError as error:
        yield problem(f"daemon: {error}")
    else:
        yield from about_daemon(snapshot, loaded)
    yield from run(about_firewalld(settings, mark, snapshot))
    yield from about_redirections(settings)
    yield from about_services(settings)
    if snapshot is None:
        yield from about_knock_ports(settings)
    yield from about_links(settings)
    yield from about_capability(settings, snapshot)
