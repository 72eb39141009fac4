"""Sets the wall clock of every Python process that has this folder on its path: by the seconds in $SOAK_CLOCK.

Python imports it ahead of everything else (site). The file holds one double, which may change at any time. What the
kernel and programs in other languages take for the time is not moved.
"""

import mmap
import os
import struct
import time
from collections.abc import Callable
from typing import Any

_SECONDS = struct.Struct("=d")
_NANOSECONDS = 1_000_000_000


class _Moved:
    """Like a function of C, and unlike one of Python, no method of a class that has it (`logging.Formatter`)."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


def _move(seconds: Callable[[], float]) -> None:
    real_time, real_time_ns, form = time.time, time.time_ns, time.strftime
    time.time = _Moved(lambda: real_time() + seconds())
    time.time_ns = _Moved(lambda: real_time_ns() + int(seconds() * _NANOSECONDS))
    for name in ("localtime", "gmtime", "ctime"):
        setattr(time, name, _Moved(_of_now(getattr(time, name))))
    time.strftime = _Moved(lambda text, when=None: form(text, time.localtime() if when is None else when))


def _of_now(real: Callable[[float], Any]) -> Callable[..., Any]:
    return lambda when=None: real(time.time() if when is None else when)


if "SOAK_CLOCK" in os.environ:
    with open(os.environ["SOAK_CLOCK"], "rb") as _file:  # noqa: PTH123 (pathlib would be imported everywhere)
        _view = mmap.mmap(_file.fileno(), _SECONDS.size, access=mmap.ACCESS_READ)
    _move(lambda: float(_SECONDS.unpack(_view)[0]))
