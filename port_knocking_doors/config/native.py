"""The project's own configuration file: TOML text in, `Settings` out, and back again.

`KEYS` is the one declaration of what a file may hold. It validates a file, writes the one that a new installation
starts with, and explains itself as the help; none of the three knows a key that the others do not.
"""

import difflib
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import (
    ALL_FLAGS,
    Command,
    Dialect,
    Flags,
    Import,
    Port,
    Protocol,
    Sequence,
    Settings,
    Step,
)

from . import toml, values

RULES_MAX = 65536
"""How many firewall rules the doors may need at most: open doors times the ports of one."""

EXAMPLE_STEPS = (
    Step(Protocol.UDP, 1234),
    Step(Protocol.TCP, 543, Flags.SYN),
    Step(Protocol.TCP, 123, Flags.FIN | Flags.RST | Flags.PSH | Flags.ACK),
)
"""The documentation's example of a sniffed sequence, and so known to everybody."""


@dataclass(frozen=True)
class Key:
    """One key of a table: its name there, the field that it fills, who reads it, and what people should know of it."""

    name: str
    field: str
    read: values.Reader
    about: str
    required: bool = False
    needs: str = ""
    """Another key of the table, without which this one means nothing."""
    keys: tuple["Key", ...] = ()
    """Where the value is a list of tables, what each of them may hold."""


@dataclass(frozen=True)
class Explained:
    """A key for people, in the help and in the manual page."""

    line: str
    """As it may stand in a file: with its default, else with an example; or the head of its tables."""
    need: str
    about: str


@dataclass(frozen=True)
class _Entry:
    """A `[[sequence]]` as it stands in the file: a field for each key; None for what is not there."""

    name: str
    steps: tuple[Step, ...] = field(repr=False)
    timeout: float = 10.0
    traps: int = 512
    open: tuple[Port, ...] | None = None
    duration: float = 30.0
    start_command: str | None = None
    stop_command: str | None = None
    command_delay: float = 30.0

    @classmethod
    def of(cls, sequence: Sequence) -> "_Entry":
        command = sequence.command
        return cls(
            name=sequence.name,
            steps=sequence.steps,
            timeout=sequence.timeout,
            traps=sequence.traps,
            open=sequence.opens or None,
            duration=sequence.duration,
            start_command=command.start if command else None,
            stop_command=command.stop or None if command else None,
            command_delay=command.delay if command and command.stop else cls.command_delay,
        )

    def sequence(self) -> Sequence:
        command = None
        if self.start_command is not None:
            command = Command(self.start_command)
            if self.stop_command is not None:
                command = Command(self.start_command, self.stop_command, self.command_delay)
        return Sequence(
            name=self.name,
            steps=self.steps,
            opens=self.open or (),
            duration=self.duration,
            timeout=self.timeout,
            traps=self.traps,
            command=command,
        )


_SEQUENCE_KEYS = (
    Key(
        "name",
        "name",
        values.sequence_name,
        "What the log calls the sequence. No two have the same name, and none is called "
        f"{values.RESERVED_NAME}, which is the opening sequence.",
        required=True,
    ),
    Key(
        "steps",
        "steps",
        values.knock_steps,
        "The secret: one packet each, in this order. FLAGS are the letters of what is set in the packet, and nothing "
        "else may be: f FIN, s SYN, r RST, p PSH, a ACK, u URG; or alone x for all of them, n for none. Without FLAGS "
        "a bare SYN, which is what any attempt to connect begins with. Three steps or more, in no order that one would "
        "guess, on ports that nobody serves.",
        required=True,
    ),
    Key(
        "timeout",
        "timeout",
        values.seconds,
        "The longest time from the first knock to the last. Then the knocker starts anew.",
    ),
    Key(
        "traps",
        "traps",
        values.traps,
        "How many ports of each protocol are traps, chosen by the daemon where nobody serves and no step is. Who hits "
        "one between two steps has knocked wrongly: without traps, a scan of all ports may open the door.",
    ),
    Key(
        "open",
        "open",
        values.guarded_ports,
        "What a door opens, for the one address that knocked. Either this or start_command must be there, or both.",
    ),
    Key(
        "duration",
        "duration",
        values.seconds,
        "The door closes after so long. The whole sequence once more prolongs it.",
        needs="open",
    ),
    Key(
        "start_command",
        "start_command",
        values.shell_command,
        "What runs when the sequence is complete. %IP% is the knocker's address.",
    ),
    Key(
        "stop_command",
        "stop_command",
        values.shell_command,
        "What runs afterwards, to undo start_command. %IP% is the knocker's address.",
        needs="start_command",
    ),
    Key(
        "command_delay",
        "command_delay",
        values.Seconds(low=0),
        "The time from the end of start_command to stop_command.",
        needs="stop_command",
    ),
)

