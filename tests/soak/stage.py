"""The soak test's stage: the sandbox, the daemon in it, its clients, and what can be seen of it."""

import asyncio
import fcntl
import json
import os
import re
import shutil
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox
from port_knocking_doors.system.crash_guard import NAME
from tests.helpers.doorstep import MARK, children
from tests.helpers.waiting import wait_until
from tests.soak.model import Hit, Orders, Plan

GUARDED, GUARDED_TOO = 2222, 2223
SYN, FRAP = 0x02, 0x1D
SNIFFED = (Hit("udp", 21500), Hit("tcp", 20600, SYN), Hit("udp", 21510), Hit("tcp", 20700, FRAP))
COMMANDS = (Hit("udp", 21610), Hit("udp", 21640), Hit("tcp", 20650, SYN))
LISTENED = ((21007, 21003, 21011, 21001, 21005), (21107, 21103, 21011, 21101, 21105))
"""Two opening sequences, which have a port in common."""
SECRETS = sorted({*LISTENED[0], *LISTENED[1], *(step.port for step in (*SNIFFED, *COMMANDS))})
IGNORING, LIFETIME, TIMEOUT = 1.0, 2.0, 2.0
CHECK = 10.0
"""Seconds between the daemon's checks of the rules: longer than a fault may last that firewalld reports."""
READY_WITHIN = 30.0
ENDED_WITHIN = 20.0
PROGRAM = [sys.executable, "-m", "port_knocking_doors"]
RUNTIME = "/run/port-knocking-doors"
SET, BLOCKED, BLOCKED_COUNT = "block", "/run/blocked", 5000
"""A set that is a source of the zone drop, and the file of what a fault adds to it, which takes firewalld a second."""
FAULTY = "faulty"
PIPE = 4096
"""Bytes of the pipe to the log's reader: so few that the daemon notices soon when the reader stands still."""
F_SETPIPE_SZ = 1031  # linux/fcntl.h
_IN_NFT = re.compile(r"ip6? saddr (\S+) tcp dport (\d+)\b[^\n]*\baccept\b")
_IN_FIREWALLD = re.compile(r'source address="([^"]+)" port port="(\d+)"')


def orders(number: int) -> Orders:
    """The daemon's first or second configuration."""
    main = Plan(
        "main",
        tuple(Hit("udp", port) for port in LISTENED[number]),
        (7.0, 8.0)[number],
        listened=True,
        lifetime=LIFETIME,
        opens=GUARDED,
    )
    sniffed = Plan("sniffed", SNIFFED, (8.0, 7.0)[number], timeout=TIMEOUT, opens=GUARDED_TOO)
    commands = Plan("commands", COMMANDS, 2.0, timeout=TIMEOUT)
    return Orders((main, sniffed, commands), IGNORING)


class Link(NamedTuple):
    """A client, its sender and its addresses."""

    host: ClientHost
    sender: "Sender"
    addresses: tuple[str, ...]


class Sender:
    """The owner's end of a `sender.py`; one thread asks."""

    def __init__(self, host: ClientHost) -> None:
        theirs, mine = os.pipe()
        back, answers = os.pipe()
        self._ask = os.fdopen(mine, "w", buffering=1)
        self._answers = os.fdopen(back)
        argv = [sys.executable, str(Path(__file__).with_name("sender.py")), str(host.server4), str(host.server6)]
        self.process = host.popen(argv, stdin=theirs, stdout=answers)
        os.close(theirs)
        os.close(answers)

    def begin(self, what: str, **arguments: Any) -> None:
        """Ask without waiting."""
        self._ask.write(json.dumps({"do": what, **arguments}) + "\n")

    def answer(self) -> Any:
        """Wait for the answer to what was asked."""
        line = self._answers.readline()
        assert line, f"the sender ended: {self.process.stderr.tail()}"
        return json.loads(line)

    def close(self) -> None:
        self._ask.close()
        self._answers.close()
        self.process.wait(5)


