"""The zones of firewalld by its files, which need neither root nor D-Bus as firewalld itself does."""

from collections.abc import Iterator
from pathlib import Path

from port_knocking_doors.config.reader_types import nearest

FOLDERS = (Path("/etc/firewalld/zones"), Path("/usr/lib/firewalld/zones"))
"""The zones of the administrator and those of the distribution (firewalld.zone(5))."""


def unknown_zone_warning(zone: str, place: str, folders: tuple[Path, ...]) -> Iterator[str]:
    """A warning if no file defines `zone`, set at `place`; none where firewalld's files are missing or unreadable."""
    known = _zones(folders)
    if zone and known and zone not in known:
        near = nearest(zone, known)
        advice = f"the nearest known zone is {near}" if near else "`firewall-cmd --get-zones` lists the known zones"
        yield f"{place}: zone {zone} is unknown to firewalld, {advice}"


def _zones(folders: tuple[Path, ...]) -> set[str]:
    """The names of the zones; empty if they are not all known. firewalld reads one level of subdirectories, too."""
    names: set[str] = set()
    for folder in folders:
        try:
            files = [*folder.iterdir()]
            files += [file for sub in files if sub.is_dir() for file in sub.iterdir()]
        except FileNotFoundError:
            continue
        except OSError:
            return set()
        names |= {str(file.relative_to(folder).with_suffix("")) for file in files if file.suffix == ".xml"}
    return names
