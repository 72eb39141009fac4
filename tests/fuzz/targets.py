"""What is fuzzed: for each reader of foreign bytes a check that any bytes at all must pass.

A check fails by any exception. Each calls its reader through the reader's module, so that a test may break it and see
the check fail. A reader whose module is not there yet is left out, and joins by itself once it is.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from port_knocking_doors.config import knockd, native, render
from port_knocking_doors.errors import ConfigError, DoorsError

CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target: inputs of every kind that are worth starting from, and every input that ever failed."""

SECRETS = (41827, 37214, 45933, 39671, 43258)
"""The steps of the corpus. No error may show one, however the text around it is mangled."""

_PLAIN_KEYS = re.compile(
    r"ports_to_controls|seconds|ignoring_period\w*|max_\w+|doors_cleanup_periode|rule_priority|timeout|traps|open|duration"
    r"|command_delay|cmd_timeout|seq_timeout|zone|name|path|format",
    re.IGNORECASE,
)
"""Keys whose numbers are no secret, at the beginning of an error that may quote them."""

_NAMES = re.compile(r"(?:</?|\[)([^<>\[\]\n]+)[>\]]")
"""What stands where knockd's and tportknockd's files have a door's name."""
_TOML_NAMES = re.compile(r"""name\s*=\s*["']([^"'\n]+)""")

_BLOCK = 4096


@dataclass(frozen=True)
class Target:
    """A reader and its check."""

    name: str
    module: str
    """Where the reader is."""
    check: Callable[[ModuleType, bytes], None]
    words: str = ""
    """What stands in such a text, with spaces between, for a fuzzer that would not find it by chance."""

    @property
    def is_there(self) -> bool:
        return find_spec(self.module) is not None

    @property
    def corpus(self) -> list[Path]:
        """Its inputs by name."""
        return sorted((CORPUS / self.name).iterdir())

    def run(self, data: bytes) -> None:
        """Check one input."""
        self.check(import_module(self.module), data)


def check_packet(module: ModuleType, data: bytes) -> None:
    """Never an exception, and nothing around the packet makes a difference."""
    read = module.parse(data, 0, len(data))
    for around in (bytes(300), b"\xff" * 300):
        assert module.parse(around + data + around, len(around), len(data)) == read, "it read beyond the packet"
    if read is not None:
        source, destination, code, packet_id = read
        assert len(source) in (4, 16)
        assert len(destination) in (4, 16)
        assert code & 0xFFFF <= 0xFFFF
        assert code >> 16 & 0xFF in (6, 17)
        assert 0 <= packet_id < 1 << 48


def check_ring(module: ModuleType, data: bytes) -> None:
    """No contents lead out of a block, nor round in it for ever."""
    block = data[:_BLOCK].ljust(_BLOCK, b"\0")
    found = []
    for around in (bytes(_BLOCK), b"\xff" * _BLOCK):
        packets = []
        for packet in module.packets(around + block + around, _BLOCK, _BLOCK):
            packets.append(packet)
            assert len(packets) <= _BLOCK, "the walk does not end"
        found.append(packets)
    assert found[0] == found[1], "it read beyond the block"


def check_toml(module: ModuleType, data: bytes) -> None:
    """Settings or one line that says what is wrong; then the settings as text are read as the same settings."""
    text = data.decode(errors="ignore")
    try:
        settings = module.parse(text, "F")
    except ConfigError as error:
        _check_error(error, _TOML_NAMES.findall(text))
        return
    module.places(text, "F")
    render.summary(settings)
    assert module.parse(render.render(settings), "F") == settings


def check_foreign(module: ModuleType, data: bytes) -> None:
    """Sequences, and errors each of which is one line; or one such error alone."""
    text = data.decode(errors="ignore")
    names = [name.strip() for name in _NAMES.findall(text)]
    reader = module.read if hasattr(module, "read") else module.parse
    try:
        answer = reader(text, "F")
    except ConfigError as error:
        _check_error(error, names)
        return
    for found in _all_of(ConfigError, answer):
        _check_error(found, names)


def check_as_toml(module: ModuleType, data: bytes) -> None:
    """Tables that our own reader accepts, of printable lines, whatever commands knockd's file has."""
    try:
        sequences = knockd.parse(data.decode(errors="ignore"), "F").sequences
    except ConfigError:
        return
    made = module.as_toml(sequences)
    native.parse(f"ports_to_controls = [22]\nopening_sequence = [1, 5, 2, 4, 3]\n{made}", "T")


