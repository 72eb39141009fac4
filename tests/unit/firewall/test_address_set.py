"""A set of addresses, networks and ranges, beside a plain model of it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.firewall.address_set import AddressSet

ENTRIES = {
    "an address": ("10.0.0.7", ["10.0.0.7"], ["10.0.0.6", "10.0.0.8", "fd00::7"]),
    "a network": ("10.0.0.0/24", ["10.0.0.0", "10.0.0.255"], ["10.0.1.0", "9.255.255.255"]),
    "a network by an address in it": ("10.0.0.7/24", ["10.0.0.0"], ["10.0.1.0"]),
    "a netmask": ("10.0.0.0/255.255.255.0", ["10.0.0.255"], ["10.0.1.0"]),
    "everything": ("0.0.0.0/0", ["10.0.0.1", "255.255.255.255"], ["::1"]),
    "a range": ("10.0.0.250-10.0.1.2", ["10.0.0.250", "10.0.1.0", "10.0.1.2"], ["10.0.0.249", "10.0.1.3"]),
    "a range that ends with a network": ("10.0.0.250-10.0.1.0/24", ["10.0.1.255"], ["10.0.2.0"]),
    "an IPv6 address": ("fd00::7", ["fd00::7"], ["fd00::6", "0.0.0.7"]),
    "an IPv6 address in brackets": ("[fd00::7]", ["fd00::7"], ["fd00::6"]),
    "an IPv6 address in another notation": ("FD00:0:0::0007", ["fd00::7"], ["fd00::6"]),
    "an IPv6 network": ("fd00::/64", ["fd00::ffff"], ["fd00:0:0:1::"]),
    "an IPv6 range": ("fd00::1-fd00::9", ["fd00::1", "fd00::9"], ["fd00::", "fd00::a"]),
}


@pytest.mark.parametrize(("text", "inside", "outside"), ENTRIES.values(), ids=ENTRIES)
def test_entry_contains_its_addresses_until_it_is_discarded(text: str, inside: list[str], outside: list[str]) -> None:
    found = AddressSet()
    found.add(text)
    found.add(text)
    assert all(ipaddress.ip_address(one) in found for one in inside)
    assert not any(ipaddress.ip_address(one) in found for one in outside)
    found.discard(text)
    assert not any(ipaddress.ip_address(one) in found for one in inside)
    assert not found


@pytest.mark.parametrize(
    "text", ["", "x", "10.0.0", "10.0.0.1/33", "10.0.0.1/-1", "52:54:00:12:34:56", "10.0.0.9-10.0.0.1"]
)
def test_text_that_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the caller has the text
        AddressSet().add(text)


NETWORKS = st.builds(
    lambda value, length: ipaddress.ip_network((value << 24, length), strict=False),
    st.integers(0, 255),
    st.integers(0, 32),
)


@given(st.lists(st.tuples(st.booleans(), NETWORKS)), st.lists(st.integers(0, 2**32 - 1)))
def test_set_contains_what_a_list_of_its_networks_contains(
    changes: list[tuple[bool, ipaddress.IPv4Network]], numbers: list[int]
) -> None:
    found, expected = AddressSet(), set()
    for adds, network in changes:
        if adds:
            found.add(str(network))
            expected.add(network)
        else:
            found.discard(str(network))
            expected.discard(network)
    edges = [edge for network in expected for edge in (network.network_address, network.broadcast_address)]
    prefixes = {(network.prefixlen, int(network.network_address)) for network in expected}
    assert len(found) == len(prefixes)
    for address in [*map(ipaddress.IPv4Address, numbers), *edges]:
        assert (address in found) == any(address in network for network in expected)
