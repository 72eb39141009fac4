"""Which knock ports an outgoing socket may have, and the commands that keep it off them."""

import pytest

from port_knocking_doors.config import lint, reserve
from port_knocking_doors.model import EphemeralPorts, Protocol, Sequence, Settings, Step

USUAL = range(32768, 61000)
CASES: dict[str, tuple[tuple[int, ...], EphemeralPorts, list[int], str]] = {
    "below the range": ((16001, 32767, 1024), EphemeralPorts(USUAL), [], ""),
    "the first and the last port": ((32768, 60999), EphemeralPorts(USUAL), [32768, 60999], "32768-33023,60928-61183"),
    "above the range": ((61000, 65535), EphemeralPorts(USUAL), [], ""),
    "a port twice": ((40000, 40000), EphemeralPorts(USUAL), [40000], "39936-40191"),
    "reserved already": ((40000,), EphemeralPorts(USUAL, frozenset({40000})), [], "40000"),
    "beside what is reserved": (
        (40000, 50000),
        EphemeralPorts(USUAL, frozenset({8080, 40000, 40001})),
        [50000],
        "8080,40000-40001,49920-50175",
    ),
    "neighbouring blocks": ((40191, 40192), EphemeralPorts(USUAL), [40191, 40192], "39936-40447"),
    "the last block": ((65535,), EphemeralPorts(range(1024, 65536)), [65535], "65280-65535"),
    "the whole range": ((1024, 1025), EphemeralPorts(range(1024, 65536)), [1024, 1025], "1024-1279"),
}


@pytest.mark.parametrize(("ports", "outgoing", "at_risk", "value"), CASES.values(), ids=CASES)
def test_blocks_of_ports_at_risk_are_reserved_beside_others(
    ports: tuple[int, ...], outgoing: EphemeralPorts, at_risk: list[int], value: str
) -> None:
    assert reserve.at_risk(ports, outgoing) == at_risk
    assert reserve.reservation(ports, outgoing) == value


def test_commands_set_the_value_now_and_at_boot() -> None:
    assert reserve.commands((40000,), EphemeralPorts(USUAL)) == (
        "sysctl -w net.ipv4.ip_local_reserved_ports=39936-40191",
        "echo 'net.ipv4.ip_local_reserved_ports = 39936-40191' >/etc/sysctl.d/50-port-knocking-doors.conf",
    )


def test_listened_ports_at_risk_are_warned_of_and_sniffed_ones_are_not() -> None:
    sniffed = Sequence("ssh", tuple(Step(Protocol.UDP, port) for port in (40001, 40002, 40003)))
    settings = Settings(opening_sequence=(20001, 20003, 40005, 20002, 40004), sequences=(sniffed,))
    (warning,) = lint.ephemeral_warnings(settings, "/etc/port_knocker.toml:2", EphemeralPorts(USUAL))
    assert warning.startswith(
        "/etc/port_knocker.toml:2: 2 ports of the sequence are in the range that the kernel gives to outgoing sockets "
        "(32768 to 60999, net.ipv4.ip_local_port_range)"
    )
    assert not any(port in warning for port in ("40004", "40005")), "the daemon logs it"
    reserved = EphemeralPorts(USUAL, frozenset({40004, 40005}))
    assert list(lint.ephemeral_warnings(settings, "", reserved)) == []
