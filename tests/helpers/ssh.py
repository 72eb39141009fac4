"""A real OpenSSH server behind the door, and a client that knows its key."""

from pathlib import Path

from port_knocking_doors.sandbox import Process, Sandbox
from tests.helpers.running import GUARDED

USER = "doorman"
USER_NUMBER = 54321
_SSHD = "/usr/sbin/sshd"  # it starts itself again by this name, so the path must be absolute


class Ssh:
    """The server's sshd on the guarded port, and the files of a client that may log in."""

    def __init__(self, box: Sandbox, folder: Path) -> None:
        self._box = box
        self._folder = folder
        for name in ("host_key", "user_key"):
            box.server.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
        public = (folder / "host_key.pub").read_text().split()
        (folder / "known_hosts").write_text(f"door {public[0]} {public[1]}\n")
        self._add_user()
        (folder / "sshd_config").write_text(
            f"Port {GUARDED}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/user_key.pub\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "Subsystem sftp internal-sftp\nAllowUsers " + USER + "\n"
        )
        self.sshd = self._start()

    def _add_user(self) -> None:
        """In the sandbox's view of the file alone, so that there is an ordinary user on any machine."""
        passwd = self._folder / "passwd"
        entry = f"{USER}:x:{USER_NUMBER}:{USER_NUMBER}::{self._folder}:/bin/sh\n"
        passwd.write_text(Path("/etc/passwd").read_text() + entry)
        self._box.server.run(["mount", "--bind", str(passwd), "/etc/passwd"])

    def _start(self) -> Process:
        # A sandbox that an ordinary user made knows one user, and an sshd that is root wants to become others.
        user = ["unshare", "--user", f"--map-user={USER_NUMBER}", f"--map-group={USER_NUMBER}"]
        sshd = self._box.server.popen([*user, _SSHD, "-D", "-e", "-f", str(self._folder / "sshd_config")])
        sshd.wait_for("Server listening on :: port")
        return sshd

    def client_config(self, address: object, proxy_command: str) -> Path:
        """A file for `ssh -F`: the host `door` is the server, reached by the command alone."""
        path = self._folder / "ssh_config"
        path.write_text(
            f"Host door\n    HostName {address}\n    Port {GUARDED}\n    User {USER}\n    HostKeyAlias door\n"
            f"    IdentityFile {self._folder}/user_key\n    UserKnownHostsFile {self._folder}/known_hosts\n"
            "    GlobalKnownHostsFile none\n    IdentitiesOnly yes\n    BatchMode yes\n    StrictHostKeyChecking yes\n"
            f"    ProxyCommand {proxy_command}\n"
        )
        return path
