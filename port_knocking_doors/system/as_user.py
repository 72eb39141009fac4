"""Work in a process of another user, with nothing of root's: for what that user may have chosen, such as a command."""

import os
import pwd
from collections.abc import Callable

from port_knocking_doors.system import background_writer

FAILED = 70
"""The exit status of work that raised: EX_SOFTWARE (sysexits.h)."""


def run(user: int, work: Callable[[], int]) -> int:
    """Run `work` as this user in a fork that ends with its result; the exit status. Raises `OSError`."""
    background_writer.flush_all()
    pid = os.fork()
    if pid == 0:
        status = FAILED
        try:
            _become(user)
            status = work()
            background_writer.flush_all()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _become(user: int) -> None:
    try:
        entry = pwd.getpwuid(user)
        name, group, home = entry.pw_name, entry.pw_gid, entry.pw_dir
    except KeyError:  # a user without a name has a group of its own
        name, group, home = str(user), user, "/"
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    os.environ.update(HOME=home, USER=name, LOGNAME=name)
    os.chdir("/")
