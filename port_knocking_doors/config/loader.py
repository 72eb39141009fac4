"""The active configuration: the file that is found, the files that it imports, and what overrides them.

Also reads knockd's and tportknockd's files where these are the whole configuration. Loading changes nothing and logs
nothing: settings and warnings are returned.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from port_knocking_doors.config import files, knockd, lint, native, readers, tportknockd
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Dialect, EphemeralPorts, Import, Port, Sequence, Settings
from port_knocking_doors.system.listening_ports import listening_ports, outgoing_ports

SYSTEM_FILE = Path("/etc/port_knocker.toml")

KNOCKD_INTERFACE = "eth0"
"""knockd's interface where neither its options nor its file name one (knockd(1))."""


@dataclass(frozen=True)
class Loaded:
    """A configuration, with all that a daemon needs to start or to reload."""

    settings: Settings
    path: Path | None
    """The configuration file; None for the built-in defaults."""
    warnings: tuple[str, ...]
    """One line each, none of which shows a sequence."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The origin of each field of the settings: `FILE:LINE`, an option, a variable."""

    def placed(self, error: ConfigError) -> ConfigError:
        """An error that showed later, with the place of its field."""
        whole = files.display(self.path) if self.path is not None else "built-in defaults"
        return error.at(self.places.get(error.field, whole))


@dataclass(frozen=True)
class LoadedKnockd(Loaded):
    """A configuration that is one file of knockd's."""

    options: knockd.Options = field(default_factory=knockd.Options)
    """`[options]`, with the interface that is used."""


@dataclass(frozen=True)
class Foreign:
    """The content of another daemon's file."""

    sequences: tuple[Sequence, ...]
    places: tuple[str, ...]
    """`FILE:LINE` or `FILE` of each sequence."""
    errors: tuple[ConfigError, ...]
    """All errors of the file, where its reader continues after the first one."""
    warnings: tuple[str, ...]
    options: knockd.Options = field(default_factory=knockd.Options)


@dataclass(frozen=True)
class _Override:
    """An option that overrides a field of the file, and for some fields a variable, which the option overrides."""

    option: str
    variable: str | None
    field: str
    read: Callable[[str], Any]


_SEQUENCE = _Override("--magic-seq", "KNOCKER_SEQ", "opening_sequence", readers.sequence_option.from_text)
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
    outgoing: Callable[[], EphemeralPorts] = outgoing_ports,
) -> Loaded:
    """Combine the configuration. `conf`, `magic_seq`, `ports`, `zone` and `interfaces` are the options, None or
    empty where not given; `served` returns the ports that programs of this machine listen on, `outgoing` those that the
    kernel gives to outgoing sockets.

    The first of `conf`, `home`'s file and `system` that exists is used or refused. An option overrides its variable,
    which overrides the file; a variable that is set but empty is an error, as an empty option is.

    Raises `ConfigError` at `FILE:LINE`, `FILE`, the option, or the variable.
    """
    if conf == files.EMPTY:
        raise ConfigError(f"{files.NO_NAME}, expected a file", "--conf")
    candidates = [home / files.HOME_NAME, system] if home else [system]
    found = [files.expand_home(conf, home)] if conf is not None else files.existing(*candidates)
    path = found[0] if found else None
    settings, places, warnings = _from_file(path, home) if path is not None else (Settings(), {}, [])
    file = "" if path is None else files.display(path)
    given = {_SEQUENCE: magic_seq, _PORTS: ports, _ZONE: zone}
    settings, sources, more = _overridden(settings, given, environ)
    warnings += more
    try:
        native.check(settings)
    except ConfigError as wrong:
        raise wrong.at(sources.get(wrong.field, file)) from None
    with _placed(_INTERFACE):
        settings = replace(settings, interfaces=tuple(dict.fromkeys(map(readers.interface_name, interfaces))))

    warnings += [
        f"{file}: {files.display(other)} exists as well and is not read; remove one of them" for other in found[1:]
    ]
    warnings += lint.opening_warnings(settings, sources.get(_SEQUENCE.field, file))
    warnings += lint.ephemeral_warnings(settings, sources.get(_SEQUENCE.field, file), outgoing())
    if settings.sequences:
        warnings += lint.sniffed_warnings(settings, file, served())
    elif settings.interfaces:
        warnings.append(f"{_INTERFACE}: has no effect without a [[sequence]]")
    return Loaded(settings, path, tuple(warnings), {**places, **sources})


