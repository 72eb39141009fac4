"""What an examination yields: findings."""

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "PROBLEM"


@dataclass(frozen=True)
class Finding:
    """One line: what was found, and what to do next."""

    grade: Grade
    text: str

    def __str__(self) -> str:
        return f"{self.grade.value:<8} {self.text}"


def ok(text: str) -> Finding:
    return Finding(Grade.OK, text)


def warning(text: str) -> Finding:
    return Finding(Grade.WARNING, text)


def problem(text: str) -> Finding:
    return Finding(Grade.PROBLEM, text)
