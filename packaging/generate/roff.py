"""Text as roff, with the macros that groff's and mandoc's man have in common (man(7))."""

import re
import textwrap
from collections.abc import Iterator

_SIGNS = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
"""Signs that groff would otherwise replace by typographic ones, which cannot be copied."""

PARAGRAPH = ".PP\n"

_TAG_WIDTH = 60
"""Letters of a `.TP` head; one that needs a second line would have its text begin on that."""

_TITLE_WIDTH = 30
"""Letters of a page's name; a longer one leaves no place for the manual's title in a terminal's 80 columns."""


def plain(text: str) -> str:
    """`text` unchanged, on one line. Signs beyond ASCII are written by number, independent of the encoding."""
    escaped = "".join(_SIGNS.get(sign) or (sign if sign.isascii() else f"\\[u{ord(sign):04X}]") for sign in text)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def bold(text: str) -> str:
    return rf"\fB{plain(text)}\fR"


def italic(text: str) -> str:
    return rf"\fI{plain(text)}\fR"


def prose(text: str) -> str:
    """Filled text; `quoted` words are bold."""
    pieces = re.split(r"`([^`]+)`", " ".join(text.split()))
    return filled("".join(bold(piece) if odd % 2 else plain(piece) for odd, piece in enumerate(pieces)))


def filled(line: str) -> str:
    """A line that is roff already, on as many lines as it takes."""
    lines = textwrap.wrap(line, 78, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{one}" if one.startswith(".") else one for one in lines)


def paragraph(line: str) -> str:
    """A paragraph of a line that is roff already."""
    return f"{PARAGRAPH}{filled(line)}"


def paragraphs(help_text: str) -> Iterator[str]:
    """The paragraphs of a help text. One that is indented stays as its lines are, and so does one under a line of
    `\\b`, which is click's way to say so."""
    for text in re.split(r"\n[ \t]*\n", help_text.strip("\n")):
        if text.startswith("\b"):
            yield as_is(text.removeprefix("\b").strip("\n"))
        elif all(line.startswith("  ") for line in text.split("\n")):
            yield as_is(text)
        else:
            yield f"{PARAGRAPH}{prose(text)}"


def as_is(text: str) -> str:
    """Lines that are neither filled nor broken."""
    return f"{PARAGRAPH}.nf\n" + "\n".join(plain(line) or r"\&" for line in text.split("\n")) + "\n.fi"


def code(text: str, nested: bool = False) -> str:
    """The same indented, or twice so in an item of a list."""
    return f".RS {8 if nested else 4}\n{as_is(text)}\n.RE"


def labelled(head: str, *texts: str) -> str:
    """An entry of a list, all of it roff already: its head, and indented paragraphs."""
    below = [filled(text) for text in texts]
    if len(re.sub(r"\\f[BIR]", "", head)) > _TAG_WIDTH:
        return f"{PARAGRAPH}{filled(head)}\n.RS 7\n" + "\n.PP\n".join(below) + "\n.RE"
    return f".TP\n{head}\n" + "\n.IP\n".join(below)


def entry(head: str, *texts: str) -> str:
    """An entry of a list: its head, which is roff already, and indented paragraphs."""
    return f".TP\n{head}\n" + "\n.IP\n".join(prose(text) for text in texts if text)


def page(name: str, section: int, date: str, source: str, brief: str, parts: dict[str, list[str]]) -> str:
    """A whole page: its sections by their names."""
    head = [
        ".\\\" Made by packaging/generate from packaging/man and the program's own declarations.",
        f'.TH "{plain(name)}" {section} {date} "{plain(source)}"' + (' ""' if len(name) > _TITLE_WIDTH else ""),
        # no hyphenation, and no gaps to make the lines equal
        ".nh",
        ".ad l",
        ".ds AD l",  # groff 1.23 adjusts again in each paragraph unless this says otherwise
        ".SH NAME",
        f"{plain(name)} \\- {plain(brief)}",
    ]
    for title, lines in parts.items():
        head += [f".SH {title}", *lines]
    return re.sub(r"(?m)^(\.S[HS] .*)\n\.PP$", r"\1", "\n".join(head)) + "\n"
