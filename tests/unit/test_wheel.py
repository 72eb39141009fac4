"""What is installed is all there is: no module, no data file and no licence is forgotten in the wheel or the sdist."""

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from port_knocking_doors import __version__

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = "port_knocking_doors"


def files_of(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder.parent))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"  # setuptools writes beside what it builds from
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(PROJECT / PACKAGE, source / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    run = subprocess.run(build, capture_output=True, text=True, check=False, cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_wheel_has_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == files_of(PROJECT / PACKAGE)
    assert f"{PACKAGE}/py.typed" in names
    assert any(name.endswith("/LICENSE") for name in names)


def test_wheel_names_its_dependencies_and_its_program(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inner = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        about = email.message_from_string(archive.read(inner["METADATA"]).decode())
        entry_points = archive.read(inner["entry_points.txt"]).decode()
    needed = [one for one in about.get_all("Requires-Dist", []) if "extra" not in one]
    assert sorted(one.replace(" ", "").replace("(", "").replace(")", "") for one in needed) == [
        "dbus-next>=0.2.3",
        "tomli>=2.0.1",
        "typer>=0.7",
    ]
    assert about["Version"] == __version__
    assert "port-knocking-doors = port_knocking_doors.cli:main" in entry_points


def test_sdist_has_every_file_of_the_package(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*files_of(PROJECT / PACKAGE), "pyproject.toml", "README.md", "LICENSE"} - names == set()


def test_changelog_of_debian_names_this_version() -> None:
    first = (PROJECT / "packaging/debian/changelog").read_text().split("\n", 1)[0]
    assert first.startswith(f"port-knocking-doors ({__version__.replace('.dev', '~dev')}) ")
