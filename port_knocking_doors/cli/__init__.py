"""The command line: options, and then one call. Errors become one line and an exit status here, and nowhere else.

Each command is a module of its own, and imports what it needs when it is called: the client must not wait for D-Bus.
It does not even wait for the option library of the others.
"""

import io
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from port_knocking_doors.errors import ConfigError, DoorsError, in_words

if TYPE_CHECKING:
    from port_knocking_doors.cli.options import app

__all__ = ["PROGRAM", "app", "main"]

PROGRAM = "port-knocking-doors"
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of SIGINT."""

COMMANDS = {
    "check": "check",
    "client-config": "client_config",
    "open": "control",
    "close": "control",
    "forget": "control",
    "reload": "control",
    "demo": "demo",
    "doctor": "doctor",
    "knock": "knock",
    "knockd": "knockd",
    "status": "status",
    "sweep": "sweep",
    "tportknockd": "tportknockd",
}
"""The module of each command."""

_CLIENT = "knock"
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_OWN = frozenset({"-4", "-6"})
"""Options of ours that look like numbers."""


def __getattr__(name: str) -> Any:
    """`app`, with every command: for those who ask for it."""
    if name != "app":
        raise AttributeError(name)
    return _app(COMMANDS)


def _app(names: Iterable[str]) -> Any:
    """The application with no command but these; a daemon does without any, and so with a tenth less memory."""
    for module in ("run", *(COMMANDS[name] for name in names)):
        import_module(f".{module}", __name__)  # it tells `app` of its command
    from port_knocking_doors.cli.options import app

    return app


def main() -> NoReturn:
    """Run the command line, and end the process with the exit status that it deserves."""
    for stream in _open_streams():
        if isinstance(stream, io.TextIOWrapper):  # a locale that lacks a character is no reason for a traceback
            stream.reconfigure(errors="backslashreplace")
    status = _status()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output had enough
        status = status or DoorsError.exit_status
        _silence()
    except OSError as error:  # what was asked for did not get there; where something went wrong before, that was told
        if not status:
            status = DoorsError.exit_status
            _complain(f"standard output cannot be written ({error.strerror})")
        _silence()
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:  # a log that is lost: nobody can be told, and the work was done
        _silence()
    sys.exit(status)


def _status() -> int:
    try:
        if sys.argv[1:2] == [_CLIENT]:
            from port_knocking_doors.cli import knock_parser

            knock_parser.run(sys.argv[2:])
            return 0
        return _other_status()
    except SystemExit as end:  # the client's help; and who is told to end
        return end.code if isinstance(end.code, int) else 0
    except DoorsError as error:
        _complain(str(error))
        return error.exit_status
    except BrokenPipeError:  # whoever read our output had enough
        _silence()
        return DoorsError.exit_status
    except OSError as error:  # the system's fault: no descriptor, no process, a full disk
        _complain(f"the system refused: {in_words(error)}")
        return DoorsError.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED


def _other_status() -> int:
    import typer

    # What the option library raises for wrong usage. It is not exported by that name, and since typer 0.16 not click's.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        try:
            status = _app(_named(sys.argv[1:]))(prog_name=PROGRAM, standalone_mode=False)
        except usage_error:  # nothing was done yet; what is wrong, and what was meant, those say who know all commands
            status = _app(COMMANDS)(prog_name=PROGRAM, standalone_mode=False)
    except usage_error as error:
        what = masked(error.format_message().rstrip("."), sys.argv[1:])  # type: ignore[attr-defined]
        raise ConfigError(f"{what}; see `{_whose(error)} --help`") from None
    except typer.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _named(words: Iterable[str]) -> Iterable[str]:
    """The commands that may be meant; all of them, where the program's own help is."""
    for word in words:
        if word in ("-h", "--help"):
            return COMMANDS
        if word in COMMANDS:
            return [word]
    return []


def _whose(usage_error: Any) -> str:
    """The command that was used wrongly. The error knows, but for a value that is missing at the end."""
    if context := getattr(usage_error, "ctx", None):
        return str(context.command_path)
    return " ".join([PROGRAM, *[word for word in sys.argv[1:] if word in COMMANDS][:1]])


def masked(message: str, typed: Iterable[str]) -> str:
    """The message without the numbers that were typed, nor the flags of steps: somebody may have typed a sequence where
    something else belongs. Numbers that the program itself names, such as bounds, stay."""
    known: set[str] = set()
    for word in typed:
        # A value stands by itself, right behind its option's letter, or behind "=".
        for text in (word, word[2:], word.partition("=")[2]) if word not in _OWN else ():
            known.update(_NUMBER.findall(text))
            with suppress(ValueError):  # how the option library tells it again
                known.update(_NUMBER.findall(str(float(text))))
    message = re.sub(r"(?<=\d:)\w+", lambda flags: "#" * len(flags[0]), message)
    return _NUMBER.sub(lambda number: re.sub(r"\d", "#", number[0]) if number[0] in known else number[0], message)


def _silence() -> None:
    """Let what is still to be written vanish: the interpreter tries again at its end, and complains."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _open_streams():
        os.dup2(nowhere, stream.fileno())


def _open_streams() -> list[TextIO]:
    """Standard output and error, but for what the process was started without."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _complain(text: str) -> None:
    if sys.stderr is None:  # print() would take standard output instead
        return
    with suppress(OSError):  # nobody can be told
        print(f"{PROGRAM}: {' '.join(text.split())}", file=sys.stderr)