def load_knockd(
    path: Path,
    interface: str | None,
    ipv4_only: bool,
    folder: Path = Path(),
    *,
    served: Callable[[], Collection[Port]] = listening_ports,
    unnamed: str = KNOCKD_INTERFACE,
) -> LoadedKnockd:
    """A configuration that is knockd's file alone: its doors, no opening sequence and no guarded ports.

    `interface` and `ipv4_only` are knockd's options -i and -4; -i overrides the file, and `unnamed` is the interface
    where neither names one, empty for every one. Relative paths in the file are relative to `folder`, by default the
    current directory, as for knockd. Raises `ConfigError` at `FILE:LINE`, `FILE`,
    or `--interface`.
    """
    if interface is not None:
        with _placed(_INTERFACE):
            interface = readers.interface_name(interface)
    foreign = _read_knockd(path, folder)
    options = replace(foreign.options, interface=interface or foreign.options.interface or unnamed)
    sequences = tuple(
        replace(one, scope=replace(one.scope, interfaces=knockd.interfaces(options.interface), ipv4_only=ipv4_only))
        for one in foreign.sequences
    )
    settings = Settings(guarded_ports=(), opening_sequence=(), open_knock_ports=False, sequences=sequences)
    warnings = (*foreign.warnings, *lint.sniffed_warnings(settings, files.display(path), served()))
    return LoadedKnockd(settings, path, warnings, options=options)


def read_tportknockd(path: Path) -> Foreign:
    """tportknockd's file, with all its errors. Raises `ConfigError` if the file cannot be read."""
    shown = files.display(path)
    data, status = files.read(path, "a configuration file of tportknockd")
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
        raise ConfigError("the file is not UTF-8, expected TOML text", f"{shown}:{line}") from None
    warnings = [*files.mode_warnings(path, status)]
    own = native.parse(text, shown)
    warnings += native.repeated_ports(text, shown)
    settings, more = _with_imports(own, path, home)
    return settings, native.places(text, shown), warnings + more


def _overridden(
    settings: Settings, given: Mapping[_Override, str | None], environ: Mapping[str, str]
) -> tuple[Settings, dict[str, str], list[str]]:
    """The settings with the options or variables in place of their fields, the source of each such field, and
    warnings."""
    sources: dict[str, str] = {}
    warnings: list[str] = []
    for override, option in given.items():
        source, text = override.option, option
        if text is None and override.variable is not None:
            source, text = override.variable, environ.get(override.variable)
        if text is not None:
            with _placed(source):
                settings = replace(settings, **{override.field: override.read(text)})
            sources[override.field] = source
            if override is _PORTS:
                warnings += [f"{source}: port {port} is listed twice" for port in readers.guarded_ports.twice_in(text)]
    return settings, sources, warnings


def _with_imports(settings: Settings, path: Path, home: Path | None) -> tuple[Settings, list[str]]:
    """The settings with the sequences of the imported files, and warnings about those files.

    A name belongs to one file: the log could not distinguish sequences of two files by one name.
    """
    taken = {readers.RESERVED_NAME: "is the name of the opening sequence"}
    taken |= {one.name: f"is the name of a sequence of {files.display(path)}" for one in settings.sequences}
    sequences = list(settings.sequences)
    warnings: list[str] = []
    for one in settings.imports:
        foreign = _imported(one, path.parent / files.expand_home(Path(one.path), home))
        for sequence, place in zip(foreign.sequences, foreign.places, strict=True):
            if sequence.name in taken:
                raise ConfigError(f"{sequence.name} {taken[sequence.name]}, expected another name", place)
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
            native.check_traps_fit(sequence)
    return replace(foreign, sequences=sequences)


def _read_knockd(path: Path, folder: Path = Path()) -> Foreign:
    """knockd's file, and its files of one-time sequences, whose relative paths are relative to `folder`."""
    shown = files.display(path)
    data, status = files.read(path, "a configuration file of knockd")
    # Old files have comments in old encodings. Bytes that are not UTF-8 are refused anywhere else.
    found = knockd.parse(data.decode("utf-8", "surrogateescape"), shown)
    warnings = [*files.mode_warnings(path, status, runs_commands=True), *found.warnings]
    sequences = []
    places = tuple(f"{shown}:{line}" for line in found.lines)
    for sequence, place in zip(found.sequences, places, strict=True):
        if sequence.one_time:
            with _placed_again(place):
                warnings += _one_time_warnings(sequence, folder / sequence.one_time)
        # knockd resolves them in the directory it was started in; a daemon in the background has another one.
        one_time = str((folder / sequence.one_time).absolute()) if sequence.one_time else ""
        sequences.append(replace(sequence, one_time=one_time))
    return Foreign(tuple(sequences), places, (), tuple(warnings), found.options)


def _one_time_warnings(sequence: Sequence, path: Path) -> Iterator[str]:
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
    """An error of a file, at the place that names the file."""
    try:
        yield
    except ConfigError as wrong:
        raise ConfigError(str(wrong), where) from None
