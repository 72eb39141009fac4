"""Reload by verifiers, and one-time sequences that are used up."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from port_knocking_doors.capture.receiver import KnockReceiver
from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.daemon.running_config import RunningConfig, Swap, Verify
from port_knocking_doors.errors import ConfigError, DoorsError, ListenError
from port_knocking_doors.events import EventStream, LineNotMarked, Reloaded, ReloadFailed, SequenceDisabled
from port_knocking_doors.knocks.authenticator import Authenticator, Verdict
from port_knocking_doors.knocks.code import code_of, listened_code
from port_knocking_doors.model import Access, Dialect, Protocol, Sequence, Settings, Step

ALICE = b"\x0a\x00\x00\x02"
START = 1e6
OLD = Settings(opening_sequence=(21001, 21003, 21002, 21005, 21004))
NEW = replace(OLD, opening_sequence=(22001, 22003, 22002, 22005, 22004), door_duration=60.0)
FILE = Path("/etc/port_knocker.toml")


class Receivers:
    """Stands in for the receivers: keeps what they were given, or refuses it."""

    def __init__(self) -> None:
        self.given: list[list[Authenticator]] = []
        self.error: DoorsError | None = None

    def replace(self, authenticators: Iterable[Authenticator]) -> None:
        if self.error is not None:
            raise self.error
        self.given.append(list(authenticators))


class Running:
    """A running configuration, what it loads next, and everything that happened, in order."""

    def __init__(self, settings: Settings = OLD) -> None:
        self.happened: list[object] = []
        self.next: Settings | DoorsError = NEW
        self.receivers = Receivers()
        events = EventStream()
        kinds = (Reloaded, ReloadFailed, SequenceDisabled, LineNotMarked)
        events.add(dict.fromkeys(kinds, self.happened.append))
        self.config = RunningConfig(self.loaded(settings), self._load, events)
        self.config.receiver = cast("KnockReceiver", self.receivers)

    def loaded(self, settings: Settings) -> Loaded:
        places = {"max_open_doors": f"{FILE}:7", "rule_priority": f"{FILE}:3"}
        return Loaded(settings, FILE, (), places)

    def _load(self) -> Loaded:
        if isinstance(self.next, DoorsError):
            raise self.next
        return self.loaded(self.next)

    def verifier(self, name: str, error: Exception | None = None) -> Verify:
        """Writes down when it verifies and when it swaps."""

        def verify(loaded: Loaded) -> Swap:
            self.happened.append(f"{name} verifies")
            if error is not None:
                raise error
            return lambda: self.happened.append(f"{name} swaps {loaded.settings.door_duration:g}")

        return verify


# Reload


def test_reload_verifies_by_all_then_swaps_all_then_notifies() -> None:
    running = Running()
    before = running.config.active
    for name in ("doors", "rules"):
        running.config.add_verifier(running.verifier(name))
    running.config.reload()
    assert running.happened == ["doors verifies", "rules verifies", "doors swaps 60", "rules swaps 60", Reloaded()]
    assert running.config.settings == NEW
    assert running.config.active is not before
    assert running.receivers.given == [list(running.config.active.authenticators.values())]


def test_reloaded_table_adopts_the_progress_of_the_old_one() -> None:
    running = Running()
    running.next = replace(OLD, door_duration=60.0)
    first, *rest = (listened_code(port) for port in OLD.opening_sequence)
    running.config.active.knockers.on_knock(ALICE, first, 0, START)
    running.config.reload()
    knockers = running.config.active.knockers
    assert [knockers.on_knock(ALICE, code, 0, START).verdict for code in rest][-1] is Verdict.COMPLETE


PRIORITY = "rule_priority cannot change while the daemon runs, expected a restart"
REFUSED: dict[str, tuple[Callable[[Running], object], str]] = {
    "the file": (
        lambda running: setattr(running, "next", ConfigError("not a port", f"{FILE}:2")),
        f"{FILE}:2: not a port",
    ),
    "another priority": (
        lambda running: setattr(running, "next", replace(NEW, rule_priority=4)),
        f"{FILE}:3: {PRIORITY}",
    ),
    "the last verifier, with the field": (
        lambda running: running.config.add_verifier(
            running.verifier("last", ConfigError("too many", field="max_open_doors"))
        ),
        f"{FILE}:7: too many",
    ),
    "the last verifier, without": (
        lambda running: running.config.add_verifier(running.verifier("last", ConfigError("no"))),
        f"{FILE}: no",
    ),
    "the receivers": (
        lambda running: setattr(running.receivers, "error", ListenError("port 22001: in use")),
        f"{FILE}: port 22001: in use",
    ),
}


@pytest.mark.parametrize(("refuse", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_reload_changes_nothing_and_says_where(refuse: Callable[[Running], object], reason: str) -> None:
    running = Running()
    running.config.add_verifier(running.verifier("doors"))
    refuse(running)
    before = running.config.active
    with pytest.raises(DoorsError) as raised:
        running.config.reload()
    assert str(raised.value) == reason
    assert running.happened[-1] == ReloadFailed(reason)
    assert not [one for one in running.happened if "swaps" in str(one) or isinstance(one, Reloaded)]
    assert (running.config.settings, running.config.active) == (OLD, before)
    assert running.receivers.given == []


def test_reload_after_a_refused_one_is_accepted() -> None:
    running = Running()
    running.next = ConfigError("no")
    with pytest.raises(ConfigError):
        running.config.reload()
    running.next = NEW
    running.config.reload()
    assert running.happened == [ReloadFailed("no"), Reloaded()]


def test_reload_at_the_end_is_refused_before_the_file_is_read() -> None:
    running = Running()
    running.next = ConfigError("read")
    running.config.refuse_at_end()
    running.config.end()
    with pytest.raises(DoorsError, match="the daemon is ending"):
        running.config.reload()
    assert running.happened == []


# One-time sequences

LINE, NEXT = "100:udp,300:udp,200:udp", "5000:udp,5200:udp,5100:udp"


def once(path: Path, name: str = "once") -> Sequence:
    return Sequence(name, (), Access.of(name), dialect=Dialect.KNOCKD, group="f", timeout=10.0, one_time=str(path))


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(story(), 5)

    asyncio.run(main())


def running_once(path: Path, *lines: str, names: tuple[str, ...] = ("once",)) -> Running:
    path.write_text("".join(f"{line}\n" for line in lines))
    return Running(Settings(opening_sequence=(), sequences=tuple(once(path, name) for name in names)))


def steps_of(running: Running) -> list[int]:
    """The first steps that would be accepted now."""
    return [
        port
        for port in (100, 5000)
        if running.config.active.knockers.on_knock(ALICE, code_of(Step(Protocol.UDP, port)), port, START).verdict
        is Verdict.ADVANCED
    ]


def test_used_line_is_marked_and_the_next_one_becomes_active(tmp_path: Path) -> None:
    async def story() -> None:
        running = running_once(tmp_path / "f", LINE, NEXT)
        (sequence,) = running.config.active.lines
        assert running.config.consume(sequence, set())
        assert (tmp_path / "f").read_text() == f"#{LINE[1:]}\n{NEXT}\n"
        assert not running.config.consume(sequence, set()), "the same line, in the same moment"
        assert running.receivers.given == []
        await asyncio.sleep(0)
        assert steps_of(running) == [5000]
        assert len(running.receivers.given) == 1
        assert running.happened == []

    run(story)


def test_line_of_two_sequences_counts_for_both_at_one_knock(tmp_path: Path) -> None:
    async def story() -> None:
        running = running_once(tmp_path / "f", LINE, names=("one", "two"))
        one, two = running.config.active.lines
        consumed: set[tuple[str, int]] = set()
        assert running.config.consume(one, consumed)
        assert running.config.consume(two, consumed)
        assert (tmp_path / "f").read_text() == f"#{LINE[1:]}\n"

    run(story)


def test_last_used_line_disables_its_sequence_once(tmp_path: Path) -> None:
    async def story() -> None:
        running = running_once(tmp_path / "f", LINE)
        (sequence,) = running.config.active.lines
        assert running.config.consume(sequence, set())
        for _ in range(2):
            await asyncio.sleep(0)
            running.config._renew()
        reason = f"no sequence is left in {tmp_path / 'f'}"
        assert running.happened == [SequenceDisabled(once(tmp_path / "f"), reason)]
        running.config.report_disabled()
        assert len(running.happened) == 2, "a start and a reload report each"

    run(story)


def test_reload_reports_sequences_without_a_line_after_it(tmp_path: Path) -> None:
    running = running_once(tmp_path / "f")
    running.next = running.config.settings
    running.config.reload()
    reason = f"no sequence is left in {tmp_path / 'f'}"
    assert running.happened == [Reloaded(), SequenceDisabled(once(tmp_path / "f"), reason)]


def test_line_that_is_gone_does_not_count_and_the_next_is_active(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        running = running_once(tmp_path / "f", LINE, NEXT)
        (sequence,) = running.config.active.lines
        (tmp_path / "f").write_text(f"#{LINE[1:]}\n{NEXT}\n")
        assert not running.config.consume(sequence, set())
        await asyncio.sleep(0)
        assert steps_of(running) == [5000]
        assert running.happened == []

    run(story)
    assert "not opened, its next sequence is active" in caplog.text


def test_line_that_cannot_be_marked_disables_its_file(tmp_path: Path) -> None:
    async def story() -> None:
        running = running_once(tmp_path / "f", LINE, NEXT)
        (sequence,) = running.config.active.lines
        (tmp_path / "f").unlink()
        (tmp_path / "f").mkdir()
        assert not running.config.consume(sequence, set())
        (happened,) = running.happened
        assert isinstance(happened, LineNotMarked)
        (tmp_path / "f").rmdir()
        (tmp_path / "f").write_text(f"{LINE}\n")
        await asyncio.sleep(0)
        assert (steps_of(running), running.config.active.shut) == ([], ())
        running.next = running.config.settings
        running.config.reload()
        assert steps_of(running) == [100], "a reload gives the file another chance"

    run(story)


def test_receivers_that_refuse_the_next_line_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        running = running_once(tmp_path / "f", LINE, NEXT)
        (sequence,) = running.config.active.lines
        running.receivers.error = DoorsError("no memory")
        assert running.config.consume(sequence, set())
        await asyncio.sleep(0)

    run(story)
    text = "no further one-time sequence is active until the configuration is reloaded: no memory"
    assert caplog.messages == [text]


def test_line_used_at_the_end_makes_no_other_active(tmp_path: Path) -> None:
    async def story() -> None:
        running = running_once(tmp_path / "f", LINE, NEXT)
        (sequence,) = running.config.active.lines
        assert running.config.consume(sequence, set())
        running.config.end()
        await asyncio.sleep(0)
        assert (steps_of(running), running.receivers.given) == ([100], [])

    run(story)
