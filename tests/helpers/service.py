"""The daemon as its unit runs it, on a sandbox's server: user, capabilities, sandboxing; and what systemd hears."""

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
OTHER = "somebody"

_PLACE = "/run/installed"
CONF = "/run/configuration/port_knocker.toml"
NOTIFY_SOCKET = "/run/notify"
WATCHDOG_USEC = 400_000

_LISTENER = f"""
import os, socket
heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
heard.bind("{NOTIFY_SOCKET}")
os.chmod("{NOTIFY_SOCKET}", 0o777)
print("listening", flush=True)
while True:
    print(heard.recv(4096).decode().replace(chr(10), " "), flush=True)
"""


class Installation:
    """What an administrator installs, on the server of a sandbox with users: the service's user, and the program where
    this user can read it. Nothing of it is on the machine itself: every place is a mount of the sandbox's own."""

    def __init__(self, box: Sandbox, folder: Path, conf: Path) -> None:
        self._box = box
        self._add_users(folder)
        self.python = self._show_program()
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

    def _show_program(self) -> str:
        """Folders of this machine may be closed to other users: let there be another way to these two."""
        for name, source in (("project", str(REPOSITORY)), ("python", sys.prefix)):
            self._box.server.run(["mkdir", "-p", f"{_PLACE}/{name}"])
            self._box.server.run(["mount", "--bind", source, f"{_PLACE}/{name}"])
        return f"{_PLACE}/python/{Path(sys.executable).relative_to(sys.prefix)}"

    def configure(self, conf: Path) -> None:
        """Put the configuration where everybody could get at it, but for the permissions of tmpfiles.conf."""
        owner = ["-o", USER, "-g", USER, "-m", "600"]
        self._box.server.run(["install", "-D", *owner, str(conf), CONF])

    def begin(self, what: str, *arguments: str, units: Sequence[Path] = (UNIT,)) -> Process:
        """Begin the program as one of the unit's commands, with what the unit gives it."""
        helper = f"{_PLACE}/project/tests/helpers/confine.py"
        files = ",".join(f"{_PLACE}/project/{unit.relative_to(REPOSITORY)}" for unit in units)
        program = [self.python, "-m", "port_knocking_doors", *arguments]
        env = {**self._env, "NOTIFY_SOCKET": NOTIFY_SOCKET, "WATCHDOG_USEC": str(WATCHDOG_USEC)}
        return self._box.server.popen([sys.executable, "-I", helper, files, what, "--", *program], env=env, cwd="/")

    def begin_as(self, user: str, *argv: str) -> Process:
        """Begin something as an ordinary user."""
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all", "--"]
        return self._box.server.popen([*command, *argv], env=self._env, cwd="/")

    @property
    def _env(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{_PLACE}/project", "PYTHONDONTWRITEBYTECODE": "1"}

    def listen(self) -> Process:
        """What systemd would hear, a line each on standard output."""
        listener = self._box.server.popen([sys.executable, "-c", _LISTENER])
        listener.stdout.wait_for("listening", 10)
        return listener

    def install_rule(self) -> None:
        self._box.server.run(["install", "-m", "644", os.fspath(RULES), Polkit.RULES])
