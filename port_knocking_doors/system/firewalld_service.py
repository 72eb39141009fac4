"""firewalld as a service of this host: whether it is installed, and the command that starts or installs it."""

import os
import shutil
from pathlib import Path

UNIT = "firewalld.service"
UNIT_FOLDERS = tuple(
    map(Path, ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"))
)
"""Folders of installed units (systemd.unit(5))."""

_ADMINISTRATORS_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Folders of such programs that the PATH of a user may lack."""

_PACKAGE_MANAGERS = ("apt", "dnf", "zypper", "pacman")
_INSTALL = {"pacman": "pacman -S"}


def is_installed() -> bool:
    """Whether firewalld's program or its unit exists."""
    return _program("firewalld") or any((folder / UNIT).exists() for folder in UNIT_FOLDERS)


def remedy(start: str = "systemctl start firewalld") -> str:
    """The command that brings firewalld up: `start` where it is installed, and otherwise what installs it."""
    if is_installed():
        return start
    manager = next(filter(_program, _PACKAGE_MANAGERS), None)
    return f"{_INSTALL.get(manager, f'{manager} install')} firewalld" if manager else "install the package firewalld"


def _program(name: str) -> bool:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _ADMINISTRATORS_PATH))
    return shutil.which(name, path=path) is not None
