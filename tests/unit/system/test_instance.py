"""The runtime directory, and the lock that keeps two daemons from closing each other's doors."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from port_knocking_doors.errors import AlreadyRunningError, DoorsError
from port_knocking_doors.system import instance
from port_knocking_doors.system.instance import CLOSER, DAEMON, instance_lock, runtime_directory, unreleased_marks
from tests.helpers.fake_bus import open_descriptors

REPOSITORY = Path(__file__).parents[3]
MARK = 31313


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the system's runtime directory, which does not exist yet."""
    path = tmp_path / "run" / "port-knocking-doors"
    path.parent.mkdir()
    monkeypatch.setattr(instance, "SYSTEM_DIRECTORY", path)
    monkeypatch.setattr(instance, "_PATIENCE", 0.5)
    return path


HOLDER = """
import sys, time
from pathlib import Path
from port_knocking_doors.system import instance
instance.SYSTEM_DIRECTORY = Path(sys.argv[1])
with instance.instance_lock(int(sys.argv[2]), sys.argv[3]):
    print("held", flush=True)
    time.sleep(float(sys.argv[4]))
"""


@contextmanager
def holder(folder: Path, role: str, seconds: float = 1000, mark: int = MARK) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the mark's lock."""
    argv = [sys.executable, "-c", HOLDER, str(folder), str(mark), role, str(seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


# --- the directory


def test_runtime_directory_is_made_for_its_owner_only(folder: Path) -> None:
    assert runtime_directory({}) == runtime_directory({}) == folder
    assert folder.stat().st_mode & 0o777 == 0o700


def test_user_without_permission_gets_a_directory_of_its_own(folder: Path, tmp_path: Path) -> None:
    folder.parent.rmdir()
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / folder.name


def test_directory_from_systemd_comes_first(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir(mode=0o700)
    assert runtime_directory({"RUNTIME_DIRECTORY": str(given)}) == given
    assert runtime_directory({"RUNTIME_DIRECTORY": f"{given}:{tmp_path}"}) == given
    assert runtime_directory({"RUNTIME_DIRECTORY": ""}) == folder


def give_away(path: Path) -> None:
    path.mkdir()
    os.chown(path, 12345, 12345)


UNUSABLE = {
    "a link": lambda path, elsewhere: path.symlink_to(elsewhere),
    "a file": lambda path, _: path.touch(),
    "another user's": lambda path, _: give_away(path),
}


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE)
def test_directory_that_another_user_could_have_made_is_not_used(folder: Path, tmp_path: Path, make: object) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    try:
        make(folder, elsewhere)  # type: ignore[operator]
    except PermissionError:
        pytest.skip("only root can give files away")
    with pytest.raises(DoorsError, match=f"{folder} cannot be written"):
        runtime_directory({})
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / folder.name
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(("user", "remedy"), [(0, "make one"), (1000, "run as root: sudo port-knocking-doors")])
def test_missing_directory_is_an_error_with_a_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, user: int, remedy: str
) -> None:
    folder.parent.rmdir()
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(DoorsError, match=f"{remedy}.*, or set XDG_RUNTIME_DIR$") as raised:
        runtime_directory({"XDG_RUNTIME_DIR": "/no/such/place"})
    assert "\n" not in str(raised.value)
    assert raised.value.exit_status == 1


# --- the mark


def test_mark_is_locked_and_released(folder: Path) -> None:
    before = open_descriptors()
    for _ in range(2):
        with instance_lock(MARK):
            assert (folder / f"{MARK}.lock").read_text() == f"{DAEMON} {os.getpid()}\n"
    assert (folder / f"{MARK}.lock").read_text() == ""
    assert open_descriptors() == before


def test_second_daemon_is_refused_at_once_with_the_firsts_process(folder: Path) -> None:
    with holder(folder, DAEMON) as first:
        start = time.monotonic()
        with pytest.raises(AlreadyRunningError, match=rf"process {first.pid}, .* rule_priority = {MARK}"):
            instance_lock(MARK).__enter__()
        assert time.monotonic() - start < 0.3
        assert (folder / f"{MARK}.lock").read_text() == f"{DAEMON} {first.pid}\n"


@pytest.mark.parametrize("unit", ["port-knocking-doors", "port-knocking-doors-commands"])
@pytest.mark.parametrize("role", [DAEMON, CLOSER])
def test_daemon_with_another_directory_sees_the_services_lock(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, unit: str
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    with holder(folder.with_name(unit), DAEMON) as service:
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(own))
        with pytest.raises(AlreadyRunningError, match=rf"process {service.pid}\b"):
            instance_lock(MARK, role).__enter__()
    with instance_lock(MARK, role):
        lock = folder.with_name(unit) / f"{MARK}.lock"
        assert lock.read_text() == f"{DAEMON} {service.pid}\n", "nothing is written there"
        monkeypatch.delenv("RUNTIME_DIRECTORY")
        with pytest.raises(AlreadyRunningError):
            instance_lock(MARK, CLOSER).__enter__()
    with instance_lock(MARK):
        pass


def test_daemon_with_another_mark_is_not_refused(folder: Path) -> None:
    with holder(folder, DAEMON), instance_lock(MARK + 1):
        pass


def test_mark_of_a_killed_daemon_is_free(folder: Path) -> None:
    with holder(folder, DAEMON) as first:
        first.kill()
        first.wait()
        assert (folder / f"{MARK}.lock").read_text() != ""
        with instance_lock(MARK):
            assert (folder / f"{MARK}.lock").read_text() == f"{DAEMON} {os.getpid()}\n"


def test_mark_is_unreleased_until_a_holder_ends_cleanly(folder: Path) -> None:
    assert unreleased_marks() == []
    with instance_lock(MARK), instance_lock(-5):
        assert unreleased_marks() == [-5, MARK]
    assert unreleased_marks() == []
    with holder(folder, DAEMON) as killed:
        killed.kill()
        killed.wait()
    assert unreleased_marks() == [MARK]
    with instance_lock(MARK, CLOSER, leaves_rules=True):
        pass
    assert unreleased_marks() == [MARK]
    with pytest.raises(ZeroDivisionError), instance_lock(MARK, CLOSER):
        raise ZeroDivisionError
    assert unreleased_marks() == [MARK]
    with instance_lock(MARK, CLOSER):
        pass
    assert unreleased_marks() == []


def test_other_files_are_not_marks(folder: Path) -> None:
    folder.mkdir()
    for name in ("pending-31313.lock", "1e5.lock", "12345678901.lock", ".lock", "31313.lock.old"):
        (folder / name).write_text("daemon 1\n")
    (folder / "31314.lock").mkdir()
    assert unreleased_marks() == []


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("pending-31313/a.json", [MARK]),
        ("pending--5/a.json", [-5]),
        ("pending-31313/a.draft", []),
        ("pending-x/a.json", []),
        ("pending-12345678901/a.json", []),
        ("31313/a.json", []),
    ],
)
def test_mark_is_unreleased_while_a_stop_command_is_on_record(folder: Path, name: str, marks: list[int]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True)
    path.touch()
    assert unreleased_marks() == marks


