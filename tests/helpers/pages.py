"""The pages of the project, taken apart for the tests that keep them true."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_FOLDERS = (".github", "packaging", "port_knocking_doors", "tests")
_FENCED = re.compile(r"(?ms)^ *```(?P<language>[a-z]*)\n(?P<text>.*?)^ *```$")
_COMMENT = re.compile(r"(?s)<!--.*?-->")


@dataclass(frozen=True)
class Page:
    """A page of markdown: its text without code blocks, its code blocks, and its inline code."""

    path: Path
    prose: str
    blocks: tuple[str, ...]
    code: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(PROJECT))

    def links(self) -> Iterator[str]:
        """The targets of all links."""
        yield from re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`]+`", "", self.prose))

    def anchors(self) -> set[str]:
        """The anchors of the headings, as a forge makes them."""
        titles = re.findall(r"(?m)^#+ (.*)$", self.prose)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def commands(self) -> Iterator[str]:
        """Inline code, and each line of a code block without its comment; a line that ends in `\\` goes on."""
        yield from self.code
        for block in self.blocks:
            for line in block.replace("\\\n", " ").split("\n"):
                yield re.sub(r"(^|\s)#.*", "", line).strip()


def pages() -> list[Page]:
    """Every page of the project."""
    paths = {*PROJECT.glob("*.md"), *(path for folder in _FOLDERS for path in (PROJECT / folder).rglob("*.md"))}
    return [page_of(path) for path in sorted(paths)]


@cache
def page_of(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    prose = _COMMENT.sub("", _FENCED.sub("", text))
    blocks = tuple(found["text"] for found in _FENCED.finditer(text))
    return Page(path, prose, blocks, tuple(" ".join(one.split()) for one in re.findall(r"`([^`]+)`", prose)))


def walks() -> dict[str, list[str]]:
    """What `port_knocking_doors/README.md` says of the way of a knock: by the title of each walk the modules in their
    order, as paths in the package without `.py`. The walks are the numbered lists whose items begin with a module."""
    text = (PROJECT / "port_knocking_doors/README.md").read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"(?m)^##+ ", text)[1:]:
        if modules := re.findall(r"(?m)^\d+\. \[`([\w/]+)`\]", part):
            found[part.partition("\n")[0]] = modules
    return found
