"""Plays packets from any source address; no two have the same source port and sequence number.

Run on a client's host: `python play.py SERVER PAUSE < PACKETS`, JSON rows of source, protocol, port, flags and, where
it is not 0, seconds to wait ahead of it.
"""

import json
import socket
import struct
import sys
import time

TCP = 6


def packet(source: str, server: str, protocol: int, port: int, flags: int, number: int) -> bytes:
    """An IPv4 packet. The kernel fills in length and checksum of its header; nothing here checks the others."""
    source_port = 1024 + number % 60000
    if protocol == TCP:
        body = struct.pack("!HHIIBBHHH", source_port, port, number, 0, 5 << 4, flags, 1024, 0, 0)
    else:
        body = struct.pack("!HHHH", source_port, port, 9, 0) + b"x"
    addresses = socket.inet_aton(source) + socket.inet_aton(server)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, 64, protocol, 0) + addresses + body


def main() -> None:
    server, pause = sys.argv[1], float(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for number, (source, protocol, port, flags, wait) in enumerate(json.load(sys.stdin), start=1):
            time.sleep(wait or pause)
            sock.sendto(packet(source, server, protocol, port, flags, number), (server, 0))


if __name__ == "__main__":
    main()
