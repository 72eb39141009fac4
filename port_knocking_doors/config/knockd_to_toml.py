"""knockd's doors as `[[sequence]]` tables of the project's own file, as similar as possible, with notes on differences.

A command that opens ports to the knocker in the firewall, and the one that undoes it, become ports that a door opens.
"""

import itertools
import re
import shlex
from collections import deque
from dataclasses import dataclass, replace

from port_knocking_doors.config import native, readers, render
from port_knocking_doors.config.describe import flags_in_words
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import ALL_FLAGS, Access, CommandOpening, Flags, Port, Protocol, Sequence, Step

_HEAD = """\
# Sequences for the project's own file, made from knockd's. They show the steps: keep them at mode 0600.
# Native sequences treat wrong knocks differently: after a wrong knock the knocker starts again from the first step, and
# is ignored for a while. A packet to a trap is a wrong knock, too; knockd has no traps.
"""
_TRAPS = 512
"""The default of a `[[sequence]]`."""
_ADDRESS = "%IP%"
_NO_LETTERS_AHEAD = re.compile(r"^[\W\d_]+")


def as_toml(sequences: tuple[Sequence, ...]) -> str:
    """TOML text with a table for each sequence of knockd's dialect, commented out if our file cannot have it."""
    made: list[Sequence] = []
    names: set[str] = set()
    parts = [_HEAD]
    for interface in dict.fromkeys(name for sequence in sequences for name in sequence.scope.interfaces):
        parts[0] += (
            f"# knockd captures on {interface} only: for the same, start the daemon with --interface {interface}.\n"
        )
    for sequence in sequences:
        draft = _draft(sequence, names)
        names.add(draft.sequence.name)
        try:
            _check(draft, made)
            made.append(draft.sequence)
        except ConfigError as wrong:
            draft.notes.append(f"Commented out, because this file cannot have it: {wrong.problem}.")
            draft.works = False
        table = render.table(draft.sequence) if draft.sequence.steps else ""
        lines = [f"# {note}" for note in draft.notes]
        lines += table.split("\n") if draft.works else [f"#{line}" for line in table.split("\n") if line]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


@dataclass
class _Draft:
    """A native sequence in the making, and the notes about it."""

    sequence: Sequence
    notes: list[str]
    works: bool = True


def _draft(sequence: Sequence, taken: set[str]) -> _Draft:
    name = _name(sequence.name, taken)
    notes = [f"[{sequence.name}]"]
    steps = tuple(_step(step) for step in sequence.steps)
    tcp = [step for step in sequence.steps if step.protocol is Protocol.TCP]
    if tcp and tcp[0].mask != ALL_FLAGS:
        notes.append(_about_flags(tcp[0], _step(tcp[0])))
    if sequence.scope.target is not None:
        notes.append(
            f"knockd captures packets to {sequence.scope.target} only; here, packets to any address of this host count."
        )
    draft = Sequence(name=name, steps=steps, timeout=sequence.timeout, traps=_TRAPS)
    try:
        native.check_traps_fit(draft)
    except ConfigError:
        draft = replace(draft, traps=0)
        notes.append("The ports are neighbours: no trap fits between them, and a port scan may open this door.")
    if sequence.access.command is not None:
        access = _access(name, sequence.access.command, notes)
        draft = replace(draft, access=access)
    return _Draft(draft, notes)


def _check(draft: _Draft, earlier: list[Sequence]) -> None:
    """Check the draft as the reader of our own file does."""
    sequence = draft.sequence
    if not sequence.steps:
        raise ConfigError("it has one-time sequences; import knockd's file for them")
    readers.sequence_name(sequence.name)
    readers.knock_steps([readers.knock_step.spell(step) for step in sequence.steps])
    if command := sequence.access.command:
        for line in (command.start, command.stop or "none"):
            readers.shell_command(line)
    native.check_sequence(sequence, earlier, lambda *_: "")


def _name(name: str, taken: set[str]) -> str:
    """A name that is valid in our own file: the same one if possible."""
    longest = readers.SEQUENCE_NAME_MAX
    try:
        word = readers.sequence_name(name)
    except ConfigError:
        word = _NO_LETTERS_AHEAD.sub("", re.sub(r"[^\w.-]+", "_", name)).rstrip("_")[:longest]
        word = word if word not in ("", readers.RESERVED_NAME) else f"{word or 'a'}-door"
    numbers = itertools.count(2)
    unique = word
    while unique in taken:
        number = f"-{next(numbers)}"
        unique = word[: longest - len(number)] + number
    return str(unique)


