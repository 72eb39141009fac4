"""The story of an installed package: its daemon, as its own user, opens a door to a client that knocks with this
machine's sequence, and after its end or a kill no door stays open.

Runs as root where the package is installed, on throw-away hosts with a real firewalld and a real polkitd, whose only
rule is the one that the package brings. Everything is what was installed: this file imports nothing from beside it.
"""

import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tomli

from port_knocking_doors.sandbox import Host, Polkit, Process, Sandbox

CONF = Path("/etc/port_knocker.toml")
USER = "port-knocking-doors"
UNIT = Path("/usr/lib/systemd/system/port-knocking-doors.service")
CAP_NET_RAW = "net_raw"
"""As setpriv(1) writes the capability of the unit."""
MARK = 'priority="31313"'


class InstalledPolkit(Polkit):
    """polkitd with the rules that packages brought, and no others."""

    def __init__(self, server: Host) -> None:
        super().__init__(server)
        server.run(["umount", "/usr/share/polkit-1/rules.d"])


def until(true: Callable[[], object], what: str, within: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"not within {within:g} s: {what}")
        time.sleep(0.05)


def command(setting: str) -> list[str]:
    """A command of the installed unit."""
    (line,) = re.findall(rf"(?m)^{setting}=(.+)$", UNIT.read_text())
    return shlex.split(line)


def start(box: Sandbox) -> Process:
    """The daemon with the user, the capability and the folder that its unit gives it."""
    server = box.server
    server.run(["install", "-d", "-o", USER, "-g", USER, "-m", "700", "/run/port-knocking-doors"])
    confined = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    confined += [f"--{kind}=-all,+{CAP_NET_RAW}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    daemon = server.popen(["setpriv", *confined, "--", *command("ExecStart")], cwd="/")
    daemon.wait_for(r"\bready\b", 30)
    return daemon


def main() -> None:
    """Knock, get in, and find the door closed once the daemon has ended, or was killed."""
    sequence = tomli.loads(CONF.read_text())["opening_sequence"]
    with Sandbox(clients=("client", "stranger"), users=True) as box:
        InstalledPolkit(box.server).start()
        box.firewall_cmd("--remove-service=ssh")  # closed without a knock, as README says
        client, stranger = box.hosts["client"], box.hosts["stranger"]

        def a_daemon_that_let_in() -> Process:
            daemon = start(box)
            until(lambda: client.connect(client.server4, 22) == "prohibited", "the client stays out without a knock")
            client.send([(client.server4, port, b"knock\n", 0) for port in sequence], pause=0.05)
            until(lambda: client.connect(client.server4, 22, timeout=0.2) == "open", "the client gets in")
            until(lambda: stranger.connect(stranger.server4, 22) == "prohibited", "a stranger stays out")
            return daemon

        def all_closed() -> bool:
            return not [rule for rule in box.rules() if MARK in rule]

        with box.server.listen(22):
            daemon = a_daemon_that_let_in()
            daemon.terminate()
            if daemon.wait(20) != 0:
                sys.exit("it did not end well when it was asked to")
            if not all_closed():
                sys.exit("it left a rule")
            until(lambda: client.connect(client.server4, 22) == "prohibited", "the client is out again")

            killed = a_daemon_that_let_in()
            killed.kill()
            until(all_closed, "the doors of a daemon that was killed are closed")
            box.server.run(command("ExecStopPost"))
            until(lambda: client.connect(client.server4, 22) == "prohibited", "the client is out for good")
        said = "".join(one.stdout.text + one.stderr.text for one in (daemon, killed))
        if re.search("Traceback|ERROR|may not|denies", said):
            sys.exit(f"trouble: {said}")
        if [port for port in sequence if str(port) in said]:
            sys.exit("the log shows the sequence")
    print("the daemon as its own user opened a door to a knock, and closed it when it ended and when it was killed")


if __name__ == "__main__":
    main()
