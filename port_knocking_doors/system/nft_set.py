"""Whether a set of nftables contains an address in the kernel, over nfnetlink (linux/netfilter/nf_tables.h)."""

import errno
import socket
import struct

from port_knocking_doors.model import Address
from port_knocking_doors.system.nfnetlink import NFPROTO_INET
from port_knocking_doors.system.rtnetlink import NetlinkType, messages

_NETLINK_NETFILTER = 12  # linux/netlink.h
_GETSETELEM = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_NEWSETELEM = 10 << 8 | 12
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3  # enum nft_set_elem_list_attributes
_LIST_ELEM = 1  # enum nft_list_attributes
_ELEM_KEY = 1  # enum nft_set_elem_attributes
_DATA_VALUE = 1  # enum nft_data_attributes
_NESTED = 0x8000  # NLA_F_NESTED (linux/netlink.h)
_REQUEST = 1  # NLM_F_REQUEST
_NLMSGHDR = struct.Struct("@IHHII")
_NFGENMSG = struct.Struct(">BBH")
_NLATTR = struct.Struct("@HH")
_ANSWER_TIMEOUT = 0.2
_BUFFER = 1 << 14


def set_contains(table: str, name: str, address: Address) -> bool | None:
    """Whether a set in a table of family inet contains the address; the set is of addresses or networks.

    False also where there is no such set. None where the kernel does not say: without CAP_NET_ADMIN, and of a set of
    another type.
    """
    key = _attribute(_ELEM_KEY | _NESTED, _attribute(_DATA_VALUE, address.packed))
    elements = _attribute(_LIST_ELEMENTS | _NESTED, _attribute(_LIST_ELEM | _NESTED, key))
    body = _NFGENMSG.pack(NFPROTO_INET, 0, 0) + _text(_LIST_TABLE, table) + _text(_LIST_SET, name) + elements
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), _GETSETELEM, _REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
            link.settimeout(_ANSWER_TIMEOUT)
            link.bind((0, 0))
            link.send(header + body)
            return _answer(link)
    except OSError:
        return None


def _answer(link: socket.socket) -> bool | None:
    for message in messages(memoryview(link.recv(_BUFFER))):
        if message.kind == _NEWSETELEM:
            return True
        if message.kind == NetlinkType.ERROR:
            return False if message.errno == errno.ENOENT else None
    return None


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    return _NLATTR.pack(_NLATTR.size + len(value), kind) + value + bytes(-len(value) % 4)
