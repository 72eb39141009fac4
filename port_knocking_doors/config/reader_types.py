"""Kinds of readers: whole numbers, seconds, lists, tables, and functions that check a value.

A reader takes the value that TOML read and returns the checked value; some also have `from_text` for options and
variables. `expects` describes in words what a reader accepts, for its own messages and for the help, so that the two
always agree. Any other value raises `ConfigError` without a place, which the caller adds.

A wrong value is quoted only where it cannot hide a port: sequences are secrets, and a wrong separator makes one long
word of a whole sequence.
"""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from port_knocking_doors.errors import ConfigError

T = TypeVar("T")

SECONDS_MAX = 2**31 - 1
"""The longest time in seconds, some 68 years, as knockd has it; the Rust program accepts any."""

_QUOTABLE_NUMBER = 10**5
_QUOTABLE_TEXT = re.compile(r"[^\W\d][^\d]{0,39}")
_QUOTABLE_TIME = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})? ?[a-z]{0,7}")
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number with a fraction"),
    (str, "a string"),
    (list, "a list"),
    (dict, "a table"),
)


class Reader(Protocol):
    """What the declaration of a key needs from a reader."""

    @property
    def expects(self) -> str: ...

    def __call__(self, value: object) -> Any: ...


def quoted(value: object) -> str:
    """A wrong value for a message: the value itself where that is harmless, else its kind."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < _QUOTABLE_NUMBER else "a number of more than five digits"
    if isinstance(value, str) and value.isprintable() and _QUOTABLE_TEXT.fullmatch(value):
        return f'"{value}"'
    return kind_of(value)


def kind_of(value: object) -> str:
    """The kind of a wrong value, for a message about a secret."""
    if value == "":
        return "an empty string"
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or time")


class MismatchError(Exception):
    """The value is not what its reader expects; `FunctionReader` adds `expects` to the message."""


@dataclass(frozen=True)
class FunctionReader(Generic[T]):
    """A reader without parameters: `read` raises `MismatchError`, or `ConfigError` for a message of its own."""

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
            raise ConfigError(f"{quoted(value)} is not a {self.noun}, expected {self.expects}")
        if not self.low <= value <= self.high:
            what = f"{self.noun} {value}" if abs(value) < _QUOTABLE_NUMBER else quoted(value)
            raise ConfigError(f"{what} is out of range, expected {self.low} to {self.high}")
        return value

    def from_text(self, text: str) -> int:
        """Read plain decimal digits."""
        return self(plain_number(text))


@dataclass(frozen=True)
class Seconds:
    """A length of time in seconds, from `low` to `high`, with or without a fraction."""

    low: float = 0.1
    high: float = SECONDS_MAX
    takes_zero: bool = False
    """Whether 0 is accepted, too, where `low` is above it."""

    @property
    def expects(self) -> str:
        zero = "0 or " if self.takes_zero else ""
        return f"{zero}a number of seconds from {self.low:g} to {self.high:.10g}"

    def __call__(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            is_time = isinstance(value, str) and _QUOTABLE_TIME.fullmatch(value)
            what = f'"{value}"' if is_time else quoted(value)
            raise ConfigError(f"{what} is not a number, expected {self.expects}, without quotes or unit")
        if not (self.low <= value <= self.high or (self.takes_zero and value == 0)):  # false for nan, too
            what = str(value) if isinstance(value, float) else quoted(value)
            raise ConfigError(f"{what} is out of range, expected {self.expects}")
        return float(value)

    def from_text(self, text: str) -> float:
        """Read plain decimal digits, with or without a fraction."""
        return self(float(text) if re.fullmatch(r"-?[0-9]{1,10}\.[0-9]{1,9}", text) else plain_number(text))


@dataclass(frozen=True)
class ListReader(Generic[T]):
    """A list of `fewest` to `most` items in order; `item` reads each of them."""

    item: Callable[[object], T]
    fewest: int
    most: int
    items: str
    """The items in words, in the plural, for `expects`."""
    split: Callable[[str], list[Any]]
    """Splits the text of an option, or a line of another daemon's file, into items."""
    noun: str = "port"
    is_set: bool = False
    """Whether an item that is listed again is left out; `repeated` says which."""
    is_secret: bool = True
    """Whether no message may quote an item."""

    @property
    def expects(self) -> str:
        return f"a list of {self.fewest} to {self.most} {self.items}"

    def __call__(self, value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise self._not_a_list(value)
        things: list[T] = []
        for position, one in enumerate(value, start=1):
            try:
                thing = self.item(one)
            except ConfigError as wrong:
                raise ConfigError(f"position {position}: {wrong.problem}") from None
            if not (self.is_set and thing in things):
                things.append(thing)
        if not self.fewest <= len(things) <= self.most:
            plural = "" if len(things) == 1 else "s"
            raise ConfigError(f"the list has {len(things)} {self.noun}{plural}, expected {self.fewest} to {self.most}")
        return tuple(things)

    def from_text(self, text: str) -> tuple[T, ...]:
        """Read the items of a text."""
        return self(self.split(text))

    def repeated(self, value: list[object]) -> tuple[T, ...]:
        """The items that a valid list has more than once: more often than not a slip for another one."""
        return tuple(item for item, times in Counter(map(self.item, value)).items() if times > 1)

    def twice_in(self, text: str) -> tuple[T, ...]:
        """The same of a valid text."""
        return self.repeated(self.split(text))

    def _not_a_list(self, value: object) -> ConfigError:
        """Suggests brackets around a single item."""
        if self.is_secret:
            return ConfigError(f"{kind_of(value)} is not a list, expected {self.expects}")
        try:
            self.item(value)
        except ConfigError:
            return ConfigError(f"{quoted(value)} is not a list, expected {self.expects}")
        item = f'"{value}"' if isinstance(value, str) else str(value)
        return ConfigError(f"{item} is not a list, expected [{item}]")


@dataclass(frozen=True)
class Tables:
    """Up to `most` tables, each under `name` in double brackets. The caller reads what the tables hold."""

    name: str
    most: int = 1024

    @property
    def expects(self) -> str:
        return f"up to {self.most} tables, each under its own [[{self.name}]]"

    def __call__(self, value: object) -> tuple[dict[str, Any], ...]:
        if isinstance(value, dict):
            raise ConfigError(f"the value is a single table, expected [[{self.name}]] above each table")
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ConfigError(f"the value is not a list of tables, expected {self.expects}")
        if len(value) > self.most:
            raise ConfigError(f"there are {len(value)} tables, expected {self.expects}")
        return tuple(value)


_COMPARED = 60
"""Characters of a wrong name that are compared with the known ones."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a wrong one is most likely a slip for; empty where none is near."""
    near = difflib.get_close_matches(name[:_COMPARED], known, n=1, cutoff=0.6)
    return near[0] if near else ""


def plain_number(text: str) -> object:
    """`text` as a number if it is plain decimal digits (Python's `int` alone would take `1_000` and `٣`)."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else text
