"""What proves who knocks, for some settings: one-time sequences that are used up, and the table of authenticators."""

from dataclasses import replace
from pathlib import Path

import pytest

from port_knocking_doors.daemon import active
from port_knocking_doors.daemon.active import AUTHENTICATORS, KNOCKERS, ActiveConfig
from port_knocking_doors.knocks.authenticator import Authenticator, Capture, Outcome, Verdict
from port_knocking_doors.knocks.code import code_of, port_of
from port_knocking_doors.model import Access, Dialect, Flags, Protocol, Sequence, Settings, Step
from port_knocking_doors.system import one_time_file

ALICE, BOB = b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03"


def steps(*ports: int) -> tuple[Step, ...]:
    return tuple(Step(Protocol.TCP, port, Flags.SYN) for port in ports)


STAYS = Sequence("stays", steps(7000, 9000, 8000), Access.of("stays"), timeout=10.0, traps=64)


@pytest.fixture(autouse=True)
def _quiet_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """No port is served, so that any may be a trap."""
    monkeypatch.setattr(active, "listening_ports", lambda: set())


def settings_of(path: Path, *lines: str) -> Settings:
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    once = Sequence("once", (), dialect=Dialect.KNOCKD, group="f", timeout=10.0, traps=64, one_time=str(path))
    return Settings(opening_sequence=(), sequences=(STAYS, once))


def knock(config: ActiveConfig, source: bytes, *ports: int) -> Verdict:
    verdict = Verdict.NOT_A_KNOCK
    for number, port in enumerate(ports):
        verdict = config.knockers.on_knock(source, code_of(Step(Protocol.UDP, port)), number, 1e6).verdict
    return verdict


def syn(config: ActiveConfig, source: bytes, *ports: int) -> Verdict:
    verdict = Verdict.NOT_A_KNOCK
    for number, step in enumerate(steps(*ports)):
        verdict = config.knockers.on_knock(source, code_of(step), number, 1e6).verdict
    return verdict


def use(config: ActiveConfig) -> None:
    (sequence,) = config.lines
    one_time_file.consume(config.lines.pop(sequence))


def test_used_line_leaves_the_traps_of_other_sequences_where_they_are(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "f", "100:udp,300:udp,200:udp", "5000:udp,5200:udp,5100:udp")
    before = ActiveConfig.of(settings)
    traps = {code for code, of in before.knockers.traps.items() if STAYS in of}
    use(before)
    after = before.renewed(settings)
    assert len(traps) == 64
    assert {code for code, of in after.knockers.traps.items() if STAYS in of} == traps


def test_used_line_keeps_the_table_and_all_progress_in_other_sequences(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "f", "100:udp,300:udp,200:udp", "5000:udp,5200:udp,5100:udp")
    before = ActiveConfig.of(settings)
    assert syn(before, BOB, 7000, 9000) is Verdict.ADVANCED
    assert knock(before, BOB, 100) is Verdict.ADVANCED
    assert knock(before, ALICE, 100, 300, 200) is Verdict.COMPLETE
    use(before)
    after = before.renewed(settings)
    assert after.authenticators[KNOCKERS] is before.authenticators[KNOCKERS]
    assert knock(after, ALICE, 100, 300, 200) is Verdict.NOT_A_KNOCK
    assert syn(after, BOB, 8000) is Verdict.COMPLETE
    assert knock(after, ALICE, 5000, 5200, 5100) is Verdict.COMPLETE


def test_last_line_used_takes_the_sequence_out_and_is_reported(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "f", "100:udp,300:udp,200:udp")
    config = ActiveConfig.of(settings)
    use(config)
    config = config.renewed(settings)
    assert [(sequence.name, reason) for sequence, reason in config.shut] == [
        ("once", f"no sequence is left in {tmp_path / 'f'}")
    ]
    assert config.knockers.sequences == (STAYS,)
    assert {port_of(code) for code in config.knockers.capture.codes} >= {7000, 8000, 9000}
    assert 100 not in {port_of(code) for code in config.knockers.capture.codes}
    (tmp_path / "f").write_text("5000:udp,5200:udp\n")
    assert knock(config.renewed(settings), ALICE, 5000, 5200) is Verdict.COMPLETE, "a line that was added counts"


