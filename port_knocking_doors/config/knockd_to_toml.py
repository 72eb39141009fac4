"""knockd's doors as `[[sequence]]` tables of the project's own file, as similar as possible, with notes on differences.

A command that opens ports to the knocker in the firewall, and the one that undoes it, become ports that a door opens;
a second sequence that only closes them becomes its `close_steps`.
"""

import itertools
import re
from dataclasses import dataclass, replace

from port_knocking_doors.config import native, readers, render
from port_knocking_doors.config.describe import flags_in_words
from port_knocking_doors.config.firewall_command import Reading
from port_knocking_doors.config.firewall_effect import Effect
from port_knocking_doors.config.knockd_doors import KnockdDoor, closer_of, door_of, leaves_open, notes_on, stem
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import ALL_FLAGS, Access, CommandOpening, Flags, Protocol, Sequence, Step

_HEAD = """\
# Sequences for the project's own file, made from knockd's. They show the steps: keep them at mode 0600.
# Native sequences treat wrong knocks differently: a wrong knock that is the first step begins the sequence again, and a
# knocker that is wrong again and again is ignored for a while. A packet to a trap is a wrong knock, too; knockd has no
# traps.
"""
_TRAPS = 512
"""The default of a `[[sequence]]`."""
_CLOSED_BY = "[{}] closes the door ahead of its time: it is in close_steps."
_CLOSES = "In close_steps of {}."
_NO_LETTERS_AHEAD = re.compile(r"^[\W\d_]+")


def as_toml(sequences: tuple[Sequence, ...], services: ServiceNames | None = None, source: str = "") -> str:
    """TOML text with a table for each sequence of knockd's dialect, commented out if our file cannot have it.

    `services`: where ports of services are looked up; None for the well-known ones. `source`: what names the interface,
    if that is not the file of the sequences.
    """
    names: set[str] = set()
    parts = [_HEAD]
    interfaces = dict.fromkeys(name for sequence in sequences for name in sequence.scope.interfaces)
    for interface in interfaces:
        by = f" ({source})" if source else ""
        parts[0] += (
            f"# knockd captures on {interface} only{by}: for the same, start the daemon with --interface {interface}.\n"
        )
    if sequences and not interfaces:
        parts[0] += "# No single interface is named: start the daemon with --interface, or it captures on every one.\n"
    drafts = []
    for sequence in sequences:
        drafts.append(_draft(sequence, names, services or ServiceNames()))
        names.add(drafts[-1].sequence.name)
    _keep_commands(drafts, services or ServiceNames())
    _pair(drafts)
    made: list[Sequence] = []
    for draft in drafts:
        if not draft.is_closer_of_doors:
            _try(draft, made)
    return "\n".join([*parts, *map(_text, drafts)])


def _text(draft: "_Draft") -> str:
    lines = [f"# {' '.join(note.split())}" for note in draft.notes]
    if draft.is_closer_of_doors:
        return "\n".join(lines) + "\n"
    table = render.table(draft.sequence).split("\n") if draft.sequence.steps else []
    lines += table if draft.works else [f"#{line}" for line in table if line]
    return "\n".join(lines) + "\n"


@dataclass
class _Draft:
    """A native sequence in the making, and the notes about it."""

    sequence: Sequence
    notes: list[str]
    theirs: str
    """knockd's name of it."""
    works: bool = True
    door: KnockdDoor | None = None
    """What it opens in the firewall, if that is all known."""
    command: CommandOpening | None = None
    """What knockd runs."""
    closer: Reading | None = None
    """What it closes in the firewall, if it does nothing else there."""
    closed_by: "_Draft | None" = None
    """The sequence that became its close_steps."""
    is_closer_of_doors: bool = False
    """Whether it closes nothing but what doors of this file open, so that it is no sequence any more."""

    @property
    def opened(self) -> list[Effect]:
        """What its command opens in the firewall, if it is a door."""
        return [effect for reading in self.door.readings for effect in reading.opened] if self.door else []


def _draft(sequence: Sequence, taken: set[str], services: ServiceNames) -> _Draft:
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
    made = Sequence(name=name, steps=steps, timeout=sequence.timeout, traps=_TRAPS)
    try:
        native.check_traps_fit(made)
    except ConfigError:
        made = replace(made, traps=0)
        notes.append("The ports are neighbours: no trap fits between them, and a port scan may open this door.")
    draft = _Draft(made, notes, sequence.name)
    draft.command = sequence.access.command
    if draft.command is not None:
        _open(draft, draft.command, services)
    return draft


def _open(draft: _Draft, command: CommandOpening, services: ServiceNames) -> None:
    """Give the draft the access with the ports that the command opens, or with the command."""
    draft.door = door = door_of(command, services)
    if door is not None:
        draft.notes += door.notes
        access = Access.of(draft.sequence.name, door.ports, door.seconds, door.command)
        draft.sequence = replace(draft.sequence, access=access)
    else:
        draft.closer = closer_of(command, services)
        draft.notes += notes_on(command, services)
        _run_commands(draft, command)


def _run_commands(draft: _Draft, command: CommandOpening) -> None:
    apart = _apart(command)
    if apart is None:
        draft.notes.append("The commands for IPv6 are missing: write a script that distinguishes the addresses.")
        apart = CommandOpening(command.start, command.stop, command.delay)
    elif command.start6 is not None or command.stop6 is not None:
        draft.notes.append("One command for both address families: an IPv6 address has a colon.")
    access = Access.of(draft.sequence.name, command=apart if apart.stop else CommandOpening(apart.start))
    draft.sequence = replace(draft.sequence, access=access)


