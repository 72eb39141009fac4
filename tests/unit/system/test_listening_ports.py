"""The ports that programs of this host listen on, as the kernel lists them."""

import socket
from pathlib import Path

import pytest

from port_knocking_doors.model import Port, Protocol
from port_knocking_doors.system.listening_ports import ephemeral_ports, listening_ports, reserved_ports

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21532 1 0000000000000000 100
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 19931 1 0000000000000000 100
   2: 0F02000A:0016 0202000A:D2C4 01 00000000:00000000 02:000A7D1B 00000000     0        0 24107 2 0000000000000000 20
   3: 0F02000A:A3F2 0202000A:0050 06 00000000:00000000 03:000017A0 00000000     0        0 0 3 0000000000000000
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
 100: 00000000000000000000000001000000:0016 00000000000000000000000001000000:ABCD 01 00000000:00000000 00:00000000
"""
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  573: 00000000:04AA 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 17822 2 0000000000000000 0
12345: 0F02000A:B2D3 0808080A:0035 01 00000000:00000000 00:00000000 00000000   101        0 25412 2 0000000000000000 0
"""


def udp(port: int) -> Port:
    return Port(port, Protocol.UDP)


@pytest.mark.parametrize(
    ("files", "ports"),
    [
        pytest.param({}, set(), id="no files"),
        pytest.param({"tcp": TCP}, {Port(631), Port(22)}, id="TCP"),
        pytest.param({"tcp6": TCP6}, {Port(8080)}, id="TCP over IPv6"),
        pytest.param({"udp": UDP}, {udp(1194)}, id="UDP"),
        pytest.param({"udp6": UDP, "udp": UDP}, {udp(1194)}, id="UDP over both"),
        pytest.param({"tcp": TCP, "udp": UDP, "tcp6": TCP6}, {Port(22), Port(631), Port(8080), udp(1194)}, id="all"),
        pytest.param({"tcp": "", "udp": "\x00 what\n 1: 0:0\n", "udp6": UDP[:150]}, set(), id="malformed"),
    ],
)
def test_listening_sockets_are_found(tmp_path: Path, files: dict[str, str], ports: set[Port]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert listening_ports(tmp_path) == ports


def test_folder_in_place_of_a_file_adds_no_port(tmp_path: Path) -> None:
    (tmp_path / "tcp").mkdir()
    assert listening_ports(tmp_path) == frozenset()


def test_ports_of_this_machine_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        served = listening_ports()
        assert {Port(tcp.getsockname()[1]), udp(one.getsockname()[1])} <= served


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"])
def test_socket_on_loopback_only_does_not_listen_from_outside(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        port = Port(listener.getsockname()[1])
        assert port in listening_ports()
        assert (port in listening_ports(from_outside=True)) is (address in ("0.0.0.0", "::"))


RESERVED = {
    "nothing": ("\n", []),
    "single ports and ranges": ("8080,40000-40003,50000\n", [8080, 40000, 40001, 40002, 40003, 50000]),
    "up to the last": ("65534-65535\n", [65534, 65535]),
    "no numbers": ("soon\n", []),
}


@pytest.mark.parametrize(("text", "ports"), RESERVED.values(), ids=RESERVED)
def test_reserved_ports_are_read_as_sysctl_writes_them(tmp_path: Path, text: str, ports: list[int]) -> None:
    file = tmp_path / "ip_local_reserved_ports"
    file.write_text(text)
    assert sorted(reserved_ports(file)) == ports
    assert reserved_ports(tmp_path / "absent") == frozenset()


EPHEMERAL = {
    "as the kernel writes it": ("10000\t20000\n", range(10000, 20001)),
    "one number": ("10000\n", range(32768, 61000)),
    "no numbers": ("from to\n", range(32768, 61000)),
    "no file": (None, range(32768, 61000)),
}


@pytest.mark.parametrize(("text", "ports"), EPHEMERAL.values(), ids=EPHEMERAL)
def test_unreadable_ephemeral_range_is_the_default(tmp_path: Path, text: str | None, ports: range) -> None:
    file = tmp_path / "ip_local_port_range"
    if text is not None:
        file.write_text(text)
    assert ephemeral_ports(file) == ports
