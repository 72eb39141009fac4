"""Sends many datagrams fast, from the host that it runs on, and prints as JSON how it went.

    python -m tests.benchmarks.flood TARGET PORT PAYLOAD_HEX COUNT RATE SOURCE SOURCES

RATE is datagrams a second, kept in bursts of a millisecond (0: as fast as it goes). SOURCE is the first of SOURCES
consecutive addresses, each of which this host must have; with one source all datagrams come from one port of it.
"""

import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

IP_PKTINFO = 8  # linux/in.h
_PACKET_INFO = struct.Struct("!III")  # struct in_pktinfo: interface (0: any), source address, not used
_BURST = 0.001
_LONGEST = 120.0
"""Seconds after which it gives up."""


@contextmanager
def _sender(target: str, port: int, payload: bytes, source: str, sources: int) -> Iterator[Callable[[int], object]]:
    """What sends the datagram of a number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        if sources == 1:
            sock.bind((source, 0))
            # A closed port's answer must not stop us: an unconnected socket does not hear of it.
            destination = (target, port)
            yield lambda _: sock.sendto(payload, destination)
        else:
            first = int(IPv4Address(source))
            destination = (target, port)
            buffers = [payload]

            def send(number: int) -> object:
                info = _PACKET_INFO.pack(0, first + number % sources, 0)
                return sock.sendmsg(buffers, [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, destination)

            yield send


def flood(send: Callable[[int], object], count: int, rate: float) -> dict[str, float]:
    """Send, in bursts of a millisecond's worth; what the kernel would not take is counted."""
    burst = max(1, int(rate * _BURST)) if rate else 1000
    failed = sent = 0
    began = time.monotonic()
    while sent < count:
        now = time.monotonic()
        if now - began > _LONGEST:
            break
        if rate and (early := began + sent / rate - now) > 0:
            time.sleep(early)
        for number in range(sent, min(sent + burst, count)):
            try:
                send(number)
            except OSError:  # noqa: PERF203 each one counts
                failed += 1
        sent = min(sent + burst, count)
    seconds = time.monotonic() - began
    return {"sent": sent - failed, "failed": failed, "seconds": seconds, "rate": (sent - failed) / seconds}


def main() -> None:
    """Read the arguments, send, print."""
    target, port, payload, count, rate, source, sources = sys.argv[1:]
    with _sender(target, int(port), bytes.fromhex(payload), source, int(sources)) as send:
        print(json.dumps(flood(send, int(count), float(rate))))


if __name__ == "__main__":
    main()
