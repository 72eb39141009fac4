"""The table at the end: rows, and what was aimed at."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NONE = "-"
_HEAD = ("what", "ours", "peer", "ratio", "aim", "met?", "note")


@dataclass(frozen=True)
class Row:
    """One line of the table. `met` is None where nothing was aimed at."""

    what: str
    ours: str
    peer: str = NONE
    ratio: str = NONE
    aim: str = NONE
    met: bool | None = None
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = NONE if self.met is None else "met" if self.met else "missed"
        return self.what, self.ours, self.peer, self.ratio, self.aim, verdict, self.note


def table(rows: Sequence[Row]) -> str:
    """All rows, aligned; Markdown takes it for a table, too."""
    lines = [_HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def milliseconds(values: Sequence[float]) -> str:
    """Median of times in seconds, and between which bounds half of them lie."""
    low, middle, high = (f"{value * 1e3:.3g}" for value in quartiles(values))
    return f"{middle} ms ({low} to {high})"