def _step(step: Step) -> Step:
    """The most similar step of which every flag counts."""
    if step.protocol is Protocol.UDP or step.mask == ALL_FLAGS:
        return step
    flags = step.flags & step.mask
    if not flags and not step.mask & Flags.SYN:
        flags = Flags.SYN
    return Step(step.protocol, step.port, int(flags))


def _about_flags(step: Step, native_step: Step) -> str:
    theirs = flags_in_words(step.flags, step.mask)
    ours = flags_in_words(native_step.flags, native_step.mask)
    free = ", whatever else is set" if step.mask else ""
    return f"knockd takes TCP packets {theirs}{free}; here they are {ours} and nothing else."


# Commands


@dataclass(frozen=True)
class _Passage:
    """The ports that a command opens or closes in the firewall."""

    opens: bool
    ports: tuple[Port, ...]
    rest: tuple[str, ...]
    """The words that the command shares with the one that undoes it."""
    seconds: float | None = None
    """The time after which firewalld itself closes the ports."""


def _access(name: str, command: CommandOpening, notes: list[str]) -> Access:
    """The access with the ports that the command opens, or with the command where that does something else."""
    passage = _passage(command)
    if passage is not None:
        ports, seconds = passage
        if not command.start6:
            notes.append("The command is for IPv4 addresses only; here the door opens for IPv6 addresses, too.")
        notes.append(f"Instead of: {command.start}")
        return Access.of(name, ports, seconds)
    apart = _apart(command)
    if apart is None:
        notes.append("The commands for IPv6 are missing: write a script that distinguishes the addresses.")
        apart = CommandOpening(command.start, command.stop, command.delay)
    elif command.start6 is not None or command.stop6 is not None:
        notes.append("One command for both address families: an IPv6 address has a colon.")
    half = None if command.stop else _half(command.start)
    if half is not None and half.opens:
        open_key = ", ".join(str(port.number) if port.protocol is Protocol.TCP else f'"{port}"' for port in half.ports)
        notes.append("This opens the port permanently. For a door that closes by itself, write instead of the command:")
        notes.append(f"open = [{open_key}]")
    run = apart if apart.stop else CommandOpening(apart.start)
    return Access.of(name, command=run)


def _passage(command: CommandOpening) -> tuple[tuple[Port, ...], float] | None:
    """The ports and seconds, if the commands do nothing but open ports, and the same for both address families."""
    ways = [(command.start, command.stop)]
    if command.start6:
        ways.append((command.start6, command.stop if command.stop6 is None else command.stop6))
    elif command.start6 is None and command.stop6 not in (None, command.stop):
        return None
    found = {_opened(start, stop, command.delay) for start, stop in ways}
    (one, *others) = found
    return one if not others and one is not None and readers.seconds.low <= one[1] <= readers.seconds.high else None


def _opened(start: str, stop: str, delay: float) -> tuple[tuple[Port, ...], float] | None:
    opening = _half(start)
    if opening is None or not opening.opens:
        return None
    if not stop:
        return None if opening.seconds is None else (opening.ports, opening.seconds)
    closing = _half(stop)
    if closing is None or closing.opens or (closing.ports, closing.rest) != (opening.ports, opening.rest):
        return None
    return opening.ports, delay if opening.seconds is None else min(delay, opening.seconds)


