"""Runs a command of a unit as systemd would: its user, capabilities, file system and system calls, and no more.

    python confine.py UNIT[,DROP-IN…] ExecStart -- PROGRAM ARGUMENT…

Run by root in a sandbox, where there is no systemd. The file says what holds; PROGRAM… is what to run instead of its
own command, whose path is that of an installed package (without any: the file's own). Not applied: what systemd
does by its cgroup (DevicePolicy, KillMode), PrivateUsers, and what hides or protects parts of /home, /dev, /proc, /sys.
"""

import ctypes
import ctypes.util
import os
import pwd
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS = 0x20000  # <linux/sched.h>
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000  # <linux/mount.h>
MOUNT_ATTR_RDONLY, AT_RECURSIVE, AT_FDCWD = 0x1, 0x8000, -100  # <linux/mount.h>, <linux/fcntl.h>
SYS_MOUNT_SETATTR = 442  # the same on every architecture
PROT_WRITE, PROT_EXEC = 0x2, 0x4
NAMESPACES = 0x7E020080  # every CLONE_NEW* of <linux/sched.h>
# <seccomp.h>
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO = 0x7FFF0000, 0x00050000
SCMP_CMP_NE, SCMP_CMP_GT, SCMP_CMP_LT, SCMP_CMP_MASKED_EQ, SCMP_CMP_EQ = 1, 6, 2, 7, 4
EPERM, EAFNOSUPPORT = 1, 97

Unit = dict[str, list[str]]


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def read(files: str) -> Unit:
    """The settings of [Service]; an empty assignment forgets what stood before, as systemd.service(5) has it."""
    unit: Unit = {}
    section = ""
    for name in files.split(","):
        for line in Path(name).read_text().splitlines():
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                unit[key] = [*unit.get(key, []), value] if value else []
    return unit


def last(unit: Unit, key: str, default: str = "") -> str:
    return unit.get(key, [default])[-1] if unit.get(key) else default


def yes(unit: Unit, key: str) -> bool:
    return last(unit, key, "no") == "yes"


def confine_files(unit: Unit, libc: ctypes.CDLL) -> None:
    """ProtectSystem=strict, PrivateTmp, RuntimeDirectory, in a mount namespace of the command's own."""

    def mount(what: str, where: str, kind: str = "", flags: int = 0) -> None:
        if libc.mount(what.encode(), where.encode(), kind.encode(), flags, None):
            raise OSError(ctypes.get_errno(), where)

    def set_read_only(path: str, on: bool, flags: int) -> None:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY if on else 0, 0 if on else MOUNT_ATTR_RDONLY, 0, 0)
        if libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, ctypes.sizeof(attributes)):
            raise OSError(ctypes.get_errno(), path)

    directory = f"/run/{last(unit, 'RuntimeDirectory')}"
    Path(directory).mkdir(exist_ok=True)
    Path(directory).chmod(int(last(unit, "RuntimeDirectoryMode"), 8))
    owner = pwd.getpwnam(last(unit, "User", "root"))
    os.chown(directory, owner.pw_uid, owner.pw_gid)
    os.environ["RUNTIME_DIRECTORY"] = directory
    if last(unit, "ProtectSystem") != "strict":
        return
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "a mount namespace")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount(directory, directory, flags=MS_BIND)
    set_read_only("/", True, AT_RECURSIVE)
    set_read_only(directory, False, 0)
    for path in ("/dev", "/proc"):
        set_read_only(path, False, AT_RECURSIVE)
    if yes(unit, "PrivateTmp"):
        mount("tmpfs", "/var/tmp", "tmpfs")


def capabilities(unit: Unit, key: str) -> str:
    names = " ".join(unit.get(key, [])).split()
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])


def as_user(unit: Unit) -> list[str]:
    """setpriv(1) with the unit's user and capabilities."""
    command = ["setpriv"]
    if user := last(unit, "User"):
        command += [f"--reuid={user}", f"--regid={last(unit, 'Group')}", "--clear-groups"]
    if "CapabilityBoundingSet" in unit:
        command += [f"--bounding-set={capabilities(unit, 'CapabilityBoundingSet')}"]
        ambient = capabilities(unit, "AmbientCapabilities")
        command += [f"--inh-caps={ambient}", f"--ambient-caps={ambient}"]
    if yes(unit, "NoNewPrivileges"):
        command += ["--no-new-privs"]
    return command


