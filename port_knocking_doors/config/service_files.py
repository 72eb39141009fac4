"""The ports of services, from /etc/services and from firewalld's files."""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from port_knocking_doors.config.service_names import COMMON, ServiceNames
from port_knocking_doors.model import PORT_MAX, Port, Protocol

SERVICES = Path("/etc/services")
FOLDERS = (Path("/etc/firewalld/services"), Path("/usr/lib/firewalld/services"))
"""The services of the administrator and those of the distribution (firewalld.service(5))."""

_LINE = re.compile(r"(\S+)\s+(\d{1,5})/(tcp|udp)\b([^#]*)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_INCLUDES_MAX = 8
_PORTS_MAX = 64
_Ports = tuple[Port, ...]


def of_system(services: Path = SERVICES, folders: tuple[Path, ...] = FOLDERS) -> ServiceNames:
    """The services of this system; well-known ones where it has no such files, or none that this user may read."""
    named = {**COMMON, **_named(services)}
    folders = tuple(folder for folder in folders if os.access(folder, os.R_OK | os.X_OK))
    return ServiceNames(named, lambda name: _of_firewalld(name, folders)) if folders else ServiceNames(named)


def _named(path: Path) -> dict[str, _Ports]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[str, _Ports] = {}
    for line in text.split("\n"):
        if entry := _LINE.match(line):
            port = Port(int(entry[2]), Protocol(entry[3]))
            for name in (entry[1], *entry[4].split()):
                found[name] = (*found.get(name, ()), port)
    return found


def _of_firewalld(name: str, folders: tuple[Path, ...], includes: int = _INCLUDES_MAX) -> _Ports | None:
    if not _NAME.fullmatch(name) or not includes:
        return None
    try:
        path = next((path for folder in folders if (path := folder / f"{name}.xml").is_file()), None)
        service = ElementTree.fromstring(path.read_bytes()) if path is not None else None  # noqa: S314 firewalld's own
    except (OSError, ElementTree.ParseError):
        service = None
    if service is None:
        return None
    ports: list[Port] = []
    for element in service:
        if element.tag == "port":
            found = _range(element.get("port", ""), element.get("protocol", ""))
        elif element.tag == "include":
            found = _of_firewalld(element.get("service", ""), folders, includes - 1)
        elif element.tag in ("short", "description", "helper", "module"):
            found = ()
        else:  # a protocol without ports, a source port, a destination
            found = None
        if found is None:
            return None
        ports += found
    return tuple(dict.fromkeys(ports)) or None


def _range(text: str, protocol: str) -> _Ports | None:
    first, _, last = text.partition("-")
    if protocol not in list(Protocol) or not first.isdecimal() or not (last or first).isdecimal():
        return None
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= PORT_MAX or high - low >= _PORTS_MAX:
        return None
    return tuple(Port(number, Protocol(protocol)) for number in range(low, high + 1))
