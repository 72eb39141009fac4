"""The command line as values: read from the application's own declarations, whatever release of typer made them.

It uses only attributes that typer 0.7 on click 8.1 and today's typer, which has no click, have in common. A command
that parses its words with argparse is asked for its help: the parser that is about to print it has the declarations.
"""

import argparse
import inspect
from dataclasses import dataclass
from typing import Any

import typer

from port_knocking_doors.cli import PROGRAM
from port_knocking_doors.cli.application import COMMANDS, app


@dataclass(frozen=True)
class Option:
    """An option: all its names, and the name of its value; empty for an option without a value."""

    names: tuple[str, ...]
    value: str
    about: str
    repeatable: bool

    @property
    def brief(self) -> str:
        return first_sentence(self.about)


@dataclass(frozen=True)
class Argument:
    """An argument by its name in a usage line: `HOST`, `[STEP]...`."""

    value: str
    about: str
    repeatable: bool


@dataclass(frozen=True)
class Command:
    """The program, or one of its commands."""

    name: str
    about: str
    """Paragraphs with an empty line between them. One that begins with a line of only `\\b` is not filled."""
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
    if declared.context_settings.get("ignore_unknown_options"):
        parser = _own_parser(name)
        if parser is not None:
            return _parsed(name, parser)
    shown = [one for one in declared.params if not getattr(one, "hidden", False)]
    commands = COMMANDS if name == PROGRAM else ()
    return Command(
        name,
        inspect.cleandoc(declared.help or ""),
        (*(_option(one) for one in shown if one.param_type_name == "option" and "--help" not in one.opts), HELP),
        tuple(_argument(one) for one in shown if one.param_type_name == "argument"),
        tuple(_command(inner, declared.get_command(None, inner)) for inner in sorted(commands)),
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


class _Asked(BaseException):
    """Raised in place of printing help; no handler of errors on the way catches it."""


def _own_parser(name: str) -> argparse.ArgumentParser | None:
    def found(parser: argparse.ArgumentParser) -> None:
        raise _Asked(parser)

    usual = argparse.ArgumentParser.format_help
    argparse.ArgumentParser.format_help = found  # type: ignore[assignment,method-assign]
    try:
        app([name, "--help"], prog_name=PROGRAM, standalone_mode=False)
    except _Asked as asked:
        parser: argparse.ArgumentParser = asked.args[0]
        return parser
    finally:
        argparse.ArgumentParser.format_help = usual  # type: ignore[method-assign]
    return None


def _parsed(name: str, parser: argparse.ArgumentParser) -> Command:
    formatter = parser._get_formatter()
    options: list[Option] = []
    arguments: list[Argument] = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        about = formatter._expand_help(action) if action.help else ""
        about = about and f"{about[0].upper()}{about[1:].rstrip('.')}."
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        many = action.nargs in ("*", "+", argparse.REMAINDER)
        if action.option_strings:
            names = sorted(action.option_strings, key=lambda one: one.startswith("--"))
            repeatable = isinstance(action, (argparse._AppendAction, argparse._CountAction))
            options.append(Option(tuple(names), "" if action.nargs == 0 else value, about, repeatable))
        else:
            shown = f"[{value}]" if action.nargs in ("*", "?") else value
            arguments.append(Argument(shown + ("..." if many else ""), about, many))
    about = "\n\n".join(filter(None, (parser.description, parser.epilog)))
    return Command(name, about, (*options, HELP), tuple(arguments), ())
