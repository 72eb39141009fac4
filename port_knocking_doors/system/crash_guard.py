"""Closed means closed, also after SIGKILL: a shell that outlives the daemon and notices its end.

The shell waits on a pipe whose other end the daemon alone has. A word on the pipe means that the daemon closed its
doors itself. The pipe's end without a word means that the daemon was killed: the shell then runs the closer.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from port_knocking_doors.errors import DoorsError, in_words

SHELL = "/bin/sh"
# Signals for the daemon's process group are not meant for the guard: it ends when the daemon has ended.
_SCRIPT = "trap '' HUP INT QUIT TERM; read -r word && exit 0; exec \"$@\""


class CrashGuard:
    """A context manager: while it lasts, the end of this process runs the command `closer`, program and arguments.

    Entering raises `DoorsError` if the helper process cannot start.
    """

    def __init__(self, closer: Sequence[str]) -> None:
        self._closer = tuple(closer)
        self._pipe = -1
        self._shell: subprocess.Popen[bytes] | None = None
        self._dismissed = False

    def __enter__(self) -> "CrashGuard":
        try:
            self._start()
        except OSError as error:
            what = "cannot start the helper process that closes the doors if this process is killed"
            raise DoorsError(f"{what} ({in_words(error)})") from error
        return self

    def _start(self) -> None:
        theirs, self._pipe = os.pipe()
        try:
            self._shell = subprocess.Popen(
                [SHELL, "-c", _SCRIPT, "port-knocking-doors-crash-guard", *self._closer],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                # Python searches modules in its working directory first: no other user may write there.
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
        """The doors are closed: the closer is not needed."""
        self._dismissed = True

    def __exit__(self, *_: object) -> None:
        assert self._shell is not None
        try:
            if self._dismissed:
                os.write(self._pipe, b"closed\n")
        except BrokenPipeError:
            pass  # the shell was killed
        finally:
            os.close(self._pipe)
        if self._dismissed:
            self._shell.wait()
        else:
            self._shell.returncode = 0  # the shell outlives this process: no warning that it was not waited for
