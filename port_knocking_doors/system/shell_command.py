"""A command line in a shell of its own, in a session of its own, with nothing that is meant for this program.

A command inherits no descriptor, none of the variables that configure this program or its Python (a command may be
written in Python, too, and of another release), and no ambient capability (`capabilities`). It starts behind a gate:
the shell waits until its number is on record, so that a reader of the record can wait for the command. If this process
ends before it opens the gate, the command never runs.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.system import capabilities
from port_knocking_doors.system.clock import readable
from port_knocking_doors.system.command_output import CommandOutput

SHELL = "/bin/sh"

_WITHHELD = frozenset(
    {
        *("KNOCKER_SEQ", "KNOCKER_PORTS"),  # one is a secret
        *("NOTIFY_SOCKET", "JOURNAL_STREAM", "WATCHDOG_PID", "WATCHDOG_USEC"),
        *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
        "__PYVENV_LAUNCHER__",
    }
)
_WITHHELD_PREFIX = "PYTHON"
# `$0` and `$1` are the shell and the line: the second shell takes the place of the first, with its number.
_GATED = 'read -r go && exec "$0" -c "$1" </dev/null'
# `$2` is a file that goes if the line succeeds, also where no process is left to remove it.
_GATED_AND_REMOVING = 'read -r go || exit; "$0" -c "$1" </dev/null && { rm -f -- "$2"; exit 0; }'
_PAUSE = 0.02


class ProcessIdentity(NamedTuple):
    """A process of this boot: its number alone may be another's by now."""

    pid: int
    began: int
    """Ticks since the boot (field 22 of proc(5))."""

    def is_running(self) -> bool:
        """Whether it runs. A zombie does not."""
        return _began(self.pid) == self.began


def keep_statuses() -> None:
    """Have the kernel keep the exit statuses of children, also where the program that started this one ignores SIGCHLD
    (signal(7)): a command that failed would seem to have worked. For the main thread."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that commands get: those of this process, but for its own and those of its Python."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _WITHHELD and not name.startswith(_WITHHELD_PREFIX)
    }


class ShellCommand:
    """A command line that waits behind its gate.

    `done`: a file to remove once the command ended with status 0. Raises `OSError` where it cannot be started, and
    `ValueError` for a zero byte.
    """

    def __init__(self, line: str, output: CommandOutput, done: Path | None = None) -> None:
        capabilities.keep_from_commands()
        script = _GATED if done is None else _GATED_AND_REMOVING
        arguments = [line] if done is None else [line, str(done)]
        self._process = subprocess.Popen(
            [SHELL, "-c", script, SHELL, *arguments],
            stdin=subprocess.PIPE,
            stdout=output.descriptor,
            stderr=output.descriptor,
            env=environment(),
            start_new_session=True,
        )
        output.release()
        self.identity = ProcessIdentity(self._process.pid, _began(self._process.pid) or 0)

    def go(self) -> None:
        """Open the gate: the command runs from now on."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the shell was killed
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        self._process.stdin.close()

    def give_up(self) -> None:
        """End the shell, whose gate is still shut."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def leave(self) -> None:
        """Let the command run on by itself."""
        self._process.returncode = 0  # no warning that it was not waited for

    async def ended(self) -> int:
        """Wait for the command's end; its exit status. A cancellation leaves the command alone.

        asyncio's own subprocesses are killed when no task waits for them any more; these run on.
        """
        try:
            with suppress(OSError), self._handle() as handle:  # without a descriptor it is polled
                await readable(handle)
            while (status := self._process.poll()) is None:
                await asyncio.sleep(_PAUSE)
            return status
        except asyncio.CancelledError:
            self.leave()
            raise

    @contextmanager
    def _handle(self) -> Iterator[int]:
        """A descriptor that is readable once the process has ended."""
        handle = os.pidfd_open(self._process.pid)
        try:
            yield handle
        finally:
            os.close(handle)


def _began(pid: int) -> int | None:
    """When a process began; None where it has ended."""
    try:
        # proc(5): after the name in parentheses, the state is field 3, and the start in ticks since boot is field 22.
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in ("Z", "X") else int(fields[18])
