"""knockd's files as real knockd reads them, and as we do: generated ones, good and broken, and a list of differences.

knockd reads its whole file before it opens the interface. With one that does not exist it ends at once, and its message
tells whether the file passed; with -D it shows what it made of each line. No root and no sandbox is needed for that.
"""

import random
import re
import subprocess
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from port_knocking_doors.config import knockd, loader
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Flags, Protocol, Sequence, Step

NOWHERE = "no-such-link0"
FILES = 100
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
        assert str(wrong).isprintable()
        assert re.match(rf"{re.escape(str(path))}(:\d+)?: ", str(wrong))
        return str(wrong)


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
    return Sequence(door.name, tuple(steps), timeout=float(door.said.get("seq_timeout", 25)))


def compare(read: Read, ours: loader.LoadedKnockd) -> None:
    sequences = ours.settings.sequences
    assert [one.name for one in sequences] == [door.name for door in read.doors]
    for one, door in zip(sequences, read.doors, strict=True):
        expected = meaning(door)
        assert one.timeout == expected.timeout
        if not one.one_time:
            assert one.steps == expected.steps
        target = door.said.get("target")
        assert one.reach.target == (ip_address(target) if target is not None else None)
        start, start6 = door.said.get("start_command", ""), door.said.get("start_command_6")
        stop, stop6 = door.said.get("stop_command", ""), door.said.get("stop_command_6")
        # What runs for either family, as knockd decides it.
        for family, first, second in (
            ("192.0.2.1", start, stop),
            ("2001:db8::1", start if start6 is None else start6, stop if stop6 is None else stop6),
        ):
            address = ip_address(family)
            command = one.command
            assert (command.start_for(address) if command else "") == first
            assert (command.stop_for(address) if command else "") == (second if first else "")
        if one.command is not None:
            assert one.command.delay == float(door.said.get("cmd_timeout", 10))
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
        self.wrong = self.random.random() < 0.6
        """Whether there may be anything wrong with it at all."""

    def pick(self, good: list[str], bad: tuple[str, ...] = (), careless: tuple[str, ...] = ()) -> str:
        if self.wrong and (bad or careless) and self.random.random() < 0.05:
            kind, among = self.random.choice([(k, a) for k, a in ((BAD, bad), (CARELESS, careless)) if a])
            self.kinds.add(kind)
            return self.random.choice(among)
        return self.random.choice(good)

    def blank(self) -> str:
        return self.random.choice(["", "", "", " ", "  ", "\t", " \t "])

    def spelled(self, word: str) -> str:
        return self.random.choice([word, word.lower(), word.upper(), word.swapcase()])

    def item(self) -> str:
        ports = [str(self.random.randint(1, 65535)), "1", "65535", "007", "7000"]
        port = self.pick(ports, ("65536", "70000", "999999"), ("0", "-1", "abc", "12abc", "", "+5", "1 2", "4294967303"))
        if self.random.random() < 0.5:
            names = ["tcp", "udp", "TCP", "uDp"]
            name = self.pick(names, ("", "icmp", "ud", "udpx", "t cp"), ("tcp:udp", "udp:"))
            port = f"{port}{self.blank()}:{self.blank()}{name}"
        return f"{self.blank()}{port}{self.blank()}"

    def items(self) -> str:
        count = self.random.choice([1, 2, 3, 3, 3, 4, 5, 6, 31, 32])
        if self.wrong and self.random.random() < 0.01:
            self.kinds.add(BAD)
            count = 33
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
        name = one(["ssh", "open SSH", " x ", "a=b", "ü", "Options", "[", "d]d", "%s", "#1"])
        lines = [self.pick([f"{self.blank()}[{name}]{self.blank()}"], ("[]", f"[{name}] x", f"[{name}"))]
        kinds = [
            lambda: self.directive(one(["Seq_Timeout", "Timeout"]), self.timeout()),
            lambda: self.directive("TCPFlags", self.flags()),
            lambda: self.directive("Target", self.target()),
            lambda: self.directive("Cmd_Timeout", one([self.seconds, lambda: "0"])()),
            lambda: self.directive(one(["Start_Command", "Command"]), self.command()),
            lambda: self.directive(one(["Start_Command_6", "Command_6"]), self.command()),
            lambda: self.directive("Stop_Command", self.command()),
            lambda: self.directive("Stop_Command_6", self.command()),
            self.between,
        ]
        kinds = self.random.choices(kinds, k=self.random.randint(0, len(kinds)))
        if self.wrong and self.random.random() < 0.03:
            self.kinds.add(BAD)  # a door without a sequence
        elif self.random.random() < 0.15:
            kinds.append(lambda: self.directive("One_Time_Sequences", self.one_time()))
        else:
            kinds += [lambda: self.directive("Sequence", self.items())] * one([1, 1, 1, 2])
        self.random.shuffle(kinds)
        return lines + [kind() for kind in kinds]

    def options(self) -> list[str]:
        kinds = [
            lambda: self.directive("LogFile", str(self.random.choice([self.folder / "log", ""]))),
            lambda: self.directive("PidFile", str(self.folder / "pid")),
            lambda: self.spelled("UseSyslog"),
            self.between,
        ]
        wrong, self.wrong = self.wrong, False  # what is wrong below a door's name is not so here
        lines = [kind() for kind in self.random.sample(kinds, self.random.randint(0, len(kinds)))]
        self.wrong = wrong
        return ["[options]", *lines, self.pick([""], ("UseSyslog = 1", "UseSyslog x", "LogFile", "Sequence = 1"))]

    def text(self) -> str:
        sections = [self.door() for _ in range(self.random.randint(0, 3))]
        sections.insert(self.random.randint(0, len(sections)), self.options())
        lines = [line for section in sections for line in section]
        if self.wrong and self.random.random() < 0.02:
            self.kinds.add(BAD)
            lines.insert(0, "UseSyslog")
        return self.random.choice(["\n", "\n", "\r\n"]).join(lines) + self.random.choice(["", "\n", "\n\n"])


@pytest.mark.parametrize("seed", range(8))
def test_generated_files_are_taken_and_refused_alike(
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
    assert min(kinds.values()) > FILES // 20
