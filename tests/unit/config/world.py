"""A home and a system directory, and files in them, for tests of the loader."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.config.loader import Loaded, load
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import DEFAULT_SEQUENCE, Port

EXAMPLE = ",".join(map(str, DEFAULT_SEQUENCE))


def sequence(tens: int) -> tuple[int, ...]:
    """A sequence that identifies its file."""
    return tuple(20000 + 10 * tens + unit for unit in (1, 5, 2, 4, 3))


def text_of(ports: tuple[int, ...]) -> str:
    return ",".join(map(str, ports))


def write(path: Path, tens: int = 0, guarded: str = "[22]", more: str = "", mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"ports_to_controls = {guarded}\nopening_sequence = {list(sequence(tens))}\n{more}")
    path.chmod(mode)
    return path


def sniffed(steps: str, name: str = "ssh", opens: str = "[2222]") -> str:
    return f"[[sequence]]\nname = '{name}'\nsteps = {steps.split()}\nopen = {opens}\ntraps = 0\n"


class World:
    """A home and a system of their own, in which nothing is configured yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir()
        self.home_file = self.home / ".port_knocker.toml"
        self.system_file = root / "etc" / "port_knocker.toml"

    def load(
        self,
        conf: Path | None = None,
        magic_seq: str | None = None,
        ports: str | None = None,
        zone: str | None = None,
        interfaces: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        served: Collection[Port] = (),
    ) -> Loaded:
        return load(
            conf,
            magic_seq=magic_seq,
            ports=ports,
            zone=zone,
            interfaces=interfaces,
            environ=environ or {},
            home=self.home,
            system=self.system_file,
            served=lambda: served,
        )

    def refusal(self, **given: Any) -> str:
        with pytest.raises(ConfigError) as refused:
            self.load(**given)
        assert refused.value.exit_status == 2
        assert str(refused.value).isprintable()
        return str(refused.value)
