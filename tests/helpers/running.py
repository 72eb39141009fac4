"""A daemon under test: started on a sandbox's server, and knocked at from its clients."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from port_knocking_doors.model import RULE_PRIORITY, Address
from port_knocking_doors.sandbox import Host, Process, Sandbox
from tests.helpers.waiting import wait_until

SEQUENCE = (21007, 21003, 21011, 21001, 21005)
"""Distinct, in no order, and not the documentation's example."""

GUARDED = 2222
"""Closed in every zone of firewalld that matters here, unlike 22."""


def write_configuration(folder: Path, **keys: object) -> Path:
    """A configuration file with `keys` over ones that suit tests; JSON's texts, numbers and lists are TOML's, too."""
    path = folder / "port_knocker.toml"
    all_keys = {"ports_to_controls": [GUARDED], "opening_sequence": list(SEQUENCE), **keys}
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in all_keys.items()))
    path.chmod(0o600)
    return path


def begin_daemon(
    box: Sandbox, conf: Path, *options: str, env: Mapping[str, str] | None = None, host: Host | None = None
) -> Process:
    """Start a daemon without waiting for it."""
    argv = [sys.executable, "-m", "port_knocking_doors", "--conf", str(conf), *options]
    return (host or box.server).popen(argv, env=env)


def start_daemon(box: Sandbox, folder: Path, *options: str, **keys: object) -> Process:
    """Start a daemon with these keys of the configuration, and return once it is ready."""
    daemon = begin_daemon(box, write_configuration(folder, **keys), *options)
    daemon.wait_for(r"\bready\b", 20)
    return daemon


def knock(
    host: Host,
    address: Address,
    ports: Sequence[int] = SEQUENCE,
    *,
    payload: bytes = b"knock\n",
    source_port: int = 0,
    pause: float = 0.0,
) -> None:
    """Knock from `host` at `address`."""
    host.send([(address, port, payload, source_port) for port in ports], pause=pause)


def door_rule(address: Address, port: int = GUARDED, protocol: str = "tcp", priority: int = RULE_PRIORITY) -> str:
    """The rule of a door, as firewalld shows it."""
    return (
        f'rule priority="{priority}" family="ipv{address.version}" source address="{address}" '
        f'port port="{port}" protocol="{protocol}" accept'
    )


def knock_port_rules(ports: Sequence[int] = SEQUENCE, priority: int = RULE_PRIORITY) -> set[str]:
    """The rules that let knocks through."""
    return {f'rule priority="{priority}" port port="{port}" protocol="udp" accept' for port in ports}


def doors(box: Sandbox, zone: str = "", priority: int = RULE_PRIORITY) -> list[str]:
    """The rules of open doors that stand in a zone (empty: the default one), in the order of their text."""
    mark = f'priority="{priority}"'
    return sorted(rule for rule in box.rules(zone) if mark in rule and "source address" in rule)


def wait_open(
    host: Host, address: Address, port: int = GUARDED, *, protocol: str = "tcp", within: float = 5.0
) -> float:
    """Try from `host` until the port answers; returns how long that took."""

    def answers() -> bool:
        return host.connect(address, port, protocol=protocol, timeout=0.2) == "open"

    return wait_until(answers, within, f"{host.name} gets in at port {port}/{protocol}")


def wait_shut(
    host: Host, address: Address, port: int = GUARDED, *, protocol: str = "tcp", within: float = 5.0
) -> float:
    """Try from `host` until the firewall turns it away; returns how long that took."""

    def turned_away() -> bool:
        return host.connect(address, port, protocol=protocol, timeout=0.2) == "prohibited"

    return wait_until(turned_away, within, f"{host.name} is turned away from port {port}/{protocol}")


def await_time(moment: float) -> None:
    """Wait until the monotonic clock shows `moment`."""
    wait_until(lambda: time.monotonic() >= moment, 60, "the clock goes on", every=0.005)