class Stage:
    """The sandbox with everything in it. Methods that change something say nothing to the model: `faults` does."""

    def __init__(self, box: Sandbox, folder: Path, *, addresses: int, broken: str = "") -> None:
        self.box = box
        self._folder = folder
        self._broken = broken
        self.conf = folder / "port_knocker.toml"
        self.log = folder / "daemon.log"
        self.ran = folder / "ran"
        self._clock = folder / "clock"
        self.skew(0.0)
        for path in (self.log, self.ran):
            path.touch()
        self.number = 0
        """Which configuration is active, or will be at the next start."""
        self.write(0)
        self.daemon: Process
        self.links = [self._link(host, addresses) for host in box.hosts.values()]
        self.reader: Process
        """What reads the log and puts it into the file."""
        self._block()
        self._listeners = [box.server.listen(port) for port in (GUARDED, GUARDED_TOO)]

    def close(self) -> None:
        for link in self.links:
            link.sender.close()

    def _link(self, host: ClientHost, count: int) -> Link:
        prefix4, prefix6 = str(host.address4).rpartition(".")[0], str(host.address6).rpartition(":")[0]
        addresses = [f"{prefix4}.{number}" for number in range(10, 10 + count)]
        addresses += [f"{prefix6}:{number:x}" for number in range(0x10, 0x10 + count)]
        self._address(host, addresses)
        return Link(host, Sender(host), tuple(addresses))

    @staticmethod
    def _address(host: ClientHost, addresses: Iterable[str]) -> None:
        commands = "".join(
            f"address add {address}{'/64' if ':' in address else '/24'} dev {host.interface}"
            f"{' nodad' if ':' in address else ''}\n"
            for address in addresses
        )
        host.run(["ip", "-batch", "-"], text=commands)

    @property
    def addresses(self) -> list[str]:
        return [address for link in self.links for address in link.addresses]

    # The daemon. -----------------------------------------------------------------------------------------------------

    def write(self, number: int) -> None:
        """The configuration with that number."""
        given = orders(number)
        main, sniffed, commands = given.plans
        lines: list[tuple[str, object]] = [
            ("ports_to_controls", [main.opens]),
            ("opening_sequence", [step.port for step in main.steps]),
            ("max_opened_door_duration", main.duration),
            ("max_knocker_live_time", LIFETIME),
            ("ignoring_period_after_knock_error", IGNORING),
            ("firewall_rules_check_periode_seconds", CHECK),
            ("max_knockers", 512),
            ("[[sequence]]", None),
            ("name", sniffed.name),
            ("steps", [_step(step) for step in sniffed.steps]),
            ("timeout", TIMEOUT),
            ("traps", 64),
            ("open", [sniffed.opens]),
            ("duration", sniffed.duration),
            ("[[sequence]]", None),
            ("name", commands.name),
            ("steps", [_step(step) for step in commands.steps]),
            ("timeout", TIMEOUT),
            ("traps", 0),
            ("start_command", f"echo start %IP% >>{self.ran}"),
            ("stop_command", f"echo stop %IP% >>{self.ran}"),
            ("command_delay", commands.duration),
        ]
        text = "".join(key + (f" = {json.dumps(value)}" if value is not None else "") + "\n" for key, value in lines)
        self.put(text)
        self.number = number

    def put(self, text: str) -> None:
        """Any text as the configuration."""
        draft = self.conf.with_suffix(".draft")
        draft.write_text(text)
        draft.chmod(0o600)
        draft.rename(self.conf)

    def _block(self) -> None:
        server = self.box.server
        text = "".join(
            f"172.{16 + place // 65536}.{place // 256 % 256}.{place % 256}\n" for place in range(BLOCKED_COUNT)
        )
        server.run(["tee", BLOCKED], text=text)
        server.run(["firewall-cmd", "--permanent", f"--new-ipset={SET}", "--type=hash:net"])
        server.run(["firewall-cmd", "--permanent", "--zone=drop", f"--add-source=ipset:{SET}"])
        server.run(["firewall-cmd", "--reload"])

    def begin(self, *options: str) -> None:
        """Start a daemon without waiting for it."""
        program = [sys.executable, "-m", "tests.soak.broken", self._broken] if self._broken else PROGRAM
        here = Path(__file__).parent
        env = {"PYTHONPATH": f"{here / 'clock'}:{here.parents[1]}", "SOAK_CLOCK": str(self._clock)}
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        reading, writing = os.pipe()
        fcntl.fcntl(writing, F_SETPIPE_SZ, PIPE)
        try:
            self.reader = self.box.server.popen(["cat"], stdin=reading, stdout=log)
            self.daemon = self.box.server.popen([*program, "--conf", str(self.conf), *options], env=env, stderr=writing)
        finally:
            for descriptor in (log, reading, writing):
                os.close(descriptor)

    def await_log(self, pattern: str, start: int, within: float = READY_WITHIN) -> None:
        """Wait for a line that matches, behind so many bytes of the log."""
        wait_until(
            lambda: self.daemon.poll() is not None or re.search(pattern, self.log_from(start), re.MULTILINE),
            within,
            lambda: f"{pattern!r} in the log",
        )
        assert re.search(pattern, self.log_from(start), re.MULTILINE), f"the daemon ended ahead of {pattern!r}"

    def log_size(self) -> int:
        return self.log.stat().st_size

    def log_from(self, start: int) -> str:
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    def command(self, *words: str) -> tuple[int, str, str]:
        """Run a command on the server: its exit status, output and errors."""
        done = self.box.server.run([*PROGRAM, *words, "--priority", "31313"], check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def skew(self, seconds: float) -> None:
        """Set the daemon's wall clock so far from the real one; it goes by that at once (`clock/sitecustomize.py`)."""
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(struct.pack("=d", seconds))

    # What can be seen. -----------------------------------------------------------------------------------------------

    def in_firewalld(self) -> set[tuple[str, int]]:
        """Addresses and ports of the door rules that firewalld knows."""
        return {(found[1], int(found[2])) for rule in self.box.rules("public") if (found := _IN_FIREWALLD.search(rule))}

    def in_kernel(self) -> set[tuple[str, int]]:
        """Addresses and ports of the door rules that stand in the kernel."""
        return {(address, int(port)) for address, port in _IN_NFT.findall(self.box.nft())}

    def marked(self) -> list[str]:
        """Every marked rule in any zone, and any in the permanent configuration."""
        listed = (
            self.box.firewall_cmd("--list-all-zones") + "\n" + self.box.firewall_cmd("--permanent", "--list-all-zones")
        )
        return sorted(line.strip() for line in listed.splitlines() if MARK in line)

    def resident(self) -> int:
        """KiB of memory that the daemon has now."""
        return int(self._status("VmRSS"))

    def _status(self, key: str) -> str:
        text = self.box.server.run(["cat", f"/proc/{self.daemon.inner_pid}/status"]).stdout
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:"))

    def descriptors(self) -> int:
        """How many descriptors the daemon has open."""
        return len(self.box.server.run(["ls", f"/proc/{self.daemon.inner_pid}/fd"]).stdout.split())

    def children(self) -> list[int]:
        return children(self.box, self.daemon)

    def guards(self) -> list[int]:
        """The daemon's crash guards: one, but for the moment after it was killed."""
        argv = ["ps", "-o", "pid=,comm=", "--ppid", str(self.daemon.inner_pid)]
        rows = [line.split() for line in self.box.server.run(argv, check=False).stdout.splitlines()]
        return [int(row[0]) for row in rows if row[1:] == [NAME]]

    def ours(self) -> list[str]:
        """Processes of the daemon's on the server, crash guards and sweeps too."""
        lines = self.box.server.run(["ps", "-ww", "-eo", "pid=,args="]).stdout.splitlines()
        known = ("-m port_knocking_doors", "port_knocking_doors.daemon.sweep", "-crash-guard", "tests.soak.broken")
        return [line.strip() for line in lines if any(word in line for word in known)]

    def left_files(self) -> list[str]:
        """What is in the runtime directory, but for empty locks and folders."""
        argv = [
            "find",
            RUNTIME,
            "-mindepth",
            "1",
            "-not",
            "-type",
            "d",
            "-not",
            "(",
            "-name",
            "*.lock",
            "-size",
            "0",
            ")",
        ]
        return self.box.server.run(argv).stdout.split()

    def flood(self, host: ClientHost, network: str, count: int, ports: list[int]) -> None:
        """Forged first knocks, by a process of its own: the others go on."""
        code = "import json, sys; sys.path.insert(0, sys.argv[1]); from sender import Sender; "
        code += "Sender(*sys.argv[2:4]).flood(*json.loads(sys.argv[4]))"
        asked = json.dumps([network, count, ports])
        folder = str(Path(__file__).parent)
        host.run([sys.executable, "-c", code, folder, str(host.server4), str(host.server6), asked])

    # What is broken. -------------------------------------------------------------------------------------------------

    def keep_rules(self, *, keep: bool) -> None:
        """Whether firewalld leaves its rules in the kernel at its end; from its next start or reload on."""
        expression = f"s/^CleanupOnExit=.*/CleanupOnExit={'no' if keep else 'yes'}/"
        self.box.server.run(["sed", "-i", expression, "/etc/firewalld/firewalld.conf"])

    def break_firewalld(self) -> None:
        """Reload firewalld with a set whose entries overlap, which the kernel refuses."""
        entries = "<entry>10.250.0.0/16</entry><entry>10.250.0.0/24</entry>"
        text = f'<?xml version="1.0" encoding="utf-8"?>\n<ipset type="hash:net">{entries}</ipset>\n'
        self.box.server.run(["tee", f"/etc/firewalld/ipsets/{FAULTY}.xml"], text=text)
        self._zone_drop(f"ipset:{SET}", f"ipset:{FAULTY}")
        self.box.server.run(["firewall-cmd", "--reload"], check=False)

    def repair_firewalld(self) -> None:
        """Remove that set, and restart firewalld."""
        self._zone_drop(f"ipset:{SET}")
        self.box.server.run(["rm", f"/etc/firewalld/ipsets/{FAULTY}.xml"])
        self.box.firewalld.restart()
        assert self.box.firewall_cmd("--state") == "running"

    def _zone_drop(self, *sources: str) -> None:
        listed = "".join(f'<source ipset="{source.partition(":")[2]}"/>' for source in sources)
        text = f'<?xml version="1.0" encoding="utf-8"?>\n<zone target="DROP"><short>Drop</short>{listed}</zone>\n'
        self.box.server.run(["tee", "/etc/firewalld/zones/drop.xml"], text=text)

    @contextmanager
    def broken_interpreter(self) -> Iterator[None]:
        """The daemon's Python cannot import what it had imported, as in the middle of an upgrade; no new one starts."""
        package = Path(asyncio.__file__).parent
        copy = self._folder / "asyncio"
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        (copy / "__init__.py").write_text('raise ImportError("this is the library of another Python")\n')
        self.box.server.run(["mount", "--bind", str(copy), str(package)])
        try:
            yield
        finally:
            self.box.server.run(["umount", str(package)])

    def flap(self, link: Link, seconds: float) -> None:
        host = link.host
        self.box.server.run(["ip", "link", "set", host.server_interface, "down"])
        time.sleep(seconds)
        # The kernel forgot the addresses of IPv6.
        commands = f"link set {host.server_interface} up\n"
        commands += f"address replace {host.server6}/64 dev {host.server_interface} nodad\n"
        self.box.server.run(["ip", "-batch", "-"], text=commands)
        self._await(host)

    def remake(self, link: Link, seconds: float) -> None:
        host = link.host
        name, peer, pid = host.server_interface, host.interface, link.sender.process.inner_pid
        self.box.server.run(["ip", "link", "delete", name])
        time.sleep(seconds)
        commands = f"link add {name} type veth peer name {peer} netns {pid}\n"
        commands += f"address add {host.server4}/24 dev {name}\naddress add {host.server6}/64 dev {name} nodad\n"
        self.box.server.run(["ip", "-batch", "-"], text=commands + f"link set {name} up\n")
        self._address(host, [str(host.address4), str(host.address6), *link.addresses])
        back = f"link set {peer} up\nroute add default via {host.server4}\nroute add default via {host.server6}\n"
        host.run(["ip", "-batch", "-"], text=back)
        self._await(host)

    def _await(self, host: ClientHost) -> None:
        self.box.server.await_link(host.server_interface, host.server6)
        host.await_link(host.interface, host.address6)


def _step(step: Hit) -> str:
    flags = {SYN: "", FRAP: ":frap"}[step.flags] if step.protocol == "tcp" else ""
    return f"{step.protocol}:{step.port}{flags}"
