"""The manual pages: the text of packaging/man, and in it what the program declares itself."""

from collections.abc import Iterator
from pathlib import Path

import markdown
import roff
from commands import Command, Option

from port_knocking_doors import __version__
from port_knocking_doors.config import render

PAGES = Path(__file__).resolve().parents[1] / "man"
_SOURCE = f"port-knocking-doors {__version__}"


def pages(program: Command, date: str) -> Iterator[tuple[str, str]]:
    """The name of each page's file, such as `port-knocking-doors.1`, and its roff.

    Raises `markdown.MarkdownError` where a page is not as it should be.
    """
    generated = {
        f"{program.name}.1": {
            "synopsis": [_synopsis(program.name, command) for command in (program, *program.commands)],
            "description": list(roff.paragraphs(program.about)),
            "options": [_option(option) for option in program.options],
            "commands": [line for command in program.commands for line in _command(command)],
        },
        "port_knocker.toml.5": {
            "description": [_kept(paragraph) for paragraph in _about_the_file().split("\n\n")],
            "keys": [_key(one) for one in render.explained()],
        },
    }
    for path in sorted(PAGES.glob("*.md")):
        page = markdown.read(path, generated.pop(path.stem, {}))
        yield path.stem, roff.page(page.name, page.section, date, _SOURCE, page.brief, page.parts)
    if generated:
        raise markdown.MarkdownError(f"{PAGES}: no {', '.join(generated)}")


def _about_the_file() -> str:
    """What the help says ahead of the keys, without its title."""
    head = render.help_text().partition(f"\n{next(render.explained()).line}\n")[0]
    return head.partition("\n\n")[2].strip("\n")


def _key(key: render.Explained) -> str:
    if key.line.startswith("[["):  # a table: its keys follow
        return f".SS {roff.plain(key.line)}\n.PP\n{roff.prose(key.need)}\n.PP\n{roff.prose(key.about)}"
    return roff.entry(roff.bold(key.line), key.need, key.about)


def _kept(paragraph: str) -> str:
    """A paragraph of the help, whose indented lines are a table or a list and stay as they are."""
    lines = paragraph.split("\n")
    before = [line for line in lines if not line.startswith("    ")]
    kept = [line for line in lines if line.startswith("    ")]
    if not kept:
        return f".PP\n{roff.prose(paragraph)}"
    first = lines.index(kept[0])
    pieces = [f".PP\n{roff.prose(' '.join(before[:first]))}", roff.as_is("\n".join(kept))]
    if before[first:]:
        pieces.append(f".PP\n{roff.prose(' '.join(before[first:]))}")
    return "\n".join(pieces)


def _synopsis(program: str, command: Command) -> str:
    words = [roff.bold(program)] if command.name == program else [roff.bold(program), roff.bold(command.name)]
    words += ["[" + roff.italic("OPTION") + "]..."]
    words += [roff.plain(argument.value) for argument in command.arguments]
    return ".PP\n" + " ".join(words)


def _command(command: Command) -> Iterator[str]:
    yield f".SS {roff.plain(command.name)}"
    yield from roff.paragraphs(command.about)
    for argument in command.arguments:
        if argument.about:
            yield roff.entry(roff.italic(argument.value.strip("[].")), argument.about)
    yield from (_option(option) for option in command.options)


def _option(option: Option) -> str:
    value = f" {roff.italic(option.value)}" if option.value else ""
    return roff.entry(", ".join(map(roff.bold, option.names)) + value, option.about)
