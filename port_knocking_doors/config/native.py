"""The project's own configuration file: TOML text in, `Settings` out. `keys` says what it may hold."""

import difflib
import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from port_knocking_doors.config import readers, toml
from port_knocking_doors.config.schema import IMPORT_KEYS, KEYS, RULES_MAX, SEQUENCE_KEYS, Entry, Key
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Dialect, Import, Protocol, Sequence, Settings, Step


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
    """`PATH:LINE` of each field of `Settings` that a file which `parse` accepted says something of."""
    lines = toml.lines(text)
    return {key.field: f"{path}:{lines[key.name,]}" for key in KEYS if (key.name,) in lines}


def check(settings: Settings) -> None:
    """Check what no single key can know. Raises `ConfigError` without a place, with the field that is to blame."""
    ports = max(len(opens) for opens in (settings.guarded_ports, *(one.access.ports for one in settings.sequences)))
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
    return Sequence(readers.RESERVED_NAME, tuple(Step(Protocol.UDP, port) for port in ports))


def _sequences(tables: tuple[dict[str, Any], ...], main: Sequence, place: _Place) -> tuple[Sequence, ...]:
    sequences: list[Sequence] = []
    for position, table in enumerate(tables):
        here = partial(place, "sequence", position)
        sequence = Entry(**_fields(SEQUENCE_KEYS, table, here)).sequence()
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
    if not sequence.access.openings:
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


_LONG = 60
_HARMLESS_KEY = re.compile(rf"[A-Za-z][A-Za-z_-]{{0,{_LONG}}}")
"""A key that may be quoted: short, plain, and without a digit of a port."""


def _shown(key: str) -> str:
    return f"the key {key}" if _HARMLESS_KEY.fullmatch(key) else "a key"
