"""Work as another user, for real: it needs root."""

import os
from pathlib import Path

import pytest

from port_knocking_doors.system import as_user
from tests.helpers.folders import let_others_through

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
USER = 12345


def test_work_is_that_users_in_every_way(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.touch()
    os.chown(seen, USER, USER)
    let_others_through(tmp_path)
    environ = dict(os.environ)

    def work() -> int:
        says = (os.getresuid(), os.getresgid(), os.getgroups(), os.environ["HOME"], os.environ["USER"], str(Path.cwd()))
        seen.write_text(repr(says))
        return 3

    assert as_user.run(USER, work) == 3
    assert seen.read_text() == repr(((USER,) * 3, (USER,) * 3, [], "/", "12345", "/"))
    assert (os.geteuid(), dict(os.environ)) == (0, environ)


def test_work_of_a_known_user_has_its_group_and_home() -> None:
    def work() -> int:
        return int((os.getresgid(), os.environ["HOME"]) != ((65534,) * 3, "/nonexistent"))

    assert as_user.run(65534, work) == 0


def test_work_that_fails_ends_with_a_status() -> None:
    assert as_user.run(USER, lambda: 1 // 0) == as_user.FAILED


def test_user_cannot_become_root_again() -> None:
    def work() -> int:
        try:
            os.setuid(0)
        except PermissionError:
            return 0
        return 1

    assert as_user.run(USER, work) == 0
