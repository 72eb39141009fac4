"""`Settings` as the text of a configuration file or as a summary, and the help that explains the file."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from port_knocking_doors.config import readers
from port_knocking_doors.config.describe import in_words
from port_knocking_doors.config.schema import EXAMPLE_CLOSE_STEPS, EXAMPLE_STEPS, KEYS, SEQUENCE_KEYS, Entry, Key
from port_knocking_doors.model import Dialect, Import, Port, Protocol, Sequence, Settings, Step


@dataclass(frozen=True)
class Explained:
    """A key as explained in the help and in the manual page."""

    line: str
    """The key with its default, else with an example; or the head of its tables."""
    need: str
    about: str


def render(settings: Settings) -> str:
    """A commented file that `parse` reads as `settings`. Defaults are written, but commented out.

    Sequences of imported files are not written: they are in their own files.
    """
    return _FILE_HEAD + "\n" + "\n".join(_written(KEYS, settings, _DEFAULTS))


def help_text() -> str:
    """The help for the file: where it is searched, what overrides it, and each key with type, range and default.

    Shows the documentation's example, never the configured values.
    """
    return _HELP_HEAD + "\n".join(f"\n{one.line}\n{_wrapped(one.need)}\n{_wrapped(one.about)}" for one in explained())


def explained() -> Iterator[Explained]:
    """Each key, and after a key of tables the keys of these tables."""
    return _explained(KEYS, _DEFAULTS)


def summary(settings: Settings) -> str:
    """The settings, a line for each key, and then each sniffed sequence in words. Shows the sequences."""
    lines = [_assignment(key, getattr(settings, key.field)) for key in KEYS if not key.keys]
    return "\n".join(lines + [in_words(sequence) for sequence in settings.sequences])


def _written(keys: tuple[Key, ...], holder: object, usual: object) -> Iterator[str]:
    """The comment of each key, and its line or its tables."""
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
    """A native sequence as a `[[sequence]]` of the file, without defaults and explanations."""
    entry, usual = Entry.of(sequence), _TABLES["sequence"].usual
    lines = [
        _assignment(key, value)
        for key in SEQUENCE_KEYS
        if (value := getattr(entry, key.field)) is not None
        and (key.required or value != getattr(usual, key.field))
        and not (key.needs and getattr(entry, key.needs) is None)
    ]
    return "\n".join(["[[sequence]]", *lines])


def _entries(value: tuple[Sequence | Import, ...]) -> Iterator[Entry | Import]:
    """The tables of the file itself, not those of imported files."""
    for one in value:
        if isinstance(one, Import):
            yield one
        elif one.dialect is Dialect.NATIVE:
            yield Entry.of(one)


@dataclass(frozen=True)
class _Table:
    """The defaults of a table in double brackets, and the example that the help shows."""

    usual: Entry | Import
    example: Entry | Import


_DEFAULTS = Settings()
_TABLES = {
    "sequence": _Table(
        Entry("", ()),
        Entry(
            "ssh",
            EXAMPLE_STEPS,
            open=(Port(22),),
            start_command="logger opened for %IP%",
            stop_command="logger closed to %IP%",
            close_steps=EXAMPLE_CLOSE_STEPS,
        ),
    ),
    "import": _Table(Import(Dialect.KNOCKD, ""), Import(Dialect.KNOCKD, "/etc/knockd.conf")),
}

_FILE_HEAD = """\
# Configuration of port-knocking-doors, in TOML. It holds a secret: keep it at
# mode 0600. Lines that are commented out show the defaults. See:
#     port-knocking-doors --show-configuration-file-help
"""

_HELP_HEAD = """\
The configuration file of port-knocking-doors

It is searched in this order. The first file that exists is used, or refused
with a message, never skipped:
    1. the file named by --conf
    2. ~/.port_knocker.toml
    3. /etc/port_knocker.toml
    4. none of these: the built-in defaults, whose sequence is public

A new file with a random sequence is written to ~/.port_knocker.toml by
    port-knocking-doors --set-configuration-file-in-home
It holds a secret: no other user should be able to read it (chmod 600).

Some keys can also be given as options and environment variables. An option
overrides the variable, which overrides the file:
    option              variable         key
    -m, --magic-seq     KNOCKER_SEQ      opening_sequence
    -p, --ports         KNOCKER_PORTS    ports_to_controls
    --zone                               zone
Options and variables take a list without brackets: 22,1194/udp

The file is TOML. These are its keys, each with its default or, if it is
required or has none, with an example. Any other key is an error.
"""


def _assignment(key: Key, value: object) -> str:
    return f"{key.name} = {_rendered(value)}"


def _rendered(value: object) -> str:
    """`value` as TOML, whose escapes are those of JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_rendered, value))}]"
    if isinstance(value, Port):
        return str(value.number) if value.protocol is Protocol.TCP else f'"{value}"'
    if isinstance(value, Step):
        return f'"{readers.knock_step.spell(value)}"'
    if isinstance(value, Dialect):
        return f'"{value.value}"'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).removesuffix(".0")


def _wrapped(text: str, indent: str = "    ") -> str:
    return textwrap.fill(text, 79, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
