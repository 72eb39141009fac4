"""The advice where firewalld does not run, by what is installed on the host."""

from pathlib import Path

import pytest

from port_knocking_doors.system import firewalld_service

HOSTS = {
    "Debian without firewalld": (["apt"], False, False, "apt install firewalld"),
    "Fedora without firewalld": (["dnf"], False, False, "dnf install firewalld"),
    "Arch without firewalld": (["pacman"], False, False, "pacman -S firewalld"),
    "no package manager": ([], False, False, "install the package firewalld"),
    "firewalld's program": (["apt", "firewalld"], False, True, "systemctl start firewalld"),
    "firewalld's unit": (["apt"], True, True, "systemctl start firewalld"),
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all programs and units of the host."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(firewalld_service, "_ADMINISTRATORS_PATH", str(tmp_path))
    monkeypatch.setattr(firewalld_service, "UNIT_FOLDERS", (tmp_path,))
    return tmp_path


def equip(host: Path, programs: list[str], *, has_unit: bool) -> None:
    for name in programs:
        (host / name).touch(mode=0o755)
    if has_unit:
        (host / "firewalld.service").touch()


@pytest.mark.parametrize(("programs", "has_unit", "installed", "remedy"), HOSTS.values(), ids=HOSTS)
def test_remedy_follows_from_what_is_installed(
    programs: list[str], has_unit: bool, installed: bool, remedy: str, host: Path
) -> None:
    equip(host, programs, has_unit=has_unit)
    assert firewalld_service.is_installed() is installed
    assert firewalld_service.remedy() == remedy
