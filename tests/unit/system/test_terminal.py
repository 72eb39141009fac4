"""Lines on a terminal: colours, and nothing else that it obeys."""

import io

import pytest

from port_knocking_doors.system.terminal import RED, has_colour, painted, show


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STREAMS = {
    "terminal": (Terminal(), {}, True),
    "terminal with NO_COLOR": (Terminal(), {"NO_COLOR": "1"}, False),
    "terminal with an empty NO_COLOR": (Terminal(), {"NO_COLOR": ""}, True),
    "dumb terminal": (Terminal(), {"TERM": "dumb"}, False),
    "pipe": (io.StringIO(), {}, False),
}


@pytest.mark.parametrize(("stream", "variables", "coloured"), STREAMS.values(), ids=STREAMS)
def test_colour_is_for_terminals_without_no_color(
    stream: io.StringIO, variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert has_colour(stream) is coloured


def test_painted_text_is_reset_at_its_end() -> None:
    assert painted("text", RED) == "\x1b[31mtext\x1b[0m"


def test_shown_text_stays_one_line_of_printable_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show("a\x1b[2Jb\nc", "\u202ed")
    assert capsys.readouterr().out == "a\\x1b[2Jb c\n\\u202ed\n"
    stream = io.StringIO()
    show("e\r", stream=stream)
    assert (stream.getvalue(), capsys.readouterr().out) == ("e \n", "")
