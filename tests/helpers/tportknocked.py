"""`port-knocking-doors tportknockd` on a sandbox's server."""

import sys
from pathlib import Path

from port_knocking_doors.sandbox import Process, Sandbox

PROGRAM = [sys.executable, "-m", "port_knocking_doors", "tportknockd"]


def letters(flags: int) -> str:
    """The letters of six bits; none for none."""
    return "".join(letter for bit, letter in enumerate("fsrpau") if flags >> bit & 1)


def event(name: str, sequence: str, *entries: str, timeout: float = 10, start: str = "") -> str:
    """A block of its file."""
    lines = [f"sequence = {sequence}", f"timeout = {timeout}", f"start_command = {start}", *entries]
    return "\n".join([f"<{name}>", *lines, f"</{name}>", ""])


def write(folder: Path, *blocks: str) -> Path:
    conf = folder / "knock.conf"
    conf.write_text("\n".join(blocks))
    conf.chmod(0o600)
    return conf


def start(box: Sandbox, conf: Path, *options: str) -> Process:
    """The daemon, once it is ready."""
    daemon = box.server.popen([*PROGRAM, "-c", str(conf), *options])
    daemon.wait_for(r"\bready\b", 20)
    return daemon
