"""Knocks that an ordinary socket cannot send: TCP packets with any flags, any sequence number, from any port."""

import json
import socket
import struct
import sys
import time
from collections.abc import Iterable

from port_knocking_doors.model import Address, Flags
from port_knocking_doors.sandbox import Host

LETTERS = {"f": Flags.FIN, "s": Flags.SYN, "r": Flags.RST, "p": Flags.PSH, "a": Flags.ACK, "u": Flags.URG}


def send_tcp(
    host: Host,
    address: Address,
    packets: Iterable[tuple[int, str]],
    *,
    source_port: int = 40000,
    number: int = 1000,
    ecn: bool = False,
    pause: float = 0.01,
    repeat: int = 1,
) -> None:
    """Send each (port, flags) from the host, `repeat` times each, with sequence numbers that count up from `number`."""
    bits = 0xC0 if ecn else 0  # ECE and CWR (RFC 3168)
    row = [
        (str(address), port, bits | sum(LETTERS[letter] for letter in flags), number + place, source_port)
        for place, (port, flags) in enumerate(packets)
        for _ in range(repeat)
    ]
    host.run([sys.executable, __file__, json.dumps(row), str(pause)], env={"PYTHONPATH": sys.path[0]})


def main() -> None:
    for address, port, flags, number, source_port in json.loads(sys.argv[1]):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # struct tcphdr: ports, sequence and acknowledgement number, length and flags, window, checksum, urgent pointer
        header = struct.pack("!HHIIBBHHH", source_port, port, number, 0, 5 << 4, flags, 1024, 0, 0)
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
            sock.sendto(header, (address, 0))
        time.sleep(float(sys.argv[2]))


if __name__ == "__main__":
    main()
