"""Which file is in force, what beats it, what is worth a warning; and the file of a new installation."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from port_knocking_doors.client import snippets
from port_knocking_doors.config import knockd, loader, render
from port_knocking_doors.config.loader import Loaded, load, write_home_file
from port_knocking_doors.errors import ConfigError, DoorsError
from port_knocking_doors.model import DEFAULT_SEQUENCE, Dialect, Port, Protocol, Reach, Settings

EXAMPLE = ",".join(map(str, DEFAULT_SEQUENCE))


def sequence(tens: int) -> tuple[int, ...]:
    """A sequence that tells where it came from."""
    return tuple(20000 + 10 * tens + unit for unit in (1, 5, 2, 4, 3))


def text_of(ports: tuple[int, ...]) -> str:
    return ",".join(map(str, ports))


def write(path: Path, tens: int = 0, guarded: str = "[22]", more: str = "", mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"ports_to_controls = {guarded}\nopening_sequence = {list(sequence(tens))}\n{more}")
    path.chmod(mode)
    return path


def sniffed(steps: str, name: str = "ssh", opens: str = "[2222]") -> str:
    return f"[[sequence]]\nname = '{name}'\nsteps = {steps.split()}\nopen = {opens}\ntraps = 0\n"


class World:
    """A home and a system of their own, in which nothing is configured yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir()
        self.home_file = self.home / ".port_knocker.toml"
        self.system_file = root / "etc" / "port_knocker.toml"

    def load(
        self,
        conf: Path | None = None,
        magic_seq: str | None = None,
        ports: str | None = None,
        zone: str | None = None,
        interfaces: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        served: Collection[Port] = (),
    ) -> Loaded:
        return load(
            conf,
            magic_seq=magic_seq,
            ports=ports,
            zone=zone,
            interfaces=interfaces,
            environ=environ or {},
            home=self.home,
            system=self.system_file,
            served=lambda: served,
        )

    def refusal(self, **given: Any) -> str:
        with pytest.raises(ConfigError) as refused:
            self.load(**given)
        assert refused.value.exit_status == 2
        assert str(refused.value).isprintable()
        return str(refused.value)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# Looking up


@pytest.mark.parametrize("system", [False, True], ids=["", "system"])
@pytest.mark.parametrize("home", [False, True], ids=["", "home"])
@pytest.mark.parametrize("conf", [False, True], ids=["", "conf"])
def test_the_first_file_that_is_there_is_in_force(world: World, conf: bool, home: bool, system: bool) -> None:
    places = [world.root / "conf.toml", world.home_file, world.system_file]
    present = [write(place, tens) for tens, place in enumerate(places) if (conf, home, system)[tens]]
    loaded = world.load(conf=places[0] if conf else None)
    assert loaded.path == (present[0] if present else None)
    expected = sequence(places.index(present[0])) if present else DEFAULT_SEQUENCE
    assert loaded.settings.opening_sequence == expected


def test_a_tilde_in_the_option_is_the_home(world: World) -> None:
    write(world.home / "sub" / "f.toml", 7)
    loaded = world.load(conf=Path("~/sub/f.toml"))
    assert loaded.path == world.home / "sub" / "f.toml"
    assert "there is no such user" in world.refusal(conf=Path("~nobody-of-this-name/f.toml"))


def a_folder(path: Path) -> None:
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def too_large(path: Path) -> None:
    path.write_bytes(b"#" * (2**20 + 1))


def not_utf8(path: Path) -> None:
    path.write_bytes(b"\n\n# \xff\n")


def not_toml(path: Path) -> None:
    path.write_text("\nzone = = 1")


def empty(path: Path) -> None:
    path.touch()


BROKEN = [
    (a_folder, ": this file cannot be read (Is a directory), expected one that this user may read"),
    (a_dangling_link, ": this file cannot be read (No such file or directory), expected "),
    (a_link_to_itself, ": this file cannot be read (Too many levels of symbolic links), expected "),
    (a_pipe, ": this is not an ordinary file, expected TOML text"),
    (a_device, ": this is not an ordinary file, expected TOML text"),
    (too_large, ": this file is too large, expected at most 1048576 bytes"),
    (not_utf8, ":3: this is not UTF-8, expected TOML text"),
    (not_toml, ":2: this is not TOML: a value is none that TOML knows, expected one such as 10"),
    (empty, ": the key ports_to_controls is missing, expected a list of 1 to 64 ports"),
]