# --- system calls


class Filter:
    """A seccomp filter, made by the library that systemd makes its own with."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action: int, name: str, *comparisons: Comparison) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # a call of another architecture
            return
        array = (Comparison * len(comparisons))(*comparisons)
        answer = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        if answer:
            raise OSError(-answer, name)

    def load(self) -> None:
        # NoNewPrivileges is set already: the library need not.
        answer = self._library.seccomp_load(self._context)
        if answer:
            raise OSError(-answer, "seccomp_load")


def calls(names: str) -> Iterator[str]:
    """The calls of a set, and of the sets in it, as systemd itself knows them."""
    for name in names.split():
        if not name.startswith("@"):
            yield name
            continue
        listed = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
        inner = [line.strip() for line in listed.stdout.splitlines()[1:]]
        yield from calls(" ".join(line for line in inner if line and not line.startswith("#")))


def allowed_calls(unit: Unit) -> set[str]:
    allowed: set[str] = set()
    for names in unit.get("SystemCallFilter", []):
        if names.startswith("~"):
            # What every program needs stays, as in systemd.exec(5).
            allowed -= set(calls(names[1:])) - set(calls("@default"))
        else:
            allowed |= set(calls(names)) | set(calls("@default"))
    return allowed


def filters(unit: Unit, allowed: set[str]) -> Iterator[Filter]:
    denied = Filter(SCMP_ACT_ALLOW)
    if families := " ".join(unit.get("RestrictAddressFamilies", [])).split():
        known = {int(getattr(socket, family)) for family in families}
        for family in range(max(known)):
            if family not in known:
                rule = Comparison(0, SCMP_CMP_EQ, family)
                denied.rule(SCMP_ACT_ERRNO | EAFNOSUPPORT, "socket", rule)
        denied.rule(SCMP_ACT_ERRNO | EAFNOSUPPORT, "socket", Comparison(0, SCMP_CMP_GT, max(known)))
    if yes(unit, "MemoryDenyWriteExecute"):
        both = PROT_WRITE | PROT_EXEC
        denied.rule(SCMP_ACT_ERRNO | EPERM, "mmap", Comparison(2, SCMP_CMP_MASKED_EQ, both, both))
        for name in ("mprotect", "pkey_mprotect"):
            denied.rule(SCMP_ACT_ERRNO | EPERM, name, Comparison(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC))
    if yes(unit, "RestrictNamespaces"):
        denied.rule(SCMP_ACT_ERRNO | EPERM, "unshare")
        denied.rule(SCMP_ACT_ERRNO | EPERM, "setns")
        for flag in (1 << bit for bit in range(32) if NAMESPACES >> bit & 1):
            denied.rule(SCMP_ACT_ERRNO | EPERM, "clone", Comparison(0, SCMP_CMP_MASKED_EQ, flag, flag))
    yield denied
    if allowed:  # the last one, since it leaves no way to add another
        only = Filter(SCMP_ACT_ERRNO | EPERM)
        for name in sorted(allowed):
            only.rule(SCMP_ACT_ALLOW, name)
        yield only


def main() -> None:
    """First as root, then once more as the unit's user, for the filter; then the command takes this process over."""
    files, key, stage, *command = sys.argv[1:]
    unit = read(files)
    if stage == "--":
        os.umask(int(last(unit, "UMask", "0022"), 8))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0) if last(unit, "LimitCORE") == "0" else (-1, -1))
        confine_files(unit, ctypes.CDLL(None, use_errno=True))
        allowed = ",".join(sorted(allowed_calls(unit)))  # systemd-analyze may need what the command may not
        command = command or last(unit, key).split()
        os.chdir("/")
        again = [sys.executable, "-I", __file__, files, key, f"={allowed}"]
        os.execvp("setpriv", [*as_user(unit), "--", *again, *command])
    for each in list(filters(unit, set(filter(None, stage[1:].split(","))))):
        each.load()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
