"""`check`: what people see of a configuration with sniffed sequences, and how options before and behind it count."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from port_knocking_doors.cli import app
from port_knocking_doors.config import native
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Settings

FILE = """\
ports_to_controls = [80]
opening_sequence = [20001, 20005, 20002, 20004, 20003]
[[sequence]]
name = "ssh"
steps = ["udp:65431", "tcp:65433:frap", "tcp:65432"]
open = [22]
[[sequence]]
name = "vpn"
steps = ["udp:65433", "tcp:65431"]
start_command = "true %IP%"
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "conf.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def check(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.output.splitlines()


def test_check_shows_every_sniffed_sequence_in_words(conf: Path) -> None:
    lines = check("check", "--conf", str(conf))
    settings = native.parse(FILE, "F")
    words = native.summary(settings).splitlines()
    assert lines == [
        f"Configuration: {conf}",
        *words,
        "Sniffed on: every interface",
        f"Warning: {conf}: sequence vpn: it has 2 steps, which are soon found by chance; give it 3 or more",
    ]
    assert words[-11:] == [
        "Sequence ssh, within 10 s:",
        "  1. UDP 65431",
        "  2. TCP 65433 with FIN RST PSH ACK",
        "  3. TCP 65432 with SYN",
        "  opens 22/tcp for 30 s",
        "  512 traps",
        "Sequence vpn, within 10 s:",
        "  1. UDP 65433",
        "  2. TCP 65431 with SYN",
        "  runs: true %IP%",
        "  512 traps",
    ]


@pytest.mark.parametrize(
    ("before", "behind", "shown"),
    [
        ([], ["-i", "ppp*", "--interface", "eth0"], "ppp*, eth0"),
        (["-i", "ppp*", "-i", "eth0"], [], "ppp*, eth0"),
        (["-i", "ppp*"], ["-i", "eth0"], "eth0"),
    ],
)
def test_check_names_the_interfaces(conf: Path, before: list[str], behind: list[str], shown: str) -> None:
    assert f"Sniffed on: {shown}" in check(*before, "check", "--conf", str(conf), *behind)


def test_check_refuses_what_is_no_interface(conf: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--interface: an interface's name has a character"):
        check("check", "--conf", str(conf), "-i", "a/b")


def test_check_of_a_file_without_sequences_is_as_it_was(conf: Path) -> None:
    settings = Settings(opening_sequence=(20001, 20005, 20002, 20004, 20003))
    conf.write_text(native.render(settings))
    assert check("check", "--conf", str(conf)) == [f"Configuration: {conf}", *native.summary(settings).splitlines()]
