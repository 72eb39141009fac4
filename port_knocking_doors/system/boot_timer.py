"""A timer on the clock that counts the time of a suspend, which no timer of the event loop does (timerfd_create(2)).

After a suspend longer than its time it is due at once: the kernel looks at such timers when the machine resumes
(kernel/time/hrtimer.c: clock_was_set). It wakes no machine that sleeps.
"""

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable

_TFD_TIMER_ABSTIME = 1  # linux/timerfd.h
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK | TFD_CLOEXEC, linux/timerfd.h
_TIMES = struct.Struct("@4l")  # struct itimerspec: interval and value, each in seconds and nanoseconds
_EXPIRATIONS = 8  # bytes to be read
_SECOND = 1_000_000_000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class BootTimer:
    """Calls `wake` in the running event loop when the time has come. Making one raises `OSError`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._descriptor = _libc.timerfd_create(time.CLOCK_BOOTTIME, _FLAGS)
        if self._descriptor < 0:
            raise _error()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._on_expired)

    def set(self, when: float) -> None:
        """Be due at this time instead of any other: seconds of `clock.now`; one that has passed is due at once."""
        # Zero would switch it off.
        seconds, nanoseconds = divmod(max(1, round(when * _SECOND)), _SECOND)
        self._set(seconds, nanoseconds)

    def unset(self) -> None:
        """Be due at no time."""
        self._set(0, 0)

    def close(self) -> None:
        """Be due at no time, and never again."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _set(self, seconds: int, nanoseconds: int) -> None:
        times = _TIMES.pack(0, 0, seconds, nanoseconds)
        if _libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, times, None) < 0:
            raise _error()

    def _on_expired(self) -> None:
        try:
            os.read(self._descriptor, _EXPIRATIONS)
        except BlockingIOError:  # it was set again meanwhile
            return
        self._wake()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
