"""Options, variables and files in their order, imported files, and knockd's file as the whole configuration."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.config import knockd, loader
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import DEFAULT_SEQUENCE, Dialect, Port, Protocol, Scope, Settings
from tests.unit.config.broken import BROKEN, a_dangling_link, a_device, a_folder, a_pipe, too_large
from tests.unit.config.world import World, sequence, sniffed, text_of, write

# Precedence


@pytest.mark.parametrize("option", [False, True], ids=["", "option"])
@pytest.mark.parametrize("variable", [False, True], ids=["", "variable"])
@pytest.mark.parametrize("file", [False, True], ids=["", "file"])
def test_option_overrides_variable_overrides_file_overrides_default(
    world: World, file: bool, variable: bool, option: bool
) -> None:
    if file:
        write(world.home_file, 1, guarded="[101]")
    environ = {"KNOCKER_SEQ": text_of(sequence(2)), "KNOCKER_PORTS": "102"} if variable else {}
    loaded = world.load(
        magic_seq=text_of(sequence(3)) if option else None, ports="103/udp" if option else None, environ=environ
    )
    rank = 3 if option else 2 if variable else 1 if file else 0
    assert loaded.settings.opening_sequence == (sequence(rank) if rank else DEFAULT_SEQUENCE)
    assert loaded.settings.guarded_ports == ((Port(22), Port(101), Port(102), Port(103, Protocol.UDP))[rank],)


def test_zone_option_overrides_file(world: World) -> None:
    write(world.home_file, more='zone = "home"\n')
    assert world.load().settings.zone == "home"
    assert world.load(zone="work").settings.zone == "work"
    assert world.load(zone="").settings.zone == ""
    assert world.refusal(zone="a b").startswith("--zone: a zone's name has a character that firewalld forbids")


def test_interfaces_come_from_the_option(world: World) -> None:
    write(world.home_file, more=sniffed("udp:5 tcp:9 udp:7"))
    assert world.load().settings.interfaces == ()
    loaded = world.load(interfaces=["ppp*", "eth0", "ppp*"])
    assert loaded.settings.interfaces == ("ppp*", "eth0")
    assert loaded.warnings == ()
    assert world.refusal(interfaces=["eth0", ""]).startswith("--interface: an empty string is not an interface's name")
    assert world.refusal(interfaces=["a/b"]).startswith("--interface: an interface's name has a character that")


def test_option_leaves_the_variable_of_another_field(world: World) -> None:
    loaded = world.load(magic_seq=text_of(sequence(3)), environ={"KNOCKER_SEQ": "wrong", "KNOCKER_PORTS": "[80, 443]"})
    assert loaded.settings == Settings(opening_sequence=sequence(3), guarded_ports=(Port(80), Port(443)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"magic_seq": "1,2,3,4"}, "--magic-seq: the list has 4 ports, expected 5 to 21"),
        ({"magic_seq": ""}, "--magic-seq: the list has 0 ports, expected 5 to 21"),
        ({"magic_seq": "0,2,3,4,5"}, "--magic-seq: position 1: port 0 is out of range, expected 1 to 65535"),
        ({"magic_seq": "1,2,3,4,65536"}, "--magic-seq: position 5: port 65536 is out of range, expected 1 to 65535"),
        (
            {"magic_seq": "1,2,ssh,4,5"},
            '--magic-seq: position 3: "ssh" is not a port, expected a whole number from 1 to 65535',
        ),
        ({"environ": {"KNOCKER_SEQ": ""}}, "KNOCKER_SEQ: the list has 0 ports, expected 5 to 21"),
        ({"environ": {"KNOCKER_SEQ": "1,2,3,4"}}, "KNOCKER_SEQ: the list has 4 ports, expected 5 to 21"),
        ({"environ": {"KNOCKER_PORTS": ""}}, "KNOCKER_PORTS: the list has 0 ports, expected 1 to 64"),
        (
            {"environ": {"KNOCKER_PORTS": "22/sctp"}},
            'KNOCKER_PORTS: position 1: "sctp" is not a protocol, expected tcp or udp',
        ),
        ({"ports": "0"}, "--ports: position 1: port 0 is out of range, expected 1 to 65535"),
        (
            {"environ": {"KNOCKER_SEQ": ",".join(["7"] * 22)}},
            "KNOCKER_SEQ: the list has 22 ports, expected 5 to 21",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.split(", expected")[0],
)
def test_wrong_option_or_variable_is_refused_with_its_name(world: World, given: dict[str, Any], message: str) -> None:
    assert world.refusal(**given) == message
    write(world.home_file)
    assert world.refusal(**given) == message


def test_conflict_of_file_and_option_is_refused(world: World) -> None:
    write(world.home_file, more="max_open_doors = 65536\n")
    assert world.refusal(ports="22,23").startswith("--ports: 65536 open doors of 2 ports need 131072 firewall rules")


# The Rust program's files and variables

RUST = """\
ports_to_controls = [22, 80, 22]
opening_sequence = [{}]
ignoring_period_after_knock_error = 0
max_knocker_live_time = 3600
max_opened_door_duration = 604800
doors_cleanup_periode = 10
"""


@pytest.mark.parametrize(
    ("ports", "warnings"),
    [
        ("26173, 21951, 23817", ["3 ports are soon found by chance; use 5 or more"]),
        ("26173, 21951, 23817, 21950", ["4 ports are soon found by chance; use 5 or more"]),
        ("26173, 21951, 23817, 21950, 26170", []),
        ("7000, 8000, 9000", ["PUBLIC SEQUENCE: its ports are a published example; choose others"]),
    ],
    ids=["three ports", "four ports", "five ports", "three ports of an example"],
)
def test_rust_file_is_accepted_as_it_is(world: World, ports: str, warnings: list[str]) -> None:
    file = world.home_file
    file.write_text(RUST.format(ports))
    file.chmod(0o600)
    loaded = world.load()
    assert loaded.settings == Settings(
        guarded_ports=(Port(22), Port(80)),
        opening_sequence=tuple(map(int, ports.split(","))),
        ignoring_period=0,
        knocker_lifetime=3600,
        door_duration=604800,
    )
    assert loaded.warnings == (
        f"{file}:1: ports_to_controls: port 22/tcp is listed twice",
        *(f"{file}: {warning}" for warning in warnings),
    )


def test_repeated_port_of_a_sniffed_sequence_has_a_warning(world: World) -> None:
    write(world.home_file, more=sniffed("udp:11 tcp:2311 udp:15", opens='[\n53, "53/udp", "53/UDP"]'))
    (warning,) = world.load().warnings
    assert warning == f"{world.home_file}:6: open: port 53/udp is listed twice"


def test_variables_have_21_ports_and_repeated_ones(world: World) -> None:
    ports = tuple(20000 + 7 * number % 23 for number in range(21))
    loaded = world.load(environ={"KNOCKER_SEQ": f"[{text_of(ports)}]", "KNOCKER_PORTS": "22, 80, 22"})
    assert (loaded.settings.opening_sequence, loaded.settings.guarded_ports) == (ports, (Port(22), Port(80)))
    assert loaded.warnings == ("KNOCKER_PORTS: port 22/tcp is listed twice",)


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("max_opened_door_durations", "the nearest known key is max_opened_door_duration"),
        ("ports_to_control", "the nearest known key is ports_to_controls"),
        ("log_level", "see port-knocking-doors --show-configuration-file-help"),
        ("interface", "see port-knocking-doors --show-configuration-file-help"),
    ],
)
def test_unknown_key_names_the_nearest_one_only_if_near(world: World, key: str, advice: str) -> None:
    write(world.home_file, more=f"{key} = 1\n")
    assert world.refusal() == f"{world.home_file}:3: the key {key} is unknown, {advice}"


# Warnings


def test_private_file_with_good_sequence_has_no_warning(world: World) -> None:
    write(world.home_file)
    assert world.load().warnings == ()


def test_interfaces_without_sniffed_sequence_have_a_warning(world: World) -> None:
    write(world.home_file)
    (warning,) = world.load(interfaces=["eth0"]).warnings
    assert warning.startswith("--interface: has no effect without a [[sequence]]")


def test_warnings_and_representations_show_no_sequence(world: World) -> None:
    ports = tuple(sorted(sequence(0)))
    loaded = world.load(conf=write(world.root / "conf", mode=0o666), magic_seq=text_of(ports), ports=f"{ports[0]}/udp")
    assert len(loaded.warnings) == 3
    assert all(warning.isprintable() for warning in loaded.warnings)
    assert not any(str(port) in warning for port in ports for warning in loaded.warnings)
    assert not any(str(port) in repr(loaded) for port in ports[1:])


# Files of other daemons

KNOCKD = """\
[options]
Interface = ppp0
[open SSH]
Sequence = 5432,9321,7123
Command = true %IP%
"""
TPORTKNOCKD = "<web>\nsequence = tcp:5432 udp:7001 tcp:6999\ntimeout = 10\nstart_command = true\n</web>\n"


def foreign(path: Path, text: str = KNOCKD, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def importing(*tables: str, traps: int = 0) -> str:
    words = (table.split() for table in tables)
    return "".join(f"[[import]]\nformat = '{form}'\npath = '{path}'\ntraps = {traps}\n" for form, path in words)


def test_imported_files_add_their_sequences(world: World) -> None:
    foreign(world.home / "knockd.conf")
    foreign(world.root / "t.conf", TPORTKNOCKD)
    own = sniffed("udp:5 tcp:9 udp:7", "own")
    write(
        world.root / "conf",
        more=own + importing(f"tportknockd {world.root}/t.conf", "knockd home/knockd.conf", traps=9),
    )
    loaded = world.load(conf=world.root / "conf")
    assert loaded.warnings == ()
    assert [(one.name, one.dialect, one.traps, one.group) for one in loaded.settings.sequences] == [
        ("own", Dialect.NATIVE, 0, ""),
        ("web", Dialect.TPORTKNOCKD, 9, f"{world.root}/t.conf"),
        ("open SSH", Dialect.KNOCKD, 9, f"{world.home}/knockd.conf"),
    ]
    assert loaded.settings.sequences[2].scope == Scope(interfaces=("ppp0",))
    assert len(loaded.settings.imports) == 2


def test_imported_path_may_begin_with_tilde(world: World) -> None:
    foreign(world.home / "knockd.conf")
    write(world.root / "conf", more=importing("knockd ~/knockd.conf"))
    assert [one.name for one in world.load(conf=world.root / "conf").settings.sequences] == ["open SSH"]


@pytest.mark.parametrize("form", ["knockd", "tportknockd"])
@pytest.mark.parametrize(
    ("make", "message"),
    [(make, message) for make, message in BROKEN if make in (a_folder, a_dangling_link, a_pipe, a_device, too_large)],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_broken_imported_file_is_refused(world: World, make: Callable[[Path], None], message: str, form: str) -> None:
    make(world.root / "x")
    write(world.home_file, more=importing(f"{form} {world.root}/x"))
    assert world.refusal().startswith(
        f"{world.root}/x{message}".replace("TOML text", f"a configuration file of {form}")
    )


def test_error_of_imported_file_has_its_own_line(world: World) -> None:
    path = foreign(world.root / "x", KNOCKD.replace("9321", "ssh"))
    write(world.home_file, more=importing(f"knockd {path}"))
    assert world.refusal().startswith(f'{path}:4: Sequence: position 2: "ssh" is not a port')
    foreign(path, TPORTKNOCKD.replace("tcp:5432", "sctp:5432"))
    write(world.home_file, more=importing(f"tportknockd {path}"))
    assert world.refusal().startswith(f"{path}:2: sequence: position 1: the protocol is unknown")


def test_name_in_two_files_is_refused(world: World) -> None:
    path = foreign(world.root / "x", KNOCKD.replace("open SSH", "ssh") * 2)
    write(world.home_file, more=importing(f"knockd {path}"))
    assert [one.name for one in world.load().settings.sequences] == ["ssh", "ssh"]  # as knockd has it
    write(world.home_file, more=sniffed("udp:5 tcp:9 udp:7", "ssh") + importing(f"knockd {path}"))
    assert world.refusal() == (f"{path}:3: ssh is the name of a sequence of {world.home_file}, expected another name")
    other = foreign(world.root / "y", TPORTKNOCKD.replace("web", "ssh"))
    write(world.home_file, more=importing(f"knockd {path}", f"tportknockd {other}"))
    assert world.refusal() == f"{other}: ssh is the name of a sequence of {path}, expected another name"
    foreign(path, KNOCKD.replace("open SSH", "main"))
    write(world.home_file, more=importing(f"knockd {path}"))
    assert world.refusal() == f"{path}:3: main is the name of the opening sequence, expected another name"


def test_imported_sequence_may_be_the_start_of_another(world: World) -> None:
    foreign(world.root / "x", KNOCKD + "[two]\nSequence = 5432,9321\n")
    own = sniffed("tcp:5432 tcp:9321 tcp:7123", "own")
    write(world.root / "conf", more=own + importing("knockd x"))
    assert len(world.load(conf=world.root / "conf").settings.sequences) == 3


@pytest.mark.parametrize("source", ["--magic-seq", "KNOCKER_SEQ"])
def test_overriding_sequence_that_starts_with_another_is_refused(world: World, source: str) -> None:
    ports = sequence(3)
    write(world.home_file, more=sniffed(" ".join(f"udp:{port}" for port in ports[:3]), "own"))
    assert len(world.load().settings.sequences) == 1
    given = {"magic_seq": text_of(ports)} if source == "--magic-seq" else {"environ": {"KNOCKER_SEQ": text_of(ports)}}
    problem = "sequence main begins with all steps of sequence own, expected none to be the start of another"
    assert world.refusal(**given) == f"{source}: {problem}"


def test_imported_sequence_may_be_the_start_of_the_opening_one(world: World) -> None:
    ports = sequence(3)
    foreign(world.root / "x", f"[two]\nSequence = {','.join(f'{port}:udp' for port in ports[:3])}\n")
    write(world.home_file, more=importing(f"knockd {world.root / 'x'}"))
    assert len(world.load(magic_seq=text_of(ports)).settings.sequences) == 1


def test_traps_must_fit_between_steps_of_imported_file(world: World) -> None:
    path = foreign(world.root / "x", "[d]\nSequence = 7,8,9\n")
    write(world.home_file, more=importing(f"knockd {path}", traps=1))
    assert world.refusal().startswith(f"{path}:1: the steps of sequence d are neighbouring ports, so no trap fits")
    write(world.home_file, more=importing(f"knockd {path}"))
    assert len(world.load().settings.sequences) == 1


WRITABLE = "other users can write the file, and so run commands as the daemon: chmod 600 "


@pytest.mark.parametrize(
    ("mode", "warning"),
    [
        (0o600, ""),
        (0o640, "permissions 0640 are too open, the file holds a secret: chmod 600 "),
        (0o644, "permissions 0644 are too open, the file holds a secret: chmod 600 "),
        (
            0o620,
            f"permissions 0620 are too open, {WRITABLE}",
        ),
        (
            0o602,
            f"permissions 0602 are too open, {WRITABLE}",
        ),
    ],
)
@pytest.mark.parametrize("form", ["knockd", "tportknockd"])
def test_imported_file_with_open_permissions_has_a_warning(world: World, form: str, mode: int, warning: str) -> None:
    path = foreign(world.root / "x", KNOCKD if form == "knockd" else TPORTKNOCKD, mode)
    write(world.home_file, more=importing(f"{form} {path}"))
    assert world.load().warnings == ((f"{path}: {warning}{path}",) if warning else ())


@pytest.mark.parametrize("form", ["knockd", "tportknockd"])
def test_imported_file_of_another_owner_has_a_warning(world: World, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That user can run any command as the daemon. Root can do so anyway."""
    path = foreign(world.root / "x", KNOCKD if form == "knockd" else TPORTKNOCKD)
    write(world.home_file, more=importing(f"{form} {path}"))
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (warning,) = world.load().warnings
    assert warning == (
        f"{path}: the owner is another user (uid {path.stat().st_uid}), who can run commands as the daemon: "
        f"chown {os.geteuid()} {path}"
    )


