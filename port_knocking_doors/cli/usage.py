"""Wrong usage in words. No value is quoted: it may be a sequence that was typed in the wrong place.

An option or command that does not exist is quoted only if it consists of letters and hyphens; every step has a digit.
Nothing here imports the option library, for `knock` must not wait for it.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from port_knocking_doors.errors import ConfigError

_DIGITS = 20
"""More than any bound has; int() is not given millions of them."""


def unknown(kind: str, typed: str, known: Iterable[str]) -> str:
    """The message for an option or command that does not exist, with the nearest one that does."""
    name = typed.partition("=")[0]
    nearest = difflib.get_close_matches(name, list(known), 1)
    what = f"{kind} {name}" if name.replace("-", "").isalpha() else f"this {kind}"
    return f"{what} is unknown" + (f", the nearest is {nearest[0]}" if nearest else "")


def problem(error: Any, known: Iterable[str]) -> str:
    """The problem in a usage error of the option library; `known` are the options of the command.

    Attributes distinguish the errors: the place of their classes depends on the release.
    """
    if hasattr(error, "possibilities"):
        return unknown("option", error.option_name, known)
    if hasattr(error, "option_name") or hasattr(error, "param_type"):  # messages with declared names only
        return str(error.format_message()).rstrip(".")
    if getattr(error, "param", None) is not None:
        return f"{error.param.opts[0]}: the value is wrong"
    return "there are more arguments than expected"


def whole_number(option: str, text: str, low: int, high: int, expected: str) -> int:
    """The number from `low` to `high` in decimal digits. Raises `ConfigError`, which says what was `expected`."""
    if text.removeprefix("-").isdecimal() and len(text) <= _DIGITS and low <= (number := int(text)) <= high:
        return number
    raise ConfigError(f"expected {expected}", option)


def seconds(option: str, text: str, low: float, high: float) -> float:
    """The number of seconds from `low` to `high`, with or without a fraction. Raises `ConfigError`."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if low <= number <= high:  # false for nan
        return number
    raise ConfigError(f"expected seconds from {low:g} to {high:g}", option)