def test_disabled_file_takes_its_sequence_out_without_a_report(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "f", "100:udp,300:udp,200:udp", "5000:udp,5200:udp")
    config = ActiveConfig.of(settings)
    config.disabled.add(str(tmp_path / "f"))
    config = config.renewed(settings)
    assert (config.shut, config.knockers.sequences) == ((), (STAYS,))


def test_close_steps_are_a_sequence_that_closes_and_avoids_traps() -> None:
    closed = replace(STAYS, close_steps=steps(9000, 6999, 8001))
    config = ActiveConfig.of(Settings(opening_sequence=(), sequences=(closed,)))
    trapped = {port_of(code) for code in config.knockers.traps}
    assert len(trapped) == 64
    assert not trapped & {6999, 8001}, "a trap beside a step would be on a step that closes"
    outcome = config.knockers.on_knock(ALICE, code_of(steps(9000)[0]), 1, 1e6)
    assert [sequence.name for sequence in outcome.sequences] == ["stays/close"]
    config.knockers.on_knock(ALICE, code_of(steps(6999)[0]), 2, 1e6)
    (grant,) = config.knockers.on_knock(ALICE, code_of(steps(8001)[0]), 3, 1e6).grants
    assert grant.access == Access("stays", closes=True)
    assert grant.access.openings == ()


def test_close_steps_that_are_the_steps_backwards_work_in_turn() -> None:
    """As people have it in knockd's files: the last packet of the one is the first of the other."""
    pair = replace(STAYS, traps=0, close_steps=STAYS.steps[::-1])
    config = ActiveConfig.of(Settings(opening_sequence=(), sequences=(pair,)))
    when, number, granted = 1e6, 0, []
    for turn in (pair.steps, pair.close_steps) * 3:
        for step in turn:
            number, when = number + 1, when + 0.3
            outcome = config.knockers.on_knock(ALICE, code_of(step), number, when)
            granted += [grant.access.closes for grant in outcome.grants]
    assert granted == [False, True] * 3


def test_used_line_moves_no_trap_onto_close_steps(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "f", "100:udp,300:udp,200:udp", "5000:tcp,5200:tcp,5100:tcp")
    closed = replace(STAYS, close_steps=steps(4999, 5001, 5199))
    settings = replace(settings, sequences=(closed, *settings.sequences[1:]))
    config = ActiveConfig.of(settings)
    use(config)
    assert not {port_of(code) for code in config.renewed(settings).knockers.traps} & {4999, 5001, 5199}


class Toy(Authenticator):
    """Completes at the first packet."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def capture(self) -> Capture:
        return Capture(ports=(self._port,))

    def on_knock(self, source: bytes, code: int, packet_id: int, now: float) -> Outcome:  # noqa: ARG002
        return Outcome.of(Verdict.COMPLETE)


def test_authenticator_is_added_by_a_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUTHENTICATORS, "toy", lambda settings, _: Toy(4000) if settings.zone else None)
    settings = Settings(opening_sequence=(100, 300, 200, 500, 400), sequences=(STAYS,))
    assert set(ActiveConfig.of(settings).authenticators) == {KNOCKERS}
    config = ActiveConfig.of(replace(settings, zone="public"))
    assert set(config.authenticators) == {KNOCKERS, "toy"}
    config.adopt(ActiveConfig.of(settings))
    config.expire(1e6)
    syn(config, ALICE, 7000)
    assert config.counts(1e6) == (1, 0)
    assert [view.source for view in config.view(1e6, 10)] == [ALICE]
    assert [config.forget(ALICE) for _ in range(2)] == [True, False]


def test_missing_one_time_file_disables_its_sequence_only(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "f", "100:udp,300:udp,200:udp")
    (tmp_path / "f").unlink()
    config = ActiveConfig.of(settings)
    ((sequence, why),) = config.shut
    assert sequence.name == "once"
    assert "No such file" in why
    assert syn(config, ALICE, 7000, 9000, 8000) is Verdict.COMPLETE


def test_authenticator_remembers_no_source_unless_it_overrides() -> None:
    toy = Toy(4000)
    toy.add_scopes(1, frozenset())
    toy.adopt(Toy(4001))
    assert toy.capture == Capture(ports=(4000,))
    assert (toy.expire(1e6), toy.next_deadline(), toy.counts(1e6), toy.view(1e6, 9)) == (0, None, (0, 0), [])
