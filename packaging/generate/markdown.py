"""Manual pages that are written in markdown (packaging/man), so that they are readable on a forge, as roff.

A small subset is known, and everything else is refused with file and line, so that no page is rendered wrongly:

    # NAME(SECTION)                      the title, which is the file's name, too
    ## Title, ### Title                  the first section is `Name` and holds one line, `NAME - BRIEF`
    paragraphs, - and 1. lists           an item may hold several blocks, indented, but no other list
    ``` blocks                           as they are
    | tables |                           each row becomes an entry: its first cell, and the others below
    `code`, **strong**, *emphasis*, [text](#anchor), [page(7)](page.7.md), [text](https://…)
    <!-- generated: KEY -->              until <!-- /generated -->: what the program declares replaces this text
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import roff

_TITLE = re.compile(r"# (?P<name>[\w.-]+)\((?P<section>[1-8])\)")
_NAME = re.compile(r"(?P<name>[\w.-]+) - (?P<brief>\S.*)")
_HEADING = re.compile(r"(?P<level>##|###) (?P<title>\S.*)")
_ITEM = re.compile(r"(?P<mark>-|\d+\.) (?=\S)")
_GENERATED = re.compile(r"<!-- generated: (?P<key>[a-z]+) -->")
_END = "<!-- /generated -->"
_FENCE = re.compile(r"```[a-z]*")
_SEPARATOR = re.compile(r"\|(?:-+\|)+")
_INLINE = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\*(?P<emphasis>[^*]+)\*|\[(?P<text>[^\]\[]+)\]\((?P<target>[^()\s]+)\)"
)
_UNKNOWN_INLINE = re.compile(r"[`*\\]|\]\(|\]\[|~~|<[a-zA-Z/!?]|&#?\w+;|(?<!\w)_|_(?!\w)")
_UNKNOWN_BLOCK = re.compile(r"[ \t]|[>+*<=~#|]|---|```|___|-\s*$|\d+\)\s|\[[^\]]+\]:")
"""How no paragraph may begin, and none of its lines: markdown takes it for another block, which is not known here."""

Line = tuple[int, str]
"""A line with its number in the file."""


class MarkdownError(Exception):
    """`FILE:LINE: what is not known, or not as it should be`."""


@dataclass(frozen=True)
class Page:
    """A page: its name, its section of the manual, and its sections as roff."""

    name: str
    section: int
    brief: str
    parts: dict[str, list[str]]


def read(path: Path, generated: Mapping[str, list[str]]) -> Page:
    """The page in `path`. `generated` has the roff for each `<!-- generated: KEY -->`, and each has to be used.

    Raises `MarkdownError`.
    """
    return _Reader(path.name, generated).page(path.read_text(encoding="utf-8"))


class _Reader:
    def __init__(self, file: str, generated: Mapping[str, list[str]]) -> None:
        self._file = file
        self._generated = dict(generated)

    def page(self, text: str) -> Page:
        lines = list(enumerate(text.split("\n"), start=1))
        title = _TITLE.fullmatch(lines[0][1])
        if title is None or self._file != f"{title['name']}.{title['section']}.md":
            self._refuse(1, f"the title is not that of {self._file}")
        sections = list(self._sections(lines[1:]))
        name = _NAME.fullmatch(" ".join(line for _, line in sections[0][1] if line)) if sections else None
        if name is None or sections[0][0] != "Name" or name["name"] != title["name"]:
            self._refuse(2, "the first section is not `Name` with `NAME - BRIEF`")
        parts = {roff.plain(title.upper()): list(self._blocks(body)) for title, body in sections[1:]}
        if self._generated:
            self._refuse(1, f"no place for what is generated: {', '.join(self._generated)}")
        return Page(title["name"], int(title["section"]), name["brief"], parts)

    def _sections(self, lines: list[Line]) -> Iterator[tuple[str, list[Line]]]:
        starts = [index for index, (_, line) in enumerate(lines) if line.startswith("## ")]
        if any(line for _, line in lines[: starts[0] if starts else None]):
            self._refuse(2, "text ahead of the first section")
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            yield lines[start][1].removeprefix("## "), lines[start + 1 : end]

    def _blocks(self, lines: list[Line], nested: bool = False) -> Iterator[str]:
        """Each block of the lines as roff; in an item of a list those that may stand there."""
        rest = lines
        while rest:
            number, line = rest[0]
            used = 1
            if line == "":
                pass
            elif heading := _HEADING.fullmatch(line):
                if nested or heading["level"] == "##":
                    self._refuse(number, "a heading inside of a list")
                yield f".SS {self._line(number, heading['title'])}"
            elif _FENCE.fullmatch(line):
                used = self._until(rest, "```")
                yield roff.code("\n".join(text for _, text in rest[1 : used - 1]), nested)
            elif made := _GENERATED.fullmatch(line):
                used = self._until(rest, _END)
                if made["key"] not in self._generated:
                    self._refuse(number, f"nothing is generated as {made['key']}")
                yield from self._generated.pop(made["key"])
            elif line.startswith("|"):
                used = _count(rest, lambda text: text.startswith("|"))
                yield from self._table(rest[:used])
            elif mark := _ITEM.match(line):
                if nested:
                    self._refuse(number, "a list inside of a list")
                used, item = self._item(rest, len(mark[0]))
                yield self._listed(mark["mark"], item)
            else:
                used = _count(rest, bool)
                yield roff.paragraph(self._prose(rest[:used]))
            rest = rest[used:]

    def _until(self, lines: list[Line], end: str) -> int:
        """How many lines there are to `end`, which is the last of them."""
        used = 1 + _count(lines[1:], lambda text: text != end) + 1
        if used > len(lines):
            self._refuse(lines[0][0], f"no `{end}` ends this")
        return used

    def _prose(self, lines: list[Line]) -> str:
        for number, line in lines:
            if _UNKNOWN_BLOCK.match(line) or (number != lines[0][0] and _ITEM.match(line)):
                self._refuse(number, "a block of a kind that is not known, or without an empty line ahead of it")
            if line.endswith("  "):
                self._refuse(number, "a line break")
        return self._line(lines[0][0], " ".join(line for _, line in lines))

    def _item(self, lines: list[Line], width: int) -> tuple[int, list[Line]]:
        """The item that begins there: how many lines it has, and these without the indentation."""
        item = [(lines[0][0], lines[0][1][width:])]
        for number, line in lines[1:]:
            if line and not line.startswith(" " * width):
                if item[-1][1] and not _ITEM.match(line):  # markdown takes the line for more of the item
                    self._refuse(number, "a line of a list that is not indented")
                break
            item.append((number, line[width:]))
        while not item[-1][1]:
            item.pop()
        return len(item), item

    def _listed(self, mark: str, item: list[Line]) -> str:
        first, *others = self._blocks(item, nested=True)
        if not first.startswith(roff.PARAGRAPH):
            self._refuse(item[0][0], "an item that begins with no text")
        head = r".IP \(bu 2" if mark == "-" else f".IP {mark} 4"
        below = [re.sub(f"^{re.escape(roff.PARAGRAPH)}", ".IP\n", other) for other in others]
        return "\n".join([first.replace(roff.PARAGRAPH, f"{head}\n", 1), *below])

    def _table(self, lines: list[Line]) -> Iterator[str]:
        if len(lines) < 3 or not _SEPARATOR.fullmatch(lines[1][1]):
            self._refuse(lines[0][0], "a table without `|---|` below its head, or without rows")
        titles, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for _, line in lines]
        if len(titles) == 2 and any(titles):
            yield roff.labelled(*map(roff.italic, titles))
        for (number, _), row in zip(lines[2:], rows, strict=True):
            if len(row) != len(titles):
                self._refuse(number, f"{len(row)} cells under {len(titles)} titles")
            cells = [self._line(number, cell) for cell in row]
            if len(titles) > 2:
                named = zip(titles[1:], cells[1:], strict=True)
                cells[1:] = [f"{roff.italic(title + ':')} {cell}" if title else cell for title, cell in named if cell]
            yield roff.labelled(*cells)

    def _line(self, number: int, text: str) -> str:
        """The text with its fonts, on one line."""
        pieces = []
        end = 0
        for found in _INLINE.finditer(text):
            pieces.append(self._plain(number, text[end : found.start()]))
            pieces.append(self._marked(number, found))
            end = found.end()
        return "".join([*pieces, self._plain(number, text[end:])])

    def _marked(self, number: int, found: re.Match[str]) -> str:
        if found["code"]:
            return roff.bold(found["code"])
        if found["text"]:
            return self._link(number, found["text"], found["target"])
        font = roff.bold if found["strong"] else roff.italic
        return font(self._known(number, found["strong"] or found["emphasis"]))

    def _link(self, number: int, text: str, target: str) -> str:
        """A reader of a terminal follows no link: pages are named as pages are, and addresses are shown."""
        if target.startswith("https://"):
            return f"{self._plain(number, text)} <{roff.plain(target)}>"
        page, dot, section = target.removesuffix(".md").rpartition(".")
        if dot and target.endswith(".md"):
            if text != f"{page}({section})":
                self._refuse(number, f"the link to {target} is not named {page}({section})")
            return f"{roff.bold(page)}({section})"
        if not target.startswith("#"):
            self._refuse(number, f"a link to {target}, which is not installed with the page")
        return self._plain(number, text)

    def _plain(self, number: int, text: str) -> str:
        return roff.plain(self._known(number, text))

    def _known(self, number: int, text: str) -> str:
        if unknown := _UNKNOWN_INLINE.search(text):
            self._refuse(number, f"`{unknown[0]}` outside of code")
        return text

    def _refuse(self, number: int, what: str) -> NoReturn:
        raise MarkdownError(f"{self._file}:{number}: {what}")


def _count(lines: list[Line], belongs: Callable[[str], bool]) -> int:
    """How many lines at the beginning belong together."""
    return next((index for index, (_, line) in enumerate(lines) if not belongs(line)), len(lines))
