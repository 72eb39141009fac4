"""A copy of this host's network in a namespace: its links and addresses, listeners, and the kernel's tables.

Test packets come in by links that have the names of the host's own. A TCP port is open if its listener answers a SYN,
and a UDP port if the datagram arrives.
"""

import contextlib
import os
import re
import resource
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.doctor import frames
from port_knocking_doors.doctor.kernel_tables import IPSET, KernelTables
from port_knocking_doors.doctor.programs import NotProvenError, TimeLimit, needed, run
from port_knocking_doors.doctor.ruleset import copy_of
from port_knocking_doors.doctor.trace import Decision, decision
from port_knocking_doors.model import PAYLOAD, Address, Port, Protocol
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.sockets import enlarge_receive_buffer

PROC_SYS = Path("/proc/sys/net")
_OUTER_END = "pkd-out{}"
"""Name of the outer end of a link, which no host has."""
MARKER = ip_address("192.0.0.8")
"""An address on each link that is asked for by ARP (RFC 7600: the dummy address, which no host has)."""

_FIRST_SOURCE_PORT = 33000
_ETH_P_ALL = 3  # linux/if_ether.h
_PROCESSED_WITHIN = 5.0
"""Seconds within which the kernel has handled everything that was sent; it takes some microseconds a packet."""
_UNKNOWN_TYPE = "Unknown device type"
"""ip(8)'s words for a kernel without such links."""
_BACKLOG = 4096
_CHUNK = 64
"""Packets that are sent before answers are read: less than the smallest receive buffer holds."""
_RECEIVE_BUFFER = 1 << 20
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h
_MOMENT = 0.05  # seconds
_TRACED_WITHIN = 2.0
"""Seconds until a packet that is shown by no trace was dropped ahead of every table."""
_TABLE = "port_knocking_doors_test"
# `redirected_…` record ports whose packets were given another destination, past the zones (ct status dnat).
_WATCH = f"""
table inet {_TABLE} {{
  set redirected_tcp {{
    type inet_service
    flags dynamic
    size 65535
  }}
  set redirected_udp {{
    type inet_service
    flags dynamic
    size 65535
  }}
  set traced {{
    type inet_service
    flags interval
  }}
  chain early {{
    type filter hook prerouting priority -500
    meta l4proto {{ tcp, udp }} th sport @traced meta nftrace set 1
  }}
  chain answers {{
    type filter hook output priority -500
    meta l4proto {{ tcp, udp }} th dport @traced meta nftrace set 1
  }}
  chain late {{
    type filter hook prerouting priority 500
    meta l4proto tcp ct status dnat add @redirected_tcp {{ ct original proto-dst }}
    meta l4proto udp ct status dnat add @redirected_udp {{ ct original proto-dst }}
  }}
}}
"""
# Ahead of chains that see packets before any other; not every kernel has such chains.
_INGRESS = f"""
table netdev {_TABLE} {{{{
  chain early{{0}} {{{{
    type filter hook ingress device "{{1}}" priority -500
    meta l4proto {{{{ tcp, udp }}}} th sport {_FIRST_SOURCE_PORT}-65535 meta nftrace set 1
  }}}}
}}}}
"""
_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv4/tcp_synack_retries": "0",
    "ipv4/conf/all/arp_ignore": "0",
    "ipv4/conf/default/arp_ignore": "0",
}


class Probe(NamedTuple):
    """A packet from outside: a SYN, or a datagram with a knock's payload."""

    interface: str
    source: Address
    destination: Address
    port: Port


