"""Which configuration is in force: looks the file up, reads it and what it imports, lets options and environment have
their say.

Also reads knockd's and tportknockd's files where these are the whole configuration, and writes the file of a new
installation. Nothing is logged here; what deserves a warning is handed back.
"""

import contextlib
import os
import secrets
import shlex
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from port_knocking_doors.config import knockd, native, readers, tportknockd
from port_knocking_doors.config.render import render
from port_knocking_doors.config.schema import EXAMPLE_STEPS
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import DEFAULT_SEQUENCE, Dialect, Import, Port, Protocol, Sequence, Settings
from port_knocking_doors.system.listening_ports import listening_ports

HOME_NAME = ".port_knocker.toml"
SYSTEM_FILE = Path("/etc/port_knocker.toml")
_EMPTY = Path()
"""What an empty text becomes; "." does, too."""
_NO_NAME = "this name is empty or means the current folder"
NO_HOME = "this user has no home directory, expected the name of one"
SIZE_MAX = 2**20
"""Bytes of a configuration file; more is a mistake, such as a log given for it."""

FRESH_PORTS = range(10000, 32768)
"""Where a new installation's sequence comes from: above most services' ports, and below Linux's ephemeral ones, which
any program on the machine may hold for a while."""
FRESH_LENGTH = 5

KNOCKD_INTERFACE = "eth0"
"""Where knockd listens when neither its options nor its file say (knockd(1))."""

SHORT = 3
"""Steps under which a sniffed sequence is found by chance too soon."""
PUBLIC = frozenset(
    {
        DEFAULT_SEQUENCE,
        tuple(step.port for step in EXAMPLE_STEPS),
        # knockd's manual and its example of a configuration
        (7000, 8000, 9000),
        (9000, 8000, 7000),
        (700, 800, 900),
        (900, 800, 700),
        (2222, 3333, 4444),
        # tportknockd's page
        (1234, 543, 543, 123, 434, 2345),
        (12430, 2711, 123, 8375, 1155),
        (110, 110, 110, 110, 110),
    }
)
"""Ports of sequences that everybody can look up, whatever their protocols and flags."""


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
        whole = _shown(self.path) if self.path is not None else "built-in defaults"
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
class Written:
    """A new configuration file, and its sequence."""

    path: Path
    sequence: tuple[int, ...] = field(repr=False)


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


def find_home() -> Path | None:
    """Where `~` is; None for a user who has no such place, as in many containers."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


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
    if conf == _EMPTY:
        raise ConfigError(f"{_NO_NAME}, expected a file", "--conf")
    path = _expanded(conf, home) if conf is not None else _found(*([home / HOME_NAME] if home else []), system)
    settings, places, warnings = _from_file(path, home) if path is not None else (Settings(), {}, [])
    file = "" if path is None else _shown(path)
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

    warnings += _doubts(settings, sources.get(_SEQUENCE.field, file))
    if settings.sequences:
        warnings += _sniffed_doubts(settings, file, served())
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
        replace(one, reach=replace(one.reach, interfaces=knockd.interfaces(options.interface), ipv4_only=ipv4_only))
        for one in foreign.sequences
    )
    settings = Settings(guarded_ports=(), opening_sequence=(), open_knock_ports=False, sequences=sequences)
    warnings = (*foreign.warnings, *_sniffed_doubts(settings, _shown(path), served()))
    return LoadedKnockd(settings, path, warnings, options=options)


def read_tportknockd(path: Path) -> Foreign:
    """tportknockd's file, with everything that is wrong with it. Raises `ConfigError` if it cannot be read at all."""
    shown = _shown(path)
    data, status = read(path, "a file of tportknockd's")
    sequences, errors = tportknockd.read(data.decode("utf-8-sig", "surrogateescape"), shown)
    warnings = tuple(_exposed(path, status, runs_commands=True))
    return Foreign(sequences, (shown,) * len(sequences), errors, warnings)


def doubts(sequences: tuple[Sequence, ...], served: Collection[Port]) -> tuple[str, ...]:
    """What is unwise about sequences of other daemons' files, by their names and files."""
    return tuple(_sniffed_doubts(Settings(guarded_ports=(), opening_sequence=(), sequences=sequences), "", served))


