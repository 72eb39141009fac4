"""A runtime directory for the control socket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from port_knocking_doors.system import instance, log


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime directory, by a name that is short enough for a socket (108 bytes, unix(7))."""
    made = tmp_path_factory.mktemp("run")
    monkeypatch.setattr(instance, "SYSTEM_DIRECTORY", made / "pkd")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    before = log.logger.level
    yield made / "pkd"
    assert log.logger.level == before