class HostCopy:
    """Made within a namespace (`in_namespace`); a context manager. Everything raises `NotProvenError`.

    `links`: name → addresses, of the links by which packets come; `others`: names of further links that rules may
    mention; `sources`: addresses that packets come from; `ports`: those that are listened on.
    """

    def __init__(
        self,
        links: Mapping[str, Sequence[Address]],
        others: Iterable[str],
        sources: Iterable[Address],
        ports: Iterable[Port],
        limit: TimeLimit,
    ) -> None:
        self._links = links
        self._names = [*links, *others]
        self._sources = tuple(sources)
        self._ports = list(dict.fromkeys(ports))
        self._limit = limit
        self._ip, self._nft = needed("ip", "iproute2"), needed("nft", "nftables")
        self._resources = contextlib.ExitStack()
        self._outside: dict[str, socket.socket] = {}
        self._udp: list[tuple[socket.socket, Port]] = []
        self._source_port = _FIRST_SOURCE_PORT

    def __enter__(self) -> "HostCopy":
        try:
            # One processor handles packets in the order in which it sends them.
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            self._make_links()
            self._listen()
        except OSError as error:
            self._resources.close()
            raise NotProvenError(f"cannot copy this host's network: {error.strerror}") from error
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _make_links(self) -> None:
        for name, value in _SYSCTLS.items():
            with contextlib.suppress(OSError):  # no IPv6, or read only
                (PROC_SYS / name).write_text(value)
        try:
            self._batch(
                "link set lo up", *(line for numbered in enumerate(self._names) for line in self._link(*numbered))
            )
        except NotProvenError as error:
            hint = ": modprobe veth" if _UNKNOWN_TYPE in str(error) else ""
            raise NotProvenError(f"cannot copy this host's network: {error}{hint}") from error
        for number, name in enumerate(self._links):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
            self._resources.callback(sock.close)
            enlarge_receive_buffer(sock, _RECEIVE_BUFFER)
            sock.bind((_OUTER_END.format(number), _ETH_P_ALL))
            self._outside[name] = sock

    def _link(self, number: int, name: str) -> Iterator[str]:
        """The commands that make a link, with its addresses."""
        outer = _OUTER_END.format(number)
        ends = f"{name} address {_text(frames.HOST_MAC)} type veth peer name {outer} address {_OUTSIDE_MAC}"
        yield f"link add name {ends}"
        yield f"link set dev {outer} addrgenmode none"
        yield f"link set dev {outer} up"
        yield f"link set dev {name} up"
        if name in self._links:
            for address in (*self._links[name], MARKER):
                yield f"address replace {address} dev {name}{' nodad' if address.version == 6 else ''}"

    def _listen(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._resources.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for port in self._ports:
            for family in (socket.AF_INET, socket.AF_INET6):
                kind = socket.SOCK_STREAM if port.protocol is Protocol.TCP else socket.SOCK_DGRAM
                try:
                    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
                except OSError:
                    if family == socket.AF_INET:
                        raise
                    continue  # the kernel has no IPv6
                self._resources.callback(sock.close)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(("", port.number))
                if port.protocol is Protocol.TCP:
                    sock.listen(_BACKLOG)
                else:
                    self._udp.append((sock, port))

    # Rules. ----------------------------------------------------------------------------------------------------------

    def load(self, kernel: KernelTables) -> None:
        """Copy the kernel's tables."""
        addresses = {*self._sources, *(address for found in self._links.values() for address in found)}
        for program, text in kernel.restores:
            command = (
                [needed(IPSET, IPSET), "restore"] if program == IPSET else [needed(program, "iptables"), "--noflush"]
            )
            run(command, self._limit, text)
        text = "".join(copy_of(table, addresses) for table in kernel.tables)
        early = "".join(_INGRESS.format(*one) for one in enumerate(self._links)) if "hook ingress" in text else ""
        try:
            self.change(text + _WATCH + early)
        except NotProvenError as error:
            raise NotProvenError(f"cannot copy the kernel's tables: {error}") from error

    def change(self, commands: str) -> None:
        """Run nft's commands on the copy."""
        run([self._nft, "-f", "-"], self._limit, commands)

    def redirected(self) -> frozenset[Port]:
        """The ports of packets that were given another destination, past the zones, so far."""
        found: list[Port] = []
        for protocol in Protocol:
            command = [self._nft, "--numeric", "list", "set", "inet", _TABLE, f"redirected_{protocol}"]
            _, _, elements = run(command, self._limit).output.partition("elements = {")
            found += [Port(int(number), protocol) for number in re.findall(r"\d+", elements)]
        return frozenset(found)

    # Packets. --------------------------------------------------------------------------------------------------------

    def arriving(self, packets: Iterable[Probe]) -> set[Probe]:
        """Those of the packets that get through to a listener."""
        by_link: dict[str, list[Probe]] = {}
        for packet in packets:
            by_link.setdefault(packet.interface, []).append(packet)
        return {packet for name, sent in by_link.items() for packet in self._arriving(name, sent)}

    def decision(self, packet: Probe) -> Decision | None:
        """The rule that accepted or denied the packet; None where there was no rule for it."""
        self.change(f"add element inet {_TABLE} traced {{ {self._source_port}-65535 }}")
        monitor = subprocess.Popen([self._nft, "monitor", "trace"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            return decision(self._traced(monitor, packet))
        finally:
            monitor.kill()
            monitor.wait()
            assert monitor.stdout is not None
            monitor.stdout.close()
            self.change(f"flush set inet {_TABLE} traced")

    def _traced(self, monitor: subprocess.Popen[bytes], packet: Probe) -> str:
        """Send the packet until its trace is shown: the program needs a moment before it listens."""
        assert monitor.stdout is not None
        os.set_blocking(monitor.stdout.fileno(), False)
        output = b""
        end = now() + _TRACED_WITHIN
        while not output and self._limit.left and monitor.poll() is None and now() < end:
            self.arriving([packet])
            time.sleep(_MOMENT)
            while chunk := monitor.stdout.read(1 << 16):
                output += chunk
        return output.decode(errors="replace")

    def _arriving(self, link: str, packets: Sequence[Probe]) -> set[Probe]:
        destinations = list(dict.fromkeys(packet.destination for packet in packets))
        base, self._source_port = self._source_port, self._source_port + len(destinations)
        self._batch(
            *(
                line
                for source in dict.fromkeys(packet.source for packet in packets)
                for line in (
                    f"route replace {source} dev {link}",
                    f"neighbour replace {source} lladdr {_OUTSIDE_MAC} dev {link} nud permanent",
                )
            )
        )
        sock = self._outside[link]
        sent: dict[tuple[bytes, int, Port], Probe] = {}
        received: set[tuple[bytes, int, Port]] = set()
        for first in range(0, len(packets), _CHUNK):
            for packet in packets[first : first + _CHUNK]:
                source_port = base + destinations.index(packet.destination)
                addresses = packet.source, source_port, packet.destination, packet.port.number
                is_tcp = packet.port.protocol is Protocol.TCP
                sent[packet.source.packed, source_port, packet.port] = packet
                sock.send(frames.syn(*addresses) if is_tcp else frames.datagram(*addresses, PAYLOAD))
            received.update(_answers(sock)[1])
            self._limit.check()
        received.update(self._rest(sock))
        return {packet for key, packet in sent.items() if key in received}

    def _rest(self, sock: socket.socket) -> Iterator[tuple[bytes, int, Port]]:
        """Source, its port and the guarded port of what else has arrived; the kernel has handled all that was sent
        before it answers a last question."""
        sock.send(frames.arp_request(bytes(4), MARKER.packed))
        end = now() + _PROCESSED_WITHIN
        is_done = False
        while not is_done:
            if not select.select([sock], [], [], max(0.0, end - now()))[0]:
                raise NotProvenError("the copy of this host's network does not answer")
            is_done, found = _answers(sock)
            yield from found
        _, dropped = struct.unpack("@II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        if dropped:
            raise NotProvenError("the kernel dropped answers to test packets")
        for udp, port in self._udp:
            while (datagram := _read_datagram(udp)) is not None:
                yield *datagram, port

    def _batch(self, *lines: str) -> None:
        run([self._ip, "-batch", "-"], self._limit, "\n".join(lines))


def _text(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)


_OUTSIDE_MAC = _text(frames.OUTSIDE_MAC)


def _answers(sock: socket.socket) -> tuple[bool, list[tuple[bytes, int, Port]]]:
    """What waits: whether the last question is answered, and by which ports a SYN was."""
    is_done, found = False, []
    while (frame := _read(sock)) is not None:
        is_done |= frames.is_arp_reply(frame)
        if (answer := frames.syn_ack(frame)) is not None:
            found.append((answer.to, answer.to_port, Port(answer.from_port)))
    return is_done, found


def _read(sock: socket.socket) -> bytes | None:
    with contextlib.suppress(BlockingIOError):
        return sock.recv(256)
    return None


def _read_datagram(sock: socket.socket) -> tuple[bytes, int] | None:
    with contextlib.suppress(BlockingIOError):
        _, sender = sock.recvfrom(64)
        return ip_address(sender[0].partition("%")[0]).packed, sender[1]
    return None
