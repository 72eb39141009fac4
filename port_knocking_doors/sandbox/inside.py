"""The first process of a sandbox: prepares folders and network, makes hosts, reaps, and ends with its owner.

Standard input is a socket to the owner. When it closes, even because the owner was killed, this process exits. It is
the first of its process namespace, so the kernel ends every other process with it.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
from pathlib import Path

from port_knocking_doors.sandbox.agent import Agent
from port_knocking_doors.sandbox.channel import Channel

BUS_SOCKET = "/run/dbus/system_bus_socket"
RUNTIME_DIRECTORY = "/run/user/0"

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_SIOCSIFFLAGS = 0x8914  # <linux/sockios.h>
_IFF_UP = 0x1  # <linux/if.h>

_PRIVATE_DIRECTORIES = ("/run", "/etc/firewalld", "/var/log")
_FIREWALLD_DIRECTORIES = ("zones", "policies", "services", "icmptypes", "ipsets", "helpers")
_FIREWALLD_CONF = """\
DefaultZone=public
CleanupOnExit=yes
CleanupModulesOnExit=no
IPv6_rpfilter=yes
LogDenied=off
FirewallBackend=nftables
FlushAllOnReload=yes
"""
_NETWORK_SETTINGS = {
    # The machine may have IPv6 off; the sandbox does not need to follow.
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    # Addresses work at once: no other host is on these links.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    # No rate limit for "prohibited" answers (by default about one a second): every attempt is answered. The masks
    # select the limited types: none, and an unused one, since an empty mask cannot be written.
    "net/ipv4/icmp_ratemask": "0",
    "net/ipv6/icmp/ratemask": "127",
}

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Prepare, report the result, then serve until the owner has gone."""
    control = Channel(_take_standard_input())
    os.setsid()  # Ctrl-C is for the owner, which then ends this process
    try:
        _prepare_directories()
        _prepare_network()
    except OSError as error:
        control.send({"denied": str(error)})
        return
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    control.send({"ready": True})
    while (received := control.receive()) is not None:
        message, (descriptor,) = received
        _make_host(control, descriptor, own_network=bool(message["own_network"]))


def _take_standard_input() -> socket.socket:
    """The owner's socket, moved so that no process started here inherits it."""
    end = socket.socket(fileno=os.dup(0))
    end.set_inheritable(False)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    return end


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prepare_directories() -> None:
    for directory in _PRIVATE_DIRECTORIES:
        mounted = _libc.mount(b"sandbox", directory.encode(), b"tmpfs", 0, b"mode=0755")
        _checked(mounted, f"a private {directory}")
    for directory in ("/run/dbus", "/run/firewalld", "/run/lock"):
        Path(directory).mkdir()
    Path(RUNTIME_DIRECTORY).mkdir(mode=0o700, parents=True)
    for name in _FIREWALLD_DIRECTORIES:
        Path("/etc/firewalld", name).mkdir()
    Path("/etc/firewalld/firewalld.conf").write_text(_FIREWALLD_CONF)


def _prepare_network() -> None:
    for name, value in _NETWORK_SETTINGS.items():
        path = Path("/proc/sys", name)
        if path.exists():
            path.write_text(value)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _make_host(control: Channel, descriptor: int, *, own_network: bool) -> None:
    """Fork the agent of one host; it sends a greeting over the descriptor."""
    if os.fork() != 0:
        os.close(descriptor)
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        if own_network:
            _checked(_libc.unshare(_CLONE_NEWNET), "a network of its own")
            _prepare_network()
        channel.send({"id": 0, "value": os.getpid()})
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={BUS_SOCKET}"
        Agent(channel).serve()
    except OSError as error:
        channel.send({"id": 0, "error": str(error), "kind": type(error).__name__})
    finally:
        os._exit(0)
