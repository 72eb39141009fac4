"""Packets that come by a link of which they begin with their IP header: a tun device, as a VPN has one."""

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from port_knocking_doors.sandbox import Host

DEVICE = Path("/dev/net/tun")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_INTERFACE_REQUEST = "16sH22x"  # struct ifreq (linux/if.h)


def can_be_had() -> bool:
    """Whether this machine lets its users have one, which is up to its kernel and its administrator."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def make(host: Host, name: str, address: str) -> None:
    """A tun device that is up, with `address` (and its prefix) as the host's own."""
    host.run(["ip", "tuntap", "add", "mode", "tun", "name", name])
    host.run(["ip", "address", "add", address, "dev", name])
    host.run(["ip", "link", "set", name, "up"])


def arrive(host: Host, name: str, packets: Iterable[bytes], *, pause: float = 0.01) -> None:
    """Let the packets come in by the device, in order, `pause` seconds apart."""
    row = "\n".join(packet.hex() for packet in packets)
    host.run([sys.executable, __file__, name, str(pause)], text=row, env={"PYTHONPATH": sys.path[0]})


def main() -> None:
    descriptor = os.open(DEVICE, os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack(_INTERFACE_REQUEST, sys.argv[1].encode(), IFF_TUN | IFF_NO_PI))
    for line in sys.stdin:
        os.write(descriptor, bytes.fromhex(line.strip()))
        time.sleep(float(sys.argv[2]))
    os.close(descriptor)


if __name__ == "__main__":
    main()
