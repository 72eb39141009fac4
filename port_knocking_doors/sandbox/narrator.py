"""Shows the demo's story line by line, as it happens; in colour on a terminal."""

import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from port_knocking_doors.errors import DoorsError, SandboxError
from port_knocking_doors.sandbox.host import Host
from port_knocking_doors.sandbox.process import Output
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.terminal import BOLD, CYAN, DIM, GREEN, RED, has_colour, painted

PATIENCE = 20.0
"""Seconds, on a slow machine, for something that takes a moment on others."""


class StoryError(DoorsError):
    """The observation differs from the story."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the demo differs from its story: {what}")


@dataclass
class StoryStep:
    """One claim of the story; `seconds` is set if something else than the step itself was timed."""

    claim: str
    seconds: float | None = None


class Narrator:
    """Prints the story line by line."""

    _INDENT = "   "

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = has_colour(stream)
        self._width = min(max(shutil.get_terminal_size().columns, 40), 100)
        self._chapters = 0
        self._began = now()
        self._times: list[tuple[str, float]] = []

    def chapter(self, title: str) -> None:
        self._chapters += 1
        self._print("")
        self._print(f"{self._chapters}. {title}", BOLD)

    def say(self, text: str) -> None:
        self._wrapped("", text)

    def command(self, host: Host, line: str) -> None:
        """Show a command that is typed on a host."""
        self._wrapped(f"{host.name}# ", line, CYAN)

    def output(self, text: str) -> None:
        """Show the output of a program."""
        for line in text.splitlines():
            self._wrapped("| ", line, DIM)

    @contextmanager
    def step(self, claim: str, *, summary: str = "", timed: bool = True) -> Iterator[StoryStep]:
        """Run the body, then print the claim with its seconds; `summary` is its name in the closing table."""
        step = StoryStep(claim)
        began = now()
        try:
            yield step
        except DoorsError:
            self._wrapped("NO  ", f"not seen: {step.claim}", RED)
            raise
        seconds = now() - began if step.seconds is None else step.seconds
        self._wrapped("ok  ", step.claim, GREEN, f"{seconds:9.3f} s" if timed else "")
        if summary:
            self._times.append((summary, seconds))

    def summary(self) -> None:
        self._print("")
        self._print("How long it took", BOLD)
        for name, seconds in [*self._times, ("the whole story", now() - self._began)]:
            self._print(f"{self._INDENT}{name:30}{seconds:9.3f} s")

    def _wrapped(self, mark: str, text: str, colour: int = 0, end: str = "") -> None:
        """Print the text, wrapped to the width; `end` is at the right of the last line."""
        *lines, last = textwrap.wrap(
            text,
            self._width - len(end),
            initial_indent=self._INDENT + mark,
            subsequent_indent=self._INDENT + " " * len(mark),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [self._INDENT + mark]
        lines.append(f"{last:{self._width - len(end)}}{end}" if end else last)
        lines[0] = lines[0].replace(mark, self._painted(mark, colour), 1)
        for line in lines:
            self._print(line)

    def _print(self, line: str, colour: int = 0) -> None:
        print(self._painted(line, colour), file=self._stream, flush=True)

    def _painted(self, text: str, colour: int) -> str:
        return painted(text, colour) if self._colour and colour else text


class DaemonLog:
    """The daemon's log, shown line by line while the story waits for one of its lines."""

    def __init__(self, story: Narrator, output: Output) -> None:
        self._story = story
        self._output = output
        self._shown = 0

    def until(self, text: str) -> None:
        """Show the log up to the first line with the text; wait for that line."""
        deadline = now() + PATIENCE
        line = ""
        while text not in line:
            try:
                line = self._output.wait_for("", deadline - now(), start=self._shown)
            except SandboxError:
                raise StoryError(f"the daemon did not log {text.strip()!r}: {self._output.tail()}") from None
            self._show(line)

    def rest(self) -> None:
        """Show the rest of the log."""
        for line in self._output.lines[self._shown :]:
            self._show(line)

    def _show(self, line: str) -> None:
        self._story.output(line)
        self._shown += 1
