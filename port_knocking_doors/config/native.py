"""The project's own configuration file: TOML text in, `Settings` out. `schema` declares its keys."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, pairwise
from typing import Any

from port_knocking_doors.config import readers, toml
from port_knocking_doors.config.reader_types import nearest
from port_knocking_doors.config.schema import IMPORT_KEYS, KEYS, RULES_MAX, SEQUENCE_KEYS, Entry, Key
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Dialect, Import, Protocol, Sequence, Settings, Step


def parse(text: str, path: str) -> Settings:
    """Read the text of a whole file. `path` names the file in messages.

    Raises `ConfigError` at `PATH:LINE`, or at `PATH` for a missing key.
    """
    table = toml.read(text, path)

    def place(*within: str | int) -> str:
        lines = toml.lines(text)
        while within and within not in lines:
            within = within[:-1]
        return f"{path}:{lines[within]}" if within else path

    fields = _fields(KEYS, table, place)
    fields["sequences"] = _sequences(fields.get("sequences", ()), _opening(fields["opening_sequence"]), place)
    fields["imports"] = tuple(
        Import(**_fields(IMPORT_KEYS, entry, partial(place, "import", position)))
        for position, entry in enumerate(fields.get("imports", ()))
    )
    settings = Settings(**fields)
    try:
        check(settings)
    except ConfigError as wrong:
        raise wrong.at(place("max_open_doors")) from None
    return settings


def places(text: str, path: str) -> dict[str, str]:
    """`PATH:LINE` of each field of `Settings` that the text sets. `parse` has accepted the text."""
    lines = toml.lines(text)
    return {key.field: f"{path}:{lines[key.name,]}" for key in KEYS if (key.name,) in lines}


def repeated_ports(text: str, path: str) -> Iterator[str]:
    """A warning for each port that a list of guarded ports has twice, once `parse` has accepted the text."""
    table = toml.read(text, path)
    lists: dict[toml.Names, list[object]] = {("ports_to_controls",): table["ports_to_controls"]}
    for position, sequence in enumerate(table.get("sequence", ())):
        lists["sequence", position, "open"] = sequence.get("open", [])
    lines = toml.lines(text)
    for names, ports in lists.items():
        for port in readers.guarded_ports.repeated(ports):
            yield f"{path}:{lines[names]}: {names[-1]}: port {port} is listed twice"


def check(settings: Settings) -> None:
    """Check what depends on several keys. Raises `ConfigError` without a place, with the field at fault."""
    ports = max(len(opens) for opens in (settings.guarded_ports, *(one.access.ports for one in settings.sequences)))
    rules = settings.max_open_doors * ports
    if rules > RULES_MAX:
        problem = f"{settings.max_open_doors} open doors of {ports} ports need {rules} firewall rules"
        raise ConfigError(f"{problem}, expected at most {RULES_MAX}", field="guarded_ports")
    opening = _opening(settings.opening_sequence)
    for sequence in settings.sequences:
        # Imported sequences may begin one another, as they may in their own daemon.
        if opening.steps and sequence.dialect is Dialect.NATIVE:
            for one in (sequence, *sequence.closing()):
                if problem := _prefix_problem(opening, one):
                    raise ConfigError(problem, field="opening_sequence")


_Place = Callable[..., str]
"""The place in the file for a path of tables and keys such as `("sequence", 0, "name")`. The place of a missing key is
that of its table."""


def _fields(keys: tuple[Key, ...], table: dict[str, Any], place: _Place) -> dict[str, Any]:
    """The values of a table by their fields, each read by its key's reader."""
    key_of = {key.name: key for key in keys}
    for name in table:
        if name not in key_of:
            raise ConfigError(f"{_shown(name)} is unknown, {_advice(name, key_of)}", place(name))
    for key in keys:
        if key.required and key.name not in table:
            raise ConfigError(f"the key {key.name} is missing, expected {key.read.expects}", place())
        if key.needs and key.name in table and key.needs not in table:
            problem = f"the key {key.name} has no effect without {key.needs}, expected {key.needs} as well"
            raise ConfigError(problem, place(key.name))
    fields = {}
    try:
        for name, value in table.items():
            fields[key_of[name].field] = key_of[name].read(value)
    except ConfigError as wrong:
        raise ConfigError(f"{name}: {wrong.problem}", place(name)) from None
    return fields


def _opening(ports: tuple[int, ...]) -> Sequence:
    return Sequence(readers.RESERVED_NAME, tuple(Step(Protocol.UDP, port) for port in ports))


