"""tportknockd's own file: blocks `<NAME> … </NAME>` of lines `key = value`, as its page describes them.

No error hides another one: all errors of a file are reported at once, and every block without an error is read. Rules
that are not on the page:

- A `#` begins a comment anywhere, but in a command only where a shell would begin one: after white space and outside
  quotes. So comments after a value work, and so does `grep '# mine'`.
- `command_delay` is 30 seconds, as in all examples of the page, if only `stop_command` is given. `command_delay` alone
  is an error: if `stop_command` was forgotten, an opened port would stay open.
- A block's name is a word, since it names the sequence in the log.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from port_knocking_doors.config import readers
from port_knocking_doors.config.reader_types import Seconds, nearest, quoted
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Access, CommandOpening, Dialect, Sequence

DELAY = 30.0
"""Default of `command_delay`: seconds from `start_command` to `stop_command`."""

step = readers.KnockStep(bare=0, takes_any=True)
steps = readers.knock_steps_of(step, 1, 64)
_delay = Seconds(low=0)

_KEYS: dict[str, Callable[[str], Any]] = {
    "sequence": steps.from_text,
    "timeout": readers.seconds.from_text,
    "start_command": readers.shell_command,
    "stop_command": readers.shell_command,
    "command_delay": _delay.from_text,
}
_REQUIRED = {
    "sequence": "frames with spaces between them, such as tcp:PORT:FLAGS or udp:PORT",
    "timeout": readers.seconds.expects,
    "start_command": readers.shell_command.expects,
}
_COMMANDS = frozenset({"start_command", "stop_command"})
MOST_PROBLEMS = 1000
"""A file with so many problems is of another kind, and reading stops."""

# A shell's tokens: an escaped character, a quoted string, white space, any other character.
_PIECE = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|\s+|.""", re.DOTALL)


@dataclass
class _Block:
    """The lines between `<NAME>` and `</NAME>`, as far as they were read."""

    name: str
    line: int
    sound: bool = True
    closed: bool = False
    interrupted: bool = False
    """Whether an error already reports that another block begins inside this one."""
    lines: dict[str, int] = field(default_factory=dict)
    """The line of each key."""
    found: dict[str, Any] = field(default_factory=dict, repr=False)
    """The values of the keys that could be read."""


def read(text: str, path: str) -> tuple[tuple[Sequence, ...], tuple[ConfigError, ...]]:
    """All sequences that could be read, and all errors at `PATH:LINE`, both in the order of their lines.

    No error shows a step. `path` names the file in errors, and is the sequences' group.
    """
    reading = _TportknockdReader(text)
    errors = tuple(
        ConfigError(problem, f"{path}:{line}") for line, problem in sorted(reading.problems, key=lambda found: found[0])
    )
    return tuple(_sequence(block, path) for block in reading.blocks if block.closed and block.sound), errors


def _sequence(block: _Block, path: str) -> Sequence:
    found = block.found
    command = CommandOpening(found["start_command"])
    if "stop_command" in found:
        command = CommandOpening(found["start_command"], found["stop_command"], found.get("command_delay", DELAY))
    return Sequence(
        name=block.name,
        steps=found["sequence"],
        access=Access.of(block.name, command=command),
        timeout=found["timeout"],
        dialect=Dialect.TPORTKNOCKD,
        group=path,
    )


