"""One finding of the examination: its grade, and a line that says what was found and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """How bad a finding is; the value begins its line."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """One line: what was found, and what to do next; never a port of a sequence."""

    grade: Grade
    text: str


def ok(text: str) -> Finding:
    return Finding(Grade.OK, text)


def warning(text: str) -> Finding:
    return Finding(Grade.WARNING, text)


def problem(text: str) -> Finding:
    return Finding(Grade.PROBLEM, text)


def shortened(texts: Sequence[str], most: int) -> str:
    """The first texts, at most so many, separated by commas."""
    return ", ".join(texts[:most]) + (" …" if len(texts) > most else "")
