"""What measures on a host of the sandbox: small programs that answer one request a line, as JSON, on standard input.

Standard input is a socket to the owner. Every time is of CLOCK_MONOTONIC, which is the same in all network namespaces.
"""

import asyncio
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]

FIREWALLD = "org.fedoraproject.FirewallD1"
FIREWALLD_PATH = "/org/fedoraproject/FirewallD1"
PAYLOAD = b"knock\n"
KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}
LONGEST = 30.0
"""Seconds that anything here may take."""

NETLINK_NETFILTER = 12  # linux/netlink.h
NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
NFNL_SUBSYS_NFTABLES = 10  # linux/netfilter/nfnetlink.h
NFT_MSG_NEWRULE, NFT_MSG_DELRULE = 6, 8  # linux/netfilter/nf_tables.h
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE = 1, 2, 3  # linux/netfilter/nf_tables.h
_NETLINK_HEADER = struct.Struct("@IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("@HH")  # struct nlattr
_NFGENMSG = 4  # bytes of struct nfgenmsg
# An address that a rule compares with: an attribute NFTA_DATA_VALUE of 4 bytes, in the benchmark's network.
_COMPARED = re.compile(rb"\x08\x00\x01\x00(\x0a\x4d[\x00-\xff]{2})", re.DOTALL)


class Knocker:
    """On a client's host: knocks, and tells when the last datagram left."""

    def __init__(self) -> None:
        self.operations: dict[str, Callable[..., Answer]] = {"knock": self._knock, "hit": self._hit}

    def _knock(self, source: str, target: str, ports: list[int], gap: float) -> Answer:
        """All knocks in order, `gap` seconds before the last; the time is taken right before that one is sent.

        Then as long a silence: what the answer would set in motion at the owner's would compete with the daemon.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            for port in ports[:-1]:
                sock.sendto(PAYLOAD, (target, port))
            sock.connect((target, ports[-1]))
            time.sleep(gap)
            began = time.monotonic()
            sock.send(PAYLOAD)
        time.sleep(gap)
        return {"began": began}

    def _hit(self, source: str, target: str, hits: list[tuple[str, int]], gap: float) -> Answer:
        """Each packet `gap` seconds after the one before; the time is taken right before the last one is sent."""
        began = 0.0
        for number, (protocol, port) in enumerate(hits):
            if number:
                time.sleep(gap)
            with socket.socket(socket.AF_INET, KINDS[protocol]) as sock:
                sock.setblocking(False)
                sock.bind((source, 0))
                began = time.monotonic()
                if protocol == "udp":
                    sock.sendto(PAYLOAD, (target, port))
                else:
                    sock.connect_ex((target, port))  # the socket is closed at once, so the SYN is not repeated
        return {"began": began}


class Watcher:
    """On the server: hears from the kernel which rules stand, and notes when it heard.

    The kernel tells the group of nf_tables of a change once it is in force, so nobody has to ask for the ruleset.
    """

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sock.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        self._came: dict[str, float] = {}
        self._went: dict[str, float] = {}
        self._last_went: dict[str, float] = {}
        self._address_of: dict[tuple[bytes, bytes, bytes], str] = {}
        self.operations: dict[str, Callable[..., Answer]] = {
            "came": self._wait_came,
            "went": self._wait_went,
            "ends": self._ends,
        }

    def _wait_came(self, address: str, timeout: float) -> Answer:
        return self._wait(self._came, address, timeout)

    def _wait_went(self, address: str, timeout: float) -> Answer:
        return self._wait(self._went, address, timeout)

    def _ends(self) -> Answer:
        """When the last rule with each address went, and the addresses that a rule has now."""
        while self.hear(0.001):
            pass
        return {"went": self._last_went, "left": sorted(set(self._address_of.values()))}

    def _wait(self, seen: dict[str, float], address: str, timeout: float) -> Answer:
        deadline = time.monotonic() + min(timeout, LONGEST)
        while address not in seen:
            if not self.hear(deadline - time.monotonic()):
                raise TimeoutError(f"nothing was heard of a rule for {address} within {timeout:g} s")
        return {"time": seen[address]}

    def hear(self, timeout: float) -> bool:
        """Take one message, if one comes in time."""
        if timeout <= 0 or not select.select([self._sock], [], [], timeout)[0]:
            return False
        data = self._sock.recv(1 << 20)
        self._note(data, time.monotonic())
        return True

    def fileno(self) -> int:
        return self._sock.fileno()

    def _note(self, data: bytes, when: float) -> None:
        place = 0
        while place + _NETLINK_HEADER.size <= len(data):
            length, kind, *_ = _NETLINK_HEADER.unpack_from(data, place)
            body = data[place + _NETLINK_HEADER.size + _NFGENMSG : place + length]
            if kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE:
                self._note_new(body, when)
            elif kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELRULE:
                address = self._address_of.pop(_identity(body), "")
                self._went.setdefault(address, when)
                self._last_went[address] = when
            place += max(_aligned(length), _NETLINK_HEADER.size)

    def _note_new(self, body: bytes, when: float) -> None:
        for packed in _COMPARED.findall(body):
            address = socket.inet_ntoa(packed)
            self._address_of[_identity(body)] = address
            self._came.setdefault(address, when)


class Caller:
    """On the server: changes firewalld without our daemon, by a bare D-Bus call and by `firewall-cmd`."""

    def __init__(self) -> None:
        from dbus_next.aio.message_bus import MessageBus
        from dbus_next.constants import BusType

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._bus = self._loop.run_until_complete(MessageBus(bus_type=BusType.SYSTEM).connect())
        self.operations: dict[str, Callable[..., Answer]] = {
            "add": self._add,
            "remove": self._remove,
            "rules": self._rules,
            "run": self._run,
            "start": self._start,
        }

    def _add(self, zone: str, rule: str) -> Answer:
        return self._call("addRichRule", "ssi", [zone, rule, 0])

    def _remove(self, zone: str, rule: str) -> Answer:
        return self._call("removeRichRule", "ss", [zone, rule])

    def _rules(self, zone: str) -> Answer:
        return self._call("getRichRules", "s", [zone])

    def _call(self, member: str, signature: str, body: list[Any]) -> Answer:
        return self._loop.run_until_complete(asyncio.wait_for(self._ask(member, signature, body), LONGEST))

    async def _ask(self, member: str, signature: str, body: list[Any]) -> Answer:
        from dbus_next.constants import MessageType
        from dbus_next.message import Message

        began = time.monotonic()
        message = Message(FIREWALLD, FIREWALLD_PATH, f"{FIREWALLD}.zone", member, signature=signature, body=body)
        reply = await self._bus.call(message)
        ended = time.monotonic()
        assert reply is not None
        if reply.message_type is MessageType.ERROR:
            raise RuntimeError(f"{member}: {reply.error_name}: {reply.body}")
        return {"began": began, "ended": ended, "value": reply.body[0] if reply.body else None}

    def _run(self, argv: list[str]) -> Answer:
        """A whole process, from before its start to after its end."""
        began = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LONGEST, check=False)
        ended = time.monotonic()
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
        return {"began": began, "ended": ended}

    def _start(self, argv: list[str], line: str) -> Answer:
        """A daemon's start, until the line of standard error that has `line` in it; then it is ended."""
        began = time.monotonic()
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            signal.alarm(int(LONGEST))
            try:
                said: list[str] = []
                while line not in "".join(said[-1:]):
                    if not (more := process.stderr.readline()):
                        raise RuntimeError(f"{argv} did not say {line!r}: {said}")
                    said.append(more)
                ended = time.monotonic()
            finally:
                process.terminate()
                process.stderr.read()
                process.wait(LONGEST)
                signal.alarm(0)
        return {"began": began, "ended": ended}


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _identity(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Table, chain and handle of a rule."""
    found: dict[int, bytes] = {}
    place = 0
    while place + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, place)
        found[kind & 0x3FFF] = body[place + _ATTRIBUTE.size : place + length]
        place += max(_aligned(length), _ATTRIBUTE.size)
    return (
        found.get(NFTA_RULE_TABLE, b""),
        found.get(NFTA_RULE_CHAIN, b""),
        found.get(NFTA_RULE_HANDLE, b""),
    )


def _serve(agent: Knocker | Watcher | Caller) -> None:
    """Answer the owner until it hangs up; a watcher hears in between, too."""
    owner = os.fdopen(os.dup(0), "r+b", buffering=0)
    while True:
        if isinstance(agent, Watcher):
            ready, _, _ = select.select([owner.fileno(), agent.fileno()], [], [])
            if owner.fileno() not in ready:
                agent.hear(LONGEST)
                continue
        if not (line := owner.readline()):
            return
        request = json.loads(line)
        try:
            answer = agent.operations[request.pop("operation")](**request)
        except Exception as error:  # whatever it is, the owner shall hear of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        owner.write(json.dumps(answer).encode() + b"\n")


ROLES: dict[str, Callable[[], Knocker | Watcher | Caller]] = {"knocker": Knocker, "watcher": Watcher, "caller": Caller}

if __name__ == "__main__":
    _serve(ROLES[sys.argv[1]]())
