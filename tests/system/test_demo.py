"""The demo: it shows the whole story, claims only what it saw, and leaves nothing."""

import io
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from port_knocking_doors import cli
from port_knocking_doors.errors import DoorsError, SandboxError
from port_knocking_doors.sandbox import ClientHost, Sandbox, demo, launch
from port_knocking_doors.sandbox.narrator import Narrator
from tests.helpers.waiting import wait_until

COMMAND = [sys.executable, "-m", "port_knocking_doors", "demo", "--pause", "0"]
ROOT = Path(demo.__file__).parents[1]
MARK = "DEMO_UNDER_TEST"

STORY = (
    "1. Three hosts appear",
    "2. Port 22 is closed",
    "ok  With firewalld's defaults, ssh is open to every host.",
    "ok  The client is refused by the firewall.",
    "ok  The stranger is refused by the firewall.",
    "3. The administrator writes a configuration",
    "server# port-knocking-doors --set-configuration-file-in-home",
    "4. The daemon starts",
    "server# port-knocking-doors --conf ~/.port_knocker.toml",
    " INFO ready: listening on 5 UDP ports",
    "5. A stranger knocks in the wrong order",
    "10.0.2.2: wrong knock",
    "ok  Now even the right sequence opens nothing.",
    "6. The client knocks",
    *(f"ok  Knock {number} of 5, UDP " for number in range(1, 6)),
    "10.0.1.2: opened 22/tcp in zone public",
    "7. The door is open, for the client only",
    "| ... ip saddr 10.0.1.2 tcp dport 22",
    'ok  The client connects and sends "hello"',
    "ok  The stranger is refused.",
    "8. The door closes by itself",
    "ok  4 s after the last knock the client is refused again.",
    "10.0.1.2: closed 22/tcp",
    "ok  Until then the client got in at each try",
    "9. Another sequence, sniffed on closed ports",
    "itself closed: the door opens.",
    "ok  Throughout, the stranger was refused",
    "10. The daemon ends while a door is open",
    "ok  All five knocks at once: the door opens.",
    "ok  It closes the door and ends with exit status 0.",
    "ok  nftables is exactly as it was before",
    "How long it took",
    "the whole story",
)


def marked_processes(mark: str) -> list[str]:
    """The command lines of all processes that have the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # not ours, or gone
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.fixture
def mark() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def environment(tmp_path: Path, mark: str) -> dict[str, str]:
    return {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), MARK: mark}


def test_demo_shows_whole_story_in_order_and_leaves_nothing(
    tmp_path: Path, mark: str, environment: dict[str, str]
) -> None:
    ran = subprocess.run(COMMAND, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    position = 0
    for part in STORY:
        assert part in ran.stdout[position:], f"{part!r} is missing, or not in its place:\n{ran.stdout}"
        position = ran.stdout.index(part, position) + len(part)
    assert "\x1b" not in ran.stdout
    assert "NO  " not in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []
    assert marked_processes(mark) == []


def test_interrupted_demo_leaves_nothing(tmp_path: Path, mark: str, environment: dict[str, str]) -> None:
    with subprocess.Popen(
        COMMAND, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(" opened " in line for line in process.stdout)  # which comes while the story goes on
        assert any("firewalld" in line for line in marked_processes(mark))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == ""  # Debian 12's click ends the line of the terminal's ^C
    wait_until(lambda: not marked_processes(mark), 5, lambda: f"left: {marked_processes(mark)}")
    assert list(tmp_path.iterdir()) == []


def somebody_elses_rule(host: ClientHost) -> str:
    return f'rule family="ipv4" source address="{host.address4}" port port="22" protocol="tcp" accept'


def let_in(box: Sandbox, host: ClientHost) -> None:
    box.firewalld.ask("zone", "addRichRule", "", somebody_elses_rule(host), 0)


def shut_out(box: Sandbox, host: ClientHost) -> None:
    box.firewalld.ask("zone", "removeRichRule", "", somebody_elses_rule(host))


def test_stranger_who_gets_in_fails_demo_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    knocks = demo._knocks

    def knocks_for_two(story: Narrator, box: Sandbox, *others: object) -> float:
        try:
            return knocks(story, box, *others)  # type: ignore[arg-type]
        finally:
            let_in(box, box.hosts["stranger"])

    monkeypatch.setattr(demo, "_knocks", knocks_for_two)
    monkeypatch.setattr(sys, "argv", COMMAND[2:])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    shown, complaint = capsys.readouterr()
    assert "NO  not seen: The stranger is refused." in shown
    assert "8. " not in shown
    assert "How long it took" not in shown
    assert complaint == (
        "port-knocking-doors: the demo differs from its story: "
        "port 22 is open for the stranger, expected refused by the firewall\n"
    )


def test_stranger_who_gets_in_for_a_moment_fails_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    door_is_open = demo._door_is_open

    def with_a_leak(story: Narrator, box: Sandbox) -> None:
        door_is_open(story, box)
        let_in(box, box.hosts["stranger"])
        time.sleep(0.2)
        shut_out(box, box.hosts["stranger"])

    monkeypatch.setattr(demo, "_door_is_open", with_a_leak)
    with pytest.raises(DoorsError, match="port 22 is open for the stranger"):
        demo.run(0)
    assert "NO  not seen: Throughout, the stranger was refused" in capsys.readouterr().out


def test_door_that_stays_open_fails_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    door_is_open = demo._door_is_open

    def with_a_wedge(story: Narrator, box: Sandbox) -> None:
        door_is_open(story, box)
        let_in(box, box.hosts["client"])

    monkeypatch.setattr(demo, "_door_is_open", with_a_wedge)
    with pytest.raises(DoorsError, match="port 22 is open for the client, expected refused by the firewall"):
        demo.run(0)
    assert "refused again" not in re.sub("NO  .*", "", capsys.readouterr().out)


def test_machine_without_sandboxes_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise SandboxError("the sandbox needs firewalld")

    monkeypatch.setattr(launch, "check_programs", refuse)
    monkeypatch.setattr(sys, "argv", COMMAND[2:])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "port-knocking-doors: the sandbox needs firewalld\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "coloured"),
    [
        pytest.param(Terminal(), {}, True, id="terminal"),
        pytest.param(Terminal(), {"NO_COLOR": "1"}, False, id="terminal, NO_COLOR"),
        pytest.param(Terminal(), {"TERM": "dumb"}, False, id="dumb terminal"),
        pytest.param(io.StringIO(), {}, False, id="pipe"),
    ],
)
def test_colour_is_for_terminals_without_no_color(
    stream: io.StringIO, variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    story = Narrator(stream)
    story.chapter("A title")
    with story.step("something is so"):
        pass
    assert ("\x1b[1m1. A title\x1b[0m" in stream.getvalue()) == coloured
    assert ("\x1b" in stream.getvalue()) == coloured
