"""Whole Ethernet frames, sent as they are: what no socket of a higher layer would send."""

import json
import socket
import sys
import time
from collections.abc import Iterable

from port_knocking_doors.sandbox import Host

ETH_P_802_EX1 = 0x88B5  # linux/if_ether.h


def link_address(host: Host, interface: str) -> bytes:
    """An interface's own address on its link."""
    shown = host.run(["ip", "-json", "link", "show", "dev", interface]).stdout
    return bytes.fromhex(json.loads(shown)[0]["address"].replace(":", ""))


def send_frames(host: Host, interface: str, frames: Iterable[bytes], *, pause: float = 0.0) -> None:
    """Send the frames from one of the host's interfaces, in order, `pause` seconds apart."""
    row = "\n".join(frame.hex() for frame in frames)
    argv = [sys.executable, __file__, interface, str(pause)]
    host.run(argv, text=row, env={"PYTHONPATH": sys.path[0]})


def main() -> None:
    # Another protocol than what is sent, so that nothing comes back to this socket.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_802_EX1)) as sock:
        sock.bind((sys.argv[1], ETH_P_802_EX1))
        for line in sys.stdin:
            sock.send(bytes.fromhex(line.strip()))
            time.sleep(float(sys.argv[2]))


if __name__ == "__main__":
    main()
