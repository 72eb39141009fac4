"""A question to the kernel about a set; real sets are asked for in the system tests."""

from ipaddress import ip_address

from port_knocking_doors.system.nft_set import set_contains, set_size


def test_set_that_does_not_exist_contains_nothing() -> None:
    """False with CAP_NET_ADMIN, and None without."""
    assert not set_contains("no-such-table", "no-such-set", ip_address("10.0.0.2"))
    assert not set_contains("no-such-table", "no-such-set", ip_address("fd00::2"))


def test_set_that_does_not_exist_has_no_size() -> None:
    assert set_size("no-such-table", "no-such-set") is None
