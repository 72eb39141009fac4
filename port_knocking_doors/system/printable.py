"""Text of others on a terminal and in a log: no character of it may break a line, move the cursor, or turn text round.

Names of files, interfaces and zones, errors of other programs, and what commands print may have any character. Those
that a terminal obeys are shown by their escapes: control characters (ECMA-48), direction marks (Unicode, UAX 9), and
everything else that Unicode does not count as printable.
"""


def escaped(text: str) -> str:
    r"""The text as one line of printable characters: `\x1b` for an escape character, a space for a line's end."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter in "\t\n\v\f\r" else letter.encode("unicode_escape").decode()