def write_home_file(home: Path | None) -> Written:
    """Write the file of a new installation, with a sequence of its own, readable by its owner only.

    It appears whole and on disk or not at all, and never in place of another. Raises `ConfigError` if something is
    there by its name already, be it a link that leads nowhere, or there is no home, and `DoorsError` if it cannot be
    written.
    """
    if home is None:
        raise ConfigError(f"{NO_HOME} in the variable HOME", f"~/{HOME_NAME}")
    path = home / HOME_NAME
    taken = ConfigError("something is there already and was left alone, expected a name not yet in use", _shown(path))
    if _is_there(path):
        raise taken
    sequence = fresh_sequence()
    content = render(Settings(opening_sequence=sequence)).encode()
    draft = home / f"{HOME_NAME}.{secrets.token_hex(8)}"
    try:
        try:
            _write_private(draft, content)
            os.link(draft, path)  # unlike a rename, refuses to replace what is there
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise taken from None
    except OSError as error:
        raise DoorsError(f"{_shown(path)}: cannot be written ({error.strerror})") from None
    _sync_folder(home)
    return Written(path, sequence)


def fresh_sequence() -> tuple[int, ...]:
    """A sequence that nobody can guess: distinct ports of `FRESH_PORTS`, in no order."""
    while True:
        ports = tuple(secrets.SystemRandom().sample(FRESH_PORTS, FRESH_LENGTH))
        if not _is_sorted(ports) and ports != DEFAULT_SEQUENCE:
            return ports


def _expanded(conf: Path, home: Path | None) -> Path:
    """`conf` with its `~` replaced, for a shell leaves that of `--conf=~/FILE` as it is."""
    if conf.parts[:1] == ("~",):
        if home is None:
            raise ConfigError(f"{NO_HOME} instead of ~", _shown(conf))
        return home.joinpath(*conf.parts[1:])
    try:
        return conf.expanduser()
    except RuntimeError:
        raise ConfigError("there is no such user, expected a file", _shown(conf)) from None


