"""Makes the namespaces of a sandbox: as this user where that is permitted, otherwise by sudo, otherwise as root."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from port_knocking_doors.errors import SandboxError
from port_knocking_doors.sandbox.channel import Channel
from port_knocking_doors.sandbox.process import Output

_SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
_PROGRAMS = {
    "unshare": "util-linux",
    "ip": "iproute2",
    "nft": "nftables",
    "firewalld": "firewalld",
    "firewall-cmd": "firewalld",
    "dbus-daemon": "dbus-daemon",
}
_STARTED_WITHIN = 30.0
_PASSWORD_WITHIN = 300.0
_NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
_ROOT = Path(__file__).resolve().parents[2]
_INSIDE = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from port_knocking_doors.sandbox.inside import main; main()"
)  # fmt: skip
_LOCKS = {
    # A setting that denies user namespaces to ordinary users, its value, and the command that permits them.
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    "kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
    "user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000"),
}

Say = Callable[[str], None]


def search_path() -> str:
    """The caller's PATH, and the system folders that it may lack."""
    given = [folder for folder in os.environ.get("PATH", "").split(":") if folder]
    return ":".join(dict.fromkeys([*given, *_SYSTEM_DIRECTORIES]))


def check_programs() -> None:
    """Raise `SandboxError` if a system program is missing."""
    path = search_path()
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_PROGRAMS[name] for name in missing))
        raise SandboxError(
            f"the sandbox needs {', '.join(missing)}: install the system packages {packages} (packaging/demo does that)"
        )


@dataclass(frozen=True)
class Isolation:
    """One method: the command before `unshare`, its options, and whether it may ask for a password."""

    name: str
    prefix: tuple[str, ...]
    options: tuple[str, ...]
    asks_password: bool = False

    def command(self) -> list[str]:
        unshare = shutil.which("unshare", path=search_path()) or "unshare"
        inside = (sys.executable, "-I", "-c", _INSIDE, str(_ROOT))
        return [*self.prefix, unshare, *self.options, *_NAMESPACES, *inside]


class Entrance:
    """The first process of a sandbox, ready; every process inside ends with `close`, and with this process."""

    def __init__(self, isolation: Isolation) -> None:
        self.isolation = isolation
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    isolation.command(),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=_tool_environment(),
                    cwd="/",
                    # sudo needs the terminal of the session for its ticket and its prompt.
                    start_new_session=not isolation.prefix,
                )
            except OSError as error:
                mine.close()
                raise SandboxError(str(error)) from error
        assert self._process.stderr is not None
        self._complaints = Output(os.dup(self._process.stderr.fileno()), isolation.name)
        self._process.stderr.close()
        self._control = Channel(mine)
        try:
            self._wait_until_ready(mine)
        except BaseException:
            self.close()
            raise

    def new_host(self, *, own_network: bool) -> socket.socket:
        """A socket to the agent of a new host."""
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                self._control.send({"own_network": own_network}, [theirs.fileno()])
            except OSError:
                mine.close()
                raise SandboxError(f"the sandbox has ended: {self._complaints.tail()}") from None
        return mine

    def close(self) -> None:
        """End every process inside and wait until they are gone."""
        self._control.shut_down()
        self._control.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.wait_for_end(5)

    def _wait_until_ready(self, end: socket.socket) -> None:
        end.settimeout(_PASSWORD_WITHIN if self.isolation.asks_password else _STARTED_WITHIN)
        try:
            received = self._control.receive()
        except TimeoutError:
            raise SandboxError("timed out") from None
        end.settimeout(None)
        if received is None:
            self._process.wait()
            self._complaints.drain()
            raise SandboxError(self._complaints.tail(1))
        message, _ = received
        if "denied" in message:
            raise SandboxError(message["denied"])


def enter(say: Say, *, users: bool = False) -> Entrance:
    """Enter by the first method that works; `say` gets a line if it is not the first. With `users`, a method that has
    other users than root: an ordinary user needs /etc/subuid and newuidmap(1) for that."""
    check_programs()
    refusals: list[str] = []
    for isolation in _isolations_with_users() if users else _isolations():
        if refusals:
            say(f"{'; '.join(refusals)}: using {isolation.name} instead")
        try:
            return Entrance(isolation)
        except SandboxError as refusal:
            refusals.append(f"{isolation.name} failed ({refusal})")
    raise SandboxError(f"cannot make a sandbox: {'; '.join(refusals)}: {_advice()}")


def _isolations() -> Iterator[Isolation]:
    yield Isolation("a user namespace", (), ("--user", "--map-root-user"))
    if os.geteuid() == 0:
        yield Isolation("root", (), ())
        return
    yield from _sudo()


def _isolations_with_users() -> Iterator[Isolation]:
    if os.geteuid() == 0:
        yield Isolation("root", (), ())
        return
    if shutil.which("newuidmap", path=search_path()):
        yield Isolation("a user namespace with users", (), ("--user", "--map-root-user", "--map-auto"))
    yield from _sudo()


def _sudo() -> Iterator[Isolation]:
    sudo = shutil.which("sudo", path=search_path())
    if sudo is None:
        return
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        yield Isolation("sudo", (sudo, "--"), (), asks_password=True)
    except OSError:
        yield Isolation("sudo", (sudo, "-n", "--"), ())


def _advice() -> str:
    if os.geteuid() == 0:
        return "it needs a machine or a container in which root may make namespaces"
    for setting, (value, cure) in _LOCKS.items():
        path = Path("/proc/sys", setting)
        if path.exists() and path.read_text().strip() == value:
            return f"run it as root or with sudo, or allow user namespaces with `{cure}`"
    return "run it as root, or as a user with sudo"


def _tool_environment() -> dict[str, str]:
    return {"PATH": search_path(), "LANG": "C.UTF-8"}


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of processes inside: this process's, without those of its session and Python, and `own`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    return {**kept, "PATH": search_path(), **own}


_NOT_PASSED_ON = (
    "PYTHON",
    "VIRTUAL_ENV",
    "__PYVENV",
    "DBUS_",
    "XDG_RUNTIME_DIR",
    "RUNTIME_DIRECTORY",
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "LISTEN_",
    "WATCHDOG_",
    "INVOCATION_ID",
    "KNOCKER_",
    "LD_",
)
