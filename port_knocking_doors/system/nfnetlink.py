"""Questions about nftables to the kernel, over nfnetlink (linux/netfilter/nf_tables.h), and the rules of a table.

The kernel answers only a process with CAP_NET_ADMIN. Nothing here changes a rule.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from port_knocking_doors.system.netlink_attributes import attributes, packed
from port_knocking_doors.system.rtnetlink import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkMessage,
    NetlinkType,
    messages,
    packed_message,
)

_NFPROTO_INET = 1  # linux/netfilter.h
_NETLINK_NETFILTER = 12  # linux/netlink.h
_NFNL_SUBSYS_NFTABLES = 10  # linux/netfilter/nfnetlink.h
_NFGENMSG = struct.Struct(">BBH")  # struct nfgenmsg (linux/netfilter/nfnetlink.h): family, version, resource
_BUFFER = 1 << 17
_NEWRULE, _GETRULE = 6, 7  # NFT_MSG_*
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4  # NFTA_RULE_*
_ANSWER_TIMEOUT = 1.0


class NftRule(NamedTuple):
    """One rule: its chain, and the list of its expressions as netlink attributes."""

    chain: str
    expressions: bytes


def kind_of(message: int) -> int:
    """The type of a netlink message for one of nftables (NFT_MSG_*)."""
    return _NFNL_SUBSYS_NFTABLES << 8 | message


def text(kind: int, value: str) -> bytes:
    """An attribute that is a name."""
    return packed(kind, value.encode() + b"\0")


def fields(message: NetlinkMessage) -> dict[int, memoryview]:
    """The attributes of a message of nftables."""
    return dict(attributes(message.body[_NFGENMSG.size :]))


def ask(message: int, body: bytes, timeout: float, *, is_dump: bool) -> Iterator[NetlinkMessage]:
    """The messages of the kernel's answer about family inet; it has no end of its own. `timeout`: seconds for each.

    Raises `OSError`: `TimeoutError` where nothing more comes.
    """
    flags = NLM_F_REQUEST | (NLM_F_DUMP if is_dump else 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
        link.settimeout(timeout)
        link.bind((0, 0))
        link.send(packed_message(kind_of(message), flags, _NFGENMSG.pack(_NFPROTO_INET, 0, 0) + body))
        while True:
            yield from messages(memoryview(link.recv(_BUFFER)))


def read_rules(table: str, chain: str = "") -> list[NftRule]:
    """The rules of a table of family inet, or of one chain of it; none where the table does not exist.

    Raises `OSError`: `PermissionError` without CAP_NET_ADMIN.
    """
    return list(_rules(table, chain))


def _rules(table: str, chain: str) -> Iterator[NftRule]:
    body = text(_RULE_TABLE, table) + (text(_RULE_CHAIN, chain) if chain else b"")
    for message in ask(_GETRULE, body, _ANSWER_TIMEOUT, is_dump=True):
        if message.kind == NetlinkType.DONE:
            return
        if message.kind == NetlinkType.ERROR:
            raise OSError(message.errno, os.strerror(message.errno))
        if message.kind == kind_of(_NEWRULE):
            found = fields(message)
            names = [bytes(found.get(kind, b"")).rstrip(b"\0").decode() for kind in (_RULE_TABLE, _RULE_CHAIN)]
            # A kernel that does not know these filters sends every table.
            if names[0] == table and chain in ("", names[1]):
                yield NftRule(names[1], bytes(found.get(_RULE_EXPRESSIONS, b"")))
