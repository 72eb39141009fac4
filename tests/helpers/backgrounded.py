"""Something to run in the background: `python backgrounded.py PAYLOAD PID_FILE FOLDER`.

Prints the number of the process that it left behind. FOLDER is where payloads leave what tests look at.
"""

import errno
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.system import daemonize
from port_knocking_doors.system.sd_notify import notify

with open(os.devnull) as _nothing:  # noqa: PTH123
    _opened = fcntl.fcntl(_nothing, fcntl.F_DUPFD_CLOEXEC, 10)  # beyond where closed standard streams leave a gap


def serve(folder: Path) -> None:
    """Be ready at once, and run until SIGTERM."""
    notify("READY=1")
    signal.pause()


def hesitate(folder: Path) -> None:
    """Be ready once there is a file `go`."""
    while not (folder / "go").exists():
        time.sleep(0.005)
    serve(folder)


def dawdle(folder: Path) -> None:
    """The same, with a parent that has little patience."""
    hesitate(folder)


def report(folder: Path) -> None:
    """Say in what state a daemon is."""
    mask = os.umask(0)
    state = {
        "pid": os.getpid(),
        "streams": [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)],
        "folder": str(Path.cwd()),
        "umask": mask,
        "session": os.getsid(0),
        "opened": Path(f"/proc/self/fd/{_opened}").exists(),
    }
    (folder / "draft").write_text(json.dumps(state))
    (folder / "draft").rename(folder / "state")
    serve(folder)


def refuse(folder: Path) -> None:
    raise ConfigError("this will not do,\nexpected better", "F:3")


def fail_later(folder: Path) -> None:
    notify("READY=1")
    while not (folder / "go").exists():
        time.sleep(0.005)
    raise DoorsError("too late to be reported")


def leave(folder: Path) -> None:
    """End without ever being ready."""


def die(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stay(folder: Path) -> None:
    """Never come to it: the process cannot be detached."""


def lack(folder: Path) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def blunder(folder: Path) -> None:
    raise ZeroDivisionError


def main() -> None:
    payload, pid_file, folder = globals()[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    if payload is stay:
        daemonize.UMASK = -1 << 40
    if payload is dawdle:
        daemonize.PATIENCE = 0.1
    try:
        print(daemonize.run(lambda: payload(folder), pid_file))
    except DoorsError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
