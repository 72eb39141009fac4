"""Colours on a terminal (ECMA-48, "select graphic rendition"), where NO_COLOR does not forbid them (no-color.org)."""

import os
from typing import TextIO

BOLD, DIM, RED, GREEN, YELLOW, CYAN = 1, 2, 31, 32, 33, 36


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colours, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: int) -> str:
    """`text` in a colour, or bold or dim, on a terminal."""
    return f"\x1b[{colour}m{text}\x1b[0m"
