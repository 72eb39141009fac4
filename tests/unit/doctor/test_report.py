"""The examination's output: lines, colours, and the sum at the end."""

import io

import pytest

from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.doctor.report import print_report, waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SUMS: dict[str, tuple[list[Finding], str]] = {
    "nothing found": ([ok("a")], "no problems, no warnings"),
    "one of each": ([problem("a"), warning("b"), ok("c")], "1 problem, 1 warning"),
    "several": ([problem("a"), warning("b"), problem("c"), warning("d")], "2 problems, 2 warnings"),
    "warnings only": ([warning("a")], "no problems, 1 warning"),
}


@pytest.mark.parametrize(("findings", "total"), SUMS.values(), ids=SUMS)
def test_report_ends_with_sum_of_problems_and_warnings(findings: list[Finding], total: str) -> None:
    stream = io.StringIO()
    assert print_report(findings, stream) == sum(finding.grade.value == "PROBLEM" for finding in findings)
    assert stream.getvalue().splitlines()[-1] == total


def test_pipe_gets_plain_lines() -> None:
    stream = io.StringIO()
    print_report([ok("a"), warning("b"), problem("c")], stream)
    assert stream.getvalue() == "ok       a\nwarning  b\nPROBLEM  c\n1 problem, 1 warning\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_terminal_gets_red_problems_and_yellow_warnings(
    no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    print_report([ok("a"), warning("b"), problem("c")], stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ok       a"
    assert lines[1] == ("\x1b[33mwarning\x1b[0m  b" if coloured else "warning  b")
    assert lines[2] == ("\x1b[31mPROBLEM\x1b[0m  c" if coloured else "PROBLEM  c")


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, "looking …\r\x1b[K"), (io.StringIO, "")])
def test_what_takes_its_time_is_shown_on_a_terminal(
    stream: type[io.StringIO], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = stream()
    monkeypatch.setattr("sys.stderr", errors)
    with waiting("looking"):
        assert errors.getvalue() == shown.partition("\r")[0]
    assert errors.getvalue() == shown
