"""The payload of a UDP knock: the kernel's filter that passes it alone, and words for any other one."""

import struct

from port_knocking_doors.model import PAYLOAD

_HEADER = 8  # of UDP (RFC 768)

_KNOWN = {
    b"": "it is empty",
    b"\0": "one zero byte, as knockd's client and netcat's -z send it",
    b"\n": "a newline alone",
    PAYLOAD.rstrip(): "the newline is missing",
    PAYLOAD.rstrip() + b"\r\n": "it ends with CR LF instead of a newline",
    PAYLOAD.rstrip() + b"\r": "it ends with CR instead of a newline",
    PAYLOAD.rstrip() + b"\0": "it ends with a zero byte instead of a newline",
    PAYLOAD.rstrip() + rb"\n": "it ends with a backslash and an n instead of a newline",
    PAYLOAD + b"\n": "it has two newlines",
    PAYLOAD + b"\0": "a zero byte follows the newline",
}


def hint(length: int, beginning: bytes) -> str:
    """What is wrong with another payload of `length` bytes, in words; empty where that is not known.

    `beginning`: its first bytes, all of them if it is short.
    """
    if length == len(beginning):
        if said := _KNOWN.get(beginning):
            return said
        if beginning.lower() == PAYLOAD:
            return "the letters must be small"
        if set(beginning) == {0}:
            return "zero bytes"
    return ""


def only(payload: bytes) -> bytes:
    """The classic BPF program (linux/filter.h) that passes datagrams with exactly this payload of 6 bytes.

    The packet begins at the UDP header.
    """
    word, rest = struct.unpack("!IH", payload)
    return b"".join(
        struct.pack("@HBBI", *instruction)
        for instruction in (
            (0x80, 0, 0, 0),  # BPF_LD | BPF_W | BPF_LEN
            (0x15, 0, 5, _HEADER + len(payload)),  # BPF_JMP | BPF_JEQ | BPF_K
            (0x20, 0, 0, _HEADER),  # BPF_LD | BPF_W | BPF_ABS
            (0x15, 0, 3, word),
            (0x28, 0, 0, _HEADER + 4),  # BPF_LD | BPF_H | BPF_ABS
            (0x15, 0, 1, rest),
            (0x06, 0, 0, 0xFFFF),  # BPF_RET | BPF_K: all of it
            (0x06, 0, 0, 0),  # nothing of it
        )
    )
