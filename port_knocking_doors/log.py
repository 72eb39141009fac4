"""The log: one event a line on standard error, as a terminal or the journal wants it."""

import logging
import os
import sys
from collections.abc import Mapping

logger = logging.getLogger("port_knocking_doors")

# Priorities of syslog(3), as sd-daemon(3) wants them in front of a line.
_SYSLOG_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JournalFormatter(logging.Formatter):
    """`<N>text`: the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_SYSLOG_PRIORITY.get(record.levelno, 6)}>{_one_line(super().format(record))}"


class _TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _one_line(super().format(record))


def set_up(verbose: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Send the log to standard error; `verbose` adds the single knocks (never their ports)."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environ:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(_TerminalFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.raiseExceptions = False  # a log that cannot be written is no reason for tracebacks
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


def _one_line(text: str) -> str:
    return text.replace("\n", " ")
