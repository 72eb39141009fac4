"""Steps, hosts and ports as words: both spellings, and messages about wrong words that show no other word."""

import pytest

from port_knocking_doors.config import step_syntax
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Flags, Protocol, Step

FRAP = Flags.FIN | Flags.RST | Flags.ACK | Flags.PSH

WORDS: dict[str, Step] = {
    "7000": Step(Protocol.TCP, 7000, Flags.SYN),
    "7000:tcp": Step(Protocol.TCP, 7000, Flags.SYN),
    "7000:udp": Step(Protocol.UDP, 7000),
    "tcp:7000": Step(Protocol.TCP, 7000, Flags.SYN),
    "udp:7000": Step(Protocol.UDP, 7000),
    "tcp:110:frap": Step(Protocol.TCP, 110, FRAP),
    "tcp:110:n": Step(Protocol.TCP, 110, 0),
    "tcp:110:x": Step(Protocol.TCP, 110, 63),
    "1": Step(Protocol.TCP, 1, Flags.SYN),
    "65535:udp": Step(Protocol.UDP, 65535),
}


@pytest.mark.parametrize(("word", "step"), WORDS.items(), ids=WORDS)
def test_step_is_read_in_either_spelling(word: str, step: Step) -> None:
    assert step_syntax.step(word) == step


def test_bare_port_has_the_given_protocol() -> None:
    assert step_syntax.read(["7000", "7001:tcp", "tcp:7002"], Protocol.UDP) == (
        Step(Protocol.UDP, 7000),
        Step(Protocol.TCP, 7001, Flags.SYN),
        Step(Protocol.TCP, 7002, Flags.SYN),
    )


NO_STEPS = {
    "": "not a step",
    "ssh": "not a step",
    "-7000": "not a step",
    "7000,8000": "not a step",
    "7000/udp": "not a step",
    "TCP:7000": "not a step",
    "icmp:7000": "not a step",
    "٣": "not a step",
    "7000:": "nothing follows the colon",
    "7000:sctp": "the protocol after the port is unknown",
    "7000:udp:f": "the protocol after the port is unknown",
    "0": "port 0 is out of range, expected 1 to 65535",
    "65536": "port 65536 is out of range, expected 1 to 65535",
    "123456789012345678901234567890": "expected",
    "tcp:": "expected",
    "tcp:7000:": "nothing follows the colon",
    "tcp:7000:q": "a flag is unknown",
    "tcp:7000:ff": "a flag is given twice",
    "tcp:7000:xf": "x or n is combined with other flags",
    "tcp:7000:f:f": "not a step",
    "udp:7000:f": "a UDP port has flags",
}


@pytest.mark.parametrize(("word", "said"), NO_STEPS.items(), ids=NO_STEPS)
def test_wrong_step_is_refused_with_position_and_no_other_step(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"^step 2: ") as caught:
        step_syntax.read(["7117", word, "7228:udp"])
    assert said in str(caught.value)
    assert not [secret for secret in ("7117", "7228", "7000") if secret in str(caught.value)]


def test_too_many_steps_are_refused() -> None:
    assert len(step_syntax.read(["7000"] * 32)) == 32
    with pytest.raises(ConfigError, match="33 steps, expected at most 32"):
        step_syntax.read(["7000"] * 33)


HOSTS = {
    "example.org": "example.org",
    "my-host": "my-host",
    "my_host.lan.": "my_host.lan.",
    "10.0.0.1": "10.0.0.1",
    "7zip.org": "7zip.org",
    "bücher.example": "bücher.example",
    "fd00::1": "fd00::1",
    "::1": "::1",
    "[fd00::1]": "fd00::1",
    "fe80::1%eth0": "fe80::1%eth0",
}


@pytest.mark.parametrize(("word", "host"), HOSTS.items(), ids=HOSTS)
def test_host_is_read(word: str, host: str) -> None:
    assert step_syntax.host(word) == host


@pytest.mark.parametrize(
    "word", ["", "7000", "7000:udp", "udp:7000", "tcp:7000:f", "7000,8000", "-x", "a b", "[7000]", "$(reboot)", "a'b"]
)
def test_step_in_place_of_host_is_refused_without_a_lookup(word: str) -> None:
    with pytest.raises(ConfigError, match="not a host, expected a host name or address") as caught:
        step_syntax.host(word)
    assert "7000" not in str(caught.value)


PORTS = {"22": 22, "22/tcp": 22, "65535/TCP": 65535}


@pytest.mark.parametrize(("text", "port"), PORTS.items(), ids=PORTS)
def test_port_to_try_is_read(text: str, port: int) -> None:
    assert step_syntax.tried_port(text) == port


NO_PORTS = {
    "1194/udp": "expected a TCP port",
    "22/sctp": "the protocol is unknown",
    "22/": "the protocol is unknown",
    "": "expected",
    "ssh": '"ssh" is not a port, expected a whole number from 1 to 65535',
    "0": "port 0 is out of range",
    "65536": "port 65536 is out of range",
    "-22": "out of range",
    "22,80": "expected a whole number",
}


@pytest.mark.parametrize(("text", "said"), NO_PORTS.items(), ids=NO_PORTS)
def test_wrong_port_to_try_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        step_syntax.tried_port(text)
    assert said in str(caught.value)
