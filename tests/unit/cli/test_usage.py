"""Wrong usage in words: what is unknown, numbers, and that no value is quoted."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from port_knocking_doors.cli import knockd, tportknockd, usage
from port_knocking_doors.cli.application import app
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.system import daemonize, log

KNOWN = ("--conf", "--zone", "-c")
UNKNOWN = {
    "--cnof": "option --cnof is unknown, the nearest is --conf",
    "--cnof=7117": "option --cnof is unknown, the nearest is --conf",
    "--7117": "this option is unknown",
    "-7": "this option is unknown",
    "--zone7117": "this option is unknown, the nearest is --zone",
    "7117,7228": "this option is unknown",
    "tcp:7117:frap": "this option is unknown",
    "--\x1b": "this option is unknown",
    "-": "this option is unknown, the nearest is -c",
}


@pytest.mark.parametrize(("typed", "said"), UNKNOWN.items())
def test_unknown_option_with_digits_is_not_quoted(typed: str, said: str) -> None:
    assert usage.unknown("option", typed, KNOWN) == said


ERRORS = {
    "an unknown option": (
        SimpleNamespace(option_name="--cnof", possibilities=["--conf"]),
        "option --cnof is unknown, the nearest is --conf",
    ),
    "no value": (
        SimpleNamespace(option_name="-c", format_message=lambda: "Option '-c' requires an argument."),
        "Option '-c' requires an argument",
    ),
    "an argument too few": (
        SimpleNamespace(param=None, param_type=None, format_message=lambda: "Missing argument 'ADDRESS'."),
        "Missing argument 'ADDRESS'",
    ),
    "a wrong value": (SimpleNamespace(param=SimpleNamespace(opts=["--conf", "-c"])), "--conf: the value is wrong"),
    "an argument too many": (SimpleNamespace(message="7117"), "there are more arguments than expected"),
}


@pytest.mark.parametrize(("error", "said"), ERRORS.values(), ids=ERRORS)
def test_usage_error_of_option_library_is_one_phrase(error: SimpleNamespace, said: str) -> None:
    assert usage.problem(error, KNOWN) == said


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("60000", 60000), ("-3", -3), ("007", 7)])
def test_whole_number_in_range_is_read(text: str, number: int) -> None:
    assert usage.whole_number("-d", text, -3, 60000, "milliseconds") == number


@pytest.mark.parametrize("text", ["", "-", "--1", "0.2", "1e3", "7_117", "-4", "60001", "9" * 5000, "²", " 1", "x"])
def test_other_text_than_whole_number_in_range_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        usage.whole_number("-d", text, -3, 60000, "whole milliseconds")
    assert str(caught.value) == "-d: expected whole milliseconds"


@pytest.mark.parametrize(("text", "number"), [("0.1", 0.1), ("3600", 3600.0), ("1e2", 100.0)])
def test_seconds_in_range_are_read(text: str, number: float) -> None:
    assert usage.seconds("-l", text, 0.1, 3600) == number


@pytest.mark.parametrize("text", ["", "nan", "inf", "-inf", "0", "3600.1", "x", "9" * 5000, "1 s"])
def test_other_text_than_seconds_in_range_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        usage.seconds("-l", text, 0.1, 3600)
    assert str(caught.value) == "-l: expected seconds from 0.1 to 3600"


@pytest.mark.parametrize("arguments", [[], ["--all", "10.0.0.2"]], ids=["neither", "both"])
def test_close_needs_an_address_or_all(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^close: expected either an ADDRESS or --all$"):
        app(["close", *arguments], standalone_mode=False)


def test_relative_paths_start_at_the_root_where_the_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert knockd._folder() == gone
    gone.rmdir()
    assert knockd._folder() == Path("/")


def test_tportknockd_logs_the_warnings_of_its_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise DoorsError("no library")

    monkeypatch.setattr(tportknockd, "load", lambda *_: SimpleNamespace(warnings=["F:2: has no effect"]))
    monkeypatch.setattr(log, "set_up", lambda _: None)
    monkeypatch.setattr(daemonize, "require_library", refuse)
    with pytest.raises(DoorsError, match="no library"):
        tportknockd._run_daemon(Path("F"), None, debug=False, background=True)
    assert caplog.messages == ["F:2: has no effect"]
