"""A daemon that sniffs, and who knocks at it."""

import json
from pathlib import Path

from port_knocking_doors.model import Address
from port_knocking_doors.sandbox import Host, Process, Sandbox
from tests.helpers.raw_knock import send_tcp
from tests.helpers.running import GUARDED, begin_daemon, write_configuration

UDP_STEP, SYN_STEP, FLAGS_STEP = 21500, 20600, 20700
STEPS = [f"udp:{UDP_STEP}", f"tcp:{SYN_STEP}", f"tcp:{FLAGS_STEP}:frap"]
RIGHT = [(SYN_STEP, "s"), (FLAGS_STEP, "frap")]


def sniffing(
    box: Sandbox,
    folder: Path,
    *tables: dict[str, object],
    options: tuple[str, ...] = (),
    appended: str = "",
    **keys: object,
) -> Process:
    """A daemon that is ready, with these `[[sequence]]` tables over a usual one; `appended`: more of its file."""
    conf = write_sniffing(folder, *tables, **keys)
    conf.write_text(conf.read_text() + appended)
    daemon = begin_daemon(box, conf, *options)
    daemon.wait_for(r"\bready\b", 20)
    return daemon


def write_sniffing(folder: Path, *tables: dict[str, object], **keys: object) -> Path:
    conf = write_configuration(folder, **{"ignoring_period_after_knock_error": 0.5, **keys})
    usual = {"name": "door", "steps": STEPS, "open": [GUARDED], "duration": 2, "traps": 32}
    for table in tables or ({},):
        lines = [f"{key} = {json.dumps(value)}" for key, value in {**usual, **table}.items() if value is not None]
        with conf.open("a") as file:
            file.write("\n[[sequence]]\n" + "\n".join(lines) + "\n")
    return conf


def knock_udp(host: Host, address: Address, port: int = UDP_STEP, payload: bytes = b"any") -> None:
    host.send([(address, port, payload, 40000)])


def whole_sequence(host: Host, address: Address) -> None:
    knock_udp(host, address)
    send_tcp(host, address, RIGHT)