def _found(*candidates: Path) -> Path | None:
    return next((path for path in candidates if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    """Whether anything has this name: a link that leads nowhere, or something that cannot be looked at, does count."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _from_file(path: Path, home: Path | None) -> tuple[Settings, dict[str, str], list[str]]:
    shown = _shown(path)
    data, status = read(path, "TOML text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("this is not UTF-8, expected TOML text", f"{shown}:{line}") from None
    warnings = [*_exposed(path, status)]
    settings, more = _with_imports(native.parse(text, shown), path, home)
    return settings, native.places(text, shown), warnings + more


def _exposed(path: Path, status: os.stat_result, *, runs_commands: bool = False) -> Iterator[str]:
    """What is unwise about who may do what with a file."""
    shown, mode = _shown(path), stat.S_IMODE(status.st_mode)
    chmod = f"(mode {mode:04o}), and {{}}: chmod 600 {shlex.quote(shown)}"
    if runs_commands and status.st_uid not in (0, os.geteuid()):
        yield (
            f"{shown}: this file belongs to another user (number {status.st_uid}), and its commands run with all rights"
            f" of the daemon: chown {os.geteuid()} {shlex.quote(shown)}"
        )
    if runs_commands and mode & 0o022:
        yield f"{shown}: others may write this file {chmod.format('its commands run with all rights of the daemon')}"
    elif mode & 0o077:
        yield f"{shown}: others may use this file {chmod.format('it holds a secret')}"


def _with_imports(settings: Settings, path: Path, home: Path | None) -> tuple[Settings, list[str]]:
    """The settings with the sequences of the files that they import, and what is unwise about those files.

    A name stands for the sequences of one file: in the log nobody could tell two files' sequences of one name apart.
    """
    taken = {readers.RESERVED_NAME: "is the opening sequence's name"}
    taken |= {one.name: f"is the name of a sequence of {_shown(path)}" for one in settings.sequences}
    sequences = list(settings.sequences)
    warnings: list[str] = []
    for one in settings.imports:
        foreign = _imported(one, path.parent / _expanded(Path(one.path), home))
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
    shown = _shown(path)
    data, status = read(path, "a file of knockd's")
    # Old files have comments in old encodings; anywhere else, what is not UTF-8 is refused.
    found = knockd.parse(data.decode("utf-8", "surrogateescape"), shown)
    warnings = [*_exposed(path, status, runs_commands=True)]
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
    data, status = read(path, "one-time sequences")
    yield from _exposed(path, status)
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    if not any(knockd.one_time_steps(line, sequence.flags) for line in lines):
        yield f"{_shown(path)}: no one-time sequence is left, so door {sequence.name} stays closed; write new ones"


def read(path: Path, expected: str) -> tuple[bytes, os.stat_result]:
    """The bytes of an ordinary file, and whose it is. Anything else is refused, without waiting for it.

    `expected` says for messages what the file ought to hold. Raises `ConfigError`.
    """
    if path == _EMPTY:
        raise ConfigError(f"{_NO_NAME}, expected {expected}")
    try:
        # Opening a pipe for reading would wait for its writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"this is not an ordinary file, expected {expected}", _shown(path))
            data = file.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or "no possible name"
        problem = f"this file cannot be read ({reason}), expected one that this user may read"
        raise ConfigError(problem, _shown(path)) from None
    if len(data) > SIZE_MAX:
        raise ConfigError(f"this file is too large, expected at most {SIZE_MAX} bytes", _shown(path))
    return data, status


def _doubts(settings: Settings, source: str) -> Iterator[str]:
    """What is allowed and still unwise. `source`: where the sequence comes from, empty for the built-in one."""
    at = f"{source}: " if source else ""
    if settings.opening_sequence == DEFAULT_SEQUENCE:
        why = "the sequence is the documentation's example" if source else "no configuration file, built-in sequence"
        yield (
            f"{at}PUBLIC SEQUENCE: {why}, everybody can look it up and open the doors; "
            "choose your own, or let --set-configuration-file-in-home choose one"
        )
    elif _is_sorted(settings.opening_sequence):
        yield f"{at}the ports of the sequence are in rising or falling order, which is easily guessed; mix them"
    guarded = {port.number for port in settings.guarded_ports if port.protocol is Protocol.UDP}
    both = len(guarded.intersection(settings.opening_sequence))
    if both:
        yield f"{at}{both} guarded UDP port(s) are also in the sequence, so no service can have them; choose others"


def _sniffed_doubts(settings: Settings, file: str, served: Collection[Port]) -> Iterator[str]:
    """What is unwise about the sniffed sequences, by their names."""
    opened = {*settings.guarded_ports, *(port for sequence in settings.sequences for port in sequence.opens)}
    # The daemon itself serves the knock ports of the opening sequence; it may be running now.
    own = {Port(port, Protocol.UDP) for port in settings.opening_sequence}
    busy = {*served} - opened - own
    for sequence in settings.sequences:
        if sequence.one_time:
            continue
        at = f"{sequence.group or file}: sequence {sequence.name}:"
        ports = tuple(step.port for step in sequence.steps)
        if ports in PUBLIC:
            yield f"{at} PUBLIC SEQUENCE: its ports are a documentation's example, which everybody can look up"
        elif len(ports) < SHORT:
            steps = f"{len(ports)} steps, which are" if len(ports) > 1 else "1 step, which is"
            yield f"{at} it has {steps} soon found by chance; give it {SHORT} or more"
        elif _is_sorted(ports) and not _differs_in_flags_alone(sequence):
            yield f"{at} its ports are in rising or falling order, which is easily guessed; mix them"
        stepped_on = {Port(step.port, step.protocol) for step in sequence.steps}
        for those, why in (
            (opened, "are guarded, so those who use what is behind them knock, too"),
            (busy, "are served by a program of this machine, so those who use it knock, too"),
        ):
            if both := len(stepped_on & those):
                yield f"{at} {both} port(s) of its steps {why}; choose others"


def _differs_in_flags_alone(sequence: Sequence) -> bool:
    return len({step.port for step in sequence.steps}) == 1 < len(set(sequence.steps))


def _is_sorted(ports: tuple[int, ...]) -> bool:
    rising = sorted(ports)
    return list(ports) in (rising, rising[::-1])


def _write_private(path: Path, content: bytes) -> None:
    """Make a file that nobody else can read at any moment, and see it on disk."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask took away
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # The content is safe already; some file systems cannot sync a folder, which is no reason to report a failure.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def _shown(path: Path) -> str:
    """A path for a message of one line."""
    return str(path) if str(path).isprintable() else repr(str(path))