@pytest.mark.parametrize("place", ["conf", "home", "system"])
@pytest.mark.parametrize(("make", "message"), BROKEN, ids=[make.__name__ for make, _ in BROKEN])
def test_a_file_that_is_there_is_never_passed_over(
    world: World, make: Callable[[Path], None], message: str, place: str
) -> None:
    path = {"conf": world.root / "conf", "home": world.home_file, "system": world.system_file}[place]
    world.system_file.parent.mkdir()
    make(path)
    if place != "system":
        write(world.system_file)
    said = world.refusal(conf=path if place == "conf" else None, magic_seq=text_of(sequence(1)), ports="22")
    assert said.startswith(f"{path}{message}")


def test_a_file_that_may_not_be_read_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world.home_file)
    write(world.system_file)

    def refuse(path: object, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)  # not by its mode: the tests may run as root
    assert world.refusal() == (
        f"{world.home_file}: this file cannot be read (Permission denied), expected one that this user may read"
    )


def test_a_home_that_may_not_be_looked_into_is_not_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world.system_file)

    def refuse(path: Path, *_: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "lstat", refuse)
    assert "cannot be read" in world.refusal()


def test_a_home_that_is_no_folder_holds_no_file(world: World) -> None:
    write(world.system_file, 5)
    world.home = Path("/dev/null")
    assert world.load().path == world.system_file


def test_a_named_file_that_is_not_there_is_refused(world: World) -> None:
    write(world.home_file)
    assert "(No such file or directory)" in world.refusal(conf=world.root / "typo")
    assert "(no possible name)" in world.refusal(conf=world.root / "a\0b")


def test_an_odd_file_name_keeps_the_message_in_one_line(world: World) -> None:
    assert "\\n" in world.refusal(conf=world.root / "a\nb\udcff")


def test_a_byte_order_mark_is_overlooked(world: World) -> None:
    write(world.home_file, 4)
    world.home_file.write_bytes(b"\xef\xbb\xbf" + world.home_file.read_bytes())
    assert world.load().settings.opening_sequence == sequence(4)


# Precedence


@pytest.mark.parametrize("option", [False, True], ids=["", "option"])
@pytest.mark.parametrize("variable", [False, True], ids=["", "variable"])
@pytest.mark.parametrize("file", [False, True], ids=["", "file"])
def test_option_beats_variable_beats_file_beats_default(world: World, file: bool, variable: bool, option: bool) -> None:
    if file:
        write(world.home_file, 1, guarded="[101]")
    environ = {"KNOCKER_SEQ": text_of(sequence(2)), "KNOCKER_PORTS": "102"} if variable else {}
    loaded = world.load(
        magic_seq=text_of(sequence(3)) if option else None, ports="103/udp" if option else None, environ=environ
    )
    rank = 3 if option else 2 if variable else 1 if file else 0
    assert loaded.settings.opening_sequence == (sequence(rank) if rank else DEFAULT_SEQUENCE)
    assert loaded.settings.guarded_ports == ((Port(22), Port(101), Port(102), Port(103, Protocol.UDP))[rank],)


def test_the_option_for_the_zone_beats_the_file(world: World) -> None:
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
    assert world.refusal(interfaces=["eth0", ""]).startswith("--interface: an empty text is not an interface's name")
    assert world.refusal(interfaces=["a/b"]).startswith("--interface: an interface's name has a character that")


