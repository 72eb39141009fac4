"""The interface that knockd's service is started with, from the files that hold its options.

Debian has KNOCKD_OPTS in /etc/default/knockd; Fedora, RHEL and openSUSE have OPTIONS in /etc/sysconfig/knockd.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from port_knocking_doors.config import files, readers
from port_knocking_doors.errors import ConfigError

OPTION_FILES = (Path("/etc/default/knockd"), Path("/etc/sysconfig/knockd"))
CONFIG = Path("/etc/knockd.conf")
"""The file that the service reads without -c (knockd(1))."""
UNNAMED = "named neither in the file nor in the options of knockd's service"
_VARIABLES = ("KNOCKD_OPTS", "OPTIONS")
_COMPUTED = frozenset("$`<>")
"""Characters of a value that a shell computes, or that a person was to replace."""
_ASSIGNMENT = re.compile(rf"[ \t]*(?:export[ \t]+)?({'|'.join(_VARIABLES)})=(.*)")


@dataclass(frozen=True)
class ServiceInterface:
    """The interface, and the variable and file that name it; None and empty if none does."""

    interface: str | None = None
    source: str = ""
    overrides: bool = False
    """Whether the service reads this very file, so that its option comes before what the file names."""


def interface_of(conf: Path, option_files: tuple[Path, ...] | None = None) -> ServiceInterface:
    """The interface that the options of the service name for `conf`; by default of this machine's service.

    A service whose options name another file, and a value that a shell computes, name none.
    """
    for path in OPTION_FILES if option_files is None else option_files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", "")
        except OSError:
            continue
        found = ServiceInterface()
        for line in text.split("\n"):
            if (assignment := _ASSIGNMENT.match(line)) and (options := _options(assignment[2])) is not None:
                given = _given(options)
                reads = Path(given.get("c", CONFIG)) in (conf, conf.absolute())
                name = _interface(given) if reads or "c" not in given else None
                source = f"{assignment[1]} in {files.display(path)}"
                found = ServiceInterface(name, source, reads) if name else ServiceInterface()
        if found.interface:
            return found
    return ServiceInterface()


def _options(text: str) -> list[str] | None:
    """The options in the value of a variable; None if it is no shell's text."""
    try:
        return shlex.split(" ".join(shlex.split(text, comments=True)))
    except ValueError:
        return None


def _given(options: list[str]) -> dict[str, str]:
    """The values of the options -i and -c."""
    given: dict[str, str] = {}
    left = iter(options)
    for word in left:
        if option := re.fullmatch(r"(?:-(?:[dDlv4]*)([ic])|--(interface|config))(=?)(.*)", word, re.DOTALL):
            name = {"interface": "i", "config": "c"}.get(option[2], option[1] or option[2])
            given[name] = option[4] or next(left, "")
    return given


def _interface(given: dict[str, str]) -> str | None:
    try:
        return readers.interface_name(given["i"]) if "i" in given and _COMPUTED.isdisjoint(given["i"]) else None
    except ConfigError:
        return None
