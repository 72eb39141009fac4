"""The configuration file on disk: where it is found, how it is read, who may use it, and a new one.

Nothing is logged here; what deserves a warning is handed back.
"""

import contextlib
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from port_knocking_doors.config.lint import is_sorted
from port_knocking_doors.config.render import render
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import DEFAULT_SEQUENCE, Settings

HOME_NAME = ".port_knocker.toml"
EMPTY = Path()
"""What an empty text becomes; "." does, too."""
NO_NAME = "this name is empty or means the current folder"
NO_HOME = "this user has no home directory, expected the name of one"
SIZE_MAX = 2**20
"""Bytes of a configuration file; more is a mistake, such as a log given for it."""

FRESH_PORTS = range(10000, 32768)
"""Where a new installation's sequence comes from: above most services' ports, and below Linux's ephemeral ones, which
any program on the machine may hold for a while."""
FRESH_LENGTH = 5


@dataclass(frozen=True)
class Written:
    """A new configuration file, and its sequence."""

    path: Path
    sequence: tuple[int, ...] = field(repr=False)


def find_home() -> Path | None:
    """Where `~` is; None for a user who has no such place, as in many containers."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def expand_home(conf: Path, home: Path | None) -> Path:
    """`conf` with its `~` replaced, for a shell leaves that of `--conf=~/FILE` as it is."""
    if conf.parts[:1] == ("~",):
        if home is None:
            raise ConfigError(f"{NO_HOME} instead of ~", display(conf))
        return home.joinpath(*conf.parts[1:])
    try:
        return conf.expanduser()
    except RuntimeError:
        raise ConfigError("there is no such user, expected a file", display(conf)) from None


def first_existing(*candidates: Path) -> Path | None:
    return next((path for path in candidates if _exists(path)), None)


def _exists(path: Path) -> bool:
    """Whether anything has this name: a link that leads nowhere, or something that cannot be looked at, does count."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read(path: Path, expected: str) -> tuple[bytes, os.stat_result]:
    """The bytes of an ordinary file, and whose it is. Anything else is refused, without waiting for it.

    `expected` says for messages what the file ought to hold. Raises `ConfigError`.
    """
    if path == EMPTY:
        raise ConfigError(f"{NO_NAME}, expected {expected}")
    try:
        # Opening a pipe for reading would wait for its writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"this is not an ordinary file, expected {expected}", display(path))
            data = file.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or "no possible name"
        problem = f"this file cannot be read ({reason}), expected one that this user may read"
        raise ConfigError(problem, display(path)) from None
    if len(data) > SIZE_MAX:
        raise ConfigError(f"this file is too large, expected at most {SIZE_MAX} bytes", display(path))
    return data, status


def mode_warnings(path: Path, status: os.stat_result, *, runs_commands: bool = False) -> Iterator[str]:
    """What is unwise about who may do what with a file."""
    shown, mode = display(path), stat.S_IMODE(status.st_mode)
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


def write_home_file(home: Path | None) -> Written:
    """Write the file of a new installation, with a sequence of its own, readable by its owner only.

    It appears whole and on disk or not at all, and never in place of another. Raises `ConfigError` if something is
    there by its name already, be it a link that leads nowhere, or there is no home, and `DoorsError` if it cannot be
    written.
    """
    if home is None:
        raise ConfigError(f"{NO_HOME} in the variable HOME", f"~/{HOME_NAME}")
    path = home / HOME_NAME
    taken = ConfigError("something is there already and was left alone, expected a name not yet in use", display(path))
    if _exists(path):
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
        raise DoorsError(f"{display(path)}: cannot be written ({error.strerror})") from None
    _sync_folder(home)
    return Written(path, sequence)


def fresh_sequence() -> tuple[int, ...]:
    """A sequence that nobody can guess: distinct ports of `FRESH_PORTS`, in no order."""
    while True:
        ports = tuple(secrets.SystemRandom().sample(FRESH_PORTS, FRESH_LENGTH))
        if not is_sorted(ports) and ports != DEFAULT_SEQUENCE:
            return ports


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


def display(path: Path) -> str:
    """A path for a message of one line."""
    return str(path) if str(path).isprintable() else repr(str(path))
