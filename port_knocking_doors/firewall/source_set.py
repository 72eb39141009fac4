"""A set of firewalld as the source of a zone or of a rich rule: whether it contains a knocker's address.

firewalld's types are those of ipset(8). As a source, the nftables back end compares the first part of an entry with the
packet's source address, and a second part with the source port, the mark or the interface. Only the address is known
from a knock: the connection that follows it has another source port.
"""

import contextlib
from collections.abc import Iterable, Mapping
from enum import Enum, auto

from port_knocking_doors.firewall.address_set import AddressSet
from port_knocking_doors.model import Address

HARDWARE = "a hardware address cannot be known from a knock"
_ADDRESSES = ("ip", "net")
_SECOND_PARTS = {
    "port": "it depends on the source port of each connection",
    "mark": "it depends on the mark of each packet",
    "iface": "it depends on an interface of each packet",
}


class Membership(Enum):
    """Whether packets of an address are in a set."""

    OUTSIDE = auto()
    PERHAPS = auto()  # it cannot be known from a knock
    INSIDE = auto()


class SourceSet:
    """A set of firewalld. `type_` is one of ipset(8), such as `hash:net`; `options` are those that the set has."""

    def __init__(self, type_: str = "hash:ip", options: Mapping[str, str] | None = None) -> None:
        first, _, second = type_.partition(":")[2].partition(",")
        self._has_addresses = first in _ADDRESSES
        self._is_hardware = first == "mac"
        self._has_timeout = (options or {}).get("timeout", "0") != "0"
        self._second = second
        self._addresses = AddressSet()
        self._entries: dict[str, set[str]] = {}
        """Of a set of two parts: first part → the second parts of its entries."""

    @classmethod
    def unknown(cls) -> "SourceSet":
        """A set that firewalld does not show."""
        return cls(type_="")

    def add(self, entries: Iterable[str]) -> None:
        """Note entries that firewalld has added; one that is known already, or that is invalid, changes nothing."""
        for entry in entries if self._has_addresses and not self._has_timeout else ():
            address, _, rest = entry.partition(",")
            try:
                self._addresses.add(address)
            except ValueError:
                continue
            if self._second:
                self._entries.setdefault(address, set()).add(rest)

    def discard(self, entry: str) -> None:
        """Note that firewalld has removed an entry."""
        address, _, rest = entry.partition(",")
        if self._second:
            others = self._entries.get(address, set())
            others.discard(rest)
            if others:
                return
            self._entries.pop(address, None)
        with contextlib.suppress(ValueError):
            self._addresses.discard(address)

    def membership(self, address: Address) -> Membership:
        """Whether packets of the address are in the set."""
        if self._has_timeout or not self._has_addresses or not self._addresses:
            return Membership.PERHAPS
        if address not in self._addresses:
            return Membership.OUTSIDE
        return Membership.PERHAPS if self._second else Membership.INSIDE

    @property
    def size(self) -> int:
        """How many addresses and networks firewalld lists; 0 where it lists none."""
        return len(self._addresses)

    @property
    def doubt(self) -> str:
        """Why it cannot always be known from a knock; empty where it can."""
        if self._has_timeout:
            return "the set has a timeout, so that firewalld does not list its entries"
        if self._is_hardware:
            return HARDWARE
        if not self._has_addresses:
            return "firewalld does not show the set"
        if not self._addresses:
            return "firewalld lists no entries of the set: another program may add them"
        return _SECOND_PARTS.get(self._second, "")
