"""Sequences in words, native and foreign."""

from dataclasses import replace
from ipaddress import ip_address

from port_knocking_doors.config import native
from port_knocking_doors.config.describe import in_words
from port_knocking_doors.model import (
    Access,
    CommandOpening,
    Dialect,
    Flags,
    Protocol,
    Scope,
    Sequence,
    Step,
)
from tests.unit.config.examples import EVERYTHING


def test_native_sequence_in_words() -> None:
    ssh, vpn = native.parse(EVERYTHING, "F").sequences
    assert (
        in_words(ssh)
        == """\
Sequence ssh, within 7.5 s:
  1. UDP 23817
  2. TCP 26173 with SYN
  3. TCP 21951 with FIN RST PSH ACK
  opens 22/tcp, 1194/udp for 60 s
  runs: logger "%IP%"
  0 s later: logger "%IP%"
  closed ahead of time by: TCP 24519 with SYN, UDP 27433
  64 traps"""
    )
    assert (
        in_words(replace(vpn, steps=(Step(Protocol.TCP, 1),), traps=0))
        == """\
Sequence vpn, within 10 s:
  1. TCP 1 with no flags
  runs: true
  no traps"""
    )


def test_foreign_sequence_in_words() -> None:
    tcp = Protocol.TCP
    door = Sequence(
        "open SSH",
        (
            Step(tcp, 7, Flags.SYN, Flags.SYN | Flags.ACK),
            Step(tcp, 8, 0, Flags.ACK),
            Step(tcp, 9, 0, 0),
            Step(Protocol.UDP, 5),
            Step(tcp, 9, Flags.FIN, Flags.FIN),
        ),
        timeout=25,
        access=Access.of("open SSH", command=CommandOpening("a", "b", 10, "", "")),
        dialect=Dialect.KNOCKD,
        scope=Scope(ip_address("192.0.2.1"), ("eth0", "ppp*"), True),
    )
    assert (
        in_words(door)
        == """\
Sequence open SSH (rules of knockd), within 25 s:
  1. TCP 7 with SYN, without ACK
  2. TCP 8 without ACK
  3. TCP 9 with any flags
  4. UDP 5
  5. TCP 9 with FIN
  only packets to 192.0.2.1
  only packets that arrive on eth0, ppp*
  only IPv4
  for IPv4 runs: a
  10 s later: b
  for IPv6 runs nothing
  no traps"""
    )
    once = Sequence("d", (), timeout=5, dialect=Dialect.KNOCKD, one_time="/x", flags=(Flags.SYN, 0))
    assert (
        in_words(once)
        == """\
Sequence d (rules of knockd), within 5 s:
  one-time sequences, in order: /x
  each of their TCP steps without SYN
  neither opens nor runs anything
  no traps"""
    )
