"""The demo: the whole story of a door, shown while it happens on throw-away hosts.

`run` is the table of contents, with one function for each chapter. A claim is printed only after it was observed; if
the observation differs, the story ends with a `DoorsError` that says how.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from port_knocking_doors.config import files, native
from port_knocking_doors.model import DEFAULT_SEQUENCE, PAYLOAD, Port, Protocol, Settings
from port_knocking_doors.sandbox import ClientHost, ConnectionAttempt, ConnectionOutcome, Host, Process, Sandbox
from port_knocking_doors.sandbox.narrator import PATIENCE, DaemonLog, Narrator, StoryError
from port_knocking_doors.system.clock import now

GUARDED = Port(22)
DOOR_SECONDS = 4
HOME = Path("/run/admin")
"""The administrator's home, in the sandbox's own /run: the demo leaves no file on this machine, however it ends."""
CONF = HOME / files.HOME_NAME

_PROGRAM = "port-knocking-doors"
_PACKAGE = "port_knocking_doors"
_FOUND_IN = str(Path(__file__).resolve().parents[2])
"""The folder from which Python imports the program, installed or not."""

_MOMENT = 0.5
"""Seconds within which a door that must stay closed would have opened."""

_HELLO = """\
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as server:
    server.sendall(b"hello\\n")
    print(server.makefile().readline(), end="")
