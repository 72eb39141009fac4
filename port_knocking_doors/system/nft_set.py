"""What a set of nftables contains in the kernel, over nfnetlink (linux/netfilter/nf_tables.h)."""

import errno
import socket
import struct
from collections.abc import Iterator

from port_knocking_doors.model import Address
from port_knocking_doors.system.netlink_attributes import attributes
from port_knocking_doors.system.nfnetlink import NFPROTO_INET
from port_knocking_doors.system.rtnetlink import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkMessage,
    NetlinkType,
    messages,
)

_NETLINK_NETFILTER = 12  # linux/netlink.h
_GETSETELEM = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_NEWSETELEM = 10 << 8 | 12
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3  # enum nft_set_elem_list_attributes
_LIST_ELEM = 1  # enum nft_list_attributes
_ELEM_KEY, _ELEM_FLAGS = 1, 3  # enum nft_set_elem_attributes
_INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END
_DATA_VALUE = 1  # enum nft_data_attributes
_NESTED = 0x8000  # NLA_F_NESTED (linux/netlink.h)
_NLMSGHDR = struct.Struct("@IHHII")
_NFGENMSG = struct.Struct(">BBH")
_NLATTR = struct.Struct("@HH")
_ANSWER_TIMEOUT = 0.2
_BUFFER = 1 << 17


def set_contains(table: str, name: str, address: Address) -> bool | None:
    """Whether a set in a table of family inet contains the address; the set is of addresses or networks.

    False also where there is no such set. None where the kernel does not say: without CAP_NET_ADMIN, and of a set of
    another type.
    """
    key = _attribute(_ELEM_KEY | _NESTED, _attribute(_DATA_VALUE, address.packed))
    elements = _attribute(_LIST_ELEMENTS | _NESTED, _attribute(_LIST_ELEM | _NESTED, key))
    try:
        for message in _asked(table, name, elements, NLM_F_REQUEST):
            if message.kind == _NEWSETELEM:
                return True
            if message.kind == NetlinkType.ERROR:
                return False if message.errno == errno.ENOENT else None
    except OSError:
        pass
    return None


def set_size(table: str, name: str) -> int | None:
    """How many elements a set in a table of family inet has, of intervals each once. None as of `set_contains`, and
    where there is no such set."""
    size = 0
    try:
        for message in _asked(table, name, b"", NLM_F_REQUEST | NLM_F_DUMP):
            if message.kind == NetlinkType.DONE:
                return size
            if message.kind == NetlinkType.ERROR:
                return None
            found = dict(attributes(message.body[_NFGENMSG.size :]))
            size += sum(_begins(element) for _, element in attributes(found.get(_LIST_ELEMENTS, memoryview(b""))))
    except OSError:
        pass
    return None


def _begins(element: memoryview) -> bool:
    """Whether it is not the end of an interval, which is an element of its own."""
    flags = bytes(dict(attributes(element)).get(_ELEM_FLAGS, b""))
    return not int.from_bytes(flags, "big") & _INTERVAL_END


def _asked(table: str, name: str, elements: bytes, flags: int) -> Iterator[NetlinkMessage]:
    """The messages of the kernel's answer. Raises `OSError`."""
    body = _NFGENMSG.pack(NFPROTO_INET, 0, 0) + _text(_LIST_TABLE, table) + _text(_LIST_SET, name) + elements
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), _GETSETELEM, flags, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
        link.settimeout(_ANSWER_TIMEOUT)
        link.bind((0, 0))
        link.send(header + body)
        while True:
            yield from messages(memoryview(link.recv(_BUFFER)))


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    return _NLATTR.pack(_NLATTR.size + len(value), kind) + value + bytes(-len(value) % 4)