def _half(line: str) -> _Passage | None:
    """The effect of one command on the firewall; None if it has another effect or is not understood."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if not words or _ADDRESS not in line:
        return None
    name = words[0].rpartition("/")[2]
    if name in ("iptables", "ip6tables"):
        return _iptables(name, words[1:])
    return _firewall_cmd(words[1:]) if name == "firewall-cmd" else None


_HARMLESS = frozenset({("-m", "tcp"), ("-m", "udp"), ("-m", "state"), ("-m", "conntrack"), ("-m", "multiport")})
_NEW = {"--state": ("NEW",), "--ctstate": ("NEW",)}


def _iptables(name: str, words: list[str]) -> _Passage | None:
    """`-A INPUT -s %IP% -p tcp --dport N -j ACCEPT`, with the usual additions; any other word may be a condition."""
    action = source = protocol = target = ""
    numbers: list[str] = []
    rest = [name]
    left = deque(words)
    while left:
        word = left.popleft()
        value = left.popleft() if left and word not in ("--syn", "-w", "--wait") else ""
        if word in ("-A", "-I", "-D", "--append", "--insert", "--delete") and value == "INPUT" and not action:
            action = word.lstrip("-")[0].upper()
            if word in ("-I", "--insert") and left and left[0].isdigit():
                left.popleft()  # where in the chain
        elif word in ("-s", "--source", "--src") and value in (_ADDRESS, f"{_ADDRESS}/32", f"{_ADDRESS}/128"):
            source = value
        elif word in ("-p", "--protocol") and value in ("tcp", "udp"):
            protocol = value
        elif word in ("--dport", "--destination-port", "--dports", "--destination-ports") and not numbers:
            numbers = value.split(",")
        elif word in ("-j", "--jump") and value == "ACCEPT":
            target = value
        elif word in ("--syn", "-w", "--wait") or (word, value) in _HARMLESS or value in _NEW.get(word, ()):
            rest += [word, value] if word not in ("-w", "--wait") else []
        elif (word, value) != ("-t", "filter"):
            return None
    if not (action and source and protocol and target and numbers):
        return None
    ports = _ports([f"{number}/{protocol}" for number in numbers])
    return None if ports is None else _Passage(action in "AI", ports, tuple(rest))


_RICH_RULE = re.compile(
    r'\s*rule(?:\s+priority="?-?\d+"?)?(?:\s+family="?ipv[46]"?)?\s+source\s+address="?%IP%(?:/32|/128)?"?'
    r'\s+port\s+port="?(\d+)"?\s+protocol="?(tcp|udp)"?\s+accept\s*'
)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def _firewall_cmd(words: list[str]) -> _Passage | None:
    """`--add-rich-rule='rule family="ipv4" source address="%IP%" port port="N" protocol="tcp" accept'`."""
    found: _Passage | None = None
    rest, seconds = ["firewall-cmd"], None
    options = iter(words)
    for word in options:
        name, equals, value = word.partition("=")
        if name in ("--add-rich-rule", "--remove-rich-rule", "--zone", "--timeout") and not equals:
            value = next(options, "")
        rule = _RICH_RULE.fullmatch(value)
        length = re.fullmatch(r"(\d{1,9})([smh]?)", value)
        if name in ("--add-rich-rule", "--remove-rich-rule") and rule and found is None:
            ports = _ports([f"{rule[1]}/{rule[2]}"])
            if ports is None:
                return None
            rest.append(value)
            found = _Passage(name == "--add-rich-rule", ports, ())
        elif name == "--zone" and value:
            rest.append(f"--zone={value}")
        elif name == "--timeout" and length:
            seconds = float(int(length[1]) * _UNITS[length[2]])
        elif word not in ("-q", "--quiet"):
            return None
    return None if found is None else replace(found, rest=tuple(rest), seconds=seconds or None)


def _ports(texts: list[str]) -> tuple[Port, ...] | None:
    try:
        return readers.guarded_ports.from_text(",".join(texts))
    except ConfigError:  # a service's name, or a range
        return None


def _apart(command: CommandOpening) -> CommandOpening | None:
    """Two commands with the effect of the four; None if a shell cannot distinguish the addresses in them."""
    if command.start6 is None and command.stop6 is None:
        return CommandOpening(command.start, command.stop, command.delay)
    start6 = command.start if command.start6 is None else command.start6
    stop6 = command.stop if command.stop6 is None else command.stop6
    if any("#" in line or line.endswith(";") for line in (command.start, command.stop, start6, stop6)):
        return None  # text after them would be a comment, or a syntax error
    return CommandOpening(_case(start6, command.start), _case(stop6, command.stop), command.delay)


def _case(six: str, four: str) -> str:
    if six == four:
        return four
    return f"case {_ADDRESS} in *:*) {six or ':'};; *) {four or ':'};; esac"
