"""Warnings about valid but unwise sequences."""

from typing import Any

import pytest

from port_knocking_doors.config import lint, render
from port_knocking_doors.model import Dialect, Port, Protocol, Sequence, Settings, Step
from tests.unit.config.world import EXAMPLE, World, sequence, sniffed, text_of, write


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({}, ""),
        ({"ports": "80"}, ""),
        ({"magic_seq": EXAMPLE}, "--magic-seq: "),
        ({"environ": {"KNOCKER_SEQ": EXAMPLE}}, "KNOCKER_SEQ: "),
    ],
    ids=["built-in", "built-in with ports", "option", "variable"],
)
def test_public_sequence_has_a_warning(world: World, given: dict[str, Any], source: str) -> None:
    (warning,) = world.load(**given).warnings
    assert warning.startswith(f"{source}PUBLIC SEQUENCE: ")
    assert "--set-configuration-file-in-home" in warning


def test_public_sequence_of_file_has_a_warning_unless_overridden(world: World) -> None:
    write(world.home_file)
    world.home_file.write_text(render.render(Settings()))
    (warning,) = world.load().warnings
    assert warning.startswith(f"{world.home_file}: PUBLIC SEQUENCE: ")
    assert world.load(magic_seq=text_of(sequence(1))).warnings == ()


@pytest.mark.parametrize("ports", ["20001,20002,20003,20004,20009", "5,4,3,2,1", "7,7,7,7,7"])
def test_sequence_in_order_has_a_warning(world: World, ports: str) -> None:
    (warning,) = world.load(magic_seq=ports).warnings
    assert warning.startswith("--magic-seq: the ports of the sequence are in rising or falling order")


def test_guarded_knock_port_has_a_warning(world: World) -> None:
    first = sequence(0)[0]
    (warning,) = world.load(magic_seq=text_of(sequence(0)), ports=f"{first}/udp,{first},1194/udp").warnings
    assert warning.startswith("--magic-seq: 1 guarded UDP port(s) are in the sequence")
    assert world.load(magic_seq=text_of(sequence(0)), ports=f"{first},1194/udp").warnings == ()


@pytest.mark.parametrize(
    ("steps", "warning"),
    [
        pytest.param("udp:5432 tcp:9321 udp:7123", "", id="good"),
        pytest.param("udp:5432 tcp:9321", "2 steps are soon found by chance", id="short"),
        pytest.param("udp:5432 tcp:7123 tcp:9321", "its ports are in rising or falling order", id="rising"),
        pytest.param("tcp:9321 udp:7123 tcp:5432:x", "its ports are in rising or falling order", id="falling"),
        pytest.param("udp:5432 udp:5432 udp:5432", "its ports are in rising or falling order", id="one step"),
        pytest.param("tcp:5432:x tcp:5432 tcp:5432:n", "", id="flags alone"),
        pytest.param("udp:1234 tcp:543 tcp:123:frap", "PUBLIC SEQUENCE: ", id="this documentation"),
        pytest.param("tcp:7000 tcp:8000 tcp:9000", "PUBLIC SEQUENCE: ", id="knockd's example"),
        pytest.param("udp:2222 tcp:3333:sa udp:4444", "PUBLIC SEQUENCE: ", id="knockd's other example"),
        pytest.param("udp:16001 udp:16002 udp:16003 udp:16004 udp:16005", "PUBLIC SEQUENCE: ", id="the built-in one"),
        *(
            pytest.param(steps, "PUBLIC SEQUENCE: ", id=steps)
            for steps in (
                "tcp:9000 tcp:8000 tcp:7000",
                "tcp:700 tcp:800 tcp:900",
                "tcp:900 tcp:800 tcp:700",
                "udp:1234 tcp:543 tcp:543:a tcp:123:frap tcp:434:x tcp:2345:n",
                "tcp:12430:a tcp:2711 tcp:123:a tcp:8375:n tcp:1155:n",
                "tcp:110:x tcp:110:up tcp:110:up tcp:110:n tcp:110:a",
            )
        ),
    ],
)
def test_unwise_sniffed_sequence_has_a_warning_with_its_name(world: World, steps: str, warning: str) -> None:
    write(world.home_file, more=sniffed("udp:11 tcp:2311 udp:15", "other", "[80]") + sniffed(steps))
    warnings = world.load().warnings
    assert len(warnings) == bool(warning)
    for said in warnings:
        assert said.startswith(f"{world.home_file}: sequence ssh: {warning}")
        assert not any(step.split(":")[1] in said.removeprefix(str(world.home_file)) for step in steps.split())


