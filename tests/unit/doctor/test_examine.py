"""The order and the end of an examination: which checks run, and its exit status. The checks are replaced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.control import client
from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.doctor import examine as module
from port_knocking_doors.doctor.examine import examine
from port_knocking_doors.doctor.expected import Expected
from port_knocking_doors.doctor.finding import ok, problem, warning
from port_knocking_doors.doctor.firewall import Answers
from port_knocking_doors.doctor.packets import PacketFindings
from port_knocking_doors.errors import ConfigError, DoorsError, NoDaemonError
from port_knocking_doors.model import Port, Settings
from tests.unit.control.test_status import SNAPSHOT

LOADED = Loaded(Settings(rule_priority=777), Path("/etc/port_knocker.toml"), ("a sequence is short",))
SSH = Port(22)


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the replaced checks were given."""
    given: dict[str, Any] = {}

    def replaced(name: str, result: Callable[[], Any]) -> None:
        def check(*arguments: Any, **named: Any) -> Any:
            given[name] = (*arguments, *named.values())
            return result()

        monkeypatch.setattr(module, name, check)

    async def answers(*arguments: Any) -> Answers:
        given["about_firewalld"] = arguments
        return Answers([ok("firewalld: running")], Expected(panic=True))

    monkeypatch.setattr(module, "about_firewalld", answers)
    replaced("about_packets", lambda: PacketFindings([ok("packets")], frozenset({SSH})))
    for name in ("daemon", "redirections", "services", "knock_ports", "ephemeral_ports", "links", "capability"):
        replaced(f"about_{name}", lambda name=name: [ok(name)])  # type: ignore[misc]
    replaced("listened", lambda: ["12:00:00 a knock"])
    monkeypatch.setattr(client, "running_marks", list)
    return given


def answering(monkeypatch: pytest.MonkeyPatch, answer: Snapshot | DoorsError) -> list[int]:
    """A daemon that answers so; the marks that were asked for."""
    asked: list[int] = []

    def snapshot(mark: int) -> Snapshot:
        asked.append(mark)
        if isinstance(answer, DoorsError):
            raise answer
        return answer

    monkeypatch.setattr(client, "snapshot", snapshot)
    return asked


CONFIGURATION = ["ok       configuration: /etc/port_knocker.toml", "warning  configuration: a sequence is short"]
FIREWALL = ["ok       firewalld: running", "ok       packets", "ok       redirections", "ok       services"]
HOST = ["ok       ephemeral_ports", "ok       links", "ok       capability"]
DAEMONS: dict[str, tuple[Snapshot | DoorsError, list[str], int]] = {
    "runs": (SNAPSHOT, ["ok       daemon"], 0),
    "none": (
        NoDaemonError("no daemon"),
        ["PROBLEM  no daemon is running; start it: systemctl start port-knocking-doors"],
        1,
    ),
    "of another user": (
        NoDaemonError("permission denied", forbidden=True),
        ["warning  daemon: permission denied"],
        0,
    ),
    "of another version": (DoorsError("its answer is invalid"), ["PROBLEM  daemon: its answer is invalid"], 1),
}


@pytest.mark.parametrize(("answer", "lines", "status"), DAEMONS.values(), ids=DAEMONS)
def test_examination_goes_on_whatever_the_daemon_answers(
    answer: Snapshot | DoorsError,
    lines: list[str],
    status: int,
    checks: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = answering(monkeypatch, answer)
    assert examine(lambda: LOADED, None, None) == status
    *said, total = capsys.readouterr().out.splitlines()
    runs = isinstance(answer, Snapshot)
    ports = [] if runs else ["ok       knock_ports"]
    assert said == [*CONFIGURATION, *lines, *FIREWALL, *ports, *HOST]
    assert total.startswith("1 problem, " if status else "no problems, ")
    assert asked == [777]
    snapshot = answer if runs else None
    assert checks["about_firewalld"] == (LOADED.settings, 777, snapshot)
    assert checks["about_packets"] == (LOADED.settings, Expected(panic=True), runs)
    assert checks["about_redirections"] == (LOADED.settings, frozenset({SSH}))
    assert "listened" not in checks


def test_wrong_configuration_ends_the_examination(capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> Loaded:
        raise ConfigError("unknown key", "/etc/port_knocker.toml:1")

    assert examine(load, None, None) == 1
    assert capsys.readouterr().out.splitlines() == [
        "PROBLEM  configuration: /etc/port_knocker.toml:1: unknown key",
        "warning  nothing else was checked: correct the configuration, then run doctor again",
        "1 problem, 1 warning",
    ]


@pytest.mark.parametrize(("priority", "mark"), [(None, 777), (5, 5)])
def test_knocks_are_shown_after_the_findings(
    priority: int | None,
    mark: int,
    checks: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert answering(monkeypatch, SNAPSHOT) == []
    assert examine(lambda: LOADED, priority, 30) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["no problems, 1 warning", "12:00:00 a knock"]
    assert checks["listened"] == (mark, 30)


def test_built_in_defaults_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answering(monkeypatch, SNAPSHOT)
    assert examine(lambda: Loaded(Settings(), None, ()), None, None) == 0
    assert "ok       configuration: no file found, built-in defaults" in capsys.readouterr().out.splitlines()


def test_grades_have_their_words() -> None:
    assert [one.grade.value for one in (ok(""), warning(""), problem(""))] == ["ok", "warning", "PROBLEM"]
