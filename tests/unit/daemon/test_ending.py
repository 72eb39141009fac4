"""How the program ends, as its caller sees it: the exit status, and one line where something went wrong."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
FILE = """\
rule_priority = 7001
ports_to_controls = [80]
opening_sequence = [20001, 20005, 20002, 20004, 20003]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory, and whatever else a daemon that ends at its start can touch."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for variable in ("PYTHONIOENCODING", "KNOCKER_SEQ", "KNOCKER_PORTS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "conf.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def shell(script: str, *words: object, **environ: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a shell's line, where "$@" is the program with these words."""
    argv = ["sh", "-c", script, "sh", *PROGRAM, *map(str, words)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=60, env={**os.environ, **environ})


def one_line(done: "subprocess.CompletedProcess[bytes]") -> str:
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("port-knocking-doors: ")
    return line


# What the system refuses


def test_lock_that_cannot_be_taken_is_a_failure(conf: Path, folder: Path) -> None:
    (folder / "7001.lock").mkdir()
    done = shell('exec "$@"', "-c", conf)
    assert (done.returncode, done.stdout) == (1, b"")
    assert one_line(done).endswith("/7001.lock: cannot lock the mark (Is a directory)")


@pytest.mark.parametrize("number", [6, 7])
def test_lack_of_descriptors_is_a_failure(conf: Path, number: int) -> None:
    done = shell(f'ulimit -n {number}; exec "$@"', "-c", conf)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "Too many open files" in one_line(done)


FAILS = """
import sys
from port_knocking_doors import cli
from port_knocking_doors.daemon import daemon
async def run(self):
    raise {error}
daemon.Daemon.run = run
cli.main()
"""
ERRORS = {
    "with a file": ("OSError(28, 'No space left on device', '/a/file')", "/a/file: No space left on device"),
    "without a file": ("OSError(11, 'Resource temporarily unavailable')", "Resource temporarily unavailable"),
    "with a text alone": ("OSError('the text')", "the text"),
    "with nothing": ("TimeoutError()", "TimeoutError"),
}


@pytest.mark.parametrize("options", [[], ["--log-json"]], ids=["plain", "JSON"])
@pytest.mark.parametrize(("error", "said"), ERRORS.values(), ids=ERRORS)
def test_other_system_error_is_a_failure(conf: Path, error: str, said: str, options: list[str]) -> None:
    argv = [sys.executable, "-c", FAILS.format(error=error), "-c", str(conf), *options]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")
    line = done.stderr.decode() if options else one_line(done)
    text = json.loads(line)["message"] if options else line.partition(": ")[2].rstrip("\n")
    assert text == f"the system refused: {said}"


# What cannot be written


@pytest.mark.parametrize(
    ("words", "redirection", "status"),
    [
        pytest.param(["knock", "1", "2"], "2>/dev/full", 2, id="a refused knock"),
        pytest.param(["--bogus"], "2>/dev/full", 2, id="a refused option"),
        pytest.param(["status", "--priority", "7001"], "2>/dev/full", 1, id="no daemon"),
        pytest.param(["knock", "1", "2"], "2>&-", 2, id="closed"),
    ],
)
def test_unwritable_error_does_not_change_status(words: list[str], redirection: str, status: int) -> None:
    done = shell(f'exec "$@" {redirection}', *words)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


@pytest.mark.parametrize("words", [["check", "-c"], ["--version"], ["--help"], ["knock", "--help"]], ids=" ".join)
def test_lost_output_is_a_failure(conf: Path, words: list[str]) -> None:
    done = shell('exec "$@" >/dev/full', *words, *([conf] if words[-1] == "-c" else []))
    assert done.returncode == 1
    assert os.strerror(errno.ENOSPC) in one_line(done)


# No home

HOMELESS = """
import os, pwd
def nobody(_):
    raise KeyError
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
from port_knocking_doors import cli
cli.main()
"""


def homeless(*words: object) -> "subprocess.CompletedProcess[bytes]":
    """Run the program as a user whom the system does not know, as in many containers."""
    argv = [sys.executable, "-c", HOMELESS, *map(str, words)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=60)


