"""Links and addresses of a real kernel, changed with ip(8) under the eyes of a process that has no timer."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox

WATCHER = """
import asyncio, json, sys
from port_knocking_doors.system.interfaces import InterfaceMonitor

def on_change(change, link):
    addresses = sorted(map(bytes.hex, link.addresses))
    selected = links.is_selected(link.index, tuple(sys.argv[1:]))
    print(json.dumps([change.name, link.name, selected, addresses]), flush=True)
    # Only the kernel wakes this process.
    assert not asyncio.get_running_loop()._scheduled

async def main():
    global links
    with InterfaceMonitor(on_change) as links:
        print("watching", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

ASKER = """
import json, subprocess, sys
from ipaddress import ip_address
from port_knocking_doors.system.interfaces import InterfaceMonitor

def ip(command):
    subprocess.run(["ip", *command.split()], check=True)

with InterfaceMonitor() as links:
    answers = []
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "ip":
            ip(rest)
        elif word == "local":
            answers.append(links.is_local(ip_address(rest).packed))
        elif word == "index":
            answers.append(links.index_of(rest) is not None)
        elif word == "captured":
            answers.append(links.is_selected(links.index_of(rest)))
        elif word == "flood":
            subprocess.run(["ip", "-batch", "-"], input=rest.replace(";", "\\n"), text=True, check=True)
    print(json.dumps(answers))
"""


@pytest.fixture
def host(box: Sandbox) -> ClientHost:
    return box.hosts["client"]


@pytest.fixture
def code() -> dict[str, str]:
    """The environment in which a script finds the project."""
    return {"PYTHONPATH": str(Path(__file__).parents[2])}


def ask(host: ClientHost, code: dict[str, str], lines: Iterable[str]) -> list[bool]:
    """What the links are said to be at once after each `ip` command."""
    printed = host.run([sys.executable, "-c", ASKER], text="\n".join(lines), env=code).stdout
    answers: list[bool] = json.loads(printed)
    return answers


class Watcher:
    """A process that prints every change of a host's links as the kernel reports it."""

    def __init__(self, host: ClientHost, code: dict[str, str], *patterns: str) -> None:
        self._host = host
        self.process: Process = host.popen([sys.executable, "-c", WATCHER, *patterns], env=code)
        self.process.stdout.wait_for("watching", 20)
        self._seen = 1

    def ip(self, *commands: str) -> None:
        self._host.run(["ip", "-batch", "-"], text="".join(command + "\n" for command in commands))

    def expect(
        self, change: str, name: str, *, captured: bool | None = None, has: bytes = b"", lacks: bytes = b""
    ) -> None:
        """Wait for the next change of this kind; whatever comes before it is passed over."""
        flag = {None: "(true|false)", True: "true", False: "false"}[captured]
        having = f'"{has.hex()}"' if has else ""
        without = f'(?!.*"{lacks.hex()}")' if lacks else ""
        line = self.process.stdout.wait_for(
            rf'^{without}\["{change}", "{name}", {flag}, .*{having}', 10, start=self._seen
        )
        self._seen = self.process.stdout.lines.index(line, self._seen) + 1


@pytest.fixture
def watcher(host: ClientHost, code: dict[str, str]) -> Watcher:
    return Watcher(host, code)


def test_links_are_followed_as_they_appear_vanish_flap_and_are_renamed(watcher: Watcher) -> None:
    for _ in range(2):  # the same name once more, with another index
        watcher.ip("link add ppp0 type veth peer name far")
        watcher.expect("APPEARED", "ppp0", captured=True)
        watcher.ip("link set ppp0 up")
        watcher.expect("CAME_UP", "ppp0")
        watcher.ip("link set ppp0 down", "link set ppp0 up")
        watcher.expect("WENT_DOWN", "ppp0")
        watcher.expect("CAME_UP", "ppp0")
        watcher.ip("link set ppp0 name ppp1")
        watcher.expect("RENAMED", "ppp1")
        watcher.ip("link delete ppp1")
        watcher.expect("DISAPPEARED", "ppp1")
    assert watcher.process.poll() is None


def test_addresses_are_followed_as_they_appear_and_vanish(watcher: Watcher) -> None:
    address4, peer, address6 = bytes([10, 77, 0, 1]), bytes([10, 77, 0, 9]), bytes.fromhex("fd77" + 13 * "00" + "01")
    watcher.ip("link add ppp0 type veth peer name far", "link set ppp0 up", "link set far up")
    watcher.ip("address add 10.77.0.1 peer 10.77.0.9 dev ppp0", "address add fd77::1/64 dev ppp0")
    watcher.expect("ADDRESSES_CHANGED", "ppp0", has=address4, lacks=peer)
    watcher.expect("ADDRESSES_CHANGED", "ppp0", has=address6)
    watcher.ip("address delete 10.77.0.1 peer 10.77.0.9 dev ppp0", "address delete fd77::1/64 dev ppp0")
    watcher.expect("ADDRESSES_CHANGED", "ppp0", lacks=address4)
    watcher.expect("ADDRESSES_CHANGED", "ppp0", lacks=address6)
    watcher.ip("address add fd77::1/64 dev ppp0 nodad")
    watcher.expect("ADDRESSES_CHANGED", "ppp0", has=address6)
    watcher.ip("link set ppp0 down")  # the kernel forgets addresses of IPv6 then
    watcher.expect("ADDRESSES_CHANGED", "ppp0", lacks=address6)


def test_port_of_bridge_is_captured_on_bridge(watcher: Watcher) -> None:
    watcher.ip("link add name br0 type bridge", "link add p0 type veth peer name far")
    watcher.expect("APPEARED", "br0", captured=True)
    watcher.expect("APPEARED", "p0", captured=True)
    watcher.ip("link set p0 master br0")
    watcher.expect("MASTER_CHANGED", "p0", captured=False)
    watcher.ip("link set p0 nomaster")
    watcher.expect("MASTER_CHANGED", "p0", captured=True)
    watcher.ip("link set p0 master br0")
    watcher.expect("MASTER_CHANGED", "p0", captured=False)
    watcher.ip("link delete br0")
    watcher.expect("MASTER_CHANGED", "p0", captured=True)


def test_patterns_match_current_name(host: ClientHost, code: dict[str, str]) -> None:
    watcher = Watcher(host, code, "ppp*", "wan")
    watcher.ip("link add dsl type veth peer name far")
    watcher.expect("APPEARED", "dsl", captured=False)
    watcher.ip("link set dsl name ppp3")
    watcher.expect("RENAMED", "ppp3", captured=True)
    watcher.ip("link set ppp3 name lan")
    watcher.expect("RENAMED", "lan", captured=False)
    # Of one that is down, the kernel reports a new alternative name only when it comes up.
    watcher.ip("link property add dev lan altname wan", "link set lan up")
    watcher.expect("RENAMED", "lan", captured=True)


def test_answer_is_never_older_than_question(host: ClientHost, code: dict[str, str]) -> None:
    steps = [
        ("local 10.77.0.1", False),
        ("ip link add ppp0 type veth peer name far", None),
        ("index ppp0", True),
        ("ip address add 10.77.0.1/24 dev ppp0", None),
        ("local 10.77.0.1", True),
        ("ip link set ppp0 up", None),
        ("ip link set far up", None),
        ("ip address add fd77::1/64 dev ppp0", None),
        ("local fd77::1", True),
        ("local fd77::2", False),
        ("local 10.77.0.2", False),
        ("local 10.77.0.255", False),
        ("ip link delete ppp0", None),
        ("index ppp0", False),
        ("local 10.77.0.1", False),
        ("ip link add ppp0 type veth peer name far", None),
        ("ip address add 10.77.0.1/24 dev ppp0", None),
        ("local 10.77.0.1", True),
    ]
    assert ask(host, code, (line for line, _ in steps)) == [answer for _, answer in steps if answer is not None]


@pytest.mark.parametrize("kind", ["macvlan", "vlan id 5"])
def test_link_under_another_is_captured(host: ClientHost, code: dict[str, str], kind: str) -> None:
    made = host.run(["ip", "link", "add", "link", host.interface, "name", "upper0", "type", *kind.split()], check=False)
    if made.returncode != 0:
        assert "Unknown device type" in made.stderr  # this kernel has none
        return
    assert ask(host, code, ["captured upper0", f"captured {host.interface}"]) == [True, True]


def test_overflow_of_notifications_is_made_up_for(host: ClientHost, code: dict[str, str]) -> None:
    names = [f"10.{80 + number // 250}.{number % 250}.7" for number in range(5000)]
    dev = f"dev {host.interface}"
    add = "; ".join(f"address add {name}/32 {dev}" for name in names)
    delete = "; ".join(f"address delete {name}/32 {dev}" for name in names[1:])
    lines = [f"flood {add}", *(f"local {name}" for name in (names[0], names[-1], "10.79.0.7"))]
    lines += [f"flood {delete}", "local 10.79.0.7", *(f"local {name}" for name in (names[0], names[1], names[-1]))]
    assert ask(host, code, lines) == [True, True, False, False, True, False, False]
