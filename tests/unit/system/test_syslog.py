"""The log of a daemon in the background: the messages to the system's log, which never block."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.system import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """The handlers as they were: logging is the same for all tests of a process."""
    root = logging.getLogger()
    before, level, raises = root.handlers[:], log.logger.level, logging.raiseExceptions
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = before
    log.logger.setLevel(level)
    logging.raiseExceptions = raises


@pytest.fixture
def system_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in place of /dev/log, as `log` in the working directory: the path of a socket must be short."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("log")
        listener.settimeout(5)
        yield listener


def test_event_is_one_message_with_its_priority(system_log: socket.socket) -> None:
    log.set_up(verbose=False)
    log.to_syslog("tportknockd", "log")
    log.logger.warning("one\n%s", "two")
    log.logger.debug("not verbose")
    log.logger.info("ready")
    head = f"tportknockd[{os.getpid()}]: "
    assert system_log.recv(9000).decode() == f"<28>{head}one two"
    assert system_log.recv(9000).decode() == f"<30>{head}ready"


def test_traceback_is_one_message(system_log: socket.socket) -> None:
    log.to_syslog("tportknockd", "log")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.logger.critical("this", exc_info=True)
    message = system_log.recv(9000).decode()
    assert message.startswith("<26>")
    assert "ZeroDivisionError" in message
    assert "\n" not in message


def test_hanging_system_log_does_not_block(system_log: socket.socket) -> None:
    log.to_syslog("tportknockd", "log")
    for _ in range(10000):
        log.logger.warning("x" * 9000)
    assert len(system_log.recv(9000)) <= 8192


def test_restarted_system_log_gets_messages_again(system_log: socket.socket) -> None:
    log.to_syslog("tportknockd", "log")
    Path("log").unlink()
    log.logger.warning("lost")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("log")
        listener.settimeout(5)
        log.logger.warning("back")
        assert listener.recv(9000).endswith(b": back")
