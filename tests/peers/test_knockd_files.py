"""knockd's files as real knockd reads them, and as we do: generated ones, good and broken, and a list of differences.

knockd reads its whole file before it opens the interface. With one that does not exist it ends at once, and its message
says whether the file passed; with -D it shows how it read each line. No root and no sandbox is needed for that.
"""

import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors.config import knockd, loader
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Flags, Protocol, Sequence, Step

NOWHERE = "no-such-link0"
FILES = 60
"""Of each kind and seed."""


@dataclass
class Door:
    """What knockd says of a door: for each directive the last value, and the flags in their order."""

    name: str
    said: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


@dataclass
class Read:
    """What knockd made of a file."""

    accepted: bool
    doors: list[Door]
    options: dict[str, str]
    error: str


def knockd_reads(path: Path, *more: str) -> Read:
    command = ["knockd", *(more or ("-i", NOWHERE)), "-c", str(path), "-D"]
    ended = subprocess.run(command, capture_output=True, cwd=path.parent, check=False, timeout=30)
    said, error = ended.stdout.decode("utf-8", "surrogateescape"), ended.stderr.decode("utf-8", "surrogateescape")
    assert ended.returncode == 1, error
    doors: list[Door] = []
    options: dict[str, str] = {}
    for line in said.split("\n"):
        if head := re.fullmatch(r"config: new section: '(.*)'", line):
            name = head[1]
            if name != "options":
                doors.append(Door(name))
        elif flag := re.fullmatch(r"config: tcp flag: (.*)", line):
            doors[-1].flags.append(flag[1])
        elif line == "config: usesyslog":
            options["usesyslog"] = ""
        elif option := re.fullmatch(r"config: (log file|pid file|interface): (.*)", line):
            options[option[1]] = option[2]
        elif doors and line.startswith(start := f"config: {doors[-1].name}: "):
            key, _, value = line.removeprefix(start).partition(":")
            doors[-1].said[key] = value.removeprefix(" ")
    # Of a line of one-time sequences that it skips it says what is wrong, and goes on.
    last = error.strip().splitlines()[-1]
    return Read(last.startswith(f"could not open {NOWHERE}: "), doors, options, last)


def we_read(path: Path) -> loader.LoadedKnockd | str:
    """What we make of it, or what we say is wrong."""
    try:
        return loader.load_knockd(path, None, False, served=lambda: ())
    except ConfigError as wrong:
        said = str(wrong)
    assert said.isprintable()
    assert re.match(rf"{re.escape(str(path))}(:\d+)?: ", said)
    return said


def meaning(door: Door) -> Sequence:
    """The sequence that is what knockd says of a door, for what we have to agree on."""
    flags = mask = 0
    for word in door.flags:
        bit = Flags[word.removeprefix("!")]
        mask |= bit
        flags = flags & ~bit if word.startswith("!") else flags | bit
    steps = []
    for item in door.said.get("sequence", "").split(","):
        port, _, name = item.partition(":")
        tcp = name == "tcp"
        steps.append(Step(Protocol.TCP, int(port), flags, mask) if tcp else Step(Protocol.UDP, int(port)))
    return Sequence(door.name, tuple(steps), timeout=float(door.said.get("seq_timeout", 25)), flags=(mask, flags))


def compare(read: Read, ours: loader.LoadedKnockd) -> None:
    sequences = ours.settings.sequences
    assert [one.name for one in sequences] == [door.name for door in read.doors]
    for one, door in zip(sequences, read.doors, strict=True):
        expected = meaning(door)
        assert one.timeout == expected.timeout
        if not one.one_time:
            assert one.steps == expected.steps
        assert one.flags == expected.flags
        target = door.said.get("target")
        assert one.scope.target == (ip_address(target) if target is not None else None)
        start, start6 = door.said.get("start_command", ""), door.said.get("start_command_6")
        stop, stop6 = door.said.get("stop_command", ""), door.said.get("stop_command_6")
        # What runs for either family, as knockd decides it.
        for family, first, second in (
            ("192.0.2.1", start, stop),
            ("2001:db8::1", start if start6 is None else start6, stop if stop6 is None else stop6),
        ):
            address = ip_address(family)
            command = one.access.command
            assert (command.start_for(address) if command else "") == first
            assert (command.stop_for(address) if command else "") == (second if first else "")
        if one.access.command is not None:
            assert one.access.command.delay == float(door.said.get("cmd_timeout", 10))
    assert ours.options.use_syslog == ("usesyslog" in read.options)
    assert ours.options.log_file == read.options.get("log file", "")
    assert ours.options.pid_file == read.options.get("pid file", "")