def _sequences(tables: tuple[dict[str, Any], ...], opening: Sequence, place: _Place) -> tuple[Sequence, ...]:
    sequences: list[Sequence] = []
    for position, table in enumerate(tables):
        here = partial(place, "sequence", position)
        sequence = Entry(**_fields(SEQUENCE_KEYS, table, here)).sequence()
        check_sequence(sequence, [opening, *sequences], here)
        sequences.append(sequence)
    return tuple(sequences)


def check_traps_fit(sequence: Sequence) -> None:
    """Check that traps protect the sequence. Raises `ConfigError` without a place."""
    if sequence.traps and _are_neighbours(sequence.steps):
        raise ConfigError(
            f"the steps of sequence {sequence.name} are neighbouring ports, so no trap fits between them and a port "
            "scan could open the door, expected a gap between the ports, or traps = 0"
        )


def check_sequence(sequence: Sequence, earlier: list[Sequence], place: _Place) -> None:
    """Check what depends on several keys of a sequence. Messages name sequences, never steps."""
    name = sequence.name
    if not sequence.access.openings:
        raise ConfigError(f"sequence {name} neither opens nor runs anything, expected open or start_command", place())
    if sequence.close_steps and not _leaves_open(sequence):
        problem = f"sequence {name} leaves nothing open that close_steps could close, expected open or stop_command"
        raise ConfigError(problem, place("close_steps"))
    try:
        check_traps_fit(sequence)
    except ConfigError as wrong:
        raise wrong.at(place("steps")) from None
    for other in earlier:
        if other.name == name:
            raise ConfigError(f"an earlier sequence has the name {name}, expected each name once", place("name"))
        for earlier_one in (other, *other.closing()):
            if problem := _prefix_problem(earlier_one, sequence):
                raise ConfigError(problem, place("steps"))
    for one in sequence.closing():
        for other in (sequence, *earlier, *chain.from_iterable(other.closing() for other in earlier)):
            if problem := _prefix_problem(other, one):
                raise ConfigError(problem, place("close_steps"))


def _leaves_open(sequence: Sequence) -> bool:
    """Whether a door of the sequence stays open until it is closed."""
    command = sequence.access.command
    return bool(sequence.access.ports) or (command is not None and bool(command.stop or command.stop6))


def _prefix_problem(one: Sequence, other: Sequence) -> str:
    """The problem if one of them is the start of the other, else empty: a client that knocks the long one opens the
    short one as well, since the sniffer captures what sockets receive, too. The last packet of steps that close must
    not open anything, nor the other way round."""
    short, long = (one, other) if len(one.steps) <= len(other.steps) else (other, one)
    if long.steps[: len(short.steps)] != short.steps:
        if one.access.closes != other.access.closes and long.steps[-len(short.steps) :] == short.steps:
            return f"{_steps_of(long)} end with {_steps_of(short)}, expected none to be the end of another"
        return ""
    is_same, closing = len(long.steps) == len(short.steps), (one.access.closes, other.access.closes)
    if is_same and all(closing):  # one knock closes the doors of both
        return ""
    if any(closing):
        both = f"{_steps_of(long)} {'are the same as' if is_same else 'begin with'} {_steps_of(short)}"
    elif is_same:
        both = f"the sequences {one.name} and {other.name} are the same"
    else:
        both = f"sequence {long.name} begins with all steps of sequence {short.name}"
    return f"{both}, expected none to be the start of another"


def _steps_of(sequence: Sequence) -> str:
    if sequence.access.closes:
        return f"the close_steps of sequence {sequence.access.name}"
    return f"the steps of sequence {sequence.name}"


def _are_neighbours(steps: tuple[Step, ...]) -> bool:
    """Whether the steps are neighbouring ports, rising or falling: a port scan hits them all, and none between."""
    return len({step.protocol for step in steps}) == 1 and (
        {after.port - before.port for before, after in pairwise(steps)} in ({1}, {-1})
    )


_LONG = 60
_HARMLESS_KEY = re.compile(rf"[A-Za-z][A-Za-z_-]{{0,{_LONG}}}")
"""A key that may be quoted: short, plain, and without digits, which may be those of a port."""


_FEW = 12
"""Keys of a table that a message lists."""


def _advice(key: str, known: Iterable[str]) -> str:
    if near := nearest(key, known):
        return f"the nearest known key is {near}"
    few = [*known]
    return f"expected {', '.join(few)}" if len(few) < _FEW else "see port-knocking-doors --show-configuration-file-help"


def _shown(key: str) -> str:
    return f"the key {key}" if _HARMLESS_KEY.fullmatch(key) else "a key"
