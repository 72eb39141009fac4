"""The corpus, with every input that ever failed, is read without fault; and the fuzzer itself works."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from port_knocking_doors.config import native
from port_knocking_doors.errors import ConfigError
from tests.fuzz.fuzzing import fuzz
from tests.fuzz.targets import CORPUS, SECRETS, TARGETS, Target, named

THERE = [target for target in TARGETS if target.is_there]
INPUTS = {f"{target.name}-{path.name}": (target, path) for target in THERE for path in target.corpus}


@pytest.mark.parametrize(("target", "path"), INPUTS.values(), ids=INPUTS)
def test_corpus_input_is_read_without_fault(target: Target, path: Path) -> None:
    target.run(path.read_bytes())


def test_targets_and_corpora_match() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {target.name for target in TARGETS}
    assert all(len(target.corpus) >= 5 for target in TARGETS)


def test_corpus_has_valid_configurations() -> None:
    texts = [path.read_text() for path in named("toml").corpus]
    assert sum(native.parse(text, "F").opening_sequence == SECRETS for text in texts if is_right(text)) >= 3


def is_right(text: str) -> bool:
    try:
        native.parse(text, "F")
    except ConfigError:
        return False
    return True


def fails(*_: object) -> None:
    raise IndexError


def shows(*_: object) -> None:
    raise ConfigError(f"position 1: {SECRETS[0]} is not a port", "F:1")


def shows_two_lines(*_: object) -> None:
    raise ConfigError("one\ntwo", "F:1")


def far_away(memory: bytes, block: int, size: int) -> list[bytes]:
    return [memory[block + size :]]


def reads_around(data: bytes, start: int, length: int) -> Any:
    return bytes(4), bytes(4), 17 << 16, (b"\0" + data + b"\0")[start]


BROKEN = {
    "packet: an exception": ("packet", "parse", fails),
    "packet: reads around it": ("packet", "parse", reads_around),
    "ring: an exception": ("ring", "packets", fails),
    "ring: leads out of the block": ("ring", "packets", far_away),
    "toml: an exception": ("toml", "parse", fails),
    "toml: shows a step": ("toml", "parse", shows),
    "toml: two lines": ("toml", "parse", shows_two_lines),
}


def run_all(target: Target) -> None:
    for path in target.corpus:
        target.run(path.read_bytes())


@pytest.mark.parametrize(("name", "reader", "broken"), BROKEN.values(), ids=BROKEN)
def test_check_fails_where_its_reader_is_broken(
    monkeypatch: pytest.MonkeyPatch, name: str, reader: str, broken: object
) -> None:
    target = named(name)
    monkeypatch.setattr(import_module(target.module), reader, broken)
    with pytest.raises((AssertionError, IndexError)):
        run_all(target)


def test_each_error_of_foreign_reader_is_checked_for_secrets() -> None:
    errors = (ConfigError("wrong", "F:1"), ConfigError(f"{SECRETS[2]} is no port", "F:2"))
    module = ModuleType("reader")
    module.read = lambda *_: ((), errors)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="shows a step"):
        named("knockd").check(module, b"")


if find_spec("atheris"):  # an extra that not every Python has; a skipped test would look like one that is missing

    @pytest.mark.parametrize("target", THERE, ids=lambda target: target.name)
    def test_short_run_of_fuzzer_finds_nothing(target: Target, tmp_path: Path) -> None:
        result = fuzz(target, 60, tmp_path, inputs=2000)
        assert not result.failed, result.output
        assert result.runs > len(target.corpus), result.output
        assert result.coverage > 10, result.output
