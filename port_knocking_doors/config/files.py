"""The configuration file on disk: finding, reading, warnings about its mode and owner, writing a new file.

Nothing is logged here; warnings are returned.
"""

import contextlib
import os
import secrets
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from port_knocking_doors.config.lint import is_sorted
from port_knocking_doors.config.render import render
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import DEFAULT_SEQUENCE, PORT_MAX, EphemeralPorts, Protocol, Settings
from port_knocking_doors.system.listening_ports import listening_ports, outgoing_ports

HOME_NAME = ".port_knocker.toml"
EMPTY = Path()
"""The path of an empty string, and of "."."""
NO_NAME = "the name is empty or the current directory"
NO_HOME = "this user has no home directory, expected the path of one"
SIZE_MAX = 2**20
"""Bytes of a configuration file. A larger one is a mistake, such as the path of a log."""

FRESH_PORTS = range(10000, 32768)
"""Where a new sequence comes from: above most services' ports, and below Linux's own ephemeral ports. Ports that this
host gives to outgoing sockets, and those in use, are left out."""
UNPRIVILEGED = range(1024, PORT_MAX + 1)
"""Where it comes from if too many are left out."""
FRESH_LEAST = 4096
"""Fewer ports to choose from are too few: five of these make 2 ** 60 sequences."""
FRESH_LENGTH = 5
_FRESH_RANGES = (FRESH_PORTS, UNPRIVILEGED)


@dataclass(frozen=True)
class Written:
    """A new configuration file, and its sequence."""

    path: Path
    sequence: tuple[int, ...] = field(repr=False)


def find_home() -> Path | None:
    """The user's home directory; None for a user without one, as in many containers."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def expand_home(conf: Path, home: Path | None) -> Path:
    """`conf` with its `~` replaced: a shell does not replace it in `--conf=~/FILE`. Raises `ConfigError`."""
    if conf.parts[:1] == ("~",):
        if home is None:
            raise ConfigError(f"{NO_HOME} instead of ~", display(conf))
        return home.joinpath(*conf.parts[1:])
    try:
        return conf.expanduser()
    except RuntimeError:
        raise ConfigError("user not found, expected a file", display(conf)) from None


def existing(*candidates: Path) -> list[Path]:
    """The candidates that exist in any form."""
    return [path for path in candidates if _exists(path)]


def _exists(path: Path) -> bool:
    """Whether anything has this name, be it a dangling link, or a file in a directory that may not be searched."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read(path: Path, expected: str) -> tuple[bytes, os.stat_result]:
    """The bytes and the status of a regular file. Anything else is refused, without waiting for it.

    `expected` names the expected content in messages. Raises `ConfigError`.
    """
    if path == EMPTY:
        raise ConfigError(f"{NO_NAME}, expected {expected}")
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"not a regular file, expected {expected}", display(path))
            data = file.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or "invalid name"
        problem = f"cannot read the file ({reason}), expected a file that this user may read"
        raise ConfigError(problem, display(path)) from None
    if len(data) > SIZE_MAX:
        raise ConfigError(f"the file is too large, expected at most {SIZE_MAX} bytes", display(path))
    return data, status


def mode_warnings(path: Path, status: os.stat_result, *, runs_commands: bool = False) -> Iterator[str]:
    """Warnings about the owner and the permissions of a file."""
    shown, mode = display(path), stat.S_IMODE(status.st_mode)
    if runs_commands and status.st_uid not in (0, os.geteuid()):
        yield (
            f"{shown}: the owner is another user (uid {status.st_uid}), who can run commands as the daemon: "
            f"chown {os.geteuid()} {shlex.quote(shown)}"
        )
    if runs_commands and mode & 0o022:
        why = "other users can write the file, and so run commands as the daemon"
    elif mode & 0o077:
        why = "the file holds a secret"
    else:
        return
    yield f"{shown}: permissions {mode:04o} are too open, {why}: chmod 600 {shlex.quote(shown)}"


def write_home_file(home: Path | None) -> Written:
    """Write the file of a new installation, with a random sequence, readable by its owner only.

    The file appears complete and synced to disk or not at all, and never replaces another one. Raises `ConfigError` if
    the name exists, even as a dangling link, or the user has no home, and `DoorsError` if writing fails.
    """
    if home is None:
        raise ConfigError(f"{NO_HOME} in the variable HOME", f"~/{HOME_NAME}")
    path = home / HOME_NAME
    taken = ConfigError("file exists, not overwritten", display(path))
    if _exists(path):
        raise taken
    sequence = fresh_sequence()
    content = render(Settings(opening_sequence=sequence)).encode()
    draft = home / f"{HOME_NAME}.{secrets.token_hex(8)}"
    try:
        try:
            _write_private(draft, content)
            os.link(draft, path)  # unlike a rename, fails if the name exists
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise taken from None
    except OSError as error:
        raise DoorsError(f"{display(path)}: cannot be written ({error.strerror})") from None
    _sync_folder(home)
    return Written(path, sequence)


def fresh_sequence(outgoing: EphemeralPorts | None = None) -> tuple[int, ...]:
    """A random sequence: distinct ports, neither rising nor falling.

    They avoid what outgoing sockets may have (`outgoing`: by default as this host has it) unless that leaves too few.
    """
    avoided = outgoing_ports() if outgoing is None else outgoing
    used = {port.number for port in listening_ports() if port.protocol is Protocol.UDP}
    choices = ([port for port in ports if port not in avoided and port not in used] for ports in _FRESH_RANGES)
    choice: Sequence[int] = next((ports for ports in choices if len(ports) >= FRESH_LEAST), FRESH_PORTS)
    while True:
        ports = tuple(secrets.SystemRandom().sample(choice, FRESH_LENGTH))
        if not is_sorted(ports) and ports != DEFAULT_SEQUENCE:
            return ports


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that no other user can read at any moment, and sync it to disk."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # The content is on disk already; a file system that cannot sync a directory is no failure.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def display(path: Path) -> str:
    """A path for a message of one line."""
    return str(path) if str(path).isprintable() else repr(str(path))