@pytest.mark.parametrize(
    ("steps", "warning"),
    [
        ("udp:5432 tcp:9321 udp:7123", ""),
        ("udp:5432 tcp:9321", "2 steps are soon found by chance"),
        ("udp:5432 tcp:7123 tcp:9321", "its ports are in rising or falling order"),
        ("tcp:9000 tcp:8000 tcp:7000", "PUBLIC SEQUENCE: "),
        ("tcp:2345 udp:678 tcp:432", "PUBLIC SEQUENCE: "),
        ("udp:5432 tcp:80 udp:7123", "1 port(s) of its steps are guarded"),
        ("udp:5432 tcp:25 udp:7123", "1 port(s) of its steps have a program listening"),
    ],
)
def test_unwise_close_steps_have_a_warning_with_their_name(world: World, steps: str, warning: str) -> None:
    closing = f"close_steps = {steps.split()}\n"
    write(world.home_file, more=sniffed("udp:11 tcp:2311 udp:15", opens="[80]") + closing)
    warnings = world.load(served=[Port(25)]).warnings
    assert len(warnings) == bool(warning)
    assert all(said.startswith(f"{world.home_file}: close_steps of ssh: {warning}") for said in warnings)


def test_steps_on_ports_in_use_have_a_warning(world: World) -> None:
    knock_port = sequence(0)[0]
    steps = f"tcp:22 udp:5432 tcp:80:x tcp:22:f udp:443 tcp:9321 udp:{knock_port} udp:53"
    write(world.home_file, more=sniffed(steps, opens="[80]"))
    udp = Protocol.UDP
    served = [Port(22), Port(9321), Port(5432), Port(443), Port(53, udp), Port(5432, udp), Port(knock_port, udp)]
    at = f"{world.home_file}: sequence ssh:"
    guarded = "are guarded, so every client of the services behind them knocks"
    busy = "have a program listening, so every client of it knocks"
    assert world.load(served=served).warnings == (
        f"{at} 2 port(s) of its steps {guarded}; choose others",
        f"{at} 3 port(s) of its steps {busy}; choose others",
    )


def test_foreign_sequences_have_warnings_with_their_files() -> None:
    short = Sequence("web", (Step(Protocol.TCP, 5432),), group="F")
    assert lint.foreign_warnings((short,), [Port(5432)]) == (
        "F: sequence web: 1 step is soon found by chance; use 3 or more",
        "F: sequence web: 1 port(s) of its steps have a program listening, so every client of it knocks; choose others",
    )


def test_step_twice_in_a_row_of_another_dialect_has_a_warning() -> None:
    steps = tuple(Step(Protocol.TCP, port, 2, 2) for port in (9321, 5432, 5432, 7123))
    for dialect, count in ((Dialect.KNOCKD, 1), (Dialect.NATIVE, 0), (Dialect.TPORTKNOCKD, 1)):
        found = lint.foreign_warnings((Sequence("ssh", steps, dialect=dialect, group="/k.conf"),), ())
        assert sum("twice in a row" in warning for warning in found) == count


def test_first_step_under_many_rules_has_a_warning() -> None:
    def warnings(count: int) -> list[str]:
        steps = tuple(Step(Protocol.UDP, port) for port in (5432, 9321, 7123))
        every = [Sequence(f"s{number}", steps, timeout=number % count + 1) for number in range(50)]
        found = lint.sniffed_warnings(Settings(sequences=tuple(every)), "file", ())
        return [warning for warning in found if "as much" in warning]

    assert warnings(lint.RULES_MANY) == []
    (warning,) = warnings(lint.RULES_MANY + 1)
    assert warning.startswith("file: sequences with the same first step have 17 different time limits")
    assert "5432" not in warning