_IMPORT_KEYS = (
    Key("format", "dialect", values.foreign_format, "Whose file it is.", required=True),
    Key(
        "path",
        "path",
        values.file_path,
        "The file. It is read as it is, and only read; what is wrong with it is told with its own name and line.",
        required=True,
    ),
    Key(
        "traps",
        "traps",
        values.traps,
        "As in a [[sequence]], for each of the file's. The other daemons have none.",
    ),
)

KEYS = (
    Key(
        "ports_to_controls",
        "guarded_ports",
        values.guarded_ports,
        "What a door opens, for the one address that knocked. A port is TCP unless it says otherwise. The daemon "
        "only ever opens: that these ports are closed to everybody else is up to the zone, so take their services "
        "out of it.",
        required=True,
    ),
    Key(
        "opening_sequence",
        "opening_sequence",
        values.sequence,
        "The secret: UDP ports in the order of their knocks. A knock is one datagram of six bytes, the word knock "
        "and a newline. "
        "The documentation's example is known to everybody: choose your own, in no order that one would guess.",
        required=True,
    ),
    Key(
        "firewall_rules_check_periode_seconds",
        "rule_check_period",
        values.seconds,
        "How often the rules in firewalld are compared with those that ought to be there, and put right.",
    ),
    Key(
        "ignoring_period_after_knock_error",
        "ignoring_period",
        values.seconds,
        "A knocker that erred is not heard for so long. Its knocks meanwhile change nothing; afterwards it starts "
        "anew.",
    ),
    Key(
        "max_knocker_live_time",
        "knocker_lifetime",
        values.seconds,
        "The longest pause between two knocks. A knocker not heard for so long starts anew.",
    ),
    Key(
        "max_opened_door_duration",
        "door_duration",
        values.seconds,
        "A door closes after so long. The whole sequence once more prolongs it. Connections that stand when it "
        "closes go on.",
    ),
    Key(
        "doors_cleanup_periode",
        "doors_cleanup_period",
        values.seconds,
        "Kept for files of version 1. Doors close at their deadline, and at the latest so long after it.",
    ),
    Key(
        "zone",
        "zone",
        values.zone_name,
        "The firewalld zone that doors open in. Empty: the zone of the knocker's source address, else the zone of the "
        "interface that the knock came in by, else the default zone.",
    ),
    Key(
        "open_knock_ports",
        "open_knock_ports",
        values.flag,
        "Whether the daemon lets the knock ports through the zone while it runs. With false, open them yourself, or no "
        "knock arrives.",
    ),
    Key(
        "max_knockers",
        "max_knockers",
        values.Whole(1, 2**20),
        "How many knockers are remembered at once. In a flood, whoever has come least far is forgotten first.",
    ),
    Key(
        "max_open_doors",
        "max_open_doors",
        values.Whole(1, RULES_MAX),
        "How many doors may be open at once. Beyond that a newcomer is refused; nobody's door is closed for it. "
        f"Doors times guarded ports may be {RULES_MAX} at most.",
    ),
    Key(
        "rule_priority",
        "rule_priority",
        values.rule_priority,
        "The mark by which the daemon knows its own rules in firewalld. A second daemon on the same machine needs "
        "another one. Above 0, so that the zone's own denials win.",
    ),
    Key(
        "sequence",
        "sequences",
        values.Tables("sequence"),
        "Sequences that are sniffed: their ports are closed and look closed. They are heard on every interface, or on "
        "those that --interface names. No sequence may begin with the whole of another one, and the opening sequence, "
        f"which is called {values.RESERVED_NAME}, is one of them; what is imported is free to.",
        keys=_SEQUENCE_KEYS,
    ),
    Key(
        "import",
        "imports",
        values.Tables("import"),
        "Files of other daemons, whose sequences are sniffed, too, and work as they do there. No sequence of such a "
        "file has the name of one of another file.",
        keys=_IMPORT_KEYS,
    ),
)


