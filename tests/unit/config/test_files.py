"""The configuration file on disk: finding, reading, its permissions; and the file of a new installation."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.client import snippets
from port_knocking_doors.config import files
from port_knocking_doors.config.files import write_home_file
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import DEFAULT_SEQUENCE, EphemeralPorts, Port, Protocol, Settings
from port_knocking_doors.system.listening_ports import outgoing_ports
from tests.unit.config.broken import BROKEN, a_dangling_link, a_folder, a_pipe, empty, not_toml
from tests.unit.config.world import World, sequence, text_of, write

# Looking up


@pytest.mark.parametrize("system", [False, True], ids=["", "system"])
@pytest.mark.parametrize("home", [False, True], ids=["", "home"])
@pytest.mark.parametrize("conf", [False, True], ids=["", "conf"])
def test_first_existing_file_is_used(world: World, conf: bool, home: bool, system: bool) -> None:
    places = [world.root / "conf.toml", world.home_file, world.system_file]
    present = [write(place, tens) for tens, place in enumerate(places) if (conf, home, system)[tens]]
    loaded = world.load(conf=places[0] if conf else None)
    assert loaded.path == (present[0] if present else None)
    expected = sequence(places.index(present[0])) if present else DEFAULT_SEQUENCE
    assert loaded.settings.opening_sequence == expected


def test_home_file_beside_system_file_has_a_warning(world: World) -> None:
    write(world.home_file, 1)
    assert world.load().warnings == ()
    write(world.system_file, 2)
    said = f"{world.home_file}: {world.system_file} exists as well and is not read; remove one of them"
    assert world.load().warnings == (said,)
    assert world.load(conf=world.home_file).warnings == ()


def test_home_is_that_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert files.find_home() == Path("/somewhere")


def test_tilde_in_option_is_the_home(world: World) -> None:
    write(world.home / "sub" / "f.toml", 7)
    loaded = world.load(conf=Path("~/sub/f.toml"))
    assert loaded.path == world.home / "sub" / "f.toml"
    assert "user not found" in world.refusal(conf=Path("~nobody-of-this-name/f.toml"))


@pytest.mark.parametrize("place", ["conf", "home", "system"])
@pytest.mark.parametrize(("make", "message"), BROKEN, ids=[make.__name__ for make, _ in BROKEN])
def test_existing_file_is_refused_rather_than_skipped(
    world: World, make: Callable[[Path], None], message: str, place: str
) -> None:
    path = {"conf": world.root / "conf", "home": world.home_file, "system": world.system_file}[place]
    world.system_file.parent.mkdir()
    make(path)
    if place != "system":
        write(world.system_file)
    said = world.refusal(conf=path if place == "conf" else None, magic_seq=text_of(sequence(1)), ports="22")
    assert said.startswith(f"{path}{message}")


def test_unreadable_file_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world.home_file)
    write(world.system_file)

    def refuse(path: object, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)  # not by its mode: the tests may run as root
    assert world.refusal() == (
        f"{world.home_file}: cannot read the file (Permission denied), expected a file that this user may read"
    )


def test_unsearchable_home_is_refused_rather_than_skipped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world.system_file)

    def refuse(path: Path, *_: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "lstat", refuse)
    assert "cannot read the file" in world.refusal()


def test_home_that_is_no_directory_has_no_file(world: World) -> None:
    write(world.system_file, 5)
    world.home = Path("/dev/null")
    assert world.load().path == world.system_file


def test_missing_file_of_option_is_refused(world: World) -> None:
    write(world.home_file)
    assert "(No such file or directory)" in world.refusal(conf=world.root / "typo")
    assert "(invalid name)" in world.refusal(conf=world.root / "a\0b")


def test_message_about_an_odd_file_name_is_one_line(world: World) -> None:
    assert "\\n" in world.refusal(conf=world.root / "a\nb\udcff")


def test_byte_order_mark_is_ignored(world: World) -> None:
    write(world.home_file, 4)
    world.home_file.write_bytes(b"\xef\xbb\xbf" + world.home_file.read_bytes())
    assert world.load().settings.opening_sequence == sequence(4)


# Modes


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_file_with_open_permissions_has_a_warning(world: World, mode: int) -> None:
    path = write(world.root / "my conf", mode=mode)
    (warning,) = world.load(conf=path).warnings
    assert warning == (f"{path}: permissions {mode:04o} are too open, the file holds a secret: chmod 600 '{path}'")


# The file of a new installation


def test_new_file_is_private_valid_and_used(world: World) -> None:
    written = write_home_file(world.home)
    assert written.path == world.home_file
    assert stat.S_IMODE(written.path.lstat().st_mode) == 0o600
    loaded = world.load()
    assert loaded.path == written.path
    assert loaded.warnings == ()
    assert loaded.settings == Settings(opening_sequence=loaded.settings.opening_sequence)
    assert list(world.home.iterdir()) == [written.path]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_new_file_is_private_at_any_moment_with_any_umask(
    world: World, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    really = os.open

    def watched(path: Path, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor = really(path, flags, mode, **more)
        seen.add(stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077)
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(files, "_sync_folder", lambda _: None)
    before = os.umask(umask)
    try:
        written = write_home_file(world.home)
    finally:
        os.umask(before)
    assert seen == {0}
    assert stat.S_IMODE(written.path.stat().st_mode) == 0o600


def test_fresh_sequences_are_distinct_and_unsorted() -> None:
    fresh = {files.fresh_sequence() for _ in range(200)}
    assert len(fresh) == 200
    for ports in fresh:
        assert len(set(ports)) == 5
        assert list(ports) not in (sorted(ports), sorted(ports, reverse=True))
        assert all(port not in outgoing_ports() for port in ports)


RANGES: dict[str, tuple[EphemeralPorts, range]] = {
    "the usual range": (EphemeralPorts(range(32768, 61000)), range(10000, 32768)),
    "a range that begins lower": (EphemeralPorts(range(15000, 61000)), range(10000, 15000)),
    "a range of nearly all": (EphemeralPorts(range(10000, 61000)), (range(1024, 65536))),
    "a range with reserved ports": (
        EphemeralPorts(range(1024, 65536), frozenset(range(20000, 30000))),
        range(20000, 30000),
    ),
    "a range of everything": (EphemeralPorts(range(1024, 65536)), range(10000, 32768)),
}


@pytest.mark.parametrize(("outgoing", "within"), RANGES.values(), ids=RANGES)
def test_fresh_sequence_avoids_ports_of_outgoing_sockets(outgoing: EphemeralPorts, within: range) -> None:
    for _ in range(30):
        ports = files.fresh_sequence(outgoing)
        assert all(port in within for port in ports)
        assert len(outgoing.range) > 60000 or not any(port in outgoing for port in ports)


def test_fresh_sequence_avoids_ports_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {Port(port, Protocol.UDP) for port in range(10000, 20000)}
    monkeypatch.setattr(files, "listening_ports", lambda: used)
    assert all(port >= 20000 for _ in range(20) for port in files.fresh_sequence(EphemeralPorts(range(32768, 61000))))


@pytest.mark.parametrize("make", [empty, a_folder, a_dangling_link, a_pipe, not_toml], ids=lambda make: make.__name__)
def test_existing_file_is_not_overwritten(world: World, make: Callable[[Path], None]) -> None:
    make(world.home_file)
    before = world.home_file.lstat()
    with pytest.raises(ConfigError) as refused:
        write_home_file(world.home)
    assert str(refused.value) == (f"{world.home_file}: file exists, not overwritten")
    assert world.home_file.lstat() == before
    assert list(world.home.iterdir()) == [world.home_file]


def test_file_that_appears_while_writing_is_not_overwritten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.fsync

    def slowly(descriptor: int) -> None:
        really(descriptor)
        world.home_file.write_text("mine")

    monkeypatch.setattr(os, "fsync", slowly)
    with pytest.raises(ConfigError, match="file exists"):
        write_home_file(world.home)
    assert world.home_file.read_text() == "mine"
    assert list(world.home.iterdir()) == [world.home_file]


@pytest.mark.parametrize("step", ["fsync", "fchmod", "link"])
def test_full_disk_leaves_no_file(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(DoorsError) as failed:
        write_home_file(world.home)
    assert str(failed.value) == f"{world.home_file}: cannot be written (No space left on device)"
    assert failed.value.exit_status == 1
    assert list(world.home.iterdir()) == []


def test_missing_home_is_reported(world: World) -> None:
    with pytest.raises(DoorsError, match="No such file or directory"):
        write_home_file(world.root / "nowhere")


def test_kill_while_writing_leaves_no_partial_file(world: World) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from port_knocking_doors.config.files import write_home_file\n"
        "write_home_file(pathlib.Path(sys.argv[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(world.home)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not world.home_file.exists()
    assert [stat.S_IMODE(path.stat().st_mode) for path in world.home.iterdir()] == [0o600]
    assert write_home_file(world.home).path.is_file()


def test_client_line_knocks_on_every_port_in_order(world: World, tmp_path: Path) -> None:
    written = write_home_file(world.home)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, script in {"nc": 'echo "$@" $(od -An -c | tr "\\\\" /)', "sleep": ":"}.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_folder / name).chmod(0o700)
    path = f"{bin_folder}:{os.environ['PATH']}"
    shown = subprocess.run(
        ["sh", "-c", snippets.shell_line(written.sequence)],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["-u", "-w", "1", "HOST", str(port), "k", "n", "o", "c", "k", "/n"]
        for port in world.load().settings.opening_sequence
    ]
    assert str(written.sequence) not in repr(written)
