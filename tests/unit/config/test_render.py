"""The written file, the help and the summary agree with the reader."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given

from port_knocking_doors.config import native, render, schema
from port_knocking_doors.config.describe import in_words
from port_knocking_doors.model import (
    Access,
    CommandOpening,
    Dialect,
    Import,
    Sequence,
    Settings,
)
from tests.unit.config.examples import REQUIRED, SECRET, SETTINGS, STEPS, keys_of


@given(SETTINGS)
@example(Settings())
def test_written_file_reads_as_the_same_settings(settings: Settings) -> None:
    assert native.parse(render.render(settings), "F") == settings


def test_commented_lines_of_written_file_are_the_defaults() -> None:
    text = render.render(Settings(opening_sequence=SECRET))
    uncommented = "\n".join(line[line.startswith("#") and line[1:2] != " " :] for line in text.splitlines())
    assert uncommented != text
    assert native.parse(uncommented, "F") == native.parse(text, "F")


@given(SETTINGS)
def test_summary_has_every_setting(settings: Settings) -> None:
    settings = replace(settings, imports=())  # shown as the sequences that they bring
    said = render.summary(settings)
    words = "".join(f"\n{in_words(sequence)}" for sequence in settings.sequences)
    assert said.endswith(words)
    assert native.parse(said.removesuffix(words), "F") == replace(settings, sequences=())


def test_imported_sequences_are_not_written() -> None:
    opened = Access.of("knockd's", command=CommandOpening("true"))
    foreign = Sequence("knockd's", STEPS, opened, dialect=Dialect.KNOCKD)
    settings = Settings(opening_sequence=SECRET, imports=(Import(Dialect.KNOCKD, "x"),))
    assert native.parse(render.render(replace(settings, sequences=(foreign,))), "F") == settings


def entries(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if re.match(r"\w+ = |\[\[", line))


def test_help_shows_every_key_with_default_and_range() -> None:
    text = render.help_text()
    settings = native.parse("\n".join(entries(text)), "F")
    assert settings == Settings(sequences=settings.sequences, imports=(Import(Dialect.KNOCKD, "/etc/knockd.conf"),))
    assert [sequence.steps for sequence in settings.sequences] == [schema.EXAMPLE_STEPS]
    joined = " ".join(text.split())
    for key in keys_of(schema.KEYS):
        assert f"\n{key.name} = " in text or f"\n[[{key.name}]]" in text
        need = "Required" if key.required else f"Optional, with {key.needs}" if key.needs else "Optional"
        assert f"{need}: {key.read.expects}." in joined
        assert key.about in joined


def test_sequence_of_help_has_every_default() -> None:
    (sequence,) = native.parse("\n".join(entries(render.help_text())), "F").sequences
    lone = f"{REQUIRED}[[sequence]]\nname = 'ssh'\nsteps = ['udp:1234', 'tcp:543', 'tcp:123:frap']\nopen = [22]"
    (usual,) = native.parse(lone, "F").sequences
    assert sequence.close_steps == schema.EXAMPLE_CLOSE_STEPS
    sequence = replace(sequence, close_steps=())
    assert replace(sequence, access=Access.of("ssh", sequence.access.ports, sequence.access.duration)) == usual
    assert sequence.access.command
    assert sequence.access.command.delay == 30


@pytest.mark.parametrize(
    "word",
    [
        "--conf",
        "~/.port_knocker.toml",
        "/etc/port_knocker.toml",
        "--magic-seq",
        "--ports",
        "--interface",
        "KNOCKER_SEQ",
        "KNOCKER_PORTS",
    ],
)
def test_help_names_files_options_and_variables(word: str) -> None:
    assert word in render.help_text()


def test_help_and_file_fit_a_terminal() -> None:
    lines = render.help_text().splitlines() + render.render(replace(Settings(), opening_sequence=SECRET)).splitlines()
    assert max(map(len, lines)) <= 79