def parse(text: str, path: str) -> Settings:
    """Read a whole file's text. `path` only names the file in messages.

    Raises `ConfigError` at `PATH:LINE`, or at `PATH` for what is not there at all.
    """
    table = toml.read(text, path)

    def place(*within: str | int) -> str:
        lines = toml.lines(text)
        while within and within not in lines:
            within = within[:-1]
        return f"{path}:{lines[within]}" if within else path

    fields = _fields(KEYS, table, place)
    fields["sequences"] = _sequences(fields.get("sequences", ()), _main(fields["opening_sequence"]), place)
    fields["imports"] = tuple(
        Import(**_fields(_IMPORT_KEYS, entry, partial(place, "import", position)))
        for position, entry in enumerate(fields.get("imports", ()))
    )
    settings = Settings(**fields)
    try:
        check(settings)
    except ConfigError as wrong:
        raise wrong.at(place("max_open_doors")) from None
    return settings


def places(text: str, path: str) -> dict[str, str]:
    """`PATH:LINE` of each field of `Settings` that a file which `parse` accepted says something of."""
    lines = toml.lines(text)
    return {key.field: f"{path}:{lines[key.name,]}" for key in KEYS if (key.name,) in lines}


def check(settings: Settings) -> None:
    """Check what no single key can know. Raises `ConfigError` without a place, with the field that is to blame."""
    ports = max(len(opens) for opens in (settings.guarded_ports, *(one.opens for one in settings.sequences)))
    rules = settings.max_open_doors * ports
    if rules > RULES_MAX:
        problem = f"{settings.max_open_doors} open doors of {ports} ports need {rules} firewall rules"
        raise ConfigError(f"{problem}, expected at most {RULES_MAX}", field="guarded_ports")
    main = _main(settings.opening_sequence)
    for sequence in settings.sequences:
        # Those of other daemons' files are as they are.
        if main.steps and sequence.dialect is Dialect.NATIVE and (problem := _beginning(main, sequence)):
            raise ConfigError(problem, field="opening_sequence")


_Place = Callable[..., str]
"""Tells where in the file something is, from the names of tables and keys that lead there: `("sequence", 0, "name")`.
What stands nowhere is where the table is that ought to hold it."""


def _fields(keys: tuple[Key, ...], table: dict[str, Any], place: _Place) -> dict[str, Any]:
    """The values of a table by their fields, each read as its key says."""
    key_of = {key.name: key for key in keys}
    for name in table:
        if name not in key_of:
            nearest = difflib.get_close_matches(name[:_LONG], key_of, n=1, cutoff=0)[0]
            raise ConfigError(f"{_shown(name)} is unknown, the nearest known key is {nearest}", place(name))
    for key in keys:
        if key.required and key.name not in table:
            raise ConfigError(f"the key {key.name} is missing, expected {key.read.expects}", place())
        if key.needs and key.name in table and key.needs not in table:
            problem = f"the key {key.name} means nothing without {key.needs}, expected that one, too"
            raise ConfigError(problem, place(key.name))
    fields = {}
    try:
        for name, value in table.items():
            fields[key_of[name].field] = key_of[name].read(value)
    except ConfigError as wrong:
        raise ConfigError(f"{name}: {wrong.problem}", place(name)) from None
    return fields


