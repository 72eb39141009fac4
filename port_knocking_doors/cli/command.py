"""How commands are declared, what their help looks like, and how wrong usage ends.

The help of the option library changes with its releases, so it is formatted here.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from port_knocking_doors.cli import usage
from port_knocking_doors.errors import ConfigError

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The option library's exception for wrong usage. It has no public name; since typer 0.16 it is not click's."""

F = TypeVar("F", bound=Callable[..., None])


class PlainHelp:
    """A mixin for a command or group: the same help with every release, and usage errors that quote no value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc, no-any-return]
        except UsageError as error:
            known = [name for option in ctx.command.get_params(ctx) for name in (*option.opts, *option.secondary_opts)]
            raise ConfigError(f"{usage.problem(error, known)}; see `{ctx.command_path} --help`") from None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        params = ctx.command.get_params(ctx)
        return ["[OPTIONS]", *(_metavar(one) for one in params if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, options = [], []
        for one in ctx.command.get_params(ctx):
            if one.param_type_name == "argument":
                arguments.append((_metavar(one), one.help))
            else:
                value = "" if one.is_flag else f" {_metavar(one)}"
                about = "Show this help, and end." if "--help" in one.opts else one.help
                options.append((", ".join(sorted(one.opts, key=len)) + value, about))
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class PlainCommand(PlainHelp, TyperCommand):
    """A command made by `declare`."""


declared: dict[str, typer.Typer] = {}
"""The application of each command whose module is loaded."""


def declare(name: str, **settings: Any) -> Callable[[F], F]:
    """A decorator: this function is the command of this name. `settings` are those of `typer.Typer.command`."""

    def keep(function: F) -> F:
        declared[name] = plain_application()
        declared[name].command(name, cls=PlainCommand, **settings)(function)
        return function

    return keep


def plain_application(**settings: Any) -> typer.Typer:
    """An application of the option library, without completion, markup and its own tracebacks."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **settings)


def _metavar(declaration: Any) -> str:
    return str(declaration.metavar or declaration.name.upper())
