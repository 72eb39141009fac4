"""When a stream gets colours."""

import io

import pytest

from port_knocking_doors.system.terminal import RED, has_colour, painted


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
