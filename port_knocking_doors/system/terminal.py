"""Lines on a terminal, with nothing that it would obey but colours of our own.

Colours: ECMA-48, "select graphic rendition", where NO_COLOR does not forbid them (no-color.org).
"""

import os
import sys
from typing import TextIO

from port_knocking_doors.system.printable import escaped

BOLD, DIM, RED, GREEN, YELLOW, CYAN = 1, 2, 31, 32, 33, 36


def show(*lines: str, stream: TextIO | None = None, flush: bool = False) -> None:
    """Print the lines, by default to standard output; each stays one line, whatever is in it.

    `print` is called here and where colours are made, and nowhere else.
    """
    for line in lines:
        print(escaped(line), file=stream or sys.stdout, flush=flush)


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colours, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: int) -> str:
    """`text` in a colour, or bold or dim, on a terminal."""
    return f"\x1b[{colour}m{text}\x1b[0m"