def _main(ports: tuple[int, ...]) -> Sequence:
    return Sequence(values.RESERVED_NAME, tuple(Step(Protocol.UDP, port) for port in ports))


def _sequences(tables: tuple[dict[str, Any], ...], main: Sequence, place: _Place) -> tuple[Sequence, ...]:
    sequences: list[Sequence] = []
    for position, table in enumerate(tables):
        here = partial(place, "sequence", position)
        sequence = _Entry(**_fields(_SEQUENCE_KEYS, table, here)).sequence()
        check_sequence(sequence, [main, *sequences], here)
        sequences.append(sequence)
    return tuple(sequences)


def check_room_for_traps(sequence: Sequence) -> None:
    """Check that traps are of use to the sequence. Raises `ConfigError` without a place."""
    if sequence.traps and _has_no_gap(sequence.steps):
        raise ConfigError(
            f"between the neighbouring steps of sequence {sequence.name} no trap has room, so a scan could open its "
            "door, expected a gap between them, or traps = 0"
        )


def check_sequence(sequence: Sequence, earlier: list[Sequence], place: _Place) -> None:
    """Check what no key of a sequence can know by itself. The messages have names for sequences, never steps."""
    name = sequence.name
    if not sequence.opens and sequence.command is None:
        raise ConfigError(f"sequence {name} neither opens nor runs anything, expected open or start_command", place())
    try:
        check_room_for_traps(sequence)
    except ConfigError as wrong:
        raise wrong.at(place("steps")) from None
    for other in earlier:
        if other.name == name:
            raise ConfigError(f"an earlier sequence is called {name}, too, expected each name once", place("name"))
        if problem := _beginning(other, sequence):
            raise ConfigError(problem, place("steps"))


def _beginning(one: Sequence, other: Sequence) -> str:
    """What is wrong where one of them begins the other; empty for nothing. Who knocks the long one opens the short one,
    whichever of the ears hears which: what a socket hears, the sniffer hears, too."""
    short, long = sorted((one, other), key=lambda sequence: len(sequence.steps))
    if long.steps[: len(short.steps)] != short.steps:
        return ""
    both = f"sequence {long.name} begins with the whole of sequence {short.name}"
    if len(long.steps) == len(short.steps):
        both = f"the sequences {one.name} and {other.name} are the same"
    return f"{both}, expected none that begins another"


def _has_no_gap(steps: tuple[Step, ...]) -> bool:
    """Whether the steps are neighbours, one after the other up or down: a scan hits them all, and nothing between."""
    return len({step.protocol for step in steps}) == 1 and (
        {after.port - before.port for before, after in pairwise(steps)} in ({1}, {-1})
    )


def render(settings: Settings) -> str:
    """A commented file that `parse` reads as `settings`. What is as by default is there, but commented out.

    Sequences of imported files are not written: they stand in their own.
    """
    return _FILE_HEAD + "\n" + "\n".join(_written(KEYS, settings, _DEFAULTS))


def help_text() -> str:
    """Everything about the file: where it is looked for, what beats it, and each key with type, range and default.

    Shows the documentation's example and never what is configured.
    """
    return _HELP_HEAD + "\n".join(f"\n{one.line}\n{_wrapped(one.need)}\n{_wrapped(one.about)}" for one in explained())


def explained() -> Iterator[Explained]:
    """Each key, and after one that holds tables the keys of these."""
    return _explained(KEYS, _DEFAULTS)


def summary(settings: Settings) -> str:
    """What is in force, a line for each key, and then each sniffed sequence in words. It shows the sequences."""
    lines = [_assignment(key, getattr(settings, key.field)) for key in KEYS if not key.keys]
    return "\n".join(lines + [in_words(sequence) for sequence in settings.sequences])