def check_control(module: ModuleType, data: bytes) -> None:
    """A request or one line that says what is wrong; a request as a line is read as the same request."""
    try:
        request = module.read_request(data)
    except ConfigError as error:
        _check_text(error)
    else:
        assert module.read_request(module.write_request(request)) == request
    event = module.read_event(data)
    assert event is None or isinstance(event, dict)
    try:
        module.read_reply(data)
    except DoorsError as error:  # any process may have taken the daemon's place
        _check_text(error)


def _check_error(error: Exception, names: Iterable[str] = ()) -> None:
    """`names` are those of the text's doors, which an error may show and which may contain a step's digits."""
    said = str(error)
    assert re.match(r"F(:\d+)?: .", said), f"this names no place: {said}"
    _check_text(error)
    problem = re.sub(r"^F(:\d+)?: ", "", said)
    for name in names:
        if _secrets_in(name):
            problem = problem.replace(name, "")
    assert _PLAIN_KEYS.match(problem) or not _secrets_in(problem), f"this shows a step: {said}"


def _check_text(error: Exception) -> None:
    """One line, and nothing that a terminal obeys."""
    assert str(error).isprintable(), f"this is not one line: {str(error)!r}"


def _secrets_in(text: str) -> list[int]:
    return [secret for secret in SECRETS if str(secret) in text]


def _all_of(kind: type[Exception], answer: Any) -> Iterator[Exception]:
    if isinstance(answer, kind):
        yield answer
    elif isinstance(answer, tuple | list):
        for one in answer:
            yield from _all_of(kind, one)


_STEPS = " ".join(map(str, SECRETS))

TARGETS = (
    Target("packet", "port_knocking_doors.capture.packet", check_packet),
    Target("ring", "port_knocking_doors.capture.block", check_ring),
    Target(
        "toml",
        "port_knocking_doors.config.native",
        check_toml,
        f"""
        ports_to_controls opening_sequence firewall_rules_check_periode_seconds max_knocker_live_time
        ignoring_period_after_knock_error max_opened_door_duration doors_cleanup_periode zone open_knock_ports
        doors_for_banned max_knockers max_open_doors rule_priority [[sequence]] [[import]] name steps timeout traps open
        duration start_command stop_command command_delay format path "udp: "tcp: :frap /udp = true 1979-05-27
        \"\"\" ''' \\u0031 0x 1e9 nan -inf {_STEPS}
        """,
    ),
    Target(
        "knockd",
        "port_knocking_doors.config.knockd",
        check_foreign,
        f"""
        [options] [ ] UseSyslog LogFile PidFile Interface Sequence One_Time_Sequences Seq_Timeout Timeout TCPFlags
        Target Start_Command Command Start_Command_6 Command_6 Stop_Command Stop_Command_6 Cmd_Timeout :udp :tcp %IP%
        syn !ack , = {_STEPS}
        """,
    ),
    Target(
        "as_toml",
        "port_knocking_doors.config.knockd_to_toml",
        check_as_toml,
        f"""
        [a] [openSSH] [closeSSH] Sequence = Command = Stop_Command = {_STEPS} %IP% ; && || & | # $( ) ` \' "
        iptables ip6tables -A -I -D -C -F INPUT -s -p tcp --dport --dports 22 80:90 -j ACCEPT -m comment --comment sleep
        ufw allow delete insert from to any port proto nft add rule element inet ip saddr dport ct state new accept
        {{ }} . timeout firewall-cmd --add-rich-rule= --remove-rich-rule --zone= --direct --permanent ipset knock_add
        """,
    ),
    Target(
        "tportknockd",
        "port_knocking_doors.config.tportknockd",
        check_foreign,
        f"""
        <door> </door> sequence timeout start_command stop_command command_delay %IP% udp: tcp: :frap :x :n :i # , =
        {_STEPS}
        """,
    ),
    Target(
        "control",
        "port_knocking_doors.control.protocol",
        check_control,
        """
        "do" "status" "open" "close" "forget" "reload" "watch" "address" "all" true "sequence" "seconds" "ok" "problem"
        "result" "192.0.2.7" "2001:db8::7" "::ffff:192.0.2.7" %eth0 \\ud800 \\u001b NaN 1e400 null
        """,
    ),
)


def named(name: str) -> Target:
    """The target of this name; `KeyError` where there is none."""
    return {target.name: target for target in TARGETS}[name]