def test_unwise_imported_sequences_have_warnings(world: World) -> None:
    text = "[a]\nSequence=7000,8000,9000\n[b]\nSequence=77\n[c]\nSequence=13,12,11\n[d]\nSequence=2222,5432,7\n"
    path = foreign(world.root / "x", text)
    write(world.home_file, more=importing(f"knockd {path}"))
    warnings = world.load(served=[Port(2222)]).warnings
    assert [warning.removeprefix(f"{path}: sequence ").split(",")[0] for warning in warnings] == [
        "a: PUBLIC SEQUENCE: its ports are a published example; choose others",
        "b: 1 step is soon found by chance; use 3 or more",
        "c: its ports are in rising or falling order",
        "d: 1 port(s) of its steps have a program listening",
    ]


def test_knockd_file_alone_has_no_opening_sequence(world: World) -> None:
    path = foreign(world.root / "x", KNOCKD + "UseSyslog\n")
    loaded = loader.load_knockd(path, None, False, served=lambda: ())
    (one,) = loaded.settings.sequences
    assert loaded.settings == Settings(guarded_ports=(), opening_sequence=(), open_knock_ports=False, sequences=(one,))
    assert (one.scope, one.group, one.traps) == (Scope(interfaces=("ppp0",)), str(path), 0)
    assert loaded.options == knockd.Options(use_syslog=True, interface="ppp0")
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("text", "interface", "expected"),
    [(KNOCKD, None, "ppp0"), (KNOCKD, "eth1", "eth1"), ("[d]\nSequence=1,5,3\n", None, "eth0")],
)
def test_interface_of_knockd_file(world: World, text: str, interface: str | None, expected: str) -> None:
    loaded = loader.load_knockd(foreign(world.root / "x", text), interface, True, served=lambda: ())
    assert [one.scope for one in loaded.settings.sequences] == [Scope(None, (expected,), True)]
    assert loaded.options.interface == expected
    with pytest.raises(ConfigError, match=r"^--interface: an interface's name has a character"):
        loader.load_knockd(world.root / "x", "a/b", False)


def test_files_of_one_time_sequences_are_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    path = foreign(world.root / "x", "[d]\nSequence=1,5,3\n[once]\nOne_Time_Sequences = one-time\n")
    with pytest.raises(ConfigError) as refused:
        loader.load_knockd(path, None, False)
    assert str(refused.value) == (
        f"{path}:3: one-time: cannot read the file (No such file or directory), expected a file that this user may read"
    )
    one_time = foreign(world.root / "one-time", "# 1,2\n 5,3,9\n")
    loaded = loader.load_knockd(path, None, False, served=lambda: ())
    assert [one.one_time for one in loaded.settings.sequences] == ["", str(one_time)]
    assert loaded.warnings == ()
    foreign(one_time, "#5,3,9\nnine\n", 0o644)
    assert loader.load_knockd(path, None, False, served=lambda: ()).warnings == (
        "one-time: permissions 0644 are too open, the file holds a secret: chmod 600 one-time",
        "one-time: no one-time sequence is left, so door once stays closed; write new ones",
    )