def test_an_option_for_one_leaves_the_variable_for_the_other(world: World) -> None:
    loaded = world.load(magic_seq=text_of(sequence(3)), environ={"KNOCKER_SEQ": "wrong", "KNOCKER_PORTS": "[80, 443]"})
    assert loaded.settings == Settings(opening_sequence=sequence(3), guarded_ports=(Port(80), Port(443)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"magic_seq": "1,2,3,4"}, "--magic-seq: it has 4 ports, expected 5 to 20"),
        ({"magic_seq": ""}, "--magic-seq: it has 0 ports, expected 5 to 20"),
        ({"magic_seq": "0,2,3,4,5"}, "--magic-seq: position 1: port 0 is out of range, expected 1 to 65535"),
        ({"magic_seq": "1,2,3,4,65536"}, "--magic-seq: position 5: port 65536 is out of range, expected 1 to 65535"),
        (
            {"magic_seq": "1,2,ssh,4,5"},
            '--magic-seq: position 3: "ssh" is not a port, expected a whole number from 1 to 65535',
        ),
        ({"environ": {"KNOCKER_SEQ": ""}}, "KNOCKER_SEQ: it has 0 ports, expected 5 to 20"),
        ({"environ": {"KNOCKER_SEQ": "1,2,3,4"}}, "KNOCKER_SEQ: it has 4 ports, expected 5 to 20"),
        ({"environ": {"KNOCKER_PORTS": ""}}, "KNOCKER_PORTS: it has 0 ports, expected 1 to 64"),
        (
            {"environ": {"KNOCKER_PORTS": "22/sctp"}},
            'KNOCKER_PORTS: position 1: "sctp" is not a protocol, expected tcp or udp',
        ),
        ({"ports": "0"}, "--ports: position 1: port 0 is out of range, expected 1 to 65535"),
        ({"ports": "22,22"}, "--ports: position 2: this port stands there already, expected each once"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.split(", expected")[0],
)
def test_a_wrong_option_or_variable_is_refused_by_its_name(world: World, given: dict[str, Any], message: str) -> None:
    assert world.refusal(**given) == message
    write(world.home_file)
    assert world.refusal(**given) == message


def test_what_only_file_and_option_together_make_wrong_is_refused(world: World) -> None:
    write(world.home_file, more="max_open_doors = 65536\n")
    assert world.refusal(ports="22,23").startswith("--ports: 65536 open doors of 2 ports need 131072 firewall rules")


# Warnings


def test_a_private_file_with_a_good_sequence_deserves_no_warning(world: World) -> None:
    write(world.home_file)
    assert world.load().warnings == ()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_use_is_warned_of(world: World, mode: int) -> None:
    path = write(world.root / "my conf", mode=mode)
    (warning,) = world.load(conf=path).warnings
    assert warning == (f"{path}: others may use this file (mode {mode:04o}), and it holds a secret: chmod 600 '{path}'")


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
def test_the_public_example_is_warned_of_loudly(world: World, given: dict[str, Any], source: str) -> None:
    (warning,) = world.load(**given).warnings
    assert warning.startswith(f"{source}PUBLIC SEQUENCE: ")
    assert "--set-configuration-file-in-home" in warning


def test_the_public_example_in_a_file_is_warned_of_unless_it_is_beaten(world: World) -> None:
    write(world.home_file)
    world.home_file.write_text(render.render(Settings()))
    (warning,) = world.load().warnings
    assert warning.startswith(f"{world.home_file}: PUBLIC SEQUENCE: ")
    assert world.load(magic_seq=text_of(sequence(1))).warnings == ()


@pytest.mark.parametrize("ports", ["20001,20002,20003,20004,20009", "5,4,3,2,1", "7,7,7,7,7"])
def test_a_sequence_in_order_is_warned_of(world: World, ports: str) -> None:
    (warning,) = world.load(magic_seq=ports).warnings
    assert warning.startswith("--magic-seq: the ports of the sequence are in rising or falling order")


def test_a_guarded_port_that_is_knocked_on_is_warned_of(world: World) -> None:
    first = sequence(0)[0]
    (warning,) = world.load(magic_seq=text_of(sequence(0)), ports=f"{first}/udp,{first},1194/udp").warnings
    assert warning.startswith("--magic-seq: 1 guarded UDP port(s) are also in the sequence")
    assert world.load(magic_seq=text_of(sequence(0)), ports=f"{first},1194/udp").warnings == ()


