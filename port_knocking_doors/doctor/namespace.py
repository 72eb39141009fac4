"""A network namespace that lasts as long as a function: nothing in it touches the host, and nothing of it stays."""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from port_knocking_doors.doctor.programs import NotProvenError

CLONE_NEWNET = 0x40000000  # linux/sched.h

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def in_namespace(work: Callable[[], T]) -> T:
    """The result of `work`, called in a thread with a network namespace of its own (unshare(2)).

    Only that thread, its sockets and the programs that it runs are in there; the kernel removes the namespace with
    them. Raises `NotProvenError` where the kernel refuses, and what `work` raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(CLONE_NEWNET) != 0:
                why = os.strerror(ctypes.get_errno())
                raise NotProvenError(f"cannot make a network namespace ({why}): run as root, outside of a container")
            results.append(work())
        except BaseException as error:  # raised again where the thread is joined
            errors.append(error)

    thread = threading.Thread(target=run, name="network namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
