"""A line for a POSIX shell, cut into its simple commands (POSIX, "Shell Command Language", 2.9 and 2.10).

Only what start and stop commands are made of is understood: commands joined by `;`, `&`, `&&` or `||`, quotes, a
comment at the end, output that goes to /dev/null. Anything else makes the line one that only a shell can read.
"""

import re
from dataclasses import dataclass

_COMPOUND = frozenset(
    {"if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "function", "{", "}"}
    | {"!", "[["}
)
"""Words that begin or end a compound command where a command could begin."""
_TOKEN = re.compile(
    r"""
      (?P<blank>[ \t]+)
    | (?P<comment>(?<![^ \t;&|])\#.*)
    | (?P<quiet>[12]?>>?[ \t]*/dev/null\b|&>>?[ \t]*/dev/null\b|2>&1|1>&2)
    | (?P<join>&&|\|\||;|&(?!>))
    | (?P<odd>[|<>()]|\$\(|`)
    | (?P<escaped>\\.)
    | (?P<single>'[^']*')
    | (?P<double>"(?:\\.|[^"\\])*")
    | (?P<plain>[^ \t;&|<>()\\'"`$]+|\$|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SHELLS = frozenset({"sh", "bash", "dash"})
_SUDO_OPTIONS = frozenset({"-n", "-E", "-H", "--"})
_ESCAPED = re.compile(r'\\([$`"\\])')


@dataclass(frozen=True)
class SimpleCommand:
    """One command of a line."""

    text: str
    """As written, without what goes to /dev/null; with the `&` that sends it into the background."""
    words: tuple[str, ...]
    """Without quotes. A command substitution is one word, or a part of one, as written."""
    join: str = ""
    """How it follows the one before: `;`, `&`, `&&` or `||`; empty for the first."""
    is_plain: bool = True
    """Whether it has neither a pipe nor a redirection, and no part that a shell computes."""


@dataclass(frozen=True)
class ShellLine:
    """The commands of a line, and the comment at its end."""

    commands: tuple[SimpleCommand, ...]
    comment: str = ""


def split(line: str) -> ShellLine | None:
    """The commands of a line; None if it has a quote without an end or is more than a list of simple commands."""
    reading = _Reading()
    position = 0
    while position < len(line):
        token = _TOKEN.match(line, position)
        assert token is not None  # a single character matches
        position = token.end()
        if token.lastgroup == "odd" and token[0] in ("$(", "`"):
            end = _end_of_substitution(line, position, token[0])
            if not end:
                return None
            reading.add(line[token.start() : end], plain=False)
            position = end
        elif not reading.take(str(token.lastgroup), token[0]):
            return None
    return reading.finish()


def inner_line(line: ShellLine) -> str | None:
    """The line within `sh -c 'LINE'`, if that is all."""
    if len(line.commands) != 1 or line.comment or not line.commands[0].is_plain:
        return None
    words = without_sudo(line.commands[0].words)
    if len(words) != 3 or words[1] != "-c":
        return None
    return words[2] if words[0].rpartition("/")[2] in _SHELLS else None


def without_sudo(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a command without `sudo` or `doas` ahead of them."""
    while words and (words[0].rpartition("/")[2] in ("sudo", "doas") or words[0] in _SUDO_OPTIONS):
        words = words[1:]
    return words


class _Reading:
    def __init__(self) -> None:
        self.commands: list[SimpleCommand] = []
        self.comment = ""
        self._begin("")

    def _begin(self, join: str) -> None:
        self._join = join
        self._text = ""
        self._words: list[str] = []
        self._word: str | None = None
        self._is_plain = True

    def add(self, piece: str, written: str | None = None, *, plain: bool = True) -> None:
        """A part of a word; `written` as in the line."""
        self._word = (self._word or "") + piece
        self._text += piece if written is None else written
        self._is_plain = self._is_plain and plain

    def take(self, kind: str, piece: str) -> bool:
        """One token; False if the line cannot be cut."""
        if kind == "blank":
            self._end_word()
            self._text += " "
        elif kind == "comment":
            self.comment = piece.lstrip("#").strip()
        elif kind == "quiet":
            self._end_word()
        elif kind == "join":
            if not self._end_command(" &" if piece == "&" else ""):
                return False
            self._begin(piece)
        elif kind == "odd":
            self._end_word()
            self._text += piece
            self._is_plain = False
            return piece not in "()"
        elif kind == "single":
            self.add(piece[1:-1], piece)
        elif kind == "double":
            inner = _ESCAPED.sub(r"\1", piece[1:-1])
            self.add(inner, piece, plain="$" not in piece and "`" not in piece)
        elif kind == "escaped":
            self.add(piece[1], piece)
        else:
            self.add(piece, plain=piece != "$")
            return piece not in ("'", '"', "\\")  # a quote without an end
        return True

    def _end_word(self) -> None:
        if self._word is not None:
            self._words.append(self._word)
            self._word = None

    def _end_command(self, end: str = "") -> bool:
        self._end_word()
        if not self._words or self._words[0] in _COMPOUND:
            return False
        self.commands.append(SimpleCommand(self._text.strip() + end, tuple(self._words), self._join, self._is_plain))
        return True

    def finish(self) -> ShellLine | None:
        self._end_word()
        if (self._words or self._join in ("&&", "||")) and not self._end_command():
            return None
        return ShellLine(tuple(self.commands), self.comment)


def _end_of_substitution(line: str, position: int, opening: str) -> int:
    """Where a command substitution that begins before `position` ends; 0 for nowhere."""
    if opening == "`":
        return line.find("`", position) + 1
    depth = 1
    for at in range(position, len(line)):
        depth += (line[at] == "(") - (line[at] == ")")
        if depth == 0:
            return at + 1
    return 0
