"""Kinds of readers: whole numbers, seconds, lists, tables, and functions that check a value.

A reader is called with what TOML made of the text and answers with the checked value; some also have `from_text` for
options and variables. `expects` says in words what a reader takes, for its own messages and for the help, so that the
two always agree. Everything else is a `ConfigError` without a place, which the caller adds.

What was wrong is quoted only where it cannot hide a port: sequences are secrets, and a wrong separator makes one long
word of a whole sequence.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from port_knocking_doors.errors import ConfigError

T = TypeVar("T")

_QUOTABLE_NUMBER = 10**5
_QUOTABLE_TEXT = re.compile(r"[^\W\d][^\d]{0,39}")
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number with a fraction"),
    (str, "a text"),
    (list, "a list"),
    (dict, "a table"),
)


class Reader(Protocol):
    """What the declaration of a key needs to know of a reader."""

    @property
    def expects(self) -> str: ...

    def __call__(self, value: object) -> Any: ...


def shown(value: object) -> str:
    """What a message may say of a wrong value: itself where that is harmless, else its kind."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < _QUOTABLE_NUMBER else "a number of more than five digits"
    if isinstance(value, str) and value.isprintable() and _QUOTABLE_TEXT.fullmatch(value):
        return f'"{value}"'
    return kind_of(value)


def kind_of(value: object) -> str:
    """What a message may say of a wrong value where even a harmless one is part of a secret."""
    if value == "":
        return "an empty text"
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or time")


class MismatchError(Exception):
    """The value is not what its reader expects; `FunctionReader` adds what that is."""


@dataclass(frozen=True)
class FunctionReader(Generic[T]):
    """A reader that has no parameters: `read` raises `MismatchError`, or `ConfigError` where something else helps."""

    expects: str
    read: Callable[[object], T]

    def __call__(self, value: object) -> T:
        try:
            return self.read(value)
        except MismatchError as wrong:
            raise ConfigError(f"{wrong}, expected {self.expects}") from None


def function_reader(expects: str) -> Callable[[Callable[[object], T]], FunctionReader[T]]:
    return lambda read: FunctionReader(expects, read)


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`; `true` is not one."""

    low: int
    high: int
    noun: str = "number"

    @property
    def expects(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def __call__(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{shown(value)} is not a {self.noun}, expected {self.expects}")
        if not self.low <= value <= self.high:
            what = f"{self.noun} {value}" if abs(value) < _QUOTABLE_NUMBER else shown(value)
            raise ConfigError(f"{what} is out of range, expected {self.low} to {self.high}")
        return value

    def from_text(self, text: str) -> int:
        """Read plain decimal digits."""
        return self(plain_number(text))


@dataclass(frozen=True)
class Seconds:
    """A length of time in seconds, from `low` to `high`, with or without a fraction."""

    low: float = 0.1
    high: float = 86400

    @property
    def expects(self) -> str:
        return f"seconds, from {self.low:g} to {self.high:g}"

    def __call__(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{shown(value)} is not a number of seconds, expected {self.expects}")
        if not self.low <= value <= self.high:  # false for nan, too
            what = str(value) if isinstance(value, float) else shown(value)
            raise ConfigError(f"{what} is out of range, expected {self.expects}")
        return float(value)

    def from_text(self, text: str) -> float:
        """Read plain decimal digits, with or without a fraction."""
        return self(float(text) if re.fullmatch(r"-?[0-9]{1,9}\.[0-9]{1,9}", text) else plain_number(text))


@dataclass(frozen=True)
class ListReader(Generic[T]):
    """A list of `fewest` to `most` items in their order, which `item` reads one by one."""

    item: Callable[[object], T]
    fewest: int
    most: int
    items: str
    """What the items are, in the plural, for `expects`."""
    split: Callable[[str], list[Any]]
    """The items of a list that is one text, of an option or another daemon's file."""
    noun: str = "port"
    is_unique: bool = False
    """Whether the same item twice is refused: more often than not it is a slip for another one."""
    is_secret: bool = True
    """Whether no message may quote an item."""

    @property
    def expects(self) -> str:
        return f"a list of {self.fewest} to {self.most} {self.items}"

    def __call__(self, value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            what = kind_of(value) if self.is_secret else shown(value)
            raise ConfigError(f"{what} is not a list, expected {self.expects}")
        things: list[T] = []
        for position, one in enumerate(value, start=1):
            try:
                thing = self.item(one)
            except ConfigError as wrong:
                raise ConfigError(f"position {position}: {wrong.problem}") from None
            if self.is_unique and thing in things:
                raise ConfigError(f"position {position}: this {self.noun} stands there already, expected each once")
            things.append(thing)
        if not self.fewest <= len(things) <= self.most:
            plural = "" if len(things) == 1 else "s"
            raise ConfigError(f"it has {len(things)} {self.noun}{plural}, expected {self.fewest} to {self.most}")
        return tuple(things)

    def from_text(self, text: str) -> tuple[T, ...]:
        """Read the items of a text."""
        return self(self.split(text))


@dataclass(frozen=True)
class Tables:
    """Any number of tables up to `most`, each under the `name` in double brackets. What they hold is read elsewhere."""

    name: str
    most: int = 1024

    @property
    def expects(self) -> str:
        return f"up to {self.most} tables, each under its own [[{self.name}]]"

    def __call__(self, value: object) -> tuple[dict[str, Any], ...]:
        if isinstance(value, dict):
            raise ConfigError(f"this is a single table, expected [[{self.name}]] in double brackets above each")
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ConfigError(f"this is not a list of tables, expected {self.expects}")
        if len(value) > self.most:
            raise ConfigError(f"there are {len(value)} tables, expected {self.expects}")
        return tuple(value)


def plain_number(text: str) -> object:
    """`text` as a number if it is plain decimal digits (Python's `int` alone would take `1_000` and `٣`)."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text