# Generated files. Each piece says whether both take it, neither, or knockd alone, in its careless way.

GOOD, BAD, CARELESS = "good", "bad", "careless"


class Writer:
    """Writes one file, and keeps account of what is wrong with it."""

    def __init__(self, seed: str, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.kinds: set[str] = set()
        self.wrong = self.random.choice([(), (BAD,), (CARELESS,), (BAD, CARELESS)])
        """What may be wrong with it, if anything."""

    def pick(self, good: list[str], bad: tuple[str, ...] = (), careless: tuple[str, ...] = ()) -> str:
        """One of the good ones, or rarely another one where that may be."""
        among = [(kind, piece) for kind, pieces in ((BAD, bad), (CARELESS, careless)) for piece in pieces]
        among = [choice for choice in among if choice[0] in self.wrong]
        if not among or self.random.random() > 0.09:
            return self.random.choice(good)
        kind, piece = self.random.choice(among)
        self.kinds.add(kind)
        return piece

    def blank(self) -> str:
        return self.random.choice(["", "", "", " ", "  ", "\t", " \t "])

    def spelled(self, word: str) -> str:
        return self.random.choice([word, word.lower(), word.upper(), word.swapcase()])

    def item(self) -> str:
        ports = [str(self.random.randint(1, 65535)), "1", "65535", "007", "7000"]
        port = self.pick(
            ports, ("65536", "70000", "999999"), ("0", "-1", "abc", "12abc", "", "+5", "1 2", "4294967303")
        )
        if self.random.random() < 0.5:
            names = ["tcp", "udp", "TCP", "uDp"]
            name = self.pick(names, ("", "icmp", "ud", "udpx", "t cp"), ("tcp:udp", "udp:"))
            port = f"{port}{self.blank()}:{self.blank()}{name}"
        return f"{self.blank()}{port}{self.blank()}"

    def items(self) -> str:
        count = self.random.choice([1, 2, 3, 3, 3, 4, 5, 6, 31, 32])
        count = len(self.pick(["," * count], ("," * 33,)))
        return ",".join(self.item() for _ in range(count))

    def flags(self) -> str:
        names = ["fin", "syn", "RST", "Psh", "ack", "urg"]
        words = [f"{self.random.choice(['', '', '!'])}{name}" for name in self.random.choices(names, k=3)]
        words = words[: self.random.randint(1, 3)]
        words.append(self.pick(words, ("", "ece", " syn", "! ack", "sy", "syn|ack", "!!fin")))
        return ",".join(words)

    def seconds(self) -> str:
        careless = ("-3", "abc", "", "5s", "2.5", "99999999999")
        return self.pick(["1", "5", "25", "007", "86400", "2147483647"], (), careless)

    def command(self) -> str:
        return self.pick(["", "/sbin/iptables -A INPUT -s %IP% -j ACCEPT", "a = b # c", '"x" [y]', "é;|&&", "[x]"])

    def directive(self, word: str, value: str) -> str:
        line = f"{self.blank()}{self.spelled(word)}{self.blank()}={self.blank()}{value}{self.blank()}"
        return self.pick([line], (line.replace("=", " "), f"x{line.lstrip()}", line.replace("_", "-", 1) + "\nfoo"))

    def one_time(self) -> str:
        path = self.folder / "one-time"
        path.write_text("#1,2\n\n nonsense:x\n 3,4:udp\n5\n")
        return str(self.pick([str(path), path.name], (str(self.folder / "nowhere"), str(self.folder), "")))

    def target(self) -> str:
        addresses = ["192.0.2.7", "2001:db8::7"]
        return self.pick(addresses, (), ("", "host.example", "10", "010.0.0.1", "1.2.3.4/8"))

    def timeout(self) -> str:
        return self.pick([self.seconds()], (), ("0",))

    def between(self) -> str:
        return self.pick(["# a = [x]", "  # x", "", "\t"], ("LogFile = x", "PidFile=x", "Interface=x", "; x", "\u00a0"))

    def door(self) -> list[str]:
        one = self.random.choice
        kinds: list[Callable[[], str]]
        name = one(["ssh", "open SSH", " x ", "a=b", "ü", "Options", "[", "d]d", "%s", "#1"])
        lines = [self.pick([f"{self.blank()}[{name}]{self.blank()}"], ("[]", f"[{name}] x", f"[{name}"))]
        kinds = [
            lambda: self.directive(one(["Seq_Timeout", "Timeout"]), self.timeout()),
            lambda: self.directive("TCPFlags", self.flags()),
            lambda: self.directive("Target", self.target()),
            lambda: self.directive("Cmd_Timeout", self.seconds() if self.random.random() < 0.8 else "0"),
            lambda: self.directive(one(["Start_Command", "Command"]), self.command()),
            lambda: self.directive(one(["Start_Command_6", "Command_6"]), self.command()),
            lambda: self.directive("Stop_Command", self.command()),
            lambda: self.directive("Stop_Command_6", self.command()),
            self.between,
        ]
        kinds = self.random.choices(kinds, k=self.random.randint(0, len(kinds)))
        if not self.pick(["a sequence"], ("",)):
            pass
        elif self.random.random() < 0.15:
            kinds.append(lambda: self.directive("One_Time_Sequences", self.one_time()))
        else:
            kinds += [lambda: self.directive("Sequence", self.items())] * one([1, 1, 1, 2])
        self.random.shuffle(kinds)
        return lines + [kind() for kind in kinds]

    def options(self) -> list[str]:
        kinds = [
            lambda: self.directive("LogFile", self.random.choice(["log", ""])),
            lambda: self.directive("PidFile", str(self.folder / "pid")),
            lambda: self.spelled("UseSyslog"),
            self.between,
        ]
        wrong, self.wrong = self.wrong, ()  # what is wrong below a door's name is not so here
        lines = [kind() for kind in self.random.sample(kinds, self.random.randint(0, len(kinds)))]
        self.wrong = wrong
        return ["[options]", *lines, self.pick([""], ("UseSyslog = 1", "UseSyslog x", "LogFile", "Sequence = 1"))]

    def text(self) -> str:
        sections = [self.door() for _ in range(self.random.randint(0, 3))]
        sections.insert(self.random.randint(0, len(sections)), self.options())
        lines = [line for section in sections for line in section]
        lines.insert(0, self.pick([""], ("UseSyslog", "\ufeff", "Sequence = 1,2,3")))
        return self.random.choice(["\n", "\n", "\r\n"]).join(lines) + self.random.choice(["", "\n", "\n\n"])


@pytest.mark.parametrize("seed", range(8))
def test_generated_files_are_accepted_and_refused_as_by_knockd(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what relative paths are relative to, for both
    kinds = {GOOD: 0, BAD: 0, CARELESS: 0}
    for number in range(FILES):
        writer = Writer(f"{seed} {number}", tmp_path)
        text = writer.text()
        path = tmp_path / f"{number}.conf"
        path.write_text(text, newline="")
        read, ours = knockd_reads(path), we_read(path)
        kind = BAD if BAD in writer.kinds else CARELESS if writer.kinds else GOOD
        kinds[kind] += 1
        about = f"{kind}: knockd: {read.error}; we: {ours if isinstance(ours, str) else 'fine'}\n{text}"
        assert read.accepted == (kind != BAD), about
        assert isinstance(ours, str) == (kind != GOOD), about
        if not isinstance(ours, str):
            compare(read, ours)
    assert min(kinds.values()) >= FILES // 20


# Files with a slip of the hand. Whatever knockd refuses, we do; what we alone refuse, we do for one of these reasons.

REASONS = {
    "knockd takes anything for a number: 0 for a word, 12 for 12abc, and what is left of too large a one": (
        r"is not a port|is not a number of seconds|is out of range"
    ),
    "knockd overlooks what follows a second colon": r"extra text follows the protocol",
    "knockd asks the capture library for what the target is, when it begins to listen": r"is not an address",
    "knockd stops at a zero byte, and hands other control characters to the shell": r"control character",
    "knockd would obey the fixed sequence once, and then mark a line that was not knocked": (
        r"the door has One_Time_Sequences already"
    ),
    "knockd takes what is behind 4095 bytes for a line of its own": r"the line has \d+ bytes",
    "knockd cuts a name off behind 254 bytes": r"name has \d+ bytes",
    "knockd finds out when it opens the interface": r"interface's name",
}
SLIPS = 30


def slip(text: str, chance: random.Random) -> str:
    """The text with a few characters changed, lost, doubled or moved."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text))
        piece = chance.choice(["", text[at] * 2, chance.choice("\n =,:![]#-0a\t\v\0_;é"), text[at : at + 12] * 2])
        text = text[:at] + piece + text[at + chance.randint(0, 2) :]
    return text


@pytest.mark.parametrize("seed", range(8))
def test_mistyped_files_knockd_accepts_are_refused_for_listed_reasons_only(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = set()
    for number in range(SLIPS):
        writer = Writer(f"slip {seed} {number}", tmp_path)
        writer.wrong = ()
        text = slip(writer.text(), writer.random)
        path = tmp_path / f"{number}.conf"
        path.write_text(text, newline="")
        read, ours = knockd_reads(path), we_read(path)
        about = f"knockd: {read.error}; we: {ours if isinstance(ours, str) else 'fine'}\n{text}"
        outcomes.add((read.accepted, not isinstance(ours, str)))
        if not isinstance(ours, str):
            assert read.accepted, about
            compare(read, ours)
        elif read.accepted:
            assert any(re.search(pattern, ours) for pattern in REASONS.values()), about
    assert {(True, True), (False, False)} <= outcomes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[d]\nSequence = 1,0", r":2: Sequence: position 2: port 0 is out of range", id="port 0"),
        pytest.param("[d]\nSequence = 1,-7000", r":2: Sequence: position 2: the value is not a port", id="negative"),
        pytest.param("[d]\nSequence = ssh", r':2: Sequence: position 1: "ssh" is not a port', id="a word"),
        pytest.param("[d]\nSequence = 7000 8000", r":2: Sequence: position 1: the value is not a port", id="a blank"),
        pytest.param("[d]\nSequence = 1:udp:x", r":2: Sequence: position 1: extra text follows", id="second colon"),
        pytest.param("[d]\nSequence =", r":2: Sequence: position 1: an empty string is not a port", id="nothing"),
        pytest.param("[d]\nSequence = 1\nSeq_Timeout = 0", r":3: Seq_Timeout: .* 0 is out of range", id="no time"),
        pytest.param("[d]\nSequence = 1\nTimeout = 5 s", r":3: Timeout: the value is not a number", id="junk"),
        pytest.param("[d]\nSequence = 1\nCmd_Timeout = -1", r":3: Cmd_Timeout: the value is not a", id="for ever"),
        pytest.param("[d]\nSequence = 1\nTarget = a.example", r":3: Target: \"a.example\" is not an ad", id="a host"),
        pytest.param("[d]\nSequence = 1\nCommand = a\0b", r":3: the line has a control character", id="a zero byte"),
        pytest.param("[d]\nSequence = 1\nCommand = a\x1b", r":3: the line has a control character", id="escape"),
        pytest.param("[d]\nSequence = 1\nCommand = \udce9", r":3: the line has .* is not UTF-8", id="not UTF-8"),
        pytest.param("#" * 4096 + "\n[d]\nSequence = 1", r":1: the line has 4096 bytes", id="a long line"),
        pytest.param(f"[{'d' * 255}]\nSequence = 1", r":1: a door's name has 255 bytes", id="a long name"),
        pytest.param("[options]\nInterface = ./ppp0\n[d]\nSequence = 1", r":2: Interface: ", id="no interface"),
        pytest.param(
            "[d]\nOne_Time_Sequences = one-time\nSequence = 1", r":3: Sequence: the door has One_Time", id="both"
        ),
    ],
)
def test_listed_files_are_accepted_by_knockd_and_refused_here(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one-time").write_text(" 3,4\n")
    path = tmp_path / "knockd.conf"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert knockd_reads(path).accepted
    ours = we_read(path)
    assert isinstance(ours, str)
    assert re.match(re.escape(str(path)) + message, ours), ours
    assert not any(port in ours.split(": ", 1)[1] for port in ("7000", "8000"))


def test_byte_that_is_not_utf_8_is_accepted_in_comment(tmp_path: Path) -> None:
    path = tmp_path / "knockd.conf"
    path.write_bytes(b"# ge\xf6ffnet\n[d]\n  # \x00\nSequence = 1\n")
    ours = we_read(path)
    assert not isinstance(ours, str)
    compare(knockd_reads(path), ours)


def test_interface_of_file_is_used_without_option(tmp_path: Path) -> None:
    path = tmp_path / "knockd.conf"
    path.write_text(f"[options]\nInterface = {NOWHERE}\n[d]\nSequence = 1\n")
    read = knockd_reads(path, "-v")
    assert read.accepted
    ours = loader.load_knockd(path, None, False, served=lambda: ())
    assert ours.options.interface == read.options["interface"] == NOWHERE


# One-time sequences


def in_force(path: Path) -> str:
    """The sequence that knockd takes from a file of them; empty for none."""
    return knockd_reads(path).doors[0].said.get("sequence", "")


@pytest.mark.parametrize(
    ("line", "alike"),
    [
        pytest.param(" 3,4:udp", True, id="usual"),
        pytest.param("\t3 , 4 : UDP ", True, id="blanks"),
        pytest.param("3,4\r", True, id="carriage return"),
        pytest.param("", True, id="empty"),
        pytest.param("   ", True, id="blank"),
        pytest.param("#3,4", True, id="used"),
        pytest.param("  # 3,4", True, id="used, with blanks ahead"),
        pytest.param("3:icmp,4", True, id="no such protocol"),
        pytest.param("3:", True, id="no protocol"),
        pytest.param("65536", True, id="no such port"),
        pytest.param(",".join(["3"] * 32), True, id="32 steps"),
        pytest.param(",".join(["3"] * 33), True, id="33 steps"),
        # knockd waits for port 0, to which no packet can be sent, or for a part of the line.
        pytest.param("three", False, id="a word"),
        pytest.param("3,", False, id="a comma at the end"),
        pytest.param("3,0", False, id="port 0"),
        pytest.param("-3", False, id="negative"),
        pytest.param("3 4", False, id="no comma"),
        pytest.param("3,4 # next", True, id="a comment behind it"),
        pytest.param("3:tcp:udp", False, id="two protocols"),
        pytest.param("3,4\x0b5", False, id="control character"),
        pytest.param("3," + " " * 4100 + "4", False, id="a long line"),
    ],
)
def test_line_of_one_time_file_is_read_as_by_knockd(line: str, alike: bool, tmp_path: Path) -> None:
    (tmp_path / "one-time").write_text(f"{line}\n777,778:udp\n", newline="")
    path = tmp_path / "knockd.conf"
    path.write_text(f"[d]\nOne_Time_Sequences = {tmp_path / 'one-time'}\nTCPFlags = syn,!ack\n")
    theirs = in_force(path)
    steps = knockd.one_time_steps(line, (Flags.SYN | Flags.ACK, Flags.SYN))
    if alike:
        taken = Door("d", {"sequence": theirs}, ["SYN", "!ACK"])
        assert steps == (None if theirs == "777:tcp,778:udp" else meaning(taken).steps)
    else:
        assert theirs != "777:tcp,778:udp"
        assert steps is None


def test_used_up_one_time_file_disables_its_door_alone(tmp_path: Path) -> None:
    """knockd says that it disables the door, and ends: all other doors stay closed with it."""
    (tmp_path / "one-time").write_text("#3,4\n")
    path = tmp_path / "knockd.conf"
    path.write_text(f"[d]\nOne_Time_Sequences = {tmp_path / 'one-time'}\n[e]\nSequence = 9001,7,8000\n")
    read, ours = knockd_reads(path), we_read(path)
    assert "no more sequences left" in read.error
    assert not isinstance(ours, str)
    assert [len(one.steps) for one in ours.settings.sequences] == [0, 3]
    assert any("no one-time sequence is left, so door d stays closed" in warning for warning in ours.warnings)
