"""An assembler of classic BPF: instructions and labels to the array that the kernel takes (linux/filter.h)."""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
INSTRUCTION_SIZE = _INSTRUCTION.size
_JUMP_MAX = 255  # what fits into jt and jf


class Op(IntEnum):
    """Class, size or operation, and mode or source in one byte (linux/bpf_common.h, linux/filter.h)."""

    LOAD = 0x00  # BPF_LD | BPF_IMM
    LOAD_LENGTH = 0x80  # BPF_LD | BPF_W | BPF_LEN
    LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
    LOAD_HALF = 0x28  # BPF_LD | BPF_H | BPF_ABS
    LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
    LOAD_HALF_AT_X = 0x48  # BPF_LD | BPF_H | BPF_IND
    LOAD_BYTE_AT_X = 0x50  # BPF_LD | BPF_B | BPF_IND
    LOAD_STORED = 0x60  # BPF_LD | BPF_MEM
    STORE = 0x02  # BPF_ST
    LOAD_X = 0x01  # BPF_LDX | BPF_IMM
    LOAD_X_IPV4_HEADER_LENGTH = 0xB1  # BPF_LDX | BPF_B | BPF_MSH
    ADD = 0x04  # BPF_ALU | BPF_ADD | BPF_K
    ADD_X = 0x0C  # BPF_ALU | BPF_ADD | BPF_X
    AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
    SHIFT_LEFT = 0x64  # BPF_ALU | BPF_LSH | BPF_K
    JUMP = 0x05  # BPF_JMP | BPF_JA
    IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
    IF_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
    IF_NOT_LESS = 0x35  # BPF_JMP | BPF_JGE | BPF_K
    IF_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
    RETURN = 0x06  # BPF_RET | BPF_K
    RETURN_A = 0x16  # BPF_RET | BPF_A
    A_TO_X = 0x07  # BPF_MISC | BPF_TAX
    X_TO_A = 0x87  # BPF_MISC | BPF_TXA


class Label:
    """A place in a program, known once it is assembled."""

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line = -1


class _Line(NamedTuple):
    op: Op
    operand: int
    yes: Label | None
    no: Label | None


class Assembler:
    """Collects instructions and labels; a label that is left out is the next instruction. Jumps only go forward."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []

    def do(self, op: Op, operand: int = 0) -> None:
        self._lines.append(_Line(op, operand, None, None))

    def branch(self, op: Op, operand: int, yes: Label | None = None, no: Label | None = None) -> None:
        self._lines.append(_Line(op, operand, yes, no))

    def jump(self, target: Label) -> None:
        self._lines.append(_Line(Op.JUMP, 0, target, None))

    def here(self, label: Label) -> None:
        label.line = len(self._lines)

    def assemble(self) -> bytes:
        """The program. Where a branch does not reach its label, a long jump stands behind it and goes on from there.

        Such a jump moves what follows, and other branches may not reach any more: again, until nothing changes.
        """
        far: set[tuple[int, bool]] = set()  # the branch's line, and which side of it
        while True:
            places = [0]
            for number in range(len(self._lines)):
                places.append(places[-1] + 1 + ((number, True) in far) + ((number, False) in far))
            too_far = {
                (number, side)
                for number, line in enumerate(self._lines)
                if line.op is not Op.JUMP
                for side, label in ((True, line.yes), (False, line.no))
                if label is not None and places[label.line] - places[number] - 1 > _JUMP_MAX
            }
            if too_far <= far:
                return b"".join(self._encode(number, places, far) for number in range(len(self._lines)))
            far |= too_far

    def _encode(self, number: int, places: Sequence[int], far: set[tuple[int, bool]]) -> bytes:
        line = self._lines[number]
        following = places[number] + 1
        if line.op is Op.JUMP:
            assert line.yes is not None
            return _INSTRUCTION.pack(Op.JUMP, 0, 0, places[line.yes.line] - following)
        if line.yes is line.no is None:
            return _INSTRUCTION.pack(line.op, 0, 0, line.operand)
        long_jumps = b""
        distances = []
        for side, label in ((True, line.yes), (False, line.no)):
            target = places[number + 1] if label is None else places[label.line]
            if (number, side) in far:
                distances.append(len(long_jumps) // _INSTRUCTION.size)
                long_jumps += _INSTRUCTION.pack(Op.JUMP, 0, 0, target - following - distances[-1] - 1)
            else:
                distances.append(target - following)
        return _INSTRUCTION.pack(line.op, *distances, line.operand) + long_jumps
