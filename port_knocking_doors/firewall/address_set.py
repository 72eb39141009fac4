"""A set of addresses, networks and ranges that answers in a time that does not grow with their number.

Networks are grouped by the length of their prefix, so that a look-up is one look into a hash table for each length that
occurs (33 for IPv4 and 129 for IPv6 at most), and an entry is added or discarded by itself. 100,000 networks take some
ten megabytes.
"""

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from port_knocking_doors.model import Address


class _Network(NamedTuple):
    version: int
    length: int
    """Of the prefix, in bits."""
    prefix: int
    """The first bits of the network's addresses, as a number."""


class AddressSet:
    """Addresses, networks and ranges, by their text. Each is in it once, however often it is added."""

    def __init__(self) -> None:
        self._prefixes: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        """IP version → length of the prefix → prefixes."""

    def __contains__(self, address: Address) -> bool:
        bits, value = address.max_prefixlen, int(address)
        return any(value >> (bits - length) in found for length, found in self._prefixes[address.version].items())

    def __bool__(self) -> bool:
        return any(self._prefixes.values())

    def __len__(self) -> int:
        """How many networks it consists of: an address is one, and a range may be many."""
        return sum(len(found) for lengths in self._prefixes.values() for found in lengths.values())

    def add(self, text: str) -> None:
        """Add an address, a network or a range (`10.0.0.1-10.0.0.9`). Raises `ValueError` where it is none."""
        for version, length, prefix in _networks(text):
            self._prefixes[version].setdefault(length, set()).add(prefix)

    def discard(self, text: str) -> None:
        """Remove what was added by this text, or by another text for the same. Raises `ValueError` where it is none."""
        for version, length, prefix in _networks(text):
            lengths = self._prefixes[version]
            found = lengths.get(length)
            if found is not None:
                found.discard(prefix)
                if not found:
                    del lengths[length]


def _networks(text: str) -> Iterator[_Network]:
    """The networks that the text consists of: one, but for a range."""
    # Most entries are plain addresses and networks: `ipaddress` takes six times as long for them.
    address, slash, length = text.partition("/")
    try:
        octets = bytes(map(int, address.split(".")))
        kept = int(length) if slash else 32
        if len(octets) == 4 and 0 <= kept <= 32:
            yield _Network(4, kept, int.from_bytes(octets, "big") >> (32 - kept))
            return
    except ValueError:  # IPv6, a range, a netmask, or no address
        pass
    first, hyphen, last = text.partition("-")
    if not hyphen:
        network = ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
        yield _network(network)
        return
    for each in ipaddress.summarize_address_range(ipaddress.ip_address(first), _last(last)):
        yield _network(each)


def _last(text: str) -> Address:
    """The end of a range; as a network, its last address (ipset(8), hash:net)."""
    network = ipaddress.ip_network(text, strict=False)
    return network.broadcast_address


def _network(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> _Network:
    shift = network.max_prefixlen - network.prefixlen
    return _Network(network.version, network.prefixlen, int(network.network_address) >> shift)