class _TportknockdReader:
    """Reads a text: `blocks` in the order of their first lines, and `problems` with their lines."""

    def __init__(self, text: str) -> None:
        self.blocks: list[_Block] = []
        self.problems: list[tuple[int, str]] = []
        self._open: list[_Block] = []  # the innermost is the last; more than one is a reported error
        self._named: dict[str, int] = {}
        for line, statement in _statements(text):
            if len(self.problems) >= MOST_PROBLEMS:
                problem = f"{MOST_PROBLEMS} problems precede this line, expected a configuration file of tportknockd"
                self._blame(line, problem)
                return
            self._take(line, statement)
        self._end()

    def _take(self, line: int, statement: str) -> None:
        key, equals, rest = statement.partition("=")
        if statement.startswith("<"):
            tag = _without_comment(statement)
            name = tag[1:-1].strip()
            if not tag.endswith(">") or "<" in name or ">" in name:
                self._on_half_tag(line, is_end=name.startswith("/"))
            elif name.startswith("/"):
                self._close(line, name[1:].strip())
            else:
                self._begin(line, name)
        elif equals and "#" not in key:
            self._entry(line, key.rstrip(), rest)
        else:
            self._blame(line, "the line is neither a key nor a tag, expected KEY = VALUE, <NAME> or </NAME>")

    def _on_half_tag(self, line: int, is_end: bool) -> None:
        """Continue as if the tag were complete, so that the lines after it are judged as usual."""
        self._blame(line, "the tag is incomplete, expected <NAME> or </NAME>")
        if not is_end:
            block = _Block("", line, sound=False)
            self.blocks.append(block)
            self._open.append(block)
        elif self._open:
            block = self._open.pop()
            block.sound = False
            self._check(block)

    def _begin(self, line: int, name: str) -> None:
        block = _Block(name, line)
        self.blocks.append(block)
        try:
            readers.sequence_name(name)
        except ConfigError as wrong:
            block.name = ""
            self._blame(line, wrong.problem, block)
        else:
            if name in self._named:
                first = self._named[name]
                self._blame(line, f"block {name} is in line {first} already, expected each name once", block)
            self._named.setdefault(name, line)
        if self._open:
            outer = self._open[-1]
            self._blame(line, f"a block begins inside {_called(outer)}, expected its end first", outer)
            outer.interrupted = True
        self._open.append(block)

    def _close(self, line: int, name: str) -> None:
        if not self._open:
            self._blame(line, "a block ends and none is open, expected <NAME> before it")
            return
        block = self._open.pop()
        if block.name and block.name != name:
            self._blame(line, f"the name is not that of {_called(block)}, expected </{block.name}>", block)
            # The end may be that of an outer block, and the end of the inner one is missing.
            if name in (outer.name for outer in self._open):
                while (outer := self._open.pop()).name != name:
                    outer.sound = False
                    self._check(outer)
                outer.closed = True
                self._check(outer)
        block.closed = True
        self._check(block)

    def _end(self) -> None:
        for block in self._open:
            if not block.interrupted:
                self._blame(block.line, f"{_called(block)} has no end, expected </{block.name or 'NAME'}>", block)
            self._check(block)
        if not self.blocks and not self.problems:
            self._blame(1, "the file has no block, expected <NAME> … </NAME>")

    def _entry(self, line: int, key: str, rest: str) -> None:
        block = self._open[-1] if self._open else None
        if key not in _KEYS:
            word, near = quoted(key), nearest(key, _KEYS)
            what = word if word.startswith('"') else "a key"
            advice = f"the nearest known key is {near}" if near else f"expected one of {', '.join(_KEYS)}"
            self._blame(line, f"{what} is unknown, {advice}", block)
            return
        if block is None:
            self._blame(line, f"{key} is outside of any block, expected <NAME> before it")
        elif key in block.lines:
            self._blame(line, f"{key} is in line {block.lines[key]} already, expected once in a block", block)
            block = None
        if block is not None:
            block.lines[key] = line
        text = _without_comment(rest, is_command=key in _COMMANDS)
        try:
            value = _KEYS[key](text)
        except ConfigError as wrong:
            frames = list(islice(_wrong_frames(text), MOST_PROBLEMS)) if key == "sequence" else []
            for problem in frames or [wrong.problem]:
                self._blame(line, f"{key}: {problem}", block)
        else:
            if block is not None:
                block.found[key] = value

    def _check(self, block: _Block) -> None:
        """Check what depends on several lines of a block."""
        for key, expects in _REQUIRED.items():
            if key not in block.lines:
                self._blame(block.line, f"{_called(block)} has no {key}, expected {expects}", block)
        if "command_delay" in block.lines and "stop_command" not in block.lines:
            problem = "command_delay has no effect without stop_command, expected stop_command as well"
            self._blame(block.lines["command_delay"], problem, block)

    def _blame(self, line: int, problem: str, block: _Block | None = None) -> None:
        self.problems.append((line, problem))
        if block is not None:
            block.sound = False


def _wrong_frames(text: str) -> Iterator[str]:
    for position, word in enumerate(text.split(), start=1):
        try:
            step(word)
        except ConfigError as wrong:  # noqa: PERF203 (each one is reported)
            yield f"position {position}: {wrong.problem}"


def _called(block: _Block) -> str:
    return f"block {block.name} of line {block.line}" if block.name else f"the block of line {block.line}"


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments, with their numbers."""
    for line, statement in enumerate(text.split("\n"), start=1):
        statement = statement.strip()
        if statement and not statement.startswith("#"):
            yield line, statement


def _without_comment(text: str, *, is_command: bool = False) -> str:
    if not is_command:
        return text.partition("#")[0].strip()
    begins_word = True
    for piece in _PIECE.finditer(text):
        if piece[0] == "#" and begins_word:
            return text[: piece.start()].strip()
        begins_word = piece[0].isspace()
    return text.strip()