def test_user_without_home_can_name_a_file(conf: Path, folder: Path) -> None:
    checked = homeless("check", "-c", conf)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert checked.stdout.startswith(f"Configuration: {conf}\n".encode())
    knocked = homeless("knock", "-c", conf, "-d", "0", "127.0.0.1")
    assert (knocked.returncode, knocked.stdout, knocked.stderr) == (0, b"", b"")
    (folder / "7001.lock").mkdir()  # whoever comes as far as that has read the file
    daemon = homeless("-c", conf)
    assert daemon.returncode == 1
    assert "cannot lock the mark" in one_line(daemon)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--set-configuration-file-in-home"], "~/.port_knocker.toml: this user has no", id="write"),
        pytest.param(
            ["check", "--conf=~/file"], "~/file: this user has no home directory, expected", id="a file there"
        ),
    ],
)
def test_missing_home_is_reported_where_one_is_needed(words: list[str], said: str) -> None:
    done = homeless(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in one_line(done)


# Encodings


def test_help_is_shown_in_locale_without_its_characters() -> None:
    done = shell('exec "$@"', "tportknockd", "--help", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"<NAME> \u2026 </NAME>" in done.stdout


def test_file_name_in_no_encoding_is_shown(conf: Path) -> None:
    odd = bytes(conf.parent) + b"/\xff.toml"
    Path(os.fsdecode(odd)).write_text(FILE)
    done = shell('exec "$@"', "check", "-c", os.fsdecode(odd), PYTHONIOENCODING="utf-8:strict")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[0].endswith(rb"\udcff.toml")


def test_exit_status_of_signal_handler_is_kept(conf: Path) -> None:
    script = f"""
from port_knocking_doors import cli
from port_knocking_doors.client import snippets
def end(*_):
    raise SystemExit({128 + signal.SIGTERM})
snippets.Snippets.text = end
cli.main()
"""
    argv = [sys.executable, "-c", script, "client-config", "-c", str(conf)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")


# Wrong usage


SEE = "see `port-knocking-doors --help`"
USAGE: dict[str, tuple[list[str], str]] = {
    "below a bound": (["status", "--every", "0"], "--every: expected seconds from 0.1 to 3600"),
    "above a bound": (["sweep", "--patience=7117"], "--patience: expected seconds from 1 to 3600"),
    "right behind the letter": (["doctor", "-l7117"], "--listen: expected seconds from 0.1 to 3600"),
    "in a spelling of its own": (["demo", "--pause", "7_117"], "--pause: expected seconds from 0 to 10"),
    "no number": (["demo", "--pause", "x7117\n"], "--pause: expected seconds from 0 to 10"),
    "no whole number": (["status", "--priority", "x7117"], "--priority: expected a whole number such as 31313"),
    "a step for a command": (["tcp:7117:frap"], f"this command is unknown; {SEE}"),
    "an unknown command": (["opne"], f"command opne is unknown, the nearest is open; {SEE}"),
    "a step for an option": (["--7117"], f"this option is unknown; {SEE}"),
    "a step behind an option": (["--magic=7117"], f"option --magic is unknown, the nearest is --magic-seq; {SEE}"),
    "an option of a command": (
        ["close", "--everybody"],
        "option --everybody is unknown; see `port-knocking-doors close --help`",
    ),
    "no value": (
        ["tportknockd", "-C"],
        "Option '-C' requires an argument; see `port-knocking-doors tportknockd --help`",
    ),
    "a value too many": (
        ["close", "--all=7117"],
        "Option '--all' does not take a value; see `port-knocking-doors close --help`",
    ),
    "one word too many": (
        ["open", "::1", "7117"],
        "there are more arguments than expected; see `port-knocking-doors open --help`",
    ),
    "one word too few": (["open"], "Missing argument 'ADDRESS'; see `port-knocking-doors open --help`"),
}


@pytest.mark.parametrize(("words", "said"), USAGE.values(), ids=USAGE)
def test_wrong_usage_says_what_is_expected_and_quotes_no_value(words: list[str], said: str) -> None:
    done = subprocess.run([*PROGRAM, *words], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")
    assert one_line(done) == f"port-knocking-doors: {said}"
