"""Closed means closed, also after SIGKILL: a process that outlives the daemon and notices its end.

The guard is a fork of the daemon, with everything in its memory that closing needs: an upgrade of Python, or of this
program, under the running daemon takes nothing away from it. It waits on a pipe whose other end the daemon alone has. A
word on the pipe means that the daemon closed its doors itself. The pipe's end without a word means that the daemon was
killed: the guard then has a fork of its own run the closer and, if that one does not end as it should, other programs
that do the same.

Pages that neither process writes to are in memory once.
"""

import asyncio
import gc
import os
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from port_knocking_doors.errors import DoorsError, in_words
from port_knocking_doors.system import background_writer, log
from port_knocking_doors.system.clock import now, readable
from port_knocking_doors.system.log import LogEvent, event_fields, logger
from port_knocking_doors.system.rate_limit import RateLimit

NAME = "doors-guard"
"""What the kernel calls the process (at most 15 octets): a signal by the daemon's name does not reach it."""

# Signals for the daemon's process group are not meant for the guard: it ends when the daemon has ended. It handles them
# and does not ignore them, since what it executes, stop commands too, would inherit that.
_WITHOUT_EFFECT = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_WORD = b"closed\n"
_PAUSE = 0.1
"""Seconds between two looks at a guard without a descriptor."""
_SHORT_LIFE = 5.0
"""Seconds of a guard's life after which the next one starts at once; else a moment later."""
_MOMENT = 0.5
_LINES, _PERIOD = 5, 60.0
"""Lines about killed guards in so many seconds."""
_DYING = 5.0
"""Seconds that a killed process may take to end; it takes microseconds, on a busy machine milliseconds."""
_GLANCE = 0.001
_INTERNAL_ERROR = 70  # EX_SOFTWARE (sysexits.h)


class Program(NamedTuple):
    """Another way to run the closer: a file to execute, and its arguments, the name included."""

    path: str
    arguments: tuple[str, ...]


class Closer(NamedTuple):
    """What closes the doors of a killed process."""

    prepare: Callable[[], None]
    """Loads what `run` needs, so that it reads no file of this program."""
    run: Callable[[], None]
    """Closes the doors, as far as that can be done, in a thread of its own."""
    programs: Sequence[Program] = ()
    """What is executed, one after the other, if `run` raises or its process is killed."""


