"""Closed means closed, also after SIGKILL: a shell that outlives the daemon and notices its end.

The shell waits on a pipe whose other end the daemon alone has. A word on the pipe means that the daemon closed its
doors itself. The pipe's end without a word means that it was killed: the shell then becomes the closer (`sweep`).
"""

import os
import subprocess
import sys
from pathlib import Path

from port_knocking_doors.errors import DoorsError, in_words
from port_knocking_doors.system import log

SHELL = "/bin/sh"
CLOSER = "port_knocking_doors.daemon.sweep"
"""The module that closes what a killed daemon left open."""

JSON = "json"
"""Tells the closer that whoever reads the log is a program."""
# Signals for the daemon's group are not meant for its guardian: it ends when the daemon has.
_SCRIPT = "trap '' HUP INT QUIT TERM; read -r word && exit 0; exec \"$@\""


class CrashGuard:
    """A context manager: while it lasts, the end of this process leads to a closer for the mark `priority`.

    Entering raises `DoorsError` where no process for it can be had.
    """

    def __init__(self, priority: int) -> None:
        self._closer = (sys.executable, "-m", CLOSER, str(priority), *([JSON] if log.is_json() else []))
        self._pipe = -1
        self._shell: subprocess.Popen[bytes] | None = None
        self._dismissed = False

    def __enter__(self) -> "CrashGuard":
        try:
            self._begin()
        except OSError as error:
            what = "the process that closes the doors if this one is killed cannot begin"
            raise DoorsError(f"{what} ({in_words(error)})") from error
        return self

    def _begin(self) -> None:
        theirs, self._pipe = os.pipe()
        try:
            self._shell = subprocess.Popen(
                [SHELL, "-c", _SCRIPT, "port-knocking-doors-guardian", *self._closer],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                # Python looks for modules in its working directory first: that must be nobody's.
                cwd="/",
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry),
                },
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """The shell's process id."""
        assert self._shell is not None
        return self._shell.pid

    def dismiss(self) -> None:
        """The doors are closed: there is nothing left to guard."""
        self._dismissed = True

    def __exit__(self, *_: object) -> None:
        assert self._shell is not None
        try:
            if self._dismissed:
                os.write(self._pipe, b"closed\n")
        except BrokenPipeError:
            pass  # somebody ended the guardian
        finally:
            os.close(self._pipe)
        if self._dismissed:
            self._shell.wait()
        else:
            self._shell.returncode = 0  # it works on without us: no warning that nobody waited for it