def in_words(sequence: Sequence) -> str:
    """A sniffed sequence for people: what has to be knocked, and what happens then. It shows the steps."""
    lines = [_step_in_words(step) for step in sequence.steps]
    lines = [f"{position}. {line}" for position, line in enumerate(lines, start=1)]
    if sequence.one_time:
        lines.append(f"one-time sequences, one after the other: {sequence.one_time}")
        mask, value = sequence.flags
        lines.append(f"each TCP step of theirs {flags_in_words(value, mask)}")
    lines += _reach_in_words(sequence)
    if sequence.opens:
        lines.append(f"opens {', '.join(map(str, sequence.opens))} for {sequence.duration:g} s")
    if sequence.command:
        lines += _command_in_words(sequence.command)
    elif not sequence.opens:
        lines.append("neither opens nor runs anything")
    lines.append(f"{sequence.traps or 'no'} traps")
    kind = "" if sequence.dialect is Dialect.NATIVE else f", as {sequence.dialect.value} hears it"
    head = f"Sequence {sequence.name}{kind}, within {sequence.timeout:g} s:"
    return "\n  ".join([head, *lines])


def _reach_in_words(sequence: Sequence) -> Iterator[str]:
    reach = sequence.reach
    if reach.target is not None:
        yield f"hears packets to {reach.target} alone"
    if reach.interfaces:
        yield f"hears packets by {', '.join(reach.interfaces)} alone"
    if reach.ipv4_only:
        yield "hears IPv4 alone"


def _command_in_words(command: Command) -> Iterator[str]:
    """What runs for an IPv4 address, and then for an IPv6 address where that is something else."""
    apart = (command.start6, command.stop6) != (None, None)
    ways = [("for IPv4 ", command.start, command.stop)] if apart else [("", command.start, command.stop)]
    if apart:
        start6 = command.start if command.start6 is None else command.start6
        stop6 = command.stop if command.stop6 is None else command.stop6
        ways.append(("for IPv6 ", start6, stop6))
    for which, start, stop in ways:
        yield f"{which}runs: {start}" if start else f"{which}runs nothing"
        if stop:
            yield f"{command.delay:g} s later: {stop}"


def _step_in_words(step: Step) -> str:
    port = f"{step.protocol.name} {step.port}"
    return port if step.protocol is Protocol.UDP else f"{port} {flags_in_words(step.flags, step.mask)}"


def flags_in_words(flags: int, mask: int) -> str:
    """Flags that are free go without saying; where none is, those that may not be set do."""
    if not mask:
        return "with any flags"
    there, absent = (
        " ".join(flag.name or "" for flag in Flags if among & flag) for among in (flags & mask, mask & ~flags)
    )
    if mask == ALL_FLAGS:
        return f"with {there or 'no flags'}"
    return ", ".join([*([f"with {there}"] if there else []), *([f"without {absent}"] if absent else [])])


def _written(keys: tuple[Key, ...], holder: object, usual: object) -> Iterator[str]:
    """What to write for each key that is there, or could be: its comment, and its line or its tables."""
    for key in keys:
        about = _wrapped(f"{key.about} {_capital(key.read.expects)}.", "# ")
        value = getattr(holder, key.field)
        if key.keys:
            yield f"{about}\n"
            for entry in _entries(value):
                yield f"[[{key.name}]]\n" + "\n".join(_written(key.keys, entry, _TABLES[key.name].usual))
        elif value is not None and not (key.needs and getattr(holder, key.needs) is None):
            as_usual = not key.required and value == getattr(usual, key.field)
            yield f"{about}\n{'#' if as_usual else ''}{_assignment(key, value)}\n"


