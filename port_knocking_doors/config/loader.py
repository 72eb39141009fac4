"""Which configuration is in force: looks the file up, reads it and what it imports, lets options and environment have
their say.

Also reads knockd's and tportknockd's files where these are the whole configuration. Nothing is logged here; what
deserves a warning is handed back.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from port_knocking_doors.config import files, knockd, lint, native, readers, tportknockd
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Dialect, Import, Port, Sequence, Settings
from port_knocking_doors.system.listening_ports import listening_ports

SYSTEM_FILE = Path("/etc/port_knocker.toml")

KNOCKD_INTERFACE = "eth0"
"""Where knockd listens when neither its options nor its file say (knockd(1))."""


@dataclass(frozen=True)
class Loaded:
    """The configuration in force."""

    settings: Settings
    path: Path | None
    """The file that it comes from; None for the built-in defaults."""
    warnings: tuple[str, ...]
    """One line each, none of which shows a sequence."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where the fields of the settings come from: `FILE:LINE`, an option, a variable."""

    def placed(self, error: ConfigError) -> ConfigError:
        """What turned out to be wrong later, with the place that it comes from."""
        whole = files.display(self.path) if self.path is not None else "built-in defaults"
        return error.at(self.places.get(error.field, whole))


@dataclass(frozen=True)
class LoadedKnockd(Loaded):
    """The configuration where knockd's file is all of it."""

    options: knockd.Options = field(default_factory=knockd.Options)
    """With the interface that is in force."""


@dataclass(frozen=True)
class Foreign:
    """What another daemon's file says."""

    sequences: tuple[Sequence, ...]
    places: tuple[str, ...]
    """For each sequence `FILE:LINE`, or `FILE`."""
    errors: tuple[ConfigError, ...]
    """Everything that is wrong with the file, as far as its reader goes on after the first problem."""
    warnings: tuple[str, ...]
    options: knockd.Options = field(default_factory=knockd.Options)


@dataclass(frozen=True)
class _Override:
    """An option, and with some a variable, that each beat a field of the file."""

    option: str
    variable: str | None
    field: str
    read: Callable[[str], Any]


_SEQUENCE = _Override("--magic-seq", "KNOCKER_SEQ", "opening_sequence", readers.sequence.from_text)
_PORTS = _Override("--ports", "KNOCKER_PORTS", "guarded_ports", readers.guarded_ports.from_text)
_ZONE = _Override("--zone", None, "zone", readers.zone_name)
_INTERFACE = "--interface"


def load(
    conf: Path | None,
    *,
    magic_seq: str | None,
    ports: str | None,
    zone: str | None = None,
    interfaces: Iterable[str] = (),
    environ: Mapping[str, str],
    home: Path | None,
    system: Path = SYSTEM_FILE,
    served: Callable[[], Collection[Port]] = listening_ports,
) -> Loaded:
    """Put the configuration together. `conf`, `magic_seq`, `ports`, `zone` and `interfaces` are the options, None or
    empty where not given; `served` tells which ports programs of this machine listen on.

    The first of `conf`, `home`'s file and `system` that is there at all is used or refused. An option beats its
    variable, which beats the file; a variable that is set but empty is an error, as an empty option is.

    Raises `ConfigError` at `FILE:LINE`, `FILE`, the option, or the variable.
    """
    if conf == files.EMPTY:
        raise ConfigError(f"{files.NO_NAME}, expected a file", "--conf")
    candidates = [home / files.HOME_NAME, system] if home else [system]
    path = files.expand_home(conf, home) if conf is not None else files.first_existing(*candidates)
    settings, places, warnings = _from_file(path, home) if path is not None else (Settings(), {}, [])
    file = "" if path is None else files.display(path)
    sources: dict[str, str] = {}
    for override, text in ((_SEQUENCE, magic_seq), (_PORTS, ports), (_ZONE, zone)):
        source = override.option
        if text is None and override.variable is not None:
            text, source = environ.get(override.variable), override.variable
        if text is not None:
            with _placed(source):
                settings = replace(settings, **{override.field: override.read(text)})
            sources[override.field] = source
    try:
        native.check(settings)
    except ConfigError as wrong:
        raise wrong.at(sources.get(wrong.field, file)) from None
    with _placed(_INTERFACE):
        settings = replace(settings, interfaces=tuple(dict.fromkeys(map(readers.interface_name, interfaces))))

    warnings += lint.opening_warnings(settings, sources.get(_SEQUENCE.field, file))
    if settings.sequences:
        warnings += lint.sniffed_warnings(settings, file, served())
    elif settings.interfaces:
        warnings.append(f"{_INTERFACE}: no [[sequence]] is there to be heard on an interface, so this changes nothing")
    return Loaded(settings, path, tuple(warnings), {**places, **sources})


