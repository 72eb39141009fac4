"""A machine for classic BPF, written from the kernel's documentation and not from the builder.

Strict: a program that the kernel would refuse (`bpf_check_classic` in net/core/filter.c) is a `ValueError`.
"""

import struct
from dataclasses import dataclass

LONGEST = 4096
SLOTS = 16  # BPF_MEMWORDS, linux/bpf_common.h
WORD = 0xFFFFFFFF
ANCILLARY = 0xFFFFF000  # SKF_AD_OFF, linux/filter.h

LOADS = {0x20: 4, 0x28: 2, 0x30: 1, 0x40: 4, 0x48: 2, 0x50: 1}  # BPF_LD with BPF_ABS, then with BPF_IND: bytes
INDIRECT = {0x40, 0x48, 0x50}
ARITHMETIC = {0x04, 0x0C, 0x14, 0x1C, 0x44, 0x4C, 0x54, 0x5C, 0x64, 0x6C, 0x74, 0x7C}
CONDITIONS = {0x15, 0x1D, 0x25, 0x2D, 0x35, 0x3D, 0x45, 0x4D}
JUMP = 0x05
RETURNS = {0x06, 0x16}
OTHERS = {0x00, 0x01, 0x60, 0x61, 0x80, 0x81, 0x02, 0x03, 0x07, 0x87, 0xB1}


@dataclass(frozen=True)
class About:
    """What the kernel knows about a packet besides its bytes."""

    protocol: int
    """The ethertype."""
    kind: int
    """PACKET_HOST and so on."""
    tag: int | None = None
    """The TCI of the VLAN tag that was taken off the frame, if there was one."""
    interface: int = 2

    def load(self, offset: int) -> int:
        values = {0: self.protocol, 4: self.kind, 8: self.interface, 44: self.tag or 0, 48: int(self.tag is not None)}
        if offset not in values:
            raise ValueError(f"ancillary data {offset}")
        return values[offset]


class Machine:
    """A checked program, to be run on any number of packets."""

    def __init__(self, program: bytes) -> None:
        if not program or len(program) % 8:
            raise ValueError("not a row of instructions")
        self.instructions = list(struct.iter_unpack("=HBBI", program))
        self._check()

    def __len__(self) -> int:
        return len(self.instructions)

    def _check(self) -> None:
        count = len(self)
        if count > LONGEST:
            raise ValueError(f"{count} instructions")
        stored: list[set[int] | None] = [None] * count  # slots that are set on every way to an instruction
        stored[0] = set()

        def reach(target: int, slots: set[int]) -> None:
            if target >= count:
                raise ValueError(f"{place}: leads out of the program")
            known = stored[target]
            stored[target] = slots.copy() if known is None else known & slots

        for place, (code, yes, no, operand) in enumerate(self.instructions):
            slots = stored[place]
            if slots is None:
                raise ValueError(f"{place}: is never reached")  # the kernel does not mind; a builder should
            if code in (0x02, 0x03, 0x60, 0x61):
                if operand >= SLOTS or (code >= 0x60 and operand not in slots):
                    raise ValueError(f"{place}: slot {operand}")
                slots = slots | {operand}
            if code in CONDITIONS:
                reach(place + 1 + yes, slots)
                reach(place + 1 + no, slots)
            elif code == JUMP:
                reach(place + 1 + operand, slots)
            elif code in ARITHMETIC | OTHERS | LOADS.keys():
                if code in (0x64, 0x74) and operand >= 32:
                    raise ValueError(f"{place}: shift by {operand}")
                reach(place + 1, slots)
            elif code not in RETURNS:
                raise ValueError(f"{place}: no such instruction: {code:#x}")

    def run(self, packet: bytes | bytearray, about: About) -> int:
        """How many bytes of the packet are let through; 0 is none."""
        return self.trace(packet, about)[0]

    def trace(self, packet: bytes | bytearray, about: About) -> tuple[int, int]:
        """The same, and the number of instructions that it took."""
        a = x = at = steps = 0
        memory = [0] * SLOTS
        while True:
            code, yes, no, k = self.instructions[at]
            at += 1
            steps += 1
            if code == 0x06:
                return k, steps
            if code == 0x16:
                return a, steps
            if code == JUMP:
                at += k
            elif code in CONDITIONS:
                other = x if code & 0x08 else k
                test = code & 0xF0
                if test == 0x10:
                    held = a == other
                elif test == 0x20:
                    held = a > other
                elif test == 0x30:
                    held = a >= other
                else:
                    held = a & other != 0
                at += yes if held else no
            elif code in ARITHMETIC:
                other = x if code & 0x08 else k
                a = {
                    0x00: a + other,
                    0x10: a - other,
                    0x40: a | other,
                    0x50: a & other,
                    0x60: a << other if other < 32 else 0,
                    0x70: a >> other if other < 32 else 0,
                }[code & 0xF0] & WORD
            elif code in LOADS:
                if code not in INDIRECT and k >= ANCILLARY:
                    a = about.load(k - ANCILLARY)
                    continue
                start = k + (x if code in INDIRECT else 0)
                data = packet[start : start + LOADS[code]]
                if len(data) < LOADS[code]:
                    return 0, steps
                a = int.from_bytes(data, "big")
            elif code == 0xB1:
                if k >= len(packet):
                    return 0, steps
                x = (packet[k] & 0xF) * 4
            elif code == 0x00:
                a = k
            elif code == 0x01:
                x = k
            elif code == 0x60:
                a = memory[k]
            elif code == 0x61:
                x = memory[k]
            elif code == 0x80:
                a = len(packet)
            elif code == 0x81:
                x = len(packet)
            elif code == 0x02:
                memory[k] = a
            elif code == 0x03:
                memory[k] = x
            elif code == 0x07:
                x = a
            elif code == 0x87:
                a = x