@pytest.mark.parametrize(
    ("steps", "warning"),
    [
        pytest.param("udp:5432 tcp:9321 udp:7123", "", id="good"),
        pytest.param("udp:5432 tcp:9321", "it has 2 steps, which are soon found by chance", id="short"),
        pytest.param("udp:5432 tcp:7123 tcp:9321", "its ports are in rising or falling order", id="rising"),
        pytest.param("tcp:9321 udp:7123 tcp:5432:x", "its ports are in rising or falling order", id="falling"),
        pytest.param("udp:5432 udp:5432 udp:5432", "its ports are in rising or falling order", id="one step"),
        pytest.param("tcp:5432:x tcp:5432 tcp:5432:n", "", id="flags alone"),
        pytest.param("udp:1234 tcp:543 tcp:123:frap", "PUBLIC SEQUENCE: ", id="this documentation"),
        pytest.param("tcp:7000 tcp:8000 tcp:9000", "PUBLIC SEQUENCE: ", id="knockd's example"),
        pytest.param("udp:2222 tcp:3333:sa udp:4444", "PUBLIC SEQUENCE: ", id="knockd's other example"),
        pytest.param("udp:16001 udp:16002 udp:16003 udp:16004 udp:16005", "PUBLIC SEQUENCE: ", id="the built-in one"),
    ],
)
def test_an_unwise_sniffed_sequence_is_warned_of_by_its_name(world: World, steps: str, warning: str) -> None:
    write(world.home_file, more=sniffed("udp:11 tcp:2311 udp:15", "other", "[80]") + sniffed(steps))
    warnings = world.load().warnings
    assert len(warnings) == bool(warning)
    for said in warnings:
        assert said.startswith(f"{world.home_file}: sequence ssh: {warning}")
        assert not any(step.split(":")[1] in said for step in steps.split())


def test_steps_on_ports_in_use_are_warned_of(world: World) -> None:
    knock_port = sequence(0)[0]
    steps = f"tcp:22 udp:5432 tcp:80:x tcp:22:f udp:443 tcp:9321 udp:{knock_port} udp:53"
    write(world.home_file, more=sniffed(steps, opens="[80]"))
    udp = Protocol.UDP
    served = [Port(22), Port(9321), Port(5432), Port(443), Port(53, udp), Port(5432, udp), Port(knock_port, udp)]
    at = f"{world.home_file}: sequence ssh:"
    guarded = "are guarded, so those who use what is behind them knock, too"
    busy = "are served by a program of this machine, so those who use it knock, too"
    assert world.load(served=served).warnings == (
        f"{at} 2 port(s) of its steps {guarded}; choose others",
        f"{at} 3 port(s) of its steps {busy}; choose others",
    )


def test_interfaces_without_a_sniffed_sequence_are_warned_of(world: World) -> None:
    write(world.home_file)
    (warning,) = world.load(interfaces=["eth0"]).warnings
    assert warning.startswith("--interface: no [[sequence]] is there to be heard on an interface")


def test_no_warning_and_no_representation_shows_a_sequence(world: World) -> None:
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


def test_imported_files_bring_their_sequences(world: World) -> None:
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
    assert loaded.settings.sequences[2].reach == Reach(interfaces=("ppp0",))
    assert len(loaded.settings.imports) == 2


def test_an_imported_path_may_begin_in_the_home(world: World) -> None:
    foreign(world.home / "knockd.conf")
    write(world.root / "conf", more=importing("knockd ~/knockd.conf"))
    assert [one.name for one in world.load(conf=world.root / "conf").settings.sequences] == ["open SSH"]


