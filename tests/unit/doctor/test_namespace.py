"""A function in a network namespace of its own, where the kernel allows it or refuses."""

import ctypes
import errno
import os

import pytest

from port_knocking_doors.doctor import namespace
from port_knocking_doors.doctor.namespace import in_namespace
from port_knocking_doors.doctor.programs import NotProvenError


class Kernel:
    """unshare(2) that does nothing, or fails."""

    def __init__(self, result: int) -> None:
        self.result = result
        self.asked: list[int] = []

    def unshare(self, flags: int) -> int:
        self.asked.append(flags)
        return self.result


def test_result_and_error_of_the_function_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(0)
    monkeypatch.setattr(namespace, "_libc", kernel)
    assert in_namespace(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        in_namespace(lambda: 1 // 0)
    assert kernel.asked == [namespace.CLONE_NEWNET] * 2


def test_kernel_that_refuses_a_namespace_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "_libc", Kernel(-1))
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EPERM)
    why = os.strerror(errno.EPERM)
    with pytest.raises(NotProvenError, match=rf"^cannot make a network namespace \({why}\): run as root"):
        in_namespace(lambda: 7)
