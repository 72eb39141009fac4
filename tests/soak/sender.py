"""Sends from many addresses of a client's host: what the soak test asks for, one JSON line each way.

Run on a client's host: `python sender.py SERVER4 SERVER6`. Asked are rows of packets, a flood, or connections.
"""

import errno
import json
import socket
import struct
import sys
import time
from typing import Any

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger
_PATIENCE = 0.25


class Sender:
    """`servers`: the server's address of each family."""

    def __init__(self, server4: str, server6: str) -> None:
        self._servers = {socket.AF_INET: server4, socket.AF_INET6: server6}

    def send(self, packets: list[tuple[str, str, int, int, str, int, int, float]]) -> list[tuple[float, float, bool]]:
        """Source, protocol, port, flags, payload (hex), source port, number, seconds to wait first → when each left,
        and whether the kernel took it."""
        times = []
        for source, protocol, port, flags, payload, source_port, number, wait in packets:
            time.sleep(wait)
            start = time.monotonic()
            try:
                if protocol == "udp":
                    self._udp(source, port, bytes.fromhex(payload), source_port)
                else:
                    self._tcp(source, port, flags, source_port, number)
                taken = True
            except OSError:
                taken = False
            times.append((start, time.monotonic(), taken))
        return times

    def _udp(self, source: str, port: int, payload: bytes, source_port: int) -> None:
        family = _family(source)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((source, source_port))
            sock.sendto(payload, (self._servers[family], port))

    def _tcp(self, source: str, port: int, flags: int, source_port: int, number: int) -> None:
        family = _family(source)
        # struct tcphdr: ports, sequence and acknowledgement number, length and flags, window, checksum, urgent pointer
        header = struct.pack("!HHIIBBHHH", source_port, port, number, 0, 5 << 4, flags, 1024, 0, 0)
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
            sock.bind((source, 0))
            sock.sendto(header, (self._servers[family], 0))

    def flood(self, network: str, count: int, udp_ports: list[int]) -> int:
        """As many datagrams from as many forged addresses of the network (its first two numbers); how many left."""
        sent = 0
        server = socket.inet_aton(self._servers[socket.AF_INET])
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for number in range(count):
                source = socket.inet_aton(f"{network}.{number >> 8 & 255}.{number & 255}")
                body = (
                    struct.pack("!HHHH", 1024 + number % 60000, udp_ports[number % len(udp_ports)], 14, 0) + b"knock\n"
                )
                head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, 64, 17, 0)
                try:
                    sock.sendto(head + source + server + body, (self._servers[socket.AF_INET], 0))
                    sent += 1
                except OSError:  # the link is down
                    continue
        return sent

    def connect(self, tries: list[tuple[str, int]]) -> list[tuple[float, float, str]]:
        """Source and port → when each try began and ended, and "open" or the error's name."""
        return [self._connect(source, port) for source, port in tries]

    def _connect(self, source: str, port: int) -> tuple[float, float, str]:
        family = _family(source)
        start = time.monotonic()
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            try:
                sock.bind((source, 0))
                error = sock.connect_ex((self._servers[family], port))
            except OSError as failure:
                error = failure.errno or errno.EIO
        return start, time.monotonic(), errno.errorcode.get(error, "open")


def _family(source: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in source else socket.AF_INET


def main() -> None:
    sender = Sender(*sys.argv[1:])
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        what = asked.pop("do")
        answer = getattr(sender, what)(**asked)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
