"""firewalld's rules as the kernel holds them: what accepts a port in a zone, whether firewalld knows of it or not.

firewalld keeps its own account of its rules. The kernel's differs from it where firewalld was killed, was stopped with
CleanupOnExit=no, or where another program flushed its tables (firewalld.conf(5)).
"""

import asyncio
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from port_knocking_doors.model import Address, Port, Protocol
from port_knocking_doors.system.netlink_attributes import attributes
from port_knocking_doors.system.nfnetlink import NftRule, read_rules

TABLE = "firewalld"
"""firewalld's table of family inet (core/nftables.py, TABLE_NAME)."""
BASE_CHAIN = "filter_INPUT"
"""The chain that every incoming packet passes first; firewalld always has rules in it."""
_ZONE_CHAIN = re.compile(r"filter_IN_(.+)_post")
"""The chain for rich rules of a zone with a priority above zero, as ours have."""
_PART = 200
"""Rules that are interpreted in one turn of the event loop: 50 µs each."""

# linux/netfilter/nf_tables.h
_EXPR_NAME, _EXPR_DATA = 1, 2  # NFTA_EXPR_*
_PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH = 2, 3, 4  # NFTA_PAYLOAD_*
_META_KEY = 2  # NFTA_META_KEY
_CT_KEY, _CT_STATE = 2, 0  # NFTA_CT_KEY, NFT_CT_STATE
_CMP_OP, _CMP_DATA = 2, 3  # NFTA_CMP_*
_IMMEDIATE_DATA = 2  # NFTA_IMMEDIATE_DATA
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE = 1, 2, 1  # NFTA_DATA_*, NFTA_VERDICT_CODE
_CMP_EQ = 0  # NFT_CMP_EQ
_NF_ACCEPT = 1  # linux/netfilter.h
_U32 = struct.Struct(">I")
# What an expression loads: a key of meta (enum nft_meta_keys), or base (enum nft_payload_bases), offset and length.
_NFPROTO, _L4PROTO = 15, 16
_NETWORK, _TRANSPORT = 1, 2
_CONNECTION_STATE = "state"
"""Until 1.3 firewalld accepts in each rule only `ct state { new, untracked }`."""
_SOURCES = {(_NETWORK, 12, 4), (_NETWORK, 8, 16)}  # RFC 791, RFC 8200
_DESTINATION_PORT = (_TRANSPORT, 2, 2)
_PROTOCOLS = {socket.IPPROTO_TCP: Protocol.TCP, socket.IPPROTO_UDP: Protocol.UDP}


class Accept(NamedTuple):
    """A rule that accepts one port in a zone, for one address or for all (None), and has no other condition but for the
    state of the connection."""

    zone: str
    source: Address | None
    port: Port


class KernelRules(NamedTuple):
    """firewalld's rules in the kernel, as far as they matter here."""

    base: tuple[bytes, ...] = ()
    """The rules of `BASE_CHAIN`."""
    accepts: tuple[Accept, ...] = ()

    @property
    def exist(self) -> bool:
        """Whether firewalld's rules are there at all."""
        return bool(self.base)

    @property
    def are_doubled(self) -> bool:
        """Whether firewalld started on top of the rules of an earlier one, as it does before 1.2.7, 1.3.4 and 2.0.1."""
        return len(set(self.base)) < len(self.base)


def read_kernel_rules() -> KernelRules | None:
    """What the kernel holds; None where it does not say so to this process (CAP_NET_ADMIN)."""
    try:
        return kernel_rules(read_rules(TABLE))
    except OSError:
        return None


async def read_kernel_rules_in_parts() -> KernelRules | None:
    """As `read_kernel_rules`; the event loop has turns in between, since 1,000 doors take 80 ms."""
    try:
        rules = read_rules(TABLE)
    except OSError:
        return None
    found = []
    for start in range(0, len(rules), _PART):
        await asyncio.sleep(0)
        found.append(kernel_rules(rules[start : start + _PART]))
    return KernelRules(
        tuple(rule for part in found for rule in part.base), tuple(rule for part in found for rule in part.accepts)
    )


def read_base_rules() -> KernelRules | None:
    """As `read_kernel_rules`, but the rules of the base chain alone, which takes no time with any number of doors."""
    try:
        return kernel_rules(read_rules(TABLE, BASE_CHAIN))
    except OSError:
        return None


def kernel_rules(rules: Iterable[NftRule]) -> KernelRules:
    """The rules of firewalld's table, interpreted."""
    base, accepts = [], []
    for rule in rules:
        if rule.chain == BASE_CHAIN:
            base.append(rule.expressions)
        elif zone := _ZONE_CHAIN.fullmatch(rule.chain):
            accept = _accept(zone[1], rule.expressions)
            if accept is not None:
                accepts.append(accept)
    return KernelRules(tuple(base), tuple(accepts))


def _accept(zone: str, expressions: bytes) -> Accept | None:
    """The rule, where it is one as of `Accept`."""
    loaded: object = None
    values: dict[object, bytes] = {}
    accepts = False
    for _, element in attributes(memoryview(expressions)):
        expression = dict(attributes(element))
        data = dict(attributes(expression.get(_EXPR_DATA, memoryview(b""))))
        match bytes(expression.get(_EXPR_NAME, b"")).rstrip(b"\0"):
            case b"meta":
                loaded = _number(data, _META_KEY)
            case b"payload":
                loaded = tuple(_number(data, kind) for kind in (_PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH))
            case b"ct" if _number(data, _CT_KEY) == _CT_STATE:
                loaded = _CONNECTION_STATE
            case b"lookup" | b"bitwise" | b"cmp" if loaded == _CONNECTION_STATE:
                pass
            case b"cmp" if _number(data, _CMP_OP) == _CMP_EQ:
                values[loaded] = bytes(_nested(data, _CMP_DATA).get(_DATA_VALUE, b""))
            case b"immediate":
                verdict = dict(attributes(_nested(data, _IMMEDIATE_DATA).get(_DATA_VERDICT, memoryview(b""))))
                accepts = _number(verdict, _VERDICT_CODE) == _NF_ACCEPT
            case b"counter":
                pass
            case _:
                return None
    return _accept_of(zone, values) if accepts else None


def _accept_of(zone: str, values: dict[object, bytes]) -> Accept | None:
    port = values.pop(_DESTINATION_PORT, b"")
    protocol = _PROTOCOLS.get(int.from_bytes(values.pop(_L4PROTO, b""), "big"))
    sources = [ipaddress.ip_address(values.pop(key)) for key in list(values) if key in _SOURCES]
    values.pop(_NFPROTO, None)
    if values or len(port) != 2 or protocol is None or len(sources) > 1:
        return None
    return Accept(zone, sources[0] if sources else None, Port(int.from_bytes(port, "big"), protocol))


def _nested(data: dict[int, memoryview], kind: int) -> dict[int, memoryview]:
    return dict(attributes(data.get(kind, memoryview(b""))))


def _number(data: dict[int, memoryview], kind: int) -> int:
    value = data.get(kind, memoryview(b""))
    return int(_U32.unpack(value)[0]) if len(value) == _U32.size else -1
