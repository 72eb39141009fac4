"""Texts of the native file for several tests, and strategies for settings."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from port_knocking_doors.config import native, readers, schema
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import (
    ALL_FLAGS,
    Access,
    CommandOpening,
    Dialect,
    Flags,
    Import,
    Payload,
    Port,
    Protocol,
    Sequence,
    Settings,
    Step,
)

SECRET = (17321, 28463, 19542, 30611, 21785)
SEQUENCE = f"opening_sequence = {list(SECRET)}\n"
REQUIRED = "ports_to_controls = [22]\n" + SEQUENCE

EVERYTHING = """\
# a comment with [ and "
"ports_to_controls" = [22, "1194/udp"]
opening_sequence = [
    17321, 28463, # ] the bracket of a comment
    19542, 30611, 21785,
]
firewall_rules_check_periode_seconds = 11
ignoring_period_after_knock_error = 5.5
max_knocker_live_time = 31
max_opened_door_duration = 12
doors_cleanup_periode = 13
zone = '''external'''
open_knock_ports = false
doors_for_banned = true
max_knockers = 100
max_open_doors = 10
rule_priority = 200
payload = "any"

[[sequence]] # the first
name = "ssh"
steps = ["udp:23817", "tcp:26173", "tcp:21951:frap"]
timeout = 7.5
traps = 64
open = [22, "1194/udp"]
duration = 60
start_command = 'logger "%IP%"'
stop_command = "logger \\"%IP%\\""
command_delay = 0
close_steps = ["tcp:24519", "udp:27433"]

[[ "sequence" ]]
name = "vpn"
steps = [
    "tcp:26173", # [[sequence]]
    "udp:23817",
]
start_command = "true"

[[import]]
format = "knockd"
path = "/etc/knockd.conf"
[[import]]
format = "tportknockd"
path = "~/knock.conf"
traps = 64
"""
STEPS = (
    Step(Protocol.UDP, 23817),
    Step(Protocol.TCP, 26173, Flags.SYN),
    Step(Protocol.TCP, 21951, Flags.FIN | Flags.RST | Flags.PSH | Flags.ACK),
)
CLOSING = (Step(Protocol.TCP, 24519, Flags.SYN), Step(Protocol.UDP, 27433))
ONE = 'name = "one"\nsteps = ["udp:23817", "tcp:26173", "tcp:21951"]\nopen = [22]\n'
SNIFFED = f"{REQUIRED}[[sequence]]\n{ONE}"


def complaint(text: str) -> str:
    """The error of a text; empty if it is accepted."""
    try:
        native.parse(text, "F")
    except ConfigError as wrong:
        return str(wrong)
    return ""


def shows_the_secret(said: str) -> bool:
    return any(str(port) in said for port in (*SECRET, *(step.port for step in (*STEPS, *CLOSING))))


def keys_of(keys: tuple[schema.Key, ...]) -> Iterator[schema.Key]:
    for key in keys:
        yield key
        yield from keys_of(key.keys)


NAMES = st.text("abcxyzäß019-_", min_size=1, max_size=17)
SECONDS = st.floats(0.1, 2**31 - 1) | st.integers(1, 2**31 - 1).map(float)
STEP = st.builds(Step, st.just(Protocol.UDP), st.integers(1, 65535)) | st.builds(
    Step, st.just(Protocol.TCP), st.integers(1, 65535), st.integers(0, ALL_FLAGS)
)
PORTS = st.lists(
    st.builds(Port, st.integers(1, 65535), st.sampled_from(Protocol)), min_size=1, max_size=64, unique=True
).map(tuple)
SHELL = st.text("ab1 %'\"\\\t$|[]{}#=;€", min_size=1).filter(str.strip)
COMMANDS = st.builds(CommandOpening, SHELL) | st.builds(CommandOpening, SHELL, SHELL, st.just(0.0) | SECONDS)


def granting(
    name: str, opens: tuple[Port, ...], duration: float, command: CommandOpening | None, **rest: Any
) -> Sequence:
    return Sequence(name, access=Access.of(name, opens, duration, command), **rest)


SEQUENCES = st.builds(
    granting,
    name=st.from_regex(r"[a-zä][a-z0-9_.-]{0,31}", fullmatch=True).filter(readers.RESERVED_NAME.__ne__),
    steps=st.lists(STEP, min_size=2, max_size=32).map(tuple),
    timeout=SECONDS,
    traps=st.integers(0, 4096),
    opens=PORTS,
    duration=SECONDS,
    command=st.none() | COMMANDS,
    close_steps=st.just(()) | st.just(CLOSING),
).filter(lambda one: not native._are_neighbours(one.steps) and one.steps[0] != CLOSING[0]) | st.builds(
    granting,
    name=st.sampled_from(["x", "y"]),
    steps=st.lists(STEP, min_size=2, max_size=3).map(tuple),
    timeout=SECONDS,
    traps=st.just(0),
    opens=st.just(()),
    duration=st.just(30.0),
    command=COMMANDS,
)
SETTINGS = st.builds(
    Settings,
    guarded_ports=PORTS,
    opening_sequence=st.lists(st.integers(1, 65535), min_size=3, max_size=21).map(tuple),
    payload=st.sampled_from(Payload),
    rule_check_period=SECONDS,
    ignoring_period=st.just(0.0) | SECONDS,
    knocker_lifetime=SECONDS,
    door_duration=SECONDS,
    doors_cleanup_period=SECONDS,
    zone=st.just("") | NAMES | st.builds("{}/{}".format, NAMES, NAMES),
    open_knock_ports=st.booleans(),
    doors_for_banned=st.booleans(),
    max_knockers=st.integers(1, 2**20),
    max_open_doors=st.integers(1, 1024),
    rule_priority=st.integers(1, 32767),
    sequences=st.lists(SEQUENCES, max_size=4, unique_by=(lambda one: one.name, lambda one: one.steps[0])).map(tuple),
    imports=st.lists(
        st.builds(
            Import,
            st.sampled_from([Dialect.KNOCKD, Dialect.TPORTKNOCKD]),
            st.text("ab /~.\\\"'#é", min_size=1),
            st.integers(0, 4096),
        ),
        max_size=2,
    ).map(tuple),
).filter(lambda all_of_it: all(one.steps[0].port != all_of_it.opening_sequence[0] for one in all_of_it.sequences))
