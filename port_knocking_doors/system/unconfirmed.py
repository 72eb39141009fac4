"""A note in the runtime directory: doors were open when firewalld ended, and nothing confirmed since that they closed.

For a process that may not read the kernel's tables. Its successor reads the note: firewalld may start meanwhile. A note
that cannot be written or read counts as none.
"""

from contextlib import suppress
from pathlib import Path

from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system.instance import runtime_directory


def write(priority: int, doors: int) -> None:
    """`doors`: how many rules stay active until firewalld runs; 0 where that is unknown."""
    with suppress(OSError, DoorsError):
        _path(priority).write_text(f"{doors}\n")


def read(priority: int) -> int | None:
    """As `write` wrote it; None for no note."""
    try:
        return int(_path(priority).read_text())
    except (OSError, DoorsError, ValueError):
        return None


def remove(priority: int) -> None:
    """The doors are confirmed closed."""
    with suppress(OSError, DoorsError):
        _path(priority).unlink(missing_ok=True)


def _path(priority: int) -> Path:
    return runtime_directory() / f"{priority}.unconfirmed"