def _explained(keys: tuple[Key, ...], example: object) -> Iterator[Explained]:
    for key in keys:
        line = f"[[{key.name}]]" if key.keys else _assignment(key, getattr(example, key.field))
        need = "Required" if key.required else f"Optional, with {key.needs}" if key.needs else "Optional"
        yield Explained(line, f"{need}: {key.read.expects}.", key.about)
        if key.keys:
            yield from _explained(key.keys, _TABLES[key.name].example)


def table(sequence: Sequence) -> str:
    """A native sequence as a `[[sequence]]` of the file, without what is as by default and without explanations."""
    entry, usual = _Entry.of(sequence), _TABLES["sequence"].usual
    lines = [
        _assignment(key, value)
        for key in _SEQUENCE_KEYS
        if (value := getattr(entry, key.field)) is not None
        and (key.required or value != getattr(usual, key.field))
        and not (key.needs and getattr(entry, key.needs) is None)
    ]
    return "\n".join(["[[sequence]]", *lines])


def _entries(value: tuple[Sequence | Import, ...]) -> Iterator[_Entry | Import]:
    """What stands in the file's tables, and not in those of another file."""
    for one in value:
        if isinstance(one, Import):
            yield one
        elif one.dialect is Dialect.NATIVE:
            yield _Entry.of(one)


@dataclass(frozen=True)
class _Table:
    """What a table in double brackets has where it says nothing, and what the help shows."""

    usual: _Entry | Import
    example: _Entry | Import


_DEFAULTS = Settings()
_TABLES = {
    "sequence": _Table(
        _Entry("", ()),
        _Entry(
            "ssh",
            EXAMPLE_STEPS,
            open=(Port(22),),
            start_command="logger opened for %IP%",
            stop_command="logger closed to %IP%",
        ),
    ),
    "import": _Table(Import(Dialect.KNOCKD, ""), Import(Dialect.KNOCKD, "/etc/knockd.conf")),
}

_FILE_HEAD = """\
# Configuration of port-knocking-doors, in TOML. It holds a secret: keep it at
# mode 0600. What is commented out shows the default. All about it:
#     port-knocking-doors --show-configuration-file-help
"""

_HELP_HEAD = """\
The configuration file of port-knocking-doors

It is looked for in this order, and the first one found is used, or refused
with a message, but never passed over:
    1. the file named by --conf
    2. ~/.port_knocker.toml
    3. /etc/port_knocker.toml
    4. none of these: the built-in defaults, whose sequence everybody knows

A new one, with a sequence of its own, is written to ~/.port_knocker.toml by
    port-knocking-doors --set-configuration-file-in-home
It holds a secret: nobody else should be able to read it (chmod 600).

Some of its keys can also be given in other ways. An option beats the variable,
which beats the file:
    option              variable         key
    -m, --magic-seq     KNOCKER_SEQ      opening_sequence
    -p, --ports         KNOCKER_PORTS    ports_to_controls
    --zone                               zone
Options and variables take a list without brackets: 22,1194/udp

The file is TOML. These are its keys, each with its default or, where it is
required or none, with an example. A key that is not among them is an error.
"""


def _assignment(key: Key, value: object) -> str:
    return f"{key.name} = {_rendered(value)}"


def _rendered(value: object) -> str:
    """`value` as TOML, whose escapes are JSON's."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_rendered, value))}]"
    if isinstance(value, Port):
        return str(value.number) if value.protocol is Protocol.TCP else f'"{value}"'
    if isinstance(value, Step):
        return f'"{values.knock_step.spell(value)}"'
    if isinstance(value, Dialect):
        return f'"{value.value}"'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).removesuffix(".0")


def _wrapped(text: str, indent: str = "    ") -> str:
    return textwrap.fill(text, 79, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_LONG = 60
_HARMLESS_KEY = re.compile(rf"[A-Za-z][A-Za-z_-]{{0,{_LONG}}}")
"""A key that may be quoted: short, plain, and without a digit of a port."""


def _shown(key: str) -> str:
    return f"the key {key}" if _HARMLESS_KEY.fullmatch(key) else "a key"