class CrashGuard:
    """A context manager: while it lasts, the end of this process runs the closer.

    Entering raises `DoorsError` if the guard cannot start.
    """

    def __init__(self, closer: Closer) -> None:
        self._closer = closer
        self._pipe = -1
        self._began = 0.0
        self._dismissed = False
        self._limit = RateLimit(_LINES, _PERIOD)
        self.pid = 0
        """The guard's process; 0 where there is none."""

    def __enter__(self) -> "CrashGuard":
        try:
            self._start()
        except OSError as error:
            what = "cannot start the helper process that closes the doors if this process is killed"
            raise DoorsError(f"{what} ({in_words(error)})") from error
        return self

    def _start(self) -> None:
        reading, writing = os.pipe()
        try:
            parent = os.getpid()
            with _no_signals(), warnings.catch_warnings():
                # Other threads are no hazard: the child takes none of their locks.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
                if pid == 0:
                    _guard(self._closer, reading, parent)
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe, self.pid, self._began = writing, pid, now()

    async def watch(self) -> None:
        """Start another guard whenever this one is killed; runs until it is cancelled."""
        while True:
            killed = self.pid
            status = await self._end()
            if now() - self._began < _SHORT_LIFE:
                await asyncio.sleep(_MOMENT)
            await self._start_another()
            if more := self._limit.summary(now()):
                logger.error("%d more crash guards were killed", more)
            if self._limit.admits(now()):
                text = "the crash guard, process %d, was ended by %s; process %d takes its place"
                extra = event_fields(LogEvent.MESSAGE, reason="crash guard killed")
                logger.error(text, killed, _in_words(status), self.pid, extra=extra)

    async def _start_another(self) -> None:
        reported = False
        while True:
            try:
                return self._start()
            except OSError as error:
                if not reported:
                    text = "the crash guard was killed and cannot be started again, tried every %g s: %s"
                    logger.error(text, _MOMENT, in_words(error))
                    reported = True
            await asyncio.sleep(_MOMENT)

    async def _end(self) -> int:
        """Wait for the guard's end; its wait status."""
        with suppress(OSError):  # without a descriptor it is polled
            handle = os.pidfd_open(self.pid)
            try:
                await readable(handle)
            finally:
                os.close(handle)
        while (ended := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            await asyncio.sleep(_PAUSE)
        self.pid = 0  # the number may be another process's from now on
        return ended[1]

    def dismiss(self) -> None:
        """The doors are closed: the closer is not needed."""
        self._dismissed = True

    def __exit__(self, *_: object) -> None:
        try:
            if self._dismissed:
                os.write(self._pipe, _WORD)
        except BrokenPipeError:
            pass  # the guard was killed
        finally:
            os.close(self._pipe)
        if self._dismissed and self.pid:
            os.kill(self.pid, signal.SIGKILL)  # it may be stopped, and has nothing left to do
            os.waitpid(self.pid, 0)


@contextmanager
def _no_signals() -> Iterator[None]:
    """Hold signals back: in the child, until they no longer reach the event loop of the parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# The guard's process. -------------------------------------------------------------------------------------------------


def _guard(closer: Closer, pipe: int, parent: int) -> NoReturn:
    """The whole life of the guard; exit handlers of its parent do not run in it."""
    status = _INTERNAL_ERROR
    try:
        _leave_parent(pipe)
        with suppress(Exception):  # what it could not load it can load later, or another program can
            closer.prepare()
        if _read_to_end(pipe).startswith(_WORD):
            status = 0
        else:
            os.close(pipe)
            _await_end(parent)
            status = _close(closer)
    finally:
        os._exit(status)


def _leave_parent(pipe: int) -> None:
    """Keep nothing of the parent's but its memory: its lock, its sockets and its session go."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in _WITHOUT_EFFECT:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    gc.freeze()  # what holds a descriptor that is closed here must never be collected
    # Python searches modules in its working directory first: no other user may write there.
    os.chdir("/")
    with suppress(OSError):
        Path("/proc/self/comm").write_text(NAME)
    kept = {pipe, *log.descriptors()}
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor not in kept:
            with suppress(OSError):
                os.close(descriptor)
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
    log.forget_mirrors()


def _read_to_end(pipe: int) -> bytes:
    read = b""
    while part := os.read(pipe, len(_WORD)):
        read += part
    return read


def _await_end(parent: int) -> None:
    """Wait until nothing of the killed process is left.

    A process that ends by an error closes the pipe before it releases the lock on the mark, and so may the kernel where
    the process was killed. A closer that finds the lock held by a process that runs does nothing.
    """
    deadline = now() + _DYING
    while os.getppid() == parent and now() < deadline:
        time.sleep(_GLANCE)


def _close(closer: Closer) -> int:
    """Run the closer, or else its programs, until one of them ends with status 0; the last one's status."""
    status = _wait_for(_fork(closer.run))
    if status == 0:
        return 0
    logger.error(
        "closing the doors of a killed daemon: the closer was ended by %s; trying another way", _in_words(status)
    )
    for program in closer.programs:
        with suppress(OSError):
            # Its output would be an interpreter's that finds no library.
            process = subprocess.Popen(
                program.arguments, executable=program.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            status = process.wait()
            if status == 0:
                logger.warning("closed the doors of a killed daemon by another way: %s", program.path)
                break
    background_writer.flush_all()
    return status and 1


def _fork(run: Callable[[], None]) -> int:
    """A process that runs this and ends with status 0, or another one if it raised."""
    pid = os.fork()
    if pid:
        return pid
    status = _INTERNAL_ERROR
    try:
        status = _run_in_thread(run)
        background_writer.flush_all()
    finally:
        os._exit(status)


def _run_in_thread(run: Callable[[], None]) -> int:
    """In a thread of its own there is no event loop that seems to run, as there is where the parent forked."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for failure in failures:
        logger.error("closing the doors of a killed daemon failed: %r", failure)
    return _INTERNAL_ERROR if failures else 0


def _wait_for(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return status


def _in_words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"itself, with status {code}"
