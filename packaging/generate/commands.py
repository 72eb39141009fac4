"""The command line as values: read from the application's own declarations, whatever release of typer made them.

Only attributes that typer 0.7 on click 8.1 and today's typer, which has no click, have in common are looked at.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import typer

from port_knocking_doors.cli import PROGRAM, app


@dataclass(frozen=True)
class Option:
    """An option: all its names, and what stands for its value, empty for one that takes none."""

    names: tuple[str, ...]
    value: str
    about: str
    repeatable: bool

    @property
    def brief(self) -> str:
        return first_sentence(self.about)


@dataclass(frozen=True)
class Argument:
    """An argument, with what stands for it: `HOST`, `[STEP]...`."""

    value: str
    about: str
    repeatable: bool


@dataclass(frozen=True)
class Command:
    """The program, or one of its commands."""

    name: str
    about: str
    """Paragraphs, an empty line between two. One that begins with a line of only `\\b` stays as it is."""
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple["Command", ...]

    @property
    def brief(self) -> str:
        return first_sentence(self.about)


HELP = Option(("-h", "--help"), "", "Show this help, and end.", repeatable=False)


def program() -> Command:
    """The whole command line."""
    return _command(PROGRAM, typer.main.get_command(app))


def first_sentence(text: str) -> str:
    """The first sentence, without its full stop."""
    return " ".join(text.split()).partition(". ")[0].rstrip(".")


def _command(name: str, declared: Any) -> Command:
    shown = [one for one in declared.params if not getattr(one, "hidden", False)]
    commands = getattr(declared, "commands", {})
    return Command(
        name,
        inspect.cleandoc(declared.help or ""),
        (*(_option(one) for one in shown if one.param_type_name == "option" and "--help" not in one.opts), HELP),
        tuple(_argument(one) for one in shown if one.param_type_name == "argument"),
        tuple(_command(inner, commands[inner]) for inner in sorted(commands) if not commands[inner].hidden),
    )


def _option(declared: Any) -> Option:
    names = sorted((*declared.opts, *declared.secondary_opts), key=lambda name: name.startswith("--"))
    takes_none = declared.is_flag or declared.count
    about = declared.help or ""
    if not takes_none and isinstance(declared.default, (int, float, str)) and not callable(declared.default):
        about += f" Without it: {declared.default}."
    value = "" if takes_none else declared.metavar or declared.name.upper()
    return Option(tuple(names), value, about, bool(declared.multiple or declared.count))


def _argument(declared: Any) -> Argument:
    value = declared.metavar or declared.name.upper()
    many = declared.nargs != 1
    if not declared.metavar:
        value = (value if declared.required else f"[{value}]") + ("..." if many else "")
    return Argument(value, getattr(declared, "help", None) or "", many)
