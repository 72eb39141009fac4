"""Zones by firewalld's files."""

from pathlib import Path

import pytest

from port_knocking_doors.config.zone_files import unknown_zone_warning


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, ...]:
    administrator, distribution = tmp_path / "etc", tmp_path / "usr"
    for path in (administrator / "dmz2.xml", administrator / "site" / "inner.xml", distribution / "public.xml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (distribution / "pubic.xml.old").touch()
    return administrator, distribution


@pytest.mark.parametrize("zone", ["", "dmz2", "site/inner", "public"])
def test_known_zone_has_no_warning(folders: tuple[Path, ...], zone: str) -> None:
    assert list(unknown_zone_warning(zone, "F:3", folders)) == []


@pytest.mark.parametrize(("zone", "nearest"), [("pubic", "public"), ("inner", "site/inner"), ("dmz", "dmz2")])
def test_unknown_zone_has_a_warning_with_the_nearest(folders: tuple[Path, ...], zone: str, nearest: str) -> None:
    assert list(unknown_zone_warning(zone, "F:3", folders)) == [
        f"F:3: zone {zone} is unknown to firewalld, the nearest known zone is {nearest}"
    ]


def test_unknown_zone_far_from_all_has_advice(folders: tuple[Path, ...]) -> None:
    assert list(unknown_zone_warning("trusty", "F:3", folders)) == [
        "F:3: zone trusty is unknown to firewalld, `firewall-cmd --get-zones` lists the known zones"
    ]


def test_zone_has_no_warning_without_firewalld(tmp_path: Path) -> None:
    assert list(unknown_zone_warning("pubic", "F:3", (tmp_path / "etc", tmp_path / "usr"))) == []


def test_zone_has_no_warning_when_a_folder_is_unreadable(
    folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Path.iterdir

    def refuse(path: Path) -> object:
        if path == folders[0]:
            raise PermissionError(13, "Permission denied", path)
        return really(path)

    monkeypatch.setattr(Path, "iterdir", refuse)  # not by its mode: the tests may run as root
    assert list(unknown_zone_warning("pubic", "F:3", folders)) == []
