"""The snippets: every knock in order, quoted names, and nothing that cannot be sent."""

import base64
import re
import shlex
import subprocess

import pytest

from port_knocking_doors.client.packets import SendMethod, send_method
from port_knocking_doors.client.snippets import Snippets, shell_line
from port_knocking_doors.config import step_syntax
from port_knocking_doors.model import ALL_FLAGS, PAYLOAD, Flags, Protocol, Step

UDP = tuple(Step(Protocol.UDP, port) for port in (7003, 7001, 7002))
MIXED = (
    Step(Protocol.UDP, 7003),
    Step(Protocol.TCP, 7001, Flags.SYN),
    Step(Protocol.TCP, 7002, Flags.FIN | Flags.RST | Flags.PSH | Flags.ACK),
    Step(Protocol.TCP, 7005, 0),
    Step(Protocol.TCP, 7004, ALL_FLAGS),
    Step(Protocol.TCP, 7006, 0, 0),
    Step(Protocol.TCP, 7007, Flags.FIN, Flags.FIN | Flags.ACK),
)
CONTENT = (
    'Content of each UDP packet: the word "knock" and a newline, 6 bytes; '
    f"in hexadecimal 6b6e6f636b0a, in Base64 {base64.b64encode(PAYLOAD).decode()}"
)


def test_shell_snippet_of_datagrams_is_one_loop() -> None:
    assert Snippets(UDP, "h").shell() == shell_line((7003, 7001, 7002), "h")
    assert shell_line((7003, 7001)) == (
        "for p in 7003 7001; do printf 'knock\\n' | nc -u -w 1 HOST $p; sleep 0.2; done"
    )


def test_shell_snippet_of_mixed_steps_has_line_for_each() -> None:
    assert Snippets(MIXED, "h").shell().splitlines() == [
        "printf 'knock\\n' | nc -u -w 1 h 7003; sleep 0.2",
        "nc -z -w 1 h 7001; sleep 0.2",
        "hping3 -q -c 1 -p 7002 -F -R -P -A h >/dev/null 2>&1; sleep 0.2",
        "hping3 -q -c 1 -p 7005 h >/dev/null 2>&1; sleep 0.2",
        "hping3 -q -c 1 -p 7004 -F -S -R -P -A -U h >/dev/null 2>&1; sleep 0.2",
        "nc -z -w 1 h 7006; sleep 0.2",
        "hping3 -q -c 1 -p 7007 -F h >/dev/null 2>&1; sleep 0.2",
    ]


def test_command_snippet_reads_back_as_its_steps() -> None:
    line = Snippets(MIXED, "my.host", 2222).command()
    program, command, host, *words = shlex.split(line)
    assert (program, command, host) == ("port-knocking-doors", "knock", "my.host")
    assert words[-2:] == ["--wait", "2222"]
    read = step_syntax.read(words[:-2])
    assert [(step.port, send_method(step)) for step in read] == [(step.port, send_method(step)) for step in MIXED]
    assert read[-1].flags == Flags.FIN


@pytest.mark.parametrize(("port", "said"), [(None, False), (22, False), (2222, True)])
def test_ssh_snippet_names_host_and_unusual_port(port: int | None, said: bool) -> None:
    lines = Snippets(UDP, "h", port).ssh().splitlines()
    assert lines[0] == "Host h"
    assert lines[-1] == ("    ProxyCommand port-knocking-doors knock %h udp:7003 udp:7001 udp:7002 --connect %p")
    assert ("    Port 2222" in lines) is said


def test_powershell_snippet_has_or_names_every_knock() -> None:
    lines = Snippets(MIXED, "h").powershell().splitlines()
    assert lines[:2] == ["$knockHost = 'h'", '$knock = [Text.Encoding]::ASCII.GetBytes("knock`n")']
    knocks = [line for line in lines if re.search(r"\d{4}", line)]
    assert [int(port) for line in knocks for port in re.findall(r"\b70\d\d\b", line)] == [s.port for s in MIXED]
    for line, step in zip(knocks, MIXED, strict=True):
        words = {SendMethod.DATAGRAM: "UdpClient", SendMethod.CONNECT: "ConnectAsync", SendMethod.RAW: "# "}
        assert words[send_method(step)] in line


def test_phone_snippet_numbers_knocks() -> None:
    assert Snippets(MIXED[:4], "h").phone().splitlines() == [
        "Host h, 200 ms between the packets:",
        "1. UDP 7003",
        "2. TCP 7001",
        "3. TCP 7002 with FIN RST PSH ACK alone",
        "4. TCP 7005 with no flag alone",
        CONTENT,
    ]


def test_text_has_every_snippet_and_repr_no_step() -> None:
    snippets = Snippets(MIXED, "fd00::1", 2222)
    text = snippets.text()
    assert text.count("\n## ") == 4
    assert all(piece in text for piece in (snippets.command(), snippets.ssh(), snippets.shell(), snippets.powershell()))
    assert "## A POSIX shell with any nc, in about 8 s; hping3 needs root" in text
    assert "## A POSIX shell with any nc, in about 4 s\n" in Snippets(UDP).text()
    assert "hping3" not in Snippets(UDP).text()
    assert "## bash, without any program\n\nfor p in 7003 7001 7002; do printf 'knock\\n' >/dev/udp/HOST/$p; " in (
        Snippets(UDP).text()
    )
    assert "## bash" not in text, "it cannot stop a connection from being tried again"
    assert "700" not in repr(snippets)


def test_host_cannot_escape_from_its_quotes() -> None:
    evil = "a'; echo pwned; '"
    snippets = Snippets(UDP, evil)
    line = snippets.shell().replace("nc -u -w 1", "echo").replace("sleep 0.2", ":")
    said = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"{evil} {step.port}" for step in UDP]
    assert "'a''; echo pwned; '''" in snippets.powershell()
