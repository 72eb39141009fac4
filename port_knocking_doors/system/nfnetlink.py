"""The rules of an nftables table as the kernel holds them, over nfnetlink (linux/netfilter/nf_tables.h).

The kernel answers only a process with CAP_NET_ADMIN. Nothing here changes a rule.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from port_knocking_doors.system.netlink_attributes import attributes
from port_knocking_doors.system.rtnetlink import NLM_F_DUMP, NLM_F_REQUEST, NetlinkType, messages

NFPROTO_INET = 1  # linux/netfilter.h
_NETLINK_NETFILTER = 12  # linux/netlink.h
_NFNL_SUBSYS_NFTABLES = 10  # linux/netfilter/nfnetlink.h
_NEWRULE, _GETRULE = (_NFNL_SUBSYS_NFTABLES << 8 | number for number in (6, 7))  # NFT_MSG_NEWRULE, NFT_MSG_GETRULE
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4  # NFTA_RULE_*
_NLMSGHDR = struct.Struct("@IHHII")  # struct nlmsghdr
_NFGENMSG = struct.Struct(">BBH")  # struct nfgenmsg (linux/netfilter/nfnetlink.h): family, version, resource
_NLATTR = struct.Struct("@HH")  # struct nlattr
_BUFFER = 1 << 17
_ANSWER_TIMEOUT = 1.0


class NftRule(NamedTuple):
    """One rule: its chain, and the list of its expressions as netlink attributes."""

    chain: str
    expressions: bytes


def read_rules(table: str, chain: str = "", family: int = NFPROTO_INET) -> list[NftRule]:
    """The rules of the table, or of one chain of it; none where the table does not exist.

    Raises `OSError`: `PermissionError` without CAP_NET_ADMIN.
    """
    body = _NFGENMSG.pack(family, 0, 0) + _text(_RULE_TABLE, table) + (_text(_RULE_CHAIN, chain) if chain else b"")
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), _GETRULE, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
        link.settimeout(_ANSWER_TIMEOUT)
        link.bind((0, 0))
        link.send(header + body)
        return list(_answer(link, table, chain))


def _answer(link: socket.socket, table: str, chain: str) -> Iterator[NftRule]:
    while True:
        for message in messages(memoryview(link.recv(_BUFFER))):
            if message.kind == NetlinkType.DONE:
                return
            if message.kind == NetlinkType.ERROR:
                raise OSError(message.errno, os.strerror(message.errno))
            if message.kind == _NEWRULE:
                found = dict(attributes(message.body[_NFGENMSG.size :]))
                names = [bytes(found.get(kind, b"")).rstrip(b"\0").decode() for kind in (_RULE_TABLE, _RULE_CHAIN)]
                # A kernel that does not know these filters sends every table.
                if names[0] == table and chain in ("", names[1]):
                    yield NftRule(names[1], bytes(found.get(_RULE_EXPRESSIONS, b"")))


def _text(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    attribute = _NLATTR.pack(_NLATTR.size + len(value), kind) + value
    return attribute + bytes(-len(attribute) % 4)
