"""The command line: options, and then one call. Errors become one line and an exit status here, and nowhere else.

Each command is a module of its own, and imports what it needs when it is called: the client must not wait for D-Bus.
"""

import os
import re
import sys
from typing import NoReturn

import typer

from port_knocking_doors.errors import ConfigError, DoorsError

from . import check, demo, run, sweep  # each tells `app` of its command
from .options import PROGRAM, app

__all__ = ["PROGRAM", "app", "check", "demo", "main", "run", "sweep"]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of SIGINT."""

# What the option library raises for wrong usage. It is not exported by that name, and since typer 0.16 not click's.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> NoReturn:
    """Run the command line, and end the process with the exit status that it deserves."""
    try:
        status = 0
        status = _status()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BrokenPipeError:  # whoever read our output had enough
        status = DoorsError.exit_status
        _silence()
    except OSError:  # a full disk: there is nobody to tell, and the work was done
        _silence()
    sys.exit(status)


def _status() -> int:
    try:
        status = app(prog_name=PROGRAM, standalone_mode=False)
    except DoorsError as error:
        _complain(str(error))
        return error.exit_status
    except _UsageError as error:
        # Somebody may have typed a sequence where a command belongs.
        what = re.sub(r"\d", "#", error.format_message().rstrip("."))  # type: ignore[attr-defined]
        _complain(f"{what}; see `{PROGRAM} --help`")
        return ConfigError.exit_status
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _silence() -> None:
    """Let what is still to be written vanish: the interpreter tries again at its end, and complains."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def _complain(text: str) -> None:
    print(f"{PROGRAM}: {' '.join(text.split())}", file=sys.stderr)