def test_marks_and_lock_of_another_directory_are_its_own(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with instance_lock(MARK, CLOSER, leaves_rules=True, directory=other):
        assert (unreleased_marks(other), unreleased_marks()) == ([MARK], [])
    assert (other / f"{MARK}.lock").read_text() == f"{CLOSER} {os.getpid()}\n"
    assert instance.pending_directory(MARK, other) == other / "pending-31313"
    assert instance.pending_directory(MARK) == folder / "pending-31313"


def test_usable_directories_are_those_of_root_and_this_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = folder.with_name(f"{folder.name}-commands")
    assert instance.usable_directories({}) == []
    folder.mkdir()
    commands.mkdir()
    own = tmp_path / "own" / folder.name
    own.mkdir(parents=True)
    environ = {"XDG_RUNTIME_DIR": str(own.parent)}
    assert instance.usable_directories(environ) == [folder, own, commands]
    assert instance.usable_directories({**environ, "RUNTIME_DIRECTORY": str(commands)}) == [commands, folder, own]
    assert instance.foreign_directories() == []
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
        assert instance.usable_directories(environ) == [own, commands]
        assert instance.foreign_directories() == [folder]
        monkeypatch.setattr(os, "geteuid", lambda: 12346)
        assert instance.foreign_directories() == [], "only root may take over from other users"


def test_lock_is_shared_with_the_units_directories_alone(folder: Path, tmp_path: Path) -> None:
    shared = [folder, folder.with_name(f"{folder.name}-commands"), tmp_path]
    assert [instance.shares_lock(path) for path in shared] == [True, True, False]


def test_closer_never_waits_for_another_holder(folder: Path) -> None:
    for role in (DAEMON, CLOSER):
        with holder(folder, role):
            start = time.monotonic()
            with pytest.raises(AlreadyRunningError):
                instance_lock(MARK, CLOSER).__enter__()
            assert time.monotonic() - start < 0.3


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file system takes no writes, as after an error of its disk."""
    really_open, really_ask = os.open, os.statvfs

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return really_open(path, flags, mode)

    def ask(path: str) -> SimpleNamespace:
        return SimpleNamespace(f_flag=really_ask(path).f_flag | os.ST_RDONLY)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda _path, how: not how & os.W_OK)
    monkeypatch.setattr(os, "statvfs", ask)


def test_closer_locks_on_a_read_only_file_system_and_daemon_does_not(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    with instance_lock(MARK, leaves_rules=True):
        pass
    request.getfixturevalue("read_only")
    assert instance.usable_directories({}) == [folder]
    with pytest.raises(DoorsError, match="Read-only file system"), instance_lock(MARK, directory=folder):
        pass
    held = instance_lock(MARK, CLOSER, directory=folder)
    with held, pytest.raises(AlreadyRunningError), instance_lock(MARK, CLOSER, directory=folder):
        pass
    assert unreleased_marks(folder) == [MARK]


def test_closer_locks_on_a_full_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    with instance_lock(MARK, CLOSER), pytest.raises(AlreadyRunningError), instance_lock(MARK, CLOSER):
        pass
    with pytest.raises(DoorsError, match="No space left"), instance_lock(MARK):
        pass


def test_reloads_take_turns_without_end_of_patience_and_leave_no_mark(folder: Path) -> None:
    turns: list[str] = []

    async def reload(name: str, patience: float, seconds: float) -> None:
        async with instance.turn_to_reload(patience):
            turns.append(name)
            await asyncio.sleep(seconds)
            turns.append(name)

    async def main() -> None:
        await asyncio.gather(reload("a", 5, 0.2), reload("b", 5, 0))
        await asyncio.gather(reload("c", 5, 0.3), reload("d", 0.1, 0))

    asyncio.run(main())
    assert turns == [*"aabb", *"cddc"]
    assert unreleased_marks(folder) == []
    assert (folder / "reload.lock").read_text() == ""


def test_reload_goes_without_a_lock_where_there_is_none(folder: Path) -> None:
    async def main() -> bool:
        async with instance.turn_to_reload(5):
            return True

    folder.mkdir()
    (folder / "reload.lock").mkdir()
    assert asyncio.run(main())


@pytest.mark.parametrize("is_killed", [False, True])
def test_killed_daemon_that_holds_its_lock_still_is_no_running_one(folder: Path, is_killed: bool) -> None:
    with instance_lock(MARK), subprocess.Popen(["sleep", "1000"]) as process:
        (folder / f"{MARK}.lock").write_text(f"{DAEMON} {process.pid}\n")
        if is_killed:
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie from now on
        with pytest.raises(AlreadyRunningError) as raised:
            instance_lock(MARK, CLOSER).__enter__()
        assert raised.value.by_daemon is not is_killed
        process.kill()


def test_daemon_waits_for_closer(folder: Path) -> None:
    with holder(folder, CLOSER, seconds=0.2), instance_lock(MARK):
        assert (folder / f"{MARK}.lock").read_text() == f"{DAEMON} {os.getpid()}\n"


def test_daemon_that_waits_for_closer_times_out(folder: Path) -> None:
    before = open_descriptors()
    with holder(folder, CLOSER) as closer, pytest.raises(AlreadyRunningError) as raised:
        instance_lock(MARK).__enter__()
    assert f"process {closer.pid} has been closing" in str(raised.value)
    assert open_descriptors() == before


@pytest.mark.parametrize("left", ["", "daemon", "daemon 99999999\n", "\xff\0nonsense", "daemon " + "9" * 100])
def test_content_of_an_unlocked_file_does_not_matter(folder: Path, left: str) -> None:
    runtime_directory({})
    (folder / f"{MARK}.lock").write_text(left, encoding="latin-1")
    with instance_lock(MARK):
        assert (folder / f"{MARK}.lock").read_text() == f"{DAEMON} {os.getpid()}\n"


def test_link_in_place_of_the_lock_is_not_followed(folder: Path, tmp_path: Path) -> None:
    runtime_directory({})
    (tmp_path / "precious").write_text("keep me")
    lock = folder / f"{MARK}.lock"
    lock.symlink_to(tmp_path / "precious")
    with pytest.raises(DoorsError, match=rf"^{lock}: cannot lock the mark \(Too many levels"):
        instance_lock(MARK).__enter__()
    assert (tmp_path / "precious").read_text() == "keep me"


def test_folder_in_place_of_the_lock_is_an_error_of_one_line(folder: Path) -> None:
    runtime_directory({})
    lock = folder / f"{MARK}.lock"
    lock.mkdir()
    before = open_descriptors()
    with pytest.raises(DoorsError, match=rf"^{lock}: cannot lock the mark \(Is a directory\)$"):
        instance_lock(MARK).__enter__()
    assert open_descriptors() == before


def test_error_inside_the_context_is_not_an_error_of_the_lock(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), instance_lock(MARK):
        raise FileNotFoundError


def test_child_process_does_not_inherit_the_lock(folder: Path) -> None:
    with instance_lock(MARK):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with instance_lock(MARK):
            pass
    finally:
        child.kill()
        child.wait()
