"""The code of a packet: what a packet is to the sequences, as one number. Every field of it is set and read here.

    bits  0 to 15   destination port
         16 to 23   protocol, IPPROTO_ of netinet/in.h
         24 to 29   TCP's six flags (RFC 9293, 3.1), and 0 for UDP
               30   `LISTENED`: a socket received the packet, and not the sniffer
        32 and up   number of the scopes that the packet is within, and 0 for all scopes

One number, since it is the key of a dictionary for each packet of a flood: a tuple of these fields would have to be
made and hashed each time.
"""

import socket

from port_knocking_doors.model import ALL_FLAGS, PORT_MAX, Flags, Protocol, Step

PROTOCOL_SHIFT = 16
FLAGS_SHIFT = 24
LISTENED = 1 << 30
"""Set where a socket received the packet. A sequence is either listened or sniffed, so a packet that the sniffer sees
as well counts once in it."""
SCOPE_SHIFT = 32
WITHOUT_SCOPES = (1 << SCOPE_SHIFT) - 1
"""Mask of everything but the scopes."""

UDP_CODE = socket.IPPROTO_UDP << PROTOCOL_SHIFT
"""To be combined with a port."""
TCP_CODE = socket.IPPROTO_TCP << PROTOCOL_SHIFT
"""To be combined with a port and flags."""

_PROTOCOL_MASK = 0xFF
_CODE_OF = {Protocol.UDP: UDP_CODE, Protocol.TCP: TCP_CODE}
_BARE_SYN = int(Flags.SYN) << FLAGS_SHIFT
_FLAGS_AND_PROTOCOL = ALL_FLAGS << FLAGS_SHIFT | _PROTOCOL_MASK << PROTOCOL_SHIFT


def code_of(step: Step) -> int:
    """The code of a packet that has exactly the step's flags."""
    return step.flags << FLAGS_SHIFT | _CODE_OF[step.protocol] | step.port


def listened_code(port: int) -> int:
    """The code of a datagram that a socket received on this UDP port."""
    return LISTENED | UDP_CODE | port


def connection_code(protocol: Protocol, port: int) -> int:
    """The code of the packet that begins a connection to the port: a bare SYN of TCP, any datagram of UDP."""
    return UDP_CODE | port if protocol is Protocol.UDP else _BARE_SYN | TCP_CODE | port


def codes_of_port(protocol: Protocol, port: int) -> list[int]:
    """The codes of all packets to the port: of TCP one for each combination of flags."""
    if protocol is Protocol.UDP:
        return [UDP_CODE | port]
    return [flags << FLAGS_SHIFT | TCP_CODE | port for flags in range(ALL_FLAGS + 1)]


def port_of(code: int) -> int:
    """The destination port."""
    return code & PORT_MAX


def protocol_of(code: int) -> Protocol:
    """The transport protocol."""
    return Protocol.TCP if is_tcp(code) else Protocol.UDP


def is_tcp(code: int) -> bool:
    """Whether it is a TCP packet's code."""
    return code >> PROTOCOL_SHIFT & _PROTOCOL_MASK == socket.IPPROTO_TCP


def is_bare_syn(code: int) -> bool:
    """Whether it is the code of TCP's first packet of a connection."""
    return code & _FLAGS_AND_PROTOCOL == _BARE_SYN | TCP_CODE


def flags_of(code: int) -> int:
    """TCP's flags; 0 for UDP."""
    return code >> FLAGS_SHIFT & ALL_FLAGS