"""
_WORDS: dict[ConnectionOutcome, str] = {
    "open": "open",
    "prohibited": "refused by the firewall",
    "refused": "let through by the firewall, with no service behind it",
    "timeout": "without an answer",
    "unreachable": "without a route",
}


def run(pause: float) -> None:
    """Show the whole story, with `pause` seconds between knocks. Raises `DoorsError` if something else happens."""
    story = Narrator(sys.stdout)
    story.say(
        "Port knocking, live: real packets, a real firewalld, throw-away hosts. "
        "Nothing on this machine is changed; Ctrl-C ends it."
    )
    with ExitStack() as stack:
        box = _hosts(story, stack)
        _port_is_closed(story, box)
        settings = _configuration(story, box)
        before = box.nft()
        daemon, log = _daemon(story, box)
        with _refused_throughout(story, box.hosts["stranger"]):
            _stranger_guesses(story, box, settings, log)
            last_knock = _knocks(story, box, settings, log, pause)
            _door_is_open(story, box)
            _door_closes(story, box, log, last_knock)
            _sniffed_knocks(story, box, settings, log)
        _daemon_ends(story, box, settings, daemon, log)
        _nothing_is_left(story, box, before)
    story.summary()


# Chapters. -----------------------------------------------------------------------------------------------------------


def _hosts(story: Narrator, stack: ExitStack) -> Sandbox:
    story.chapter("Three hosts appear: a server, a client, a stranger")
    story.say("firewalld starts on the server: some seconds on a slow machine.")
    with story.step("The hosts are up, and firewalld answers.", summary="hosts and firewalld started"):
        box = stack.enter_context(Sandbox(clients=("client", "stranger"), say=story.say))
        stack.enter_context(box.server.listen(GUARDED.number, GUARDED.protocol))
        box.server.run(["mkdir", "--mode=700", str(HOME)])
    return box


def _port_is_closed(story: Narrator, box: Sandbox) -> None:
    story.chapter(f"Port {GUARDED.number} is closed")
    with story.step("With firewalld's defaults, ssh is open to every host."):
        _expect_connection(box.hosts["client"], "open")
    _type(story, box.server, "firewall-cmd --remove-service=ssh")
    for host in box.hosts.values():
        with story.step(f"The {host.name} is refused by the firewall."):
            _expect_connection(host, "prohibited")


def _configuration(story: Narrator, box: Sandbox) -> Settings:
    story.chapter("The administrator writes a configuration")
    _type(story, box.server, f"{_PROGRAM} --set-configuration-file-in-home")
    _type(story, box.server, f"sed -i '$a max_opened_door_duration = {DOOR_SECONDS}' {CONF.name}")
    low, middle, high, *_ = sorted(files.fresh_sequence())
    steps = f'"udp:{middle}", "tcp:{high}", "tcp:{low}"'
    opens = f"open = [{GUARDED.number}]\\nduration = {DOOR_SECONDS}"
    table = f'[[sequence]]\\nname = "closed-ports"\\nsteps = [{steps}]\\n{opens}'
    _type(story, box.server, f"sed -i '$a {table}' {CONF.name}")
    with story.step(f"Two fresh sequences; doors open port {GUARDED.number} for {DOOR_SECONDS} s."):
        settings = native.parse(box.server.run(["cat", str(CONF)]).stdout, str(CONF))
        _expect(settings.opening_sequence != DEFAULT_SEQUENCE, "the sequence is the documentation's example")
        _expect(settings.guarded_ports == (GUARDED,), "the configuration guards another port")
        _expect(settings.door_duration == DOOR_SECONDS, f"doors are to close after {settings.door_duration:g} s")
    story.say("A sequence is a secret; this one ends with its host, so it may be shown.")
    return settings


def _daemon(story: Narrator, box: Sandbox) -> tuple[Process, DaemonLog]:
    story.chapter("The daemon starts")
    with story.step("It listens, and firewalld opens its knock ports.", summary="daemon started and ready"):
        daemon = _begin(story, box.server, f"{_PROGRAM} --conf ~/{CONF.name}")
        log = DaemonLog(story, daemon.stderr)
        log.until(" ready: ")
    with story.step("The client has not knocked, and is still refused."):
        _expect_connection(box.hosts["client"], "prohibited")
    return daemon, log


def _stranger_guesses(story: Narrator, box: Sandbox, settings: Settings, log: DaemonLog) -> None:
    stranger = box.hosts["stranger"]
    first, _, third, *_ = settings.opening_sequence
    story.chapter("A stranger knocks in the wrong order")
    tries = len(settings.opening_sequence)
    with story.step(f"UDP {first}, then {third} out of turn, {tries} times: now ignored."):
        _knock(stranger, [first, third] * tries)
        log.until(f" {stranger.address4}: wrong knock, address ignored")
    with story.step("Now even the right sequence opens nothing."):
        _knock(stranger, settings.opening_sequence)
        time.sleep(_MOMENT)
        _expect_connection(stranger, "prohibited")


def _knocks(story: Narrator, box: Sandbox, settings: Settings, log: DaemonLog, pause: float) -> float:
    """Returns when the last knock was sent."""
    client = box.hosts["client"]
    *knocks, last = settings.opening_sequence
    count = len(settings.opening_sequence)
    story.chapter("The client knocks")
    for number, port in enumerate(knocks, 1):
        with story.step(f"Knock {number} of {count}, UDP {port}: still refused."):
            _knock(client, [port])
            _expect_connection(client, "prohibited")
        time.sleep(pause)
    with story.step(f"Knock {count} of {count}, UDP {last}: the door opens.", summary="last knock to open door"):
        last_knock = now()
        _knock(client, [last])
        _await_connection(client, "open")
    log.until(f" {client.address4}: opened ")
    return last_knock


def _door_is_open(story: Narrator, box: Sandbox) -> None:
    client = box.hosts["client"]
    story.chapter("The door is open, for the client only")
    story.command(box.server, "nft list ruleset")
    with story.step("firewalld has a rule for the client's address."):
        story.output(f"... {_rule_for(client, box.nft())}")
    with story.step('The client connects and sends "hello"; the server echoes it.'):
        answer = client.run([sys.executable, "-I", "-c", _HELLO, str(client.server4), str(GUARDED.number)]).stdout
        _expect(answer == "hello\n", f"the server answered {answer!r}")
    with story.step("The stranger is refused."):
        _expect_connection(box.hosts["stranger"], "prohibited")


def _door_closes(story: Narrator, box: Sandbox, log: DaemonLog, last_knock: float) -> None:
    client = box.hosts["client"]
    deadline = last_knock + DOOR_SECONDS
    story.chapter("The door closes by itself")
    with client.watch_connect(client.server4, GUARDED.number, interval=0.01) as watch:
        for left in range(DOOR_SECONDS - 1, 0, -1):
            if _sleep_until(deadline - left):
                story.say(f"{left} ...")
        _sleep_until(deadline)
        claim = f"{DOOR_SECONDS} s after the last knock the client is refused again."
        with story.step(claim, summary="last knock to closed door") as step:
            step.seconds = _await_connection(client, "prohibited") - last_knock
    log.until(f" {client.address4}: closed ")
    with story.step("Until then the client got in", timed=False) as step:
        before = [attempt for attempt in watch.attempts if attempt.time < deadline]
        step.claim += f" at each try: {_all(before, 'open', client)} times."


def _sniffed_knocks(story: Narrator, box: Sandbox, settings: Settings, log: DaemonLog) -> None:
    client = box.hosts["client"]
    (sequence,) = settings.sequences
    story.chapter("Another sequence, sniffed on closed ports")
    for number, step in enumerate(sequence.steps, 1):
        closed = "still refused" if number < len(sequence.steps) else "the door opens"
        claim = (
            f"Knock {number} of {len(sequence.steps)}, {step.protocol.upper()} {step.port}, itself closed: {closed}."
        )
        with story.step(claim):
            if step.protocol is Protocol.UDP:
                _knock(client, [step.port])
            else:
                seen = client.connect(client.server4, step.port)
                _expect(seen == "prohibited", f"port {step.port} is {_WORDS[seen]}, expected {_WORDS['prohibited']}")
            if number < len(sequence.steps):
                _expect_connection(client, "prohibited")
            else:
                _await_connection(client, "open")
    log.until(f" {client.address4}: opened ")
    with story.step(f"{DOOR_SECONDS} s later the client is refused again."):
        _await_connection(client, "prohibited", within=DOOR_SECONDS + 3.0)
    log.until(f" {client.address4}: closed ")


def _daemon_ends(story: Narrator, box: Sandbox, settings: Settings, daemon: Process, log: DaemonLog) -> None:
    client = box.hosts["client"]
    story.chapter("The daemon ends while a door is open")
    with story.step("All five knocks at once: the door opens.", summary="five knocks to open door"):
        _knock(client, settings.opening_sequence)
        _await_connection(client, "open")
    log.until(f" {client.address4}: opened ")
    story.say("Sending SIGTERM to the daemon.")
    with story.step("It closes the door and ends with exit status 0.", summary="SIGTERM to all closed"):
        daemon.terminate()
        _expect_exit(daemon, 0)
        log.rest()


def _nothing_is_left(story: Narrator, box: Sandbox, before: str) -> None:
    with story.step("nftables is exactly as it was before the daemon."):
        _expect(box.nft() == before, "the daemon has ended, but nftables differs from before")
    for host in box.hosts.values():
        with story.step(f"The {host.name} is refused by the firewall."):
            _expect_connection(host, "prohibited")


@contextmanager
def _refused_throughout(story: Narrator, stranger: ClientHost) -> Iterator[None]:
    """Let the stranger try all the time."""
    with stranger.watch_connect(stranger.server4, GUARDED.number, interval=0.02, duration=600.0) as watch:
        yield
    with story.step("Throughout, the stranger was refused", timed=False) as step:
        step.claim += f" at each try: {_all(watch.attempts, 'prohibited', stranger)} times."


# Actions and observations. -------------------------------------------------------------------------------------


def _begin(story: Narrator, host: Host, line: str) -> Process:
    """Start the command that an administrator would type, and show it."""
    story.command(host, line)
    program, *arguments = shlex.split(line)
    argv = [sys.executable, "-m", _PACKAGE] if program == _PROGRAM else [program]
    return host.popen([*argv, *arguments], env={"HOME": str(HOME), "PYTHONPATH": _FOUND_IN}, cwd=HOME)


def _type(story: Narrator, host: Host, line: str) -> None:
    """Run the command to its end, and show it with its output."""
    process = _begin(story, host, line)
    _expect_exit(process, 0)
    story.output(process.stdout.text)


def _knock(host: ClientHost, ports: Sequence[int]) -> None:
    host.send([(host.server4, port, PAYLOAD) for port in ports])


def _rule_for(client: ClientHost, ruleset: str) -> str:
    parts = f"ip saddr {client.address4} ", f"{GUARDED.protocol} dport {GUARDED.number} ", "accept"
    rules = [line.strip() for line in ruleset.splitlines() if all(part in line for part in parts)]
    _expect(len(rules) == 1, f"nftables has {len(rules)} rules for the client, expected one")
    return rules[0]


def _all(attempts: Sequence[ConnectionAttempt], wanted: ConnectionOutcome, host: ClientHost) -> int:
    """The number of attempts, each of which had the wanted outcome."""
    _expect(len(attempts) > 0, f"the {host.name} had no time for one try")
    for attempt in attempts:
        _expect(attempt.outcome == wanted, _differs(host, attempt.outcome, wanted))
    return len(attempts)


def _expect_connection(host: ClientHost, wanted: ConnectionOutcome) -> None:
    seen = host.connect(host.server4, GUARDED.number)
    _expect(seen == wanted, _differs(host, seen, wanted))


def _await_connection(host: ClientHost, wanted: ConnectionOutcome, within: float = 3.0) -> float:
    """Try until the outcome is as wanted; returns the time of that."""
    deadline = now() + within
    while (seen := host.connect(host.server4, GUARDED.number)) != wanted:
        _expect(now() < deadline, f"{_differs(host, seen, wanted)} within {within:g} s")
    return now()


def _differs(host: ClientHost, seen: ConnectionOutcome, wanted: ConnectionOutcome) -> str:
    return f"port {GUARDED.number} is {_WORDS[seen]} for the {host.name}, expected {_WORDS[wanted]}"


def _expect_exit(process: Process, wanted: int) -> None:
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise StoryError(f"{process} did not end within {PATIENCE:g} s") from None
    _expect(status == wanted, f"{process}, expected {wanted}: {process.stderr.tail()}")


def _expect(truth: bool, otherwise: str) -> None:
    if not truth:
        raise StoryError(otherwise)


def _sleep_until(when: float) -> bool:
    """Sleep until then; whether that was in the future."""
    left = when - now()
    time.sleep(max(0.0, left))
    return left > 0
