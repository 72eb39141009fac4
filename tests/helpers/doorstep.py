"""A door from both sides: the guarded service, its clients, and the rules in the real firewalld."""

import re
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from port_knocking_doors.model import RULE_PRIORITY
from port_knocking_doors.sandbox import ClientHost, ConnectionAttempt, Process, Sandbox
from tests.helpers.running import GUARDED, SEQUENCE
from tests.helpers.waiting import wait_until

NOTICE = 5.0
"""Seconds within which something that takes milliseconds is done on a busy machine."""

MARK = f'priority="{RULE_PRIORITY}"'


def server_of(host: ClientHost, address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The server's address in the family of one of the client's."""
    return host.server6 if address.version == 6 else host.server4


def state(host: ClientHost, *, ipv6: bool = False) -> str:
    """The outcome of a connection to the guarded port."""
    return host.connect(host.server6 if ipv6 else host.server4, GUARDED)


def await_open(host: ClientHost, timeout: float = NOTICE, *, ipv6: bool = False) -> float:
    """Wait until a connection succeeds; the seconds that took."""
    return wait_until(lambda: state(host, ipv6=ipv6) == "open", timeout, f"the door open for {host.name}")


def await_closed(host: ClientHost, timeout: float = NOTICE, *, ipv6: bool = False) -> float:
    """Wait until the firewall refuses a connection; the seconds that took."""
    return wait_until(lambda: state(host, ipv6=ipv6) == "prohibited", timeout, f"the door shut for {host.name}")


def marked(rules: Iterable[str]) -> list[str]:
    return sorted(rule for rule in rules if MARK in rule)


def door_rules(box: Sandbox, zone: str = "") -> list[str]:
    """The marked rules that let an address in."""
    return [rule for rule in marked(box.rules(zone)) if "source address" in rule]


def knock_port_rules(box: Sandbox, zone: str = "") -> list[str]:
    """The marked rules that let knocks in."""
    return [rule for rule in marked(box.rules(zone)) if "source address" not in rule]


def a_door_rule(address: object, port: int = GUARDED) -> str:
    """The rule of a door for this address."""
    family = "ipv6" if ":" in str(address) else "ipv4"
    return f'rule {MARK} family="{family}" source address="{address}" port port="{port}" protocol="tcp" accept'


def nothing_marked(box: Sandbox) -> bool:
    """Whether no zone has any rule of a daemon's, neither now nor in its permanent configuration."""
    return MARK not in box.firewall_cmd("--list-all-zones") + box.firewall_cmd("--permanent", "--list-all-zones")


def said(process: Process, pattern: str) -> list[str]:
    """The lines of its log so far that match the regular expression."""
    return [line for line in process.stderr.lines if re.search(pattern, line)]


def past(moment: float) -> None:
    """Wait until the monotonic clock is past a moment, for deadlines that no test can see."""
    wait_until(lambda: time.monotonic() > moment, moment - time.monotonic() + 1, "time to go by")


def one_more_try() -> None:
    """Wait until every `watch_connect` has tried once more: it may not have seen yet what another connection saw."""
    past(time.monotonic() + 0.1)


def gaps(attempts: Iterable[ConnectionAttempt]) -> list[tuple[float, float]]:
    """When a connection did not succeed between two that did: from the first failure to the next success."""
    found: list[tuple[float, float]] = []
    opened, failed = False, 0.0
    for attempt in attempts:
        if attempt.outcome != "open":
            failed = failed or attempt.time
        else:
            if opened and failed:
                found.append((failed, attempt.time))
            opened, failed = True, 0.0
    return found


def closed_at(attempts: Iterable[ConnectionAttempt]) -> float:
    """The time of the first connection that failed after the last one that succeeded."""
    tries = list(attempts)
    last = max(number for number, attempt in enumerate(tries) if attempt.outcome == "open")
    assert len(tries) > last + 1, "it never closed"
    return tries[last + 1].time


def children(box: Sandbox, process: Process) -> list[int]:
    """The processes that it started, by the numbers that they have on the server."""
    answer = box.server.run(["ps", "-o", "pid=", "--ppid", str(process.inner_pid)], check=False)
    return [int(pid) for pid in answer.stdout.split()]


def gone(box: Sandbox, pids: Iterable[int]) -> Callable[[], bool]:
    """Whether none of these processes is left on the server."""
    question = ["sh", "-c", "kill -0 $0 2>/dev/null"]
    return lambda: all(box.server.run([*question, str(pid)], check=False).returncode != 0 for pid in pids)


def kill_with_crash_guard(box: Sandbox, daemon: Process) -> None:
    """Send SIGKILL to a daemon and to everything that would close its doors."""
    guards = children(box, daemon)
    assert guards
    box.server.run(["kill", "-STOP", str(daemon.inner_pid)])  # it would start another guard
    box.server.run(["kill", "-KILL", *map(str, guards), str(daemon.inner_pid)])
    daemon.wait(NOTICE)


KNOCKER = f"""
import errno, socket, sys, time
what, server, family = sys.argv[1], sys.argv[2], socket.AF_INET
for source in sys.stdin.read().split():
    if what == "knock":
        with socket.socket(family, socket.SOCK_DGRAM) as knocker:
            knocker.bind((source, 0))
            for port in {SEQUENCE!r}:
                knocker.sendto(b"knock\\n", (server, port))
    else:
        with socket.socket(family, socket.SOCK_STREAM) as visitor:
            visitor.bind((source, 0))
            visitor.settimeout(3)  # a server that is busy drops a first SYN
            print(errno.errorcode.get(visitor.connect_ex((server, {GUARDED})), "open"))
"""
"""Knocks, or connects, from each of the addresses on standard input."""
