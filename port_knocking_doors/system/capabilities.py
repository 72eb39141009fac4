"""Capabilities of this process that its commands must not get (capabilities(7))."""

import ctypes

# linux/prctl.h
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):  # struct __user_cap_header_struct (linux/capability.h)
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):  # two of struct __user_cap_data_struct, one for each half of the sets
    _fields_ = tuple(
        (f"{name}{half}", ctypes.c_uint32) for half in range(2) for name in ("effective", "permitted", "inheritable")
    )


def keep_from_commands() -> None:
    """Empty the ambient and the inheritable set: this process may do what it may, and what it executes may not.

    The unit gives CAP_NET_RAW to the service's user by the ambient set, for sniffing; a start command needs none of it.
    A kernel before 4.3 has no such set. The unit forbids capset(2): there the inheritable set stays, which means
    nothing to a program whose file has no capabilities.
    """
    zero = ctypes.c_ulong(0)
    _libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)
    header, sets = _Header(_LINUX_CAPABILITY_VERSION_3, 0), _Sets()
    if _libc.capget(ctypes.byref(header), ctypes.byref(sets)) == 0:
        sets.inheritable0 = sets.inheritable1 = 0
        _libc.capset(ctypes.byref(header), ctypes.byref(sets))