@pytest.mark.parametrize("form", ["knockd", "tportknockd"])
@pytest.mark.parametrize(
    ("make", "message"),
    [(make, message) for make, message in BROKEN if make in (a_folder, a_dangling_link, a_pipe, a_device, too_large)],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_imported_file_is_used_or_refused(
    world: World, make: Callable[[Path], None], message: str, form: str
) -> None:
    make(world.root / "x")
    write(world.home_file, more=importing(f"{form} {world.root}/x"))
    assert world.refusal().startswith(f"{world.root}/x{message}".replace("TOML text", f"a file of {form}'s"))


def test_what_is_wrong_with_an_imported_file_is_told_with_its_own_line(world: World) -> None:
    path = foreign(world.root / "x", KNOCKD.replace("9321", "ssh"))
    write(world.home_file, more=importing(f"knockd {path}"))
    assert world.refusal().startswith(f'{path}:4: Sequence: position 2: "ssh" is not a port')
    foreign(path, TPORTKNOCKD.replace("tcp:5432", "sctp:5432"))
    write(world.home_file, more=importing(f"tportknockd {path}"))
    assert world.refusal().startswith(f"{path}:2: sequence: position 1: the protocol is unknown")


def test_a_name_is_of_one_file_alone(world: World) -> None:
    path = foreign(world.root / "x", KNOCKD.replace("open SSH", "ssh") * 2)
    write(world.home_file, more=importing(f"knockd {path}"))
    assert [one.name for one in world.load().settings.sequences] == ["ssh", "ssh"]  # as knockd has it
    write(world.home_file, more=sniffed("udp:5 tcp:9 udp:7", "ssh") + importing(f"knockd {path}"))
    assert world.refusal() == (f"{path}:3: ssh is the name of a sequence of {world.home_file}, expected another one")
    other = foreign(world.root / "y", TPORTKNOCKD.replace("web", "ssh"))
    write(world.home_file, more=importing(f"knockd {path}", f"tportknockd {other}"))
    assert world.refusal() == f"{other}: ssh is the name of a sequence of {path}, expected another one"
    foreign(path, KNOCKD.replace("open SSH", "main"))
    write(world.home_file, more=importing(f"knockd {path}"))
    assert world.refusal() == f"{path}:3: main is the opening sequence's name, expected another one"


def test_an_imported_sequence_may_begin_another_one(world: World) -> None:
    foreign(world.root / "x", KNOCKD + "[two]\nSequence = 5432,9321\n")
    own = sniffed("tcp:5432 tcp:9321 tcp:7123", "own")
    write(world.root / "conf", more=own + importing("knockd x"))
    assert len(world.load(conf=world.root / "conf").settings.sequences) == 3


@pytest.mark.parametrize("source", ["--magic-seq", "KNOCKER_SEQ"])
def test_what_comes_in_the_opening_sequences_place_begins_no_sequence_of_the_file(world: World, source: str) -> None:
    ports = sequence(3)
    write(world.home_file, more=sniffed(" ".join(f"udp:{port}" for port in ports[:3]), "own"))
    assert len(world.load().settings.sequences) == 1
    given = {"magic_seq": text_of(ports)} if source == "--magic-seq" else {"environ": {"KNOCKER_SEQ": text_of(ports)}}
    problem = "sequence main begins with the whole of sequence own, expected none that begins another"
    assert world.refusal(**given) == f"{source}: {problem}"


def test_an_imported_sequence_may_begin_the_opening_sequence(world: World) -> None:
    ports = sequence(3)
    foreign(world.root / "x", f"[two]\nSequence = {','.join(f'{port}:udp' for port in ports[:3])}\n")
    write(world.home_file, more=importing(f"knockd {world.root / 'x'}"))
    assert len(world.load(magic_seq=text_of(ports)).settings.sequences) == 1


def test_traps_need_room_in_an_imported_file_too(world: World) -> None:
    path = foreign(world.root / "x", "[d]\nSequence = 7,8,9\n")
    write(world.home_file, more=importing(f"knockd {path}", traps=1))
    assert world.refusal().startswith(f"{path}:1: between the neighbouring steps of sequence d no trap has room")
    write(world.home_file, more=importing(f"knockd {path}"))
    assert len(world.load().settings.sequences) == 1


@pytest.mark.parametrize(
    ("mode", "warning"),
    [
        (0o600, ""),
        (0o640, "others may use this file (mode 0640), and it holds a secret: chmod 600 "),
        (0o644, "others may use this file (mode 0644), and it holds a secret: chmod 600 "),
        (
            0o620,
            "others may write this file (mode 0620), and its commands run with all rights of the daemon: chmod 600 ",
        ),
        (
            0o602,
            "others may write this file (mode 0602), and its commands run with all rights of the daemon: chmod 600 ",
        ),
    ],
)
@pytest.mark.parametrize("form", ["knockd", "tportknockd"])
def test_an_imported_file_that_others_can_use_is_warned_of(world: World, form: str, mode: int, warning: str) -> None:
    path = foreign(world.root / "x", KNOCKD if form == "knockd" else TPORTKNOCKD, mode)
    write(world.home_file, more=importing(f"{form} {path}"))
    assert world.load().warnings == ((f"{path}: {warning}{path}",) if warning else ())


@pytest.mark.parametrize("form", ["knockd", "tportknockd"])
def test_an_imported_file_that_another_user_owns_is_warned_of(
    world: World, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He may let the daemon run what he likes; root may anyway."""
    path = foreign(world.root / "x", KNOCKD if form == "knockd" else TPORTKNOCKD)
    write(world.home_file, more=importing(f"{form} {path}"))
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    (warning,) = world.load().warnings
    assert warning == (
        f"{path}: this file belongs to another user (number {path.stat().st_uid}), and its commands run with all rights"
        f" of the daemon: chown {os.geteuid()} {path}"
    )


def test_imported_sequences_are_doubted_like_our_own(world: World) -> None:
    text = "[a]\nSequence=7000,8000,9000\n[b]\nSequence=77\n[c]\nSequence=13,12,11\n[d]\nSequence=2222,5432,7\n"
    path = foreign(world.root / "x", text)
    write(world.home_file, more=importing(f"knockd {path}"))
    warnings = world.load(served=[Port(2222)]).warnings
    assert [warning.removeprefix(f"{path}: sequence ").split(",")[0] for warning in warnings] == [
        "a: PUBLIC SEQUENCE: its ports are a documentation's example",
        "b: it has 1 step",
        "c: its ports are in rising or falling order",
        "d: 1 port(s) of its steps are served by a program of this machine",
    ]


def test_knockd_s_file_alone_opens_nothing_else(world: World) -> None:
    path = foreign(world.root / "x", KNOCKD + "UseSyslog\n")
    loaded = loader.load_knockd(path, None, False, served=lambda: ())
    (one,) = loaded.settings.sequences
    assert loaded.settings == Settings(guarded_ports=(), opening_sequence=(), open_knock_ports=False, sequences=(one,))
    assert (one.reach, one.group, one.traps) == (Reach(interfaces=("ppp0",)), str(path), 0)
    assert loaded.options == knockd.Options(use_syslog=True, interface="ppp0")
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("text", "interface", "expected"),
    [(KNOCKD, None, "ppp0"), (KNOCKD, "eth1", "eth1"), ("[d]\nSequence=1,5,3\n", None, "eth0")],
)
def test_where_knockd_listens(world: World, text: str, interface: str | None, expected: str) -> None:
    loaded = loader.load_knockd(foreign(world.root / "x", text), interface, True, served=lambda: ())
    assert [one.reach for one in loaded.settings.sequences] == [Reach(None, (expected,), True)]
    assert loaded.options.interface == expected
    with pytest.raises(ConfigError, match=r"^--interface: an interface's name has a character"):
        loader.load_knockd(world.root / "x", "a/b", False)


def test_files_of_one_time_sequences(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    path = foreign(world.root / "x", "[d]\nSequence=1,5,3\n[once]\nOne_Time_Sequences = one-time\n")
    with pytest.raises(ConfigError) as refused:
        loader.load_knockd(path, None, False)
    assert str(refused.value) == (
        f"{path}:3: one-time: this file cannot be read (No such file or directory), "
        "expected one that this user may read"
    )
    one_time = foreign(world.root / "one-time", "# 1,2\n 5,3,9\n")
    loaded = loader.load_knockd(path, None, False, served=lambda: ())
    assert [one.one_time for one in loaded.settings.sequences] == ["", str(one_time)]
    assert loaded.warnings == ()
    foreign(one_time, "#5,3,9\nnine\n", 0o644)
    assert loader.load_knockd(path, None, False, served=lambda: ()).warnings == (
        "one-time: others may use this file (mode 0644), and it holds a secret: chmod 600 one-time",
        "one-time: no one-time sequence is left, so door once stays closed; write new ones",
    )


# The file of a new installation


def test_the_written_file_is_private_good_and_in_force(world: World) -> None:
    written = write_home_file(world.home)
    assert written.path == world.home_file
    assert stat.S_IMODE(written.path.lstat().st_mode) == 0o600
    loaded = world.load()
    assert loaded.path == written.path
    assert loaded.warnings == ()
    assert loaded.settings == Settings(opening_sequence=loaded.settings.opening_sequence)
    assert list(world.home.iterdir()) == [written.path]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_no_umask_changes_who_can_read_it_at_any_moment(
    world: World, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    really = os.open

    def watched(path: Path, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor = really(path, flags, mode, **more)
        seen.add(stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077)
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(loader, "_sync_folder", lambda _: None)
    before = os.umask(umask)
    try:
        written = write_home_file(world.home)
    finally:
        os.umask(before)
    assert seen == {0}
    assert stat.S_IMODE(written.path.stat().st_mode) == 0o600


def test_no_two_installations_share_a_sequence() -> None:
    fresh = {loader.fresh_sequence() for _ in range(200)}
    assert len(fresh) == 200
    for ports in fresh:
        assert len(set(ports)) == 5
        assert list(ports) not in (sorted(ports), sorted(ports, reverse=True))
        assert all(1024 <= port < 32768 for port in ports)


@pytest.mark.parametrize("make", [empty, a_folder, a_dangling_link, a_pipe, not_toml], ids=lambda make: make.__name__)
def test_what_is_there_already_is_left_alone(world: World, make: Callable[[Path], None]) -> None:
    make(world.home_file)
    before = world.home_file.lstat()
    with pytest.raises(ConfigError) as refused:
        write_home_file(world.home)
    assert str(refused.value) == (
        f"{world.home_file}: something is there already and was left alone, expected a name not yet in use"
    )
    assert world.home_file.lstat() == before
    assert list(world.home.iterdir()) == [world.home_file]


def test_what_appears_meanwhile_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.fsync

    def slowly(descriptor: int) -> None:
        really(descriptor)
        world.home_file.write_text("mine")

    monkeypatch.setattr(os, "fsync", slowly)
    with pytest.raises(ConfigError, match="something is there already"):
        write_home_file(world.home)
    assert world.home_file.read_text() == "mine"
    assert list(world.home.iterdir()) == [world.home_file]


@pytest.mark.parametrize("step", ["fsync", "fchmod", "link"])
def test_a_full_disk_leaves_nothing_behind(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(DoorsError) as failed:
        write_home_file(world.home)
    assert str(failed.value) == f"{world.home_file}: cannot be written (No space left on device)"
    assert failed.value.exit_status == 1
    assert list(world.home.iterdir()) == []


def test_a_home_that_is_not_there_is_said(world: World) -> None:
    with pytest.raises(DoorsError, match="No such file or directory"):
        write_home_file(world.root / "nowhere")


def test_a_kill_midway_leaves_no_half_file_in_place(world: World) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from port_knocking_doors.config.loader import write_home_file\n"
        "write_home_file(pathlib.Path(sys.argv[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(world.home)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not world.home_file.exists()
    assert [stat.S_IMODE(path.stat().st_mode) for path in world.home.iterdir()] == [0o600]
    assert write_home_file(world.home).path.is_file()


def test_the_client_line_knocks_on_every_port_in_order(world: World, tmp_path: Path) -> None:
    written = write_home_file(world.home)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, script in {"nc": 'echo "$@" $(od -An -c | tr "\\\\" /)', "sleep": ":"}.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_folder / name).chmod(0o700)
    path = f"{bin_folder}:{os.environ['PATH']}"
    shown = subprocess.run(
        ["sh", "-c", snippets.shell_line(written.sequence)],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["-u", "-w", "1", "HOST", str(port), "k", "n", "o", "c", "k", "/n"]
        for port in world.load().settings.opening_sequence
    ]
    assert str(written.sequence) not in repr(written)
