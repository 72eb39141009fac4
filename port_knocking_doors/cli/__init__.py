"""The command line: reads options and calls the other folders; no work of its own, and no other folder reads options.

Errors become one line and an exit status here only. Each command is a module, loaded when it is used; `knock` is read
without the option library of the others, because ssh waits for it.
"""

import io
import os
import sys
from contextlib import suppress
from typing import NoReturn, TextIO

from port_knocking_doors.errors import DoorsError, in_words
from port_knocking_doors.system.terminal import show

PROGRAM = "port-knocking-doors"
INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells: 128 and the number of SIGINT."""

_CLIENT = "knock"


def main() -> NoReturn:
    """Run the command line, and end the process with its exit status."""
    for stream in _open_streams():
        if isinstance(stream, io.TextIOWrapper):  # for locales that lack a character
            stream.reconfigure(errors="backslashreplace")
    status = _status()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of standard output ended
        status = status or DoorsError.exit_status
        _silence()
    except OSError as error:  # an earlier error is reported already
        if not status:
            status = DoorsError.exit_status
            _report_error(f"standard output cannot be written ({error.strerror})")
        _silence()
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:  # the log is lost, and the work is done
        _silence()
    sys.exit(status)


def _status() -> int:
    try:
        if sys.argv[1:2] == [_CLIENT]:
            from port_knocking_doors.cli import knock_parser

            knock_parser.run(sys.argv[2:])
            return 0
        return _other_status()
    except SystemExit as end:  # after the client's help, or from a signal handler
        return end.code if isinstance(end.code, int) else 0
    except DoorsError as error:
        _report_error(str(error))
        return error.exit_status
    except BrokenPipeError:  # the reader of standard output ended
        _silence()
        return DoorsError.exit_status
    except OSError as error:  # no descriptor, no process, a full disk
        _report_error(f"the system refused: {in_words(error)}")
        return DoorsError.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED


def _other_status() -> int:
    import typer

    from port_knocking_doors.cli.application import app
    from port_knocking_doors.system import background_writer

    try:
        status = app(prog_name=PROGRAM, standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    finally:
        if not background_writer.flush_all():  # an error behind these lines would wait for their reader for ever
            _silence()
    return status if isinstance(status, int) else 0


def _silence() -> None:
    """Discard what is still buffered: the interpreter would write it again at its end, and fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _open_streams():
        os.dup2(nowhere, stream.fileno())


def _open_streams() -> list[TextIO]:
    """Standard output and error, except those that were closed at the start."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def _report_error(text: str) -> None:
    if sys.stderr is None:  # print() would take standard output instead
        return
    with suppress(OSError):
        show(f"{PROGRAM}: {' '.join(text.split())}", stream=sys.stderr)
