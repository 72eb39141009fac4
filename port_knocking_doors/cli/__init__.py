"""The command line: options, and then one call. Errors become one line and an exit status here, and nowhere else.

Each command is a module of its own, and imports what it needs when it is called: the client must not wait for D-Bus.
It does not even wait for the option library of the others.
"""

import io
import os
import sys
from contextlib import suppress
from typing import NoReturn, TextIO

from port_knocking_doors.errors import DoorsError, in_words

PROGRAM = "port-knocking-doors"
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of SIGINT."""

_CLIENT = "knock"


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

    from port_knocking_doors.cli.application import app

    try:
        status = app(prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


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
