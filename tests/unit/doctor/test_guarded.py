"""Guarded ports whose packets go past the firewall, with files and a script in place of /proc and nft."""

from pathlib import Path

import pytest

from port_knocking_doors.doctor import guarded
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.model import Port, Settings
from tests.unit.doctor.test_kernel_tables import program

SETTINGS = Settings(guarded_ports=(Port(22), Port(80)))
PROXY = "/usr/bin/docker-proxy\0-proto\0{}\0-host-ip\0{}\0-host-port\0{}\0-container-ip\x00172.17.0.2\0"
NONE = ok("redirections: no container and no rule redirects a guarded port past the firewall")
PUBLISHED = problem(
    "port 80/tcp: a container publishes it (docker-proxy), past the firewall: publish it on 127.0.0.1 only, "
    "not with -p 80:…"
)
PROCESSES = {
    "none": ([], [NONE]),
    "of a guarded port": ([PROXY.format("tcp", "0.0.0.0", 80)], [PUBLISHED]),
    "of both families": ([PROXY.format("tcp", "0.0.0.0", 80), PROXY.format("tcp", "::", 80)], [PUBLISHED]),
    "of another port": ([PROXY.format("tcp", "0.0.0.0", 81)], [NONE]),
    "of another protocol": ([PROXY.format("udp", "0.0.0.0", 80)], [NONE]),
    "of an unknown protocol": ([PROXY.format("sctp", "0.0.0.0", 80)], [NONE]),
    "of loopback": ([PROXY.format("tcp", "127.0.0.1", 80), PROXY.format("tcp", "::1", 80)], [NONE]),
    "with a port that is no number": ([PROXY.format("tcp", "0.0.0.0", "http")], [NONE]),
    "without a port": (["/usr/bin/docker-proxy\0-proto\0tcp\0"], [NONE]),
}


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc with one other program and one that has ended, and an nft that lists nothing."""
    monkeypatch.setenv("PATH", f"{tmp_path}")
    program(tmp_path, "nft")
    monkeypatch.setattr(guarded, "PROC", tmp_path / "proc")
    for pid, name in ((1, "init"), (2, "docker-proxy")):
        process(tmp_path / "proc", pid, name)
    return tmp_path / "proc"


def process(proc: Path, pid: int, name: str) -> Path:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")
    return folder


@pytest.mark.parametrize(("command_lines", "findings"), PROCESSES.values(), ids=PROCESSES)
def test_guarded_port_that_docker_publishes_is_a_problem(
    command_lines: list[str], findings: list[Finding], proc: Path
) -> None:
    for pid, text in enumerate(command_lines, 3):
        (process(proc, pid, "docker-proxy") / "cmdline").write_text(text)
    assert list(guarded.about_redirections(SETTINGS, ())) == findings


def test_nft_that_is_missing_or_fails_is_a_warning(proc: Path) -> None:
    unknown = warning("redirections: cannot run `nft list ruleset` (needs root and nftables)")
    program(proc.parent, "nft", status=1)
    assert list(guarded.about_redirections(SETTINGS, ())) == [unknown]
    (proc.parent / "nft").unlink()
    assert list(guarded.about_redirections(SETTINGS, ())) == [unknown]


def test_port_of_test_packets_that_were_redirected_is_a_problem(proc: Path) -> None:
    assert proc.exists()
    (found,) = guarded.about_redirections(SETTINGS, [Port(22), Port(23)])
    assert found.text.startswith("port 22/tcp: a rule redirects its packets past the zone")
