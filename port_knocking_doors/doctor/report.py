"""The examination's output: a line for each finding, coloured on a terminal, and their sum."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from port_knocking_doors.doctor.finding import Finding, Grade
from port_knocking_doors.system.printable import escaped
from port_knocking_doors.system.terminal import RED, YELLOW, has_colour, painted

_COLOURS = {Grade.PROBLEM: RED, Grade.WARNING: YELLOW}
_WIDTH = max(len(grade.value) for grade in Grade)


def print_report(findings: Iterable[Finding], stream: TextIO) -> int:
    """Print each finding as it is made, and the sum after the last; returns the number of problems."""
    colour = has_colour(stream)
    counts: Counter[Grade] = Counter()
    for finding in findings:
        counts[finding.grade] += 1
        print(_line(finding, colour), file=stream, flush=True)
    print(_sum(counts), file=stream, flush=True)
    return counts[Grade.PROBLEM]


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show on a terminal what takes its time, until it is done."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{text} …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # ECMA-48, "erase in line"


def _line(finding: Finding, colour: bool) -> str:
    grade = f"{finding.grade.value:{_WIDTH}}"
    if colour and finding.grade in _COLOURS:
        grade = painted(grade, _COLOURS[finding.grade])
    return f"{grade}  {escaped(finding.text)}"


def _sum(counts: Counter[Grade]) -> str:
    return f"{_number(counts[Grade.PROBLEM], 'problem')}, {_number(counts[Grade.WARNING], 'warning')}"


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
