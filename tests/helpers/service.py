"""The daemon as its unit runs it, on a sandbox's server: user, capabilities, sandboxing, notifications to systemd."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from port_knocking_doors.sandbox import Polkit, Process, Sandbox

REPOSITORY = Path(__file__).parents[2]
SYSTEMD = REPOSITORY / "packaging" / "systemd"
UNIT = SYSTEMD / "port-knocking-doors.service"
COMMANDS_UNIT = SYSTEMD / "port-knocking-doors-commands.service"
RULES = REPOSITORY / "packaging" / "polkit" / "50-port-knocking-doors.rules"
USER = "port-knocking-doors"
OTHER = "visitor"

CONF = "/run/configuration/port_knocker.toml"
NOTIFY_SOCKET = "/run/notify"
WATCHDOG_USEC = 400_000

_LISTENER = f"""
import os, socket
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind("{NOTIFY_SOCKET}")
os.chmod("{NOTIFY_SOCKET}", 0o777)
print("listening", flush=True)
while True:
    print(receiver.recv(4096).decode().replace(chr(10), " "), flush=True)
"""


def _closed(place: Path) -> Path | None:
    """The uppermost folder on the way to this place that other users may not pass through."""
    return next((folder for folder in reversed([place, *place.parents]) if not folder.stat().st_mode & 0o001), None)


class Installation:
    """What an administrator installs, on the server of a sandbox with users: the service's user, and the program where
    this user can read it. Nothing of it is on the machine itself: every place is a mount of the sandbox's own."""

    def __init__(self, box: Sandbox, folder: Path, conf: Path) -> None:
        self._box = box
        self._add_users(folder)
        self._show_program()
        self.configure(conf)

    def _add_users(self, folder: Path) -> None:
        root = folder / "root"
        (root / "etc").mkdir(parents=True)
        for name in ("passwd", "group"):
            shutil.copy(f"/etc/{name}", root / "etc" / name)
        others = folder / "others.conf"
        others.write_text(f'u {OTHER} - "Another ordinary user" - -\n')
        self._box.server.run(["systemd-sysusers", f"--root={root}", str(SYSTEMD / "sysusers.conf"), str(others)])
        for name in ("passwd", "group"):
            self._box.server.run(["mount", "--bind", str(root / "etc" / name), f"/etc/{name}"])

    def _show_program(self) -> None:
        """Make the program and its Python readable for every user: where a folder above is closed to others, as
        /root is,
        an open one takes its place, with nothing else in it."""
        places = [Path(place) for place in (REPOSITORY, sys.prefix, sys.base_prefix)]
        closed = {folder for place in places for folder in [_closed(place)] if folder is not None}
        behind = [place for place in places if _closed(place) is not None]
        for number, place in enumerate(behind):
            self._bind(str(place), f"/run/behind/{number}")
        for folder in closed:
            self._box.server.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "sandbox", str(folder)])
        for number, place in enumerate(behind):
            self._bind(f"/run/behind/{number}", str(place))

    def _bind(self, source: str, place: str) -> None:
        self._box.server.run(["mkdir", "-p", place])
        self._box.server.run(["mount", "--bind", source, place])

    def configure(self, conf: Path) -> None:
        """Put the configuration where only the permissions of tmpfiles.conf protect it."""
        owner = ["-o", USER, "-g", USER, "-m", "600"]
        self._box.server.run(["install", "-D", *owner, str(conf), CONF])

    def begin(self, what: str, *arguments: str, units: Sequence[Path] = (UNIT,)) -> Process:
        """Begin the program as one of the unit's commands, with what the unit gives it."""
        helper = str(REPOSITORY / "tests" / "helpers" / "confine.py")
        files = ",".join(map(str, units))
        program = [sys.executable, "-m", "port_knocking_doors", *arguments]
        env = {**self._env, "NOTIFY_SOCKET": NOTIFY_SOCKET, "WATCHDOG_USEC": str(WATCHDOG_USEC)}
        return self._box.server.popen([sys.executable, "-I", helper, files, what, "--", *program], env=env, cwd="/")

    def begin_as(self, user: str, *argv: str) -> Process:
        """Begin something as an ordinary user."""
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all", "--"]
        return self._box.server.popen([*command, *argv], env=self._env, cwd="/")

    @property
    def _env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}

    def listen(self) -> Process:
        """The notifications that systemd would receive, a line each on standard output."""
        listener = self._box.server.popen([sys.executable, "-c", _LISTENER])
        listener.stdout.wait_for("listening", 10)
        return listener

    def install_rule(self) -> None:
        """As a package manager does: whole and readable from the moment that polkitd sees its name."""
        draft = f"{Polkit.RULES}/draft"
        self._box.server.run(["install", "-m", "644", os.fspath(RULES), draft])
        self._box.server.run(["mv", draft, f"{Polkit.RULES}/{RULES.name}"])
