"""What a set of nftables contains in the kernel (linux/netfilter/nf_tables.h)."""

import errno

from port_knocking_doors.model import Address
from port_knocking_doors.system.netlink_attributes import attributes, packed
from port_knocking_doors.system.nfnetlink import ask, fields, kind_of, text
from port_knocking_doors.system.rtnetlink import NetlinkType

_NEWSETELEM, _GETSETELEM = 12, 13  # NFT_MSG_*
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3  # enum nft_set_elem_list_attributes
_LIST_ELEM = 1  # enum nft_list_attributes
_ELEM_KEY, _ELEM_FLAGS = 1, 3  # enum nft_set_elem_attributes
_INTERVAL_END = 1  # NFT_SET_ELEM_INTERVAL_END
_DATA_VALUE = 1  # enum nft_data_attributes
_NESTED = 0x8000  # NLA_F_NESTED (linux/netlink.h)
_ANSWER_TIMEOUT = 0.2


def set_contains(table: str, name: str, address: Address) -> bool | None:
    """Whether a set in a table of family inet contains the address; the set is of addresses or networks.

    False also where there is no such set. None where the kernel does not say: without CAP_NET_ADMIN, and of a set of
    another type.
    """
    key = packed(_ELEM_KEY | _NESTED, packed(_DATA_VALUE, address.packed))
    elements = packed(_LIST_ELEMENTS | _NESTED, packed(_LIST_ELEM | _NESTED, key))
    try:
        for message in ask(_GETSETELEM, _of_set(table, name) + elements, _ANSWER_TIMEOUT, is_dump=False):
            if message.kind == kind_of(_NEWSETELEM):
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
        for message in ask(_GETSETELEM, _of_set(table, name), _ANSWER_TIMEOUT, is_dump=True):
            if message.kind == NetlinkType.DONE:
                return size
            if message.kind == NetlinkType.ERROR:
                return None
            elements = fields(message).get(_LIST_ELEMENTS, memoryview(b""))
            size += sum(_begins(element) for _, element in attributes(elements))
    except OSError:
        pass
    return None


def _begins(element: memoryview) -> bool:
    """Whether it is not the end of an interval, which is an element of its own."""
    flags = bytes(dict(attributes(element)).get(_ELEM_FLAGS, b""))
    return not int.from_bytes(flags, "big") & _INTERVAL_END


def _of_set(table: str, name: str) -> bytes:
    return text(_LIST_TABLE, table) + text(_LIST_SET, name)