def load_knockd(
    path: Path,
    interface: str | None,
    ipv4_only: bool,
    folder: Path = Path(),
    *,
    served: Callable[[], Collection[Port]] = listening_ports,
) -> LoadedKnockd:
    """The configuration of which knockd's file is all: its doors, no opening sequence and nothing to guard.

    `interface` and `ipv4_only` are knockd's options -i and -4; an interface that is named there beats the file's.
    Relative paths in it are relative to `folder`, by default the current directory, as knockd takes them. Raises
    `ConfigError` at `FILE:LINE`, `FILE`, or `--interface`.
    """
    if interface is not None:
        with _placed(_INTERFACE):
            interface = readers.interface_name(interface)
    foreign = _read_knockd(path, folder)
    options = replace(foreign.options, interface=interface or foreign.options.interface or KNOCKD_INTERFACE)
    sequences = tuple(
        replace(one, scope=replace(one.scope, interfaces=knockd.interfaces(options.interface), ipv4_only=ipv4_only))
        for one in foreign.sequences
    )
    settings = Settings(guarded_ports=(), opening_sequence=(), open_knock_ports=False, sequences=sequences)
    warnings = (*foreign.warnings, *lint.sniffed_warnings(settings, files.display(path), served()))
    return LoadedKnockd(settings, path, warnings, options=options)


def read_tportknockd(path: Path) -> Foreign:
    """tportknockd's file, with everything that is wrong with it. Raises `ConfigError` if it cannot be read at all."""
    shown = files.display(path)
    data, status = files.read(path, "a file of tportknockd's")
    sequences, errors = tportknockd.read(data.decode("utf-8-sig", "surrogateescape"), shown)
    warnings = tuple(files.mode_warnings(path, status, runs_commands=True))
    return Foreign(sequences, (shown,) * len(sequences), errors, warnings)


def _from_file(path: Path, home: Path | None) -> tuple[Settings, dict[str, str], list[str]]:
    shown = files.display(path)
    data, status = files.read(path, "TOML text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("this is not UTF-8, expected TOML text", f"{shown}:{line}") from None
    warnings = [*files.mode_warnings(path, status)]
    settings, more = _with_imports(native.parse(text, shown), path, home)
    return settings, native.places(text, shown), warnings + more


def _with_imports(settings: Settings, path: Path, home: Path | None) -> tuple[Settings, list[str]]:
    """The settings with the sequences of the files that they import, and what is unwise about those files.

    A name stands for the sequences of one file: in the log nobody could tell two files' sequences of one name apart.
    """
    taken = {readers.RESERVED_NAME: "is the opening sequence's name"}
    taken |= {one.name: f"is the name of a sequence of {files.display(path)}" for one in settings.sequences}
    sequences = list(settings.sequences)
    warnings: list[str] = []
    for one in settings.imports:
        foreign = _imported(one, path.parent / files.expand_home(Path(one.path), home))
        for sequence, place in zip(foreign.sequences, foreign.places, strict=True):
            if sequence.name in taken:
                raise ConfigError(f"{sequence.name} {taken[sequence.name]}, expected another one", place)
            sequences.append(sequence)
        taken |= {sequence.name: f"is the name of a sequence of {sequence.group}" for sequence in foreign.sequences}
        warnings += foreign.warnings
    return replace(settings, sequences=tuple(sequences)), warnings


def _imported(one: Import, path: Path) -> Foreign:
    foreign = read_tportknockd(path) if one.dialect is Dialect.TPORTKNOCKD else _read_knockd(path)
    for error in foreign.errors:
        raise error
    sequences = tuple(replace(sequence, traps=one.traps) for sequence in foreign.sequences)
    for sequence, place in zip(sequences, foreign.places, strict=True):
        with _placed(place):
            native.check_room_for_traps(sequence)
    return replace(foreign, sequences=sequences)


def _read_knockd(path: Path, folder: Path = Path()) -> Foreign:
    """knockd's file, and the files of one-time sequences that it names, where their paths are relative in `folder`."""
    shown = files.display(path)
    data, status = files.read(path, "a file of knockd's")
    # Old files have comments in old encodings; anywhere else, what is not UTF-8 is refused.
    found = knockd.parse(data.decode("utf-8", "surrogateescape"), shown)
    warnings = [*files.mode_warnings(path, status, runs_commands=True)]
    sequences = []
    places = tuple(f"{shown}:{line}" for line in found.lines)
    for sequence, place in zip(found.sequences, places, strict=True):
        if sequence.one_time:
            with _placed_again(place):
                warnings += _one_time_doubts(sequence, folder / sequence.one_time)
        # knockd finds them from where it was started; a daemon in the background is elsewhere.
        one_time = str((folder / sequence.one_time).absolute()) if sequence.one_time else ""
        sequences.append(replace(sequence, one_time=one_time))
    return Foreign(tuple(sequences), places, (), tuple(warnings), found.options)


def _one_time_doubts(sequence: Sequence, path: Path) -> Iterator[str]:
    data, status = files.read(path, "one-time sequences")
    yield from files.mode_warnings(path, status)
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    if not any(knockd.one_time_steps(line, sequence.flags) for line in lines):
        shown = files.display(path)
        yield f"{shown}: no one-time sequence is left, so door {sequence.name} stays closed; write new ones"


@contextlib.contextmanager
def _placed(where: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as wrong:
        raise wrong.at(where) from None


@contextlib.contextmanager
def _placed_again(where: str) -> Iterator[None]:
    """What is wrong with a file, where another one names it."""
    try:
        yield
    except ConfigError as wrong:
        raise ConfigError(str(wrong), where) from None