# Pairs of sequences


def _keep_commands(drafts: list[_Draft], services: ServiceNames) -> None:
    """Let doors be commands again where their closer also closes what a command opens: it is needed for that."""
    for draft in drafts:
        closer = draft.closer
        if closer is None:
            continue
        others = [(one.theirs, one.command) for one in drafts if one.door is None and one.closer is None]
        other = next((name for name, command in others if command and leaves_open(command, closer, services)), None)
        doors = [door for door in drafts if any(one.undoes(it) for one in closer.closed for it in door.opened)]
        for door in doors if other is not None else ():
            assert door.door is not None
            assert door.command is not None
            door.notes = [note for note in door.notes if note not in door.door.notes]
            door.notes.append(f"No door: [{draft.theirs}] also closes what the command of [{other}] opens.")
            door.door = None
            _run_commands(door, door.command)


def _pair(drafts: list[_Draft]) -> None:
    """Let sequences that close what doors opened become the `close_steps` of these doors."""
    doors = [draft for draft in drafts if draft.door is not None and draft.sequence.steps]
    for draft in drafts:
        closer = draft.closer
        if closer is None or not draft.sequence.steps:
            continue
        opened = [effect for door in doors for effect in door.opened]
        if not all(any(one.undoes(effect) for effect in opened) for one in closer.closed):
            continue  # its command still closes something else
        undone = [door for door in doors if all(any(one.undoes(it) for one in closer.closed) for it in door.opened)]
        free = [door for door in undone if not door.sequence.close_steps]
        draft.is_closer_of_doors = True
        if not free:
            draft.notes.append(
                "Left out: it closes what other sequences of this file open as doors, and these close by themselves. "
                "No rule of its command exists any more, and a door has one close_steps."
            )
            continue
        draft.notes = [draft.notes[0]]
        for door in _closed_by(draft, free):
            door.sequence = replace(door.sequence, close_steps=draft.sequence.steps)
            door.closed_by = draft
            door.notes.append(_CLOSED_BY.format(draft.theirs))
            draft.notes.append(_CLOSES.format(door.sequence.name))
            if draft.sequence.timeout != door.sequence.timeout:
                door.notes.append(f"Its knocks had {draft.sequence.timeout:.10g} s; here both have the same timeout.")
            if closer.rest:
                _run_at_the_end(door, closer.rest)


def _closed_by(closer: _Draft, doors: list[_Draft]) -> list[_Draft]:
    """The doors that a closer belongs to: of several with the same ports, those of its name, else all of them."""
    found = []
    for ports in dict.fromkeys(door.sequence.access.ports for door in doors):
        same = [door for door in doors if door.sequence.access.ports == ports]
        found += [door for door in same if stem(door.theirs) == stem(closer.theirs)] or same
    return found


def _run_at_the_end(door: _Draft, line: str) -> None:
    """Let the command run when the door closes, if nothing else does."""
    access = door.sequence.access
    command = access.command or CommandOpening("true")
    if command.stop:
        door.notes.append(f"Left out: {line}. A door has one stop_command.")
        return
    command = replace(command, stop=line, delay=access.duration)
    access = Access.of(access.name, access.ports, access.duration, command)
    door.sequence = replace(door.sequence, access=access)


def _try(draft: _Draft, earlier: list[Sequence]) -> None:
    try:
        _check(draft, earlier)
    except ConfigError as wrong:
        draft.notes.append(f"Commented out, because this file cannot have it: {wrong.problem}.")
        draft.works = False


def _check(draft: _Draft, earlier: list[Sequence]) -> None:
    """Check the draft as the reader of our own file does, and add it to the earlier ones."""
    sequence = draft.sequence
    if not sequence.steps:
        raise ConfigError("it has one-time sequences; import knockd's file for them")
    readers.sequence_name(sequence.name)
    readers.knock_steps([readers.knock_step.spell(step) for step in sequence.steps])
    if command := sequence.access.command:
        for line in (command.start, command.stop or "none"):
            readers.shell_command(line)
    plain = replace(sequence, close_steps=())
    native.check_sequence(plain, earlier, lambda *_: "")
    try:
        if sequence.close_steps:
            readers.knock_steps([readers.knock_step.spell(step) for step in sequence.close_steps])
            native.check_sequence(sequence, earlier, lambda *_: "")
    except ConfigError as wrong:
        _without_close_steps(draft, wrong.problem)
    earlier.append(draft.sequence)


def _without_close_steps(draft: _Draft, problem: str) -> None:
    closer, name = draft.closed_by, draft.sequence.name
    draft.sequence = replace(draft.sequence, close_steps=())
    draft.notes.append(f"Without close_steps: {problem}.")
    if closer is not None:
        draft.notes.remove(_CLOSED_BY.format(closer.theirs))
        left_out = f"Left out: the door of {name} cannot have these close_steps, and closes after its duration."
        closer.notes = [left_out if note == _CLOSES.format(name) else note for note in closer.notes]


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
    return f"case %IP% in *:*) {six or ':'};; *) {four or ':'};; esac"
