"""Stop commands on record: one file for each, from before its door is opened until the stop command has worked.

A crash of the daemon loses none: the closer (`daemon.sweep`) or the next daemon runs what is on record. A stop command
that failed stays on record, with the number of tries, until it worked or `sweep --forget` drops it.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.errors import AlreadyRunningError, in_words
from port_knocking_doors.model import Door
from port_knocking_doors.system import instance
from port_knocking_doors.system.instance import CLOSER
from port_knocking_doors.system.log import logger
from port_knocking_doors.system.shell_command import ProcessIdentity

_RECORD, _DRAFT = ".json", ".draft"


class StopRecord(NamedTuple):
    """What a record says."""

    path: Path
    address: str
    sequence: str
    stop: str
    """The stop command."""
    tries: int = 0
    """How often it failed."""
    status: int | None = None
    """The exit status of its last try."""
    start_process: ProcessIdentity | None = None
    """The start command, which may still run."""
    stop_process: ProcessIdentity | None = None
    """A try that may still run."""

    def exists(self) -> bool:
        """Whether it is still on record."""
        return self.path.exists()

    def remove(self) -> bool:
        """The stop command worked, or the door was never opened. False, and a line in the log, where it is kept."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            text = "%s cannot be removed (%s): its stop command, which is over, runs again at the next start"
            logger.error(text, self.path, in_words(error))
            return False
        return True

    def save(self) -> "StopRecord":
        """Write it, atomically. Raises `OSError`."""
        draft = self.path.with_suffix(_DRAFT)
        data = {name: value for name, value in self._asdict().items() if name != "path" and value is not None}
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(data, file)
            draft.rename(self.path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
        return self


def remember(directory: Path, door: Door, stop: str) -> StopRecord:
    """Put the door's stop command on record. Raises `OSError`."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / (secrets.token_hex(8) + _RECORD)
    return StopRecord(path, str(door.address), door.access, stop).save()


def load(path: Path) -> StopRecord:
    """Read a record. Raises `OSError` where it cannot be read, and `ValueError` where it is none."""
    data = json.loads(path.read_bytes())
    try:
        return StopRecord(
            path,
            str(data["address"]),
            str(data["sequence"]),
            str(data["stop"]),
            int(data.get("tries", 0)),
            data.get("status"),
            _identity(data.get("start_process")),
            _identity(data.get("stop_process")),
        )
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"{path} is no record of a stop command") from error


def on_record(directory: Path) -> list[StopRecord]:
    """The stop commands of an ended daemon; the caller holds its mark. Unreadable records are logged, and kept."""
    if not directory.is_dir():
        return []
    for path in directory.glob(f"*{_DRAFT}"):
        with suppress(OSError):
            path.unlink(missing_ok=True)  # its door was not opened, or the record is there beside it
    return list(_records(directory))


def adopt(directory: Path, priority: int) -> None:
    """Move into `directory` what dead daemons of any mark left on record, wherever this user may.

    What a live daemon has on record stays. The caller holds the mark `priority`. Raises `DoorsError`.
    """
    for elsewhere in instance.usable_directories():
        for mark in instance.unreleased_marks(elsewhere):
            origin = instance.pending_directory(mark, elsewhere)
            if origin == directory or not any(origin.glob(f"*{_RECORD}")):
                continue
            with suppress(AlreadyRunningError), _lock_of_dead(mark, priority, elsewhere):
                directory.mkdir(mode=0o700, exist_ok=True)
                for path in origin.glob(f"*{_RECORD}"):
                    with suppress(OSError):
                        shutil.move(path, directory / path.name)


def _lock_of_dead(mark: int, own: int, directory: Path) -> AbstractContextManager[None]:
    if mark == own and instance.shares_lock(directory):
        return nullcontext()
    return instance.instance_lock(mark, CLOSER, leaves_rules=instance.has_rules(mark), directory=directory)


def failed_on_record(directory: Path) -> list[StopRecord]:
    """The stop commands that failed; also of a daemon that runs."""
    return [record for record in _records(directory) if record.tries]


def _records(directory: Path) -> Iterator[StopRecord]:
    for path in sorted(directory.glob(f"*{_RECORD}")):
        if record := _loaded(path):
            yield record


def _loaded(path: Path) -> StopRecord | None:
    try:
        return load(path)
    except FileNotFoundError:
        pass  # it worked meanwhile
    except (OSError, ValueError):
        logger.error("%s is no record of a stop command that can be run: left alone", path)
    return None


def _identity(data: object) -> ProcessIdentity | None:
    if data is None:
        return None
    assert isinstance(data, list)
    return ProcessIdentity(*map(int, data))
